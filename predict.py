"""Score recordings of any length with trained models and write what was found in them.

    python predict.py models/Exp_47 data/test_soundscapes --output submission.csv

`run` takes the clips of all recordings from threads that make them ready, hands them in batches to
threads that score them as train.py's validation does, and a `Tally` for each recording puts its
windows together; `main` reads the command line and writes. Torch is imported where a checkpoint is
read and nowhere else.
"""

import argparse
import contextlib
import functools
import gc
import itertools
import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from audio.decoder_pool import DecoderPool
from configs import Config, UserError, configure_logger, load_config, run_main
from inference import detections, formats, stream
from inference.detections import PartialResults, Results
from inference.scorers import CPU_BATCH, RUN_SETTINGS, open_models
from inference.timeline import EventRule
from inference.windows import SCORES, Item, Models, Plan, Tally, batches, clips_of, score_batch

logger = logging.getLogger("birdclef.predict")

BAR = "{percentage:3.0f} %|{bar}| {elapsed} and {remaining} to go, done at {eta:%H:%M}{postfix}"


# Running ------------------------------------------------------------------------------------------


def run(
    models: Models,
    recordings: dict[str, Path],
    plan: Plan,
    partial: PartialResults,
    decoders: DecoderPool | None = None,
) -> float:
    """Score the recordings that are not in the partial results yet, and add each when it is done.

    Args:
        models: what scores the clips.
        recordings: paths by name.
        plan: how windows are cut and scored.
        partial: takes a recording as soon as all its windows are scored.
        decoders: processes that decode, ended when this is done; None starts them.

    Returns:
        Seconds of audio scored.
    """
    identities = {name: detections.identity(path) for name, path in recordings.items()}
    to_do = [name for name, identity in identities.items() if not partial.holds(name, identity)]
    if len(to_do) < len(recordings):
        logger.info(
            "%d of %d recordings were done before", len(recordings) - len(to_do), len(recordings)
        )
    decoders = decoders or DecoderPool()
    decode = functools.partial(decoders.decode, timeout_s=models.config.file_timeout_s)
    clips = functools.partial(clips_of, models=models, plan=plan, decode=decode)
    sources = (
        functools.partial(
            clips, name, recordings[name], n_done=partial.n_windows(name, identities[name])
        )
        for name in to_do
    )
    n_decoding = models.config.num_workers // (
        1 if models.n_threads == 1 else 2
    )  # a CPU's cores are for the network
    n_decoding = max(1, min(n_decoding, len(to_do)))
    depth = 2 * models.batch_size * models.n_threads
    items = stream.in_order(
        sources, n_threads=n_decoding, depth=depth, enter_thread=models.enter_thread
    )
    score = functools.partial(score_batch, models, plan)
    scored = stream.apply_in_order(
        score, batches(items, models.batch_size), models.n_threads, models.enter_thread
    )
    seconds, tally = 0.0, None
    progress = Progress([(name, identities[name][0]) for name in to_do])
    with contextlib.closing(items), decoders, contextlib.closing(scored), progress:
        try:
            for item, scores, frames in itertools.chain.from_iterable(scored):
                tally = tally or Tally(item.name, models, plan, partial, identities[item.name])
                if item.image is not None:
                    tally.add(item, scores, frames)
                    progress.show(item, models.config, plan)
                    continue
                recording_s, tally = tally.finish(item.source), None
                seconds += recording_s
                progress.finish(item.name, recording_s)
        finally:
            if tally is not None:
                tally.discard()
    return seconds


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
        self._move(
            self._done + int(share * self._sizes[item.name]),
            self._seconds + reached / config.sample_rate,
        )

    def finish(self, name: str, seconds: float) -> None:
        """Show that a recording is done."""
        self._done += self._sizes[name]
        self._seconds += seconds
        self._move(self._done, self._seconds)

    def _move(self, n_bytes: int, seconds: float) -> None:
        speed = seconds / max(1e-9, time.monotonic() - self._began)
        self._bar.set_postfix_str(f"{speed:,.0f} x real time", refresh=False)
        self._bar.update(n_bytes - self._bar.n)


# The command line ---------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; --help lists the flags")


