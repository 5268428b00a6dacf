"""Score recordings of any length with trained models and write what was found in them.

    python predict.py models/Exp_47 data/test_soundscapes --output submission.csv

Read from the top: `TorchModels` scores clips as train.py's validation does; `run` takes the clips of all recordings
from threads that decode them beside the network, and a `Tally` for each puts its windows together; `main` reads the
command line and writes. Torch is imported where a checkpoint is read and nowhere else.
"""

import argparse
import functools
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np

import detections
import formats
import stream as audio
from configs import Config, UserError, configure_logger, load_config, run_main
from detections import PartialResults, Recording, Results
from scorers import RUN_SETTINGS, ExportedModel, TorchModels, open_models

logger = logging.getLogger("birdclef.predict")

Models = TorchModels | ExportedModel
SCORES = ("clipwise", "framewise_max", "mix")
MIX = np.float32(0.75)  # of the clipwise score; the rest is the frame maximum's
BAR = "{percentage:3.0f} %|{bar}| {elapsed} and {remaining} to go, done at {eta:%H:%M}{postfix}"


@dataclass(frozen=True)
class Plan:
    """How windows are cut and scored.

    Attributes:
        stride_s: seconds from one window to the next; None takes the clips' length.
        shifts_s: seconds by which further clips of each window begin later (negative: earlier); their scores are
            averaged with its own.
        score: one of SCORES.
        average: one of detections.AVERAGES, over folds.
        frames_dir: where each recording's timeline goes, as `<name>.npz`; None writes none.
        frame_species: the classes in it; None takes all.
        events: the rule by which events are found; None looks for none.
    """

    stride_s: float | None = None
    shifts_s: tuple[float, ...] = ()
    score: str = "clipwise"
    average: str = "probability"
    frames_dir: Path | None = None
    frame_species: tuple[int, ...] | None = None
    events: detections.EventRule | None = None

    @property
    def needs_frames(self) -> bool:
        """Whether timelines are made."""
        return self.frames_dir is not None or self.events is not None

    def stride(self, config: Config) -> int:
        """Samples from one window to the next."""
        return max(1, round((self.stride_s or config.period) * config.sample_rate))


# Running -----------------------------------------------------------------------------------------------


class Item(NamedTuple):
    """A clip ready for the network, or with `image` None the end of a recording."""

    name: str
    source: audio.Stream
    start: int = 0  # sample where its window starts
    begin: int = 0  # sample where it begins itself, the same but for shifts
    image: np.ndarray | None = None


