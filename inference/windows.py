"""Windows of recordings: how they are cut, made ready for the network, and scored in batches."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from audio.decoder import Block, decode
from configs import Config
from inference import stream
from inference.scorers import ExportedModel, TorchModels
from inference.timeline import EventRule

Models = TorchModels | ExportedModel
SCORES = ("clipwise", "framewise_max", "mix")
MIX = np.float32(0.75)  # of the clipwise score; the rest is the frame maximum's
KEPT_WINDOWS = 256  # of a long recording, after which they are written to the partial results


@dataclass(frozen=True)
class Plan:
    """How windows are cut and scored.

    Attributes:
        stride_s: seconds from one window to the next; None takes the clips' length.
        shifts_s: further clips of each window begin this many seconds later (negative: earlier);
            their scores are averaged with the window's own.
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

    def shifts(self, config: Config) -> list[int]:
        """Samples by which further clips of each window are shifted."""
        return [round(shift_s * config.sample_rate) for shift_s in self.shifts_s]


class Item(NamedTuple):
    """A clip ready for the network, or the end of a recording.

    Attributes:
        name: of the recording.
        source: the recording.
        start: sample where the clip's window starts.
        begin: sample where the clip itself begins: the same, unless it is shifted.
        image: what the network takes; None at the end of a recording.
        begins_part: whether an interrupted run may go on with this window.
    """

    name: str
    source: stream.Stream
    start: int = 0
    begin: int = 0
    image: np.ndarray | None = None
    begins_part: bool = False

    @property
    def is_end(self) -> bool:
        """Whether the recording ends here."""
        return self.image is None


Scored = tuple[Item, Any, Any]  # with scores (models, C), frames (models, n_frames, C) or None


def clips_of(
    name: str,
    path: Path,
    models: Models,
    plan: Plan,
    *,
    decode: Callable[[Path, int], Iterator[Block]] = decode,
    n_done: int = 0,
) -> Iterator[Item]:
    """Decode a recording and prepare its clips one by one, without the first `n_done` windows."""
    config, stride = models.config, plan.stride(models.config)
    source = stream.Stream(path, config.sample_rate, decode)
    for clip in stream.cut(source, config.n_samples, stride, plan.shifts(config)):
        if clip.start < n_done * stride:
            continue
        begins_part = clip.start > 0 and clip.start % (KEPT_WINDOWS * stride) == 0
        image = models.prepare(clip.samples)
        yield Item(name, source, clip.start, clip.begin, image, begins_part)

    yield Item(name, source)


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Collect items until `size` of them have an image.

    A batch crosses the borders of recordings but not of parts: the last bit of a score depends on
    the size of its batch, so a run that goes on with a part must batch it as the unbroken run does.
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


def score_batch(models: Models, plan: Plan, batch: list[Item]) -> list[Scored]:
    """Score a batch: each item with its scores and, if the plan needs them, frames."""
    images = [item.image for item in batch if item.image is not None]
    if not images:
        return [(item, None, None) for item in batch]

    clipwise, frame_max, frames = models.score(images, frames=plan.needs_frames)
    mixed = {
        "clipwise": clipwise,
        "framewise_max": frame_max,
        "mix": MIX * clipwise + (1 - MIX) * frame_max,
    }
    scores = iter(np.moveaxis(mixed[plan.score], 1, 0))  # B of (models, C)
    frames_of = itertools.repeat(None) if frames is None else iter(np.moveaxis(frames, 1, 0))

    scored: list[Scored] = []
    for item in batch:
        if item.image is None:
            scored.append((item, None, None))
        else:
            scored.append((item, next(scores), next(frames_of)))
    return scored