def read_command_line(args: Sequence[str] | None = None) -> tuple[argparse.Namespace, Config]:
    """Read predict.py's own flags, and the settings that say where and how it runs."""
    parser = _Parser(
        prog="predict.py", description=(__doc__ or "").partition("\n")[0], allow_abbrev=False
    )
    add = parser.add_argument
    add(
        "model",
        type=Path,
        help="a checkpoint, a fold's folder, or an experiment's, whose folds are averaged",
    )
    add("recordings", type=Path, help="a recording, or a folder of them")
    add("--output", type=Path, required=True, help="file to write; for audacity a folder")
    add("--format", nargs="+", choices=formats.FORMATS, metavar="FORMAT",
        help=f"{', '.join(formats.FORMATS)}; of several, each gets its name into the file's (default: that of the "
        "sample submission, parquet for a .parquet, else submission-2023)")  # fmt: skip
    add(
        "--sample-submission",
        type=Path,
        help="sample_submission.csv whose columns and rows to follow",
    )
    add(
        "--fill-missing",
        action="store_true",
        help="score 0 for its species that are no classes of the model",
    )
    add(
        "--threshold",
        type=_number(0, 1),
        help="lowest score of a detection (default: 0 in tables, 0.5 in the rest)",
    )
    add("--top-k", type=_number(1, kind=int), help="most detections of one window")
    add(
        "--species",
        type=Path,
        help="list of species, one a line; the others are left out, or score 0",
    )
    add("--taxonomy", type=Path, help="CSV of eBird or BirdCLEF with names for the labels")
    add(
        "--stride",
        type=_number(0.001),
        help="seconds from one window to the next (default: a clip)",
    )
    add(
        "--shifts",
        type=float,
        nargs="+",
        default=[],
        help="seconds by which more clips of each window are shifted",
    )
    add(
        "--score",
        choices=SCORES,
        default=SCORES[0],
        help="of a clip (default: clipwise); mix is 0.75 and 0.25 of both",
    )
    add(
        "--smooth",
        type=_number(0, 1),
        default=0.0,
        help="weight of each neighbouring window in a mean (default: 0)",
    )
    add(
        "--average",
        choices=detections.AVERAGES,
        default=detections.AVERAGES[0],
        help="how folds are averaged",
    )
    add(
        "--frames",
        type=Path,
        metavar="DIR",
        help="save each recording's framewise scores as DIR/<name>.npz",
    )
    add(
        "--report",
        type=Path,
        metavar="FILE",
        help="write a page to look at and listen to, FILE.html",
    )
    add(
        "--events",
        action="store_true",
        help="write events of the timeline, not windows, in lists of detections",
    )
    add(
        "--event-low",
        type=_number(0, 1),
        help="an event ends below this score (default: half the threshold)",
    )
    add(
        "--event-min",
        type=_number(0),
        default=0.0,
        metavar="SECONDS",
        help="least duration of an event (default: 0)",
    )
    add("--device", help="auto, cpu, cuda, cuda:1 or mps")
    add("--valid-bs", help=f"clips in a batch (default: 32; on a CPU never more than {CPU_BATCH})")
    add("--num-workers", help="threads that decode recordings, and on a CPU those that score them")
    add(
        "--file-timeout-s",
        help="seconds after which a decoder that gives nothing is given up (default: 120)",
    )
    add(
        "--amp",
        action=argparse.BooleanOptionalAction,
        help="mixed precision (default: as in validation)",
    )
    add("--amp-dtype", help="float16 or bfloat16")
    add("--config", help="YAML file with these settings")
    flags, rest = parser.parse_known_args(args)
    for name in (*RUN_SETTINGS, "amp_dtype", "config"):
        rest += (
            []
            if (value := getattr(flags, name)) is None
            else ["--" + name.replace("_", "-"), value]
        )
    return flags, load_config(
        rest + ([] if flags.amp is None else ["--amp" if flags.amp else "--no-amp"])
    )


def _number(low: float, high: float = float("inf"), kind: Any = float) -> Any:
    def number(text: str) -> Any:
        value = kind(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text} is not between {low:g} and {high:g}")
        return value

    return number


def read_selection(
    flags: argparse.Namespace, models: Models
) -> tuple[list[str], formats.Selection]:
    """Read the files that say what is written, and refuse before anything is scored what could not be written after.

    Returns:
        The formats, and what of the results goes into them.

    Raises:
        UserError: files or flags that do not fit the model or each other.
    """
    sample = (
        None if flags.sample_submission is None else formats.read_sample(flags.sample_submission)
    )
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
        wanted=None
        if flags.species is None
        else formats.read_species(flags.species, models.class_names, names),
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
        raise UserError(
            "--average rank orders whole windows; --frames and --events need probability or logit"
        )
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
        events=EventRule(high, low, flags.event_min) if flags.events else None,
    )


