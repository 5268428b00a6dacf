"""Windows of recordings: how they are cut and scored, and how what comes back is put together."""

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from audio.decoder import Block, decode
from configs import Config
from inference import detections, stream
from inference.detections import PartialResults, Recording
from inference.scorers import ExportedModel, TorchModels
from inference.timeline import EventFinder, EventRule, Timeline, TimelineFile

Models = TorchModels | ExportedModel
SCORES = ("clipwise", "framewise_max", "mix")
MIX = np.float32(0.75)  # of the clipwise score; the rest is the frame maximum's
KEPT_WINDOWS = 256  # of a long recording, after which they are written to the partial results


@dataclass(frozen=True)
class Plan:
    """How windows are cut and scored.

    Attributes:
        stride_s: seconds from one window to the next; None takes the clips' length.
        shifts_s: seconds by which further clips of each window begin later (negative: earlier);
            their scores are averaged with its own.
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
    events: EventRule | None = None

    @property
    def needs_frames(self) -> bool:
        """Whether timelines are made."""
        return self.frames_dir is not None or self.events is not None

    def stride(self, config: Config) -> int:
        """Samples from one window to the next."""
        return max(1, round((self.stride_s or config.period) * config.sample_rate))


class Item(NamedTuple):
    """A clip ready for the network, or with `image` None the end of a recording."""

    name: str
    source: stream.Stream
    start: int = 0  # sample where its window starts
    begin: int = 0  # sample where it begins itself, the same but for shifts
    image: np.ndarray | None = None
    begins_part: bool = False  # whether an interrupted run may go on with its window


def clips_of(
    name: str,
    path: Path,
    models: Models,
    plan: Plan,
    *,
    decode: Callable[[Path, int], Iterator[Block]] = decode,
    n_done: int = 0,
) -> Iterator[Item]:
    """Decode a recording and prepare its clips, one by one, but for those of the first `n_done` windows."""
    rate, stride = models.config.sample_rate, plan.stride(models.config)
    source = stream.Stream(path, rate, decode)
    shifts = [round(shift_s * rate) for shift_s in plan.shifts_s]
    for clip in stream.cut(source, models.config.n_samples, stride, shifts):
        if clip.start >= n_done * stride:
            begins_part = clip.start > 0 and clip.start % (KEPT_WINDOWS * stride) == 0
            yield Item(
                name, source, clip.start, clip.begin, models.prepare(clip.samples), begins_part
            )
    yield Item(name, source)


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Collect items until `size` of them have an image; a batch crosses the borders of recordings, but not of parts.

    The last bit of a score depends on the size of its batch, and so a run that goes on with a part
    must batch it as the unbroken run does.
    """
    batch: list[Item] = []
    for item in items:
        if batch and item.begins_part and item.start != batch[-1].start:
            yield batch
            batch = []
        batch.append(item)
        if sum(one.image is not None for one in batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def score_batch(models: Models, plan: Plan, batch: list[Item]) -> list[tuple[Item, Any, Any]]:
    """Score a batch: each item with scores (models, C) and, if the plan needs them, frames (models, n_frames, C)."""
    images = [item.image for item in batch if item.image is not None]
    if not images:
        return [(item, None, None) for item in batch]
    clipwise, frame_max, frames = models.score(images, frames=plan.needs_frames)
    mixed = {
        "clipwise": clipwise,
        "framewise_max": frame_max,
        "mix": MIX * clipwise + (1 - MIX) * frame_max,
    }
    scores = iter(np.moveaxis(mixed[plan.score], 1, 0))
    frames_of = itertools.repeat(None) if frames is None else iter(np.moveaxis(frames, 1, 0))
    return [
        (item, *((None, None) if item.image is None else (next(scores), next(frames_of))))
        for item in batch
    ]


class Tally:
    """What comes back from the network for one recording, window by window; parts of it go to the partial results.

    With each part goes the state of the timeline, from which a Tally of the next run goes on.
    """

    def __init__(
        self, name: str, models: Models, plan: Plan, partial: PartialResults, identity: list[int]
    ) -> None:
        self.name, self.plan, self.config = name, plan, models.config
        self.n_models, self.class_names = len(models.models), models.class_names
        self._keep = functools.partial(partial.add, identity=identity)
        self._first = partial.n_windows(
            name, identity
        )  # window of the recording that the lists begin with
        self._starts: list[int] = []
        self._scores: list[np.ndarray] = []  # (models, C), averaged over the clips of a window
        self._hop_s = self.config.hop_length / self.config.sample_rate
        self._timeline = Timeline(len(self.class_names))
        self._events: EventFinder | None = None
        if plan.events is not None:
            self._events = EventFinder(plan.events, self._hop_s, len(self.class_names))
        self._file: TimelineFile | None = None
        self._pieces, self._pieces_state = partial.frames_path(name), None
        if (state := partial.state(name, identity)) is not None:
            self._restore(state)

    def add(self, item: Item, scores: np.ndarray, frames: np.ndarray | None) -> None:
        """Add a clip's scores (models, C) and frames (models, n_frames, C)."""
        if frames is not None:
            earliest = item.start + min(
                0, *(round(s * self.config.sample_rate) for s in self.plan.shifts_s), 0
            )
            self._pass_on(
                self._frame(max(0, earliest))
            )  # no later clip reaches back beyond; a part keeps the rest
        if not self._starts or self._starts[-1] != item.start:
            if len(self._starts) == KEPT_WINDOWS:
                self._keep_windows("unfinished", "", item.start / self.config.sample_rate)
            self._starts.append(item.start)
            self._scores.append(np.zeros_like(scores))
        self._scores[-1] += scores / np.float32(1 + len(self.plan.shifts_s))
        if frames is not None:
            self._timeline.add(
                self._frame(item.begin), detections.average_models(frames, self.plan.average)
            )

    def finish(self, source: stream.Stream) -> float:
        """Close the recording; return its length in seconds."""
        rate, (status, reason) = self.config.sample_rate, source.fault
        end = max(
            source.end, self._first * self.plan.stride(self.config)
        )  # it may have been decoded further before
        if end:
            status = {"": "ok", "unreadable": "truncated"}.get(status, status)
            if self.plan.needs_frames:
                self._pass_on(1 + end // self.config.hop_length)
        elif not status:
            status, reason = "empty", "no samples"
        if self._file is not None:
            self._file.close()
        self._keep_windows(status, reason, end / rate)
        return end / rate

    def discard(self) -> None:
        """Give the recording up; what was handed to the partial results stays there."""
        if self._file is not None:
            self._file.discard()

    def _keep_windows(self, status: str, reason: str, seconds: float) -> None:
        events: tuple[detections.Event, ...] = ()
        if self._events is not None:
            events = self._events.take() if status == "unfinished" else self._events.finish(seconds)
        empty = np.zeros((self.n_models, 0, len(self.class_names)), np.float32)
        scores = np.stack(self._scores, axis=1) if self._scores else empty
        starts_s = np.array(self._starts) / self.config.sample_rate
        recording = Recording(self.name, status, reason, seconds, starts_s, scores, events)
        self._keep(
            recording, first=self._first, state=self._state() if status == "unfinished" else None
        )
        self._first, self._starts, self._scores = self._first + len(self._starts), [], []

    def _state(self) -> dict[str, Any]:
        return {
            "timeline": self._timeline.state(),
            "events": None if self._events is None else self._events.state(),
            "frames": None if self._file is None else self._file.state(),
        }

    def _restore(self, state: dict[str, Any]) -> None:
        self._timeline.restore(state["timeline"])
        if self._events is not None:
            self._events.restore(state["events"])
        self._pieces_state = state["frames"]

    def _frame(self, sample: int) -> int:
        """Return the nearest frame of the recording's grid."""
        return (2 * sample + self.config.hop_length) // (2 * self.config.hop_length)

    def _pass_on(self, before: int) -> None:
        frames = self._timeline.take(before)
        if self._events is not None:
            self._events.add(frames)
        if self.plan.frames_dir is not None:
            species = list(
                range(len(self.class_names))
                if self.plan.frame_species is None
                else self.plan.frame_species
            )
            if self._file is None:
                names = [self.class_names[one] for one in species]
                path = self.plan.frames_dir / f"{self.name}.npz"
                self._file = TimelineFile(
                    path, self._pieces, names, self._hop_s, self._pieces_state
                )
            self._file.add(frames[:, species])