def clips_of(name: str, path: Path, models: Models, plan: Plan) -> Iterator[Item]:
    """Decode a recording and prepare its clips, one by one."""
    rate = models.config.sample_rate
    source = audio.Stream(path, rate)
    shifts = [round(shift_s * rate) for shift_s in plan.shifts_s]
    for clip in audio.cut(source, models.config.n_samples, plan.stride(models.config), shifts):
        yield Item(name, source, clip.start, clip.begin, models.prepare(clip.samples))
    yield Item(name, source)


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Collect items until `size` of them have an image; a batch crosses the borders of recordings."""
    batch: list[Item] = []
    for item in items:
        batch.append(item)
        if sum(one.image is not None for one in batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


class Tally:
    """What comes back from the network for one recording, window by window."""

    def __init__(self, name: str, models: Models, plan: Plan) -> None:
        self.name, self.plan, self.config = name, plan, models.config
        self.n_models, self.class_names = len(models.models), models.class_names
        self._starts: list[int] = []
        self._scores: list[np.ndarray] = []  # (models, C), averaged over the clips of a window
        self._file: detections.TimelineFile | None = None
        self._events: detections.EventFinder | None = None
        self._hop_s = self.config.hop_length / self.config.sample_rate
        self._timeline = detections.Timeline(len(self.class_names))
        if plan.events is not None:
            self._events = detections.EventFinder(plan.events, self._hop_s, len(self.class_names))

    def add(self, item: Item, scores: np.ndarray, frames: np.ndarray | None) -> None:
        """Add a clip's scores (models, C) and frames (models, n_frames, C)."""
        if not self._starts or self._starts[-1] != item.start:
            self._starts.append(item.start)
            self._scores.append(np.zeros_like(scores))
        self._scores[-1] += scores / np.float32(1 + len(self.plan.shifts_s))
        if frames is not None:
            earliest = item.start + min(0, *(round(s * self.config.sample_rate) for s in self.plan.shifts_s), 0)
            self._pass_on(self._frame(max(0, earliest)))  # no later clip reaches back beyond
            self._timeline.add(self._frame(item.begin), detections.average_models(frames, self.plan.average))

    def finish(self, source: audio.Stream) -> Recording:
        """Close the recording: n windows with scores (models, n, C)."""
        events: tuple[detections.Event, ...] = ()
        rate, (status, reason) = self.config.sample_rate, source.fault
        if self._starts:
            status = {"": "ok", "unreadable": "truncated"}.get(status, status)
            if self.plan.needs_frames:
                self._pass_on(1 + source.end // self.config.hop_length)
        elif not status:
            status, reason = "empty", "no samples"
        if self._file is not None:
            self._file.close()
        if self._events is not None:
            events = self._events.finish(source.end / rate)
        empty = np.zeros((self.n_models, 0, len(self.class_names)), np.float32)
        scores = np.stack(self._scores, axis=1) if self._scores else empty
        return Recording(self.name, status, reason, source.end / rate, np.array(self._starts) / rate, scores, events)

    def _frame(self, sample: int) -> int:
        """Return the nearest frame of the recording's grid."""
        return (2 * sample + self.config.hop_length) // (2 * self.config.hop_length)

    def _pass_on(self, before: int) -> None:
        frames = self._timeline.take(before)
        if self._events is not None:
            self._events.add(frames)
        if self.plan.frames_dir is not None:
            species = list(range(len(self.class_names)) if self.plan.frame_species is None else self.plan.frame_species)
            if self._file is None:
                names = [self.class_names[one] for one in species]
                self._file = detections.TimelineFile(self.plan.frames_dir / f"{self.name}.npz", names, self._hop_s)
            self._file.add(frames[:, species])


def run(models: Models, recordings: dict[str, Path], plan: Plan, partial: PartialResults) -> float:
    """Score the recordings that are not in the partial results yet, and add each when it is done.

    Args:
        models: what scores the clips.
        recordings: paths by name.
        plan: how windows are cut and scored.
        partial: takes a recording as soon as all its windows are scored.

    Returns:
        Seconds of audio scored.
    """
    identities = {name: detections.identity(path) for name, path in recordings.items()}
    to_do = [name for name, identity in identities.items() if not partial.holds(name, identity)]
    if len(to_do) < len(recordings):
        logger.info("%d of %d recordings were done before", len(recordings) - len(to_do), len(recordings))
    sources = (functools.partial(clips_of, name, recordings[name], models, plan) for name in to_do)
    size, seconds, tally = models.config.valid_bs, 0.0, None
    n_threads = max(1, min(models.config.num_workers, len(to_do)))
    items = audio.in_order(sources, n_threads=n_threads, depth=2 * size, enter_thread=models.enter_thread)
    with Progress([(name, identities[name][0]) for name in to_do]) as progress:
        for batch in batches(items, size):
            scored = score_batch(models, [item.image for item in batch if item.image is not None], plan)
            for item in batch:
                tally = tally or Tally(item.name, models, plan)
                if item.image is not None:
                    tally.add(item, *next(scored))
                    progress.show(item, models.config, plan)
                    continue
                recording, tally = tally.finish(item.source), None
                partial.add(recording, identities[item.name])
                seconds += recording.seconds
                progress.finish(item.name, recording.seconds)
    return seconds


def score_batch(models: Models, images: list[np.ndarray], plan: Plan) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Score a batch as planned; give for each image scores (models, C) and, if needed, frames (models, n_frames, C)."""
    if not images:
        return
    clipwise, frame_max, frames = models.score(images, frames=plan.needs_frames)
    mixed = {"clipwise": clipwise, "framewise_max": frame_max, "mix": MIX * clipwise + (1 - MIX) * frame_max}
    for number in range(len(images)):
        yield mixed[plan.score][:, number], None if frames is None else frames[:, number]


class Progress:
    """A bar over the bytes of the recordings, with the speed and the time of the end; none without a terminal."""

    def __init__(self, sizes: Sequence[tuple[str, int]]) -> None:
        from tqdm import tqdm

        self._sizes, self._began, self._seconds, self._done = dict(sizes), time.monotonic(), 0.0, 0
        self._bar = tqdm(total=sum(self._sizes.values()), leave=False, disable=None, bar_format=BAR)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def show(self, item: Item, config: Config, plan: Plan) -> None:
        """Show that a clip is scored."""
        reached = min(item.start + plan.stride(config), item.source.end)
        share = min(1.0, reached / item.source.expected) if item.source.expected else 0.0
        self._move(self._done + int(share * self._sizes[item.name]), self._seconds + reached / config.sample_rate)

    def finish(self, name: str, seconds: float) -> None:
        """Show that a recording is done."""
        self._done += self._sizes[name]
        self._seconds += seconds
        self._move(self._done, self._seconds)

    def _move(self, n_bytes: int, seconds: float) -> None:
        speed = seconds / max(1e-9, time.monotonic() - self._began)
        self._bar.set_postfix_str(f"{speed:,.0f} x real time", refresh=False)
        self._bar.update(n_bytes - self._bar.n)


# The command line ----------------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; --help lists the flags")


def read_command_line(args: Sequence[str] | None = None) -> tuple[argparse.Namespace, Config]:
    """Read predict.py's own flags, and the settings that say where and how it runs."""
    parser = _Parser(prog="predict.py", description=(__doc__ or "").partition("\n")[0], allow_abbrev=False)
    add = parser.add_argument
    add("model", type=Path, help="a checkpoint, a fold's folder, or an experiment's, whose folds are averaged")
    add("recordings", type=Path, help="a recording, or a folder of them")
    add("--output", type=Path, required=True, help="file to write; for audacity a folder")
    add("--format", nargs="+", choices=formats.FORMATS, metavar="FORMAT",
        help=f"{', '.join(formats.FORMATS)}; of several, each gets its name into the file's (default: that of the "
        "sample submission, parquet for a .parquet, else submission-2023)")  # fmt: skip
    add("--sample-submission", type=Path, help="sample_submission.csv whose columns and rows to follow")
    add("--fill-missing", action="store_true", help="score 0 for its species that are no classes of the model")
    add("--threshold", type=_number(0, 1), help="lowest score of a detection (default: 0 in tables, 0.5 in the rest)")
    add("--top-k", type=_number(1, kind=int), help="most detections of one window")
    add("--species", type=Path, help="list of species, one a line; the others are left out, or score 0")
    add("--taxonomy", type=Path, help="CSV of eBird or BirdCLEF with names for the labels")
    add("--stride", type=_number(0.001), help="seconds from one window to the next (default: a clip)")
    add("--shifts", type=float, nargs="+", default=[], help="seconds by which more clips of each window are shifted")
    add(
        "--score", choices=SCORES, default=SCORES[0], help="of a clip (default: clipwise); mix is 0.75 and 0.25 of both"
    )
    add("--smooth", type=_number(0, 1), default=0.0, help="weight of each neighbouring window in a mean (default: 0)")
    add("--average", choices=detections.AVERAGES, default=detections.AVERAGES[0], help="how folds are averaged")
    add("--frames", type=Path, metavar="DIR", help="save each recording's framewise scores as DIR/<name>.npz")
    add("--report", type=Path, metavar="FILE", help="write a page to look at and listen to, FILE.html")
    add("--events", action="store_true", help="write events of the timeline, not windows, in lists of detections")
    add("--event-low", type=_number(0, 1), help="an event ends below this score (default: half the threshold)")
    add("--event-min", type=_number(0), default=0.0, metavar="SECONDS", help="least duration of an event (default: 0)")
    add("--device", help="auto, cpu, cuda, cuda:1 or mps")
    add("--valid-bs", help="clips in a batch (default: 32)")
    add("--num-workers", help="threads that decode recordings")
    add("--amp", action=argparse.BooleanOptionalAction, help="mixed precision (default: as in validation)")
    add("--amp-dtype", help="float16 or bfloat16")
    add("--config", help="YAML file with these settings")
    flags, rest = parser.parse_known_args(args)
    for name in (*RUN_SETTINGS, "amp_dtype", "config"):
        rest += [] if (value := getattr(flags, name)) is None else ["--" + name.replace("_", "-"), value]
    return flags, load_config(rest + ([] if flags.amp is None else ["--amp" if flags.amp else "--no-amp"]))


def _number(low: float, high: float = float("inf"), kind: Any = float) -> Any:
    def number(text: str) -> Any:
        value = kind(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text} is not between {low:g} and {high:g}")
        return value

    return number


def read_selection(flags: argparse.Namespace, models: Models) -> tuple[list[str], formats.Selection]:
    """Read the files that say what is written, and refuse before anything is scored what could not be written after.

    Returns:
        The formats, and what of the results goes into them.

    Raises:
        UserError: files or flags that do not fit the model or each other.
    """
    sample = None if flags.sample_submission is None else formats.read_sample(flags.sample_submission)
    by_suffix = "parquet" if flags.output.suffix == ".parquet" else "submission-2023"
    forms = flags.format or [sample.form if sample else by_suffix]
    if sample is not None:
        formats.check_sample(sample, models.class_names, forms, fill_missing=flags.fill_missing)
    if "parquet" in forms:
        formats.check_parquet()
    names = {} if flags.taxonomy is None else formats.read_taxonomy(flags.taxonomy)
    return forms, formats.Selection(
        class_names=models.class_names,
        period=models.config.period,
        folder=flags.recordings if flags.recordings.is_dir() else flags.recordings.parent,
        fmin=models.config.fmin,
        fmax=models.config.fmax,
        threshold=flags.threshold,
        top_k=flags.top_k,
        wanted=None if flags.species is None else formats.read_species(flags.species, models.class_names, names),
        names=names,
        sample=sample,
        events=flags.events,
    )


def make_plan(flags: argparse.Namespace, wanted: np.ndarray | None) -> Plan:
    """Make the plan of the flags.

    Raises:
        UserError: flags that contradict each other.
    """
    if flags.average == "rank" and (flags.frames or flags.events):
        raise UserError("--average rank orders whole windows; --frames and --events need probability or logit")
    high = 0.5 if flags.threshold is None else flags.threshold
    low = high / 2 if flags.event_low is None else flags.event_low
    if low > high:
        raise UserError(f"--event-low {low:g} is above the threshold, {high:g}")
    return Plan(
        stride_s=flags.stride,
        shifts_s=tuple(flags.shifts),
        score=flags.score,
        average=flags.average,
        frames_dir=flags.frames,
        frame_species=None if wanted is None else tuple(np.flatnonzero(wanted).tolist()),
        events=detections.EventRule(high, low, flags.event_min) if flags.events else None,
    )


def place_outputs(output: Path, forms: Sequence[str]) -> dict[str, Path]:
    """Name the file of each format: `output` itself, or of several one beside it, `<stem>.<format>.csv`.

    Raises:
        UserError: a folder stands where a file goes, or a file where Audacity's folder does.
    """
    paths = {form: output.with_name(f"{output.stem}.{form}{formats.FORMATS[form].suffix}") for form in forms}
    paths = paths if len(paths) > 1 else dict.fromkeys(forms, output)
    for form, path in paths.items():
        if path.exists() and path.is_dir() != (form == "audacity"):
            raise UserError(f"{path} is a {'folder' if path.is_dir() else 'file'}; choose another --output")
    return paths


def write_outputs(paths: dict[str, Path], bad_path: Path, results: Results, selection: formats.Selection) -> list[str]:
    """Write every format and the list of bad files; say in lines what was written."""
    lines = []
    for form, path in paths.items():
        lines.append(f"wrote {path}: {formats.write(path, form, results, selection)} rows, {form}")
    if n_bad := formats.write_bad_files(bad_path, results):
        lines.append(f"wrote {bad_path}: {n_bad} recordings that could not be scored, or not to their end")
    return lines


def write_page(
    flags: argparse.Namespace, results: Results, selection: formats.Selection, models: Models, plan: Plan
) -> str:
    """Write the page of the run, with the best detections to see and hear; say in a line what was written."""
    from report import write_report

    def framewise(samples: np.ndarray) -> np.ndarray:
        frames = models.score([models.prepare(samples)], frames=True)[2]  # (models, 1, n_frames, C)
        assert frames is not None
        return detections.average_models(frames[:, 0], plan.average)

    n_models, period = len(models.models), models.config.period
    facts = {
        "Model": f"{flags.model}" + (f", mean of {n_models} by {plan.average}" if n_models > 1 else ""),
        "Recordings": str(flags.recordings.resolve()),
        "Windows": f"{period:g} s, one every {plan.stride_s or period:g} s",
        "Score": plan.score + (f", neighbours weigh {flags.smooth:g}" if flags.smooth else ""),
        "Written": time.strftime("%Y-%m-%d %H:%M"),
    }
    n_clips = write_report(flags.report, results, selection, models.config, facts, framewise)
    return f"wrote {flags.report}: {n_clips} clips to look at and listen to"


def main() -> int:
    """Score what the command line names and say what came of it."""
    flags, config = read_command_line()
    configure_logger(config)
    recordings = audio.find_recordings(flags.recordings)
    models = open_models(flags.model, config)
    forms, selection = read_selection(flags, models)
    plan = make_plan(flags, selection.wanted)
    paths = place_outputs(flags.output, forms)
    for form in forms:
        formats.check_row_ids(form, list(recordings))
    settings = {"recordings": str(flags.recordings.resolve()), "model": models.identity}
    settings |= {name: str(value) for name, value in vars(plan).items()}
    with PartialResults(flags.output.with_name(f"{flags.output.name}.partial"), settings) as partial:
        began = time.monotonic()
        seconds = run(models, recordings, plan, partial)
        took = time.monotonic() - began
        results = Results(partial, list(recordings), plan.average, flags.smooth)
        bad_path = flags.output.with_name(f"{flags.output.stem}.bad_files.csv")
        lines = write_outputs(paths, bad_path, results, selection)
        if flags.report is not None:
            lines.append(write_page(flags, results, selection, models, plan))
        partial.close(delete=True)
    n_models = f", mean of {n} models" if (n := len(models.models)) > 1 else ""
    print(f"{len(recordings)} recordings, {len(models.class_names)} species{n_models}")
    print(f"{seconds:,.0f} s of audio in {took:.1f} s, {seconds / max(took, 1e-9):,.0f} x real time")
    print("\n".join(lines + ([f"wrote {plan.frames_dir}: framewise scores"] if plan.frames_dir else [])))
    return 0


if __name__ == "__main__":
    run_main(main)