def place_outputs(output: Path, forms: Sequence[str]) -> dict[str, Path]:
    """Name the file of each format: `output` itself, or of several one beside it, `<stem>.<format>.csv`.

    Raises:
        UserError: a folder stands where a file goes, or a file where Audacity's folder does.
    """
    paths = {
        form: output.with_name(f"{output.stem}.{form}{formats.FORMATS[form].suffix}")
        for form in forms
    }
    paths = paths if len(paths) > 1 else dict.fromkeys(forms, output)
    for form, path in paths.items():
        if path.exists() and path.is_dir() != (form == "audacity"):
            raise UserError(
                f"{path} is a {'folder' if path.is_dir() else 'file'}; choose another --output"
            )
    return paths


def write_outputs(
    paths: dict[str, Path], bad_path: Path, results: Results, selection: formats.Selection
) -> list[str]:
    """Write every format and the list of bad files; say in lines what was written."""
    lines = []
    for form, path in paths.items():
        lines.append(f"wrote {path}: {formats.write(path, form, results, selection)} rows, {form}")
    if n_bad := formats.write_bad_files(bad_path, results):
        lines.append(
            f"wrote {bad_path}: {n_bad} recordings that could not be scored, or not to their end"
        )
    return lines


def write_page(
    flags: argparse.Namespace,
    results: Results,
    selection: formats.Selection,
    models: Models,
    plan: Plan,
) -> str:
    """Write the page of the run, with the best detections to see and hear; say in a line what was written."""
    from inference.report import write_report

    def framewise(samples: np.ndarray) -> np.ndarray:
        frames = models.score([models.prepare(samples)], frames=True)[2]  # (models, 1, n_frames, C)
        assert frames is not None
        return detections.average_models(frames[:, 0], plan.average)

    n_models, period = len(models.models), models.config.period
    facts = {
        "Model": f"{flags.model}"
        + (f", mean of {n_models} by {plan.average}" if n_models > 1 else ""),
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
    recordings = stream.find_recordings(flags.recordings)
    with DecoderPool() as decoders:
        decoders.start(1)  # while the models are opened
        return _predict(flags, config, recordings, decoders)


def _predict(
    flags: argparse.Namespace, config: Config, recordings: dict[str, Path], decoders: DecoderPool
) -> int:
    models = open_models(flags.model, config)
    forms, selection = read_selection(flags, models)
    plan = make_plan(flags, selection.wanted)
    paths = place_outputs(flags.output, forms)
    for form in forms:
        formats.check_row_ids(form, list(recordings))
    settings = {"recordings": str(flags.recordings.resolve()), "model": models.identity}
    settings |= {name: str(value) for name, value in vars(plan).items()}
    with PartialResults(
        flags.output.with_name(f"{flags.output.name}.partial"), settings
    ) as partial:
        began = time.monotonic()
        seconds = run(models, recordings, plan, partial, decoders)
        took = time.monotonic() - began
        results = Results(partial, list(recordings), plan.average, flags.smooth)
        bad_path = flags.output.with_name(f"{flags.output.stem}.bad_files.csv")
        lines = write_outputs(paths, bad_path, results, selection)
        if flags.report is not None:
            lines.append(write_page(flags, results, selection, models, plan))
        partial.close(delete=True)
    n_models = f", mean of {n} models" if (n := len(models.models)) > 1 else ""
    print(f"{len(recordings)} recordings, {len(models.class_names)} species{n_models}")
    print(
        f"{seconds:,.0f} s of audio in {took:.1f} s, {seconds / max(took, 1e-9):,.0f} x real time"
    )
    print(
        "\n".join(
            lines + ([f"wrote {plan.frames_dir}: framewise scores"] if plan.frames_dir else [])
        )
    )
    return 0


@contextlib.contextmanager
def _briskly() -> Iterator[None]:
    """For a process that ends with the block: seldom collect garbage, and do not take everything apart at the end.

    Of 7 s to the end of a short run with torch, its modules cost one in collections that find
    nothing, and two at exit.
    """
    gc.set_threshold(100_000, 100)  # in place of 700 and 10
    try:
        yield
    except SystemExit as end:
        logging.shutdown()
        for output in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):  # nobody reads it any more
                output.flush()
        os._exit(end.code if isinstance(end.code, int) else 1)


if __name__ == "__main__":
    with _briskly():
        run_main(main)
