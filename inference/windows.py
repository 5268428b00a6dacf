"""Windows of recordings: how they are cut, made ready for the network, and scored in batches."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from audio.decoder import Block, decode
from audio.windows import has_signal
from configs import Config
from inference import stream
from inference.scorers import ExportedModel, TorchModels
from inference.timeline import EventRule

Models = TorchModels | ExportedModel
SCORES = ("clipwise", "framewise_max", "mix")
MIX = np.float32(0.75)  # of the clipwise score; the rest is the frame maximum's
MAX_ITEMS = 512  # of a batch, with those that the network does not see
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
        weights: of the models in their average; None weighs them alike.
    """

    stride_s: float | None = None
    shifts_s: tuple[float, ...] = ()
    score: str = "clipwise"
    average: str = "probability"
    frames_dir: Path | None = None
    frame_species: tuple[int, ...] | None = None
    events: EventRule | None = None
    weights: tuple[float, ...] | None = None

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
        image: what the network takes; None for a clip without signal and at the end.
        begins_batch: whether a batch begins here: an interrupted run may go on with this window, or
            another worker with this recording.
        is_end: whether the recording ends here.
        filled: items, and images among them, that stand before this one in its batch: where one
            begins, those that an interrupted run had there; at an end, with the end itself.
    """

    name: str
    source: stream.Stream
    start: int = 0
    begin: int = 0
    image: np.ndarray | None = None
    begins_batch: bool = False
    is_end: bool = False
    filled: tuple[int, int] = (0, 0)


Scored = tuple[Item, Any, Any]  # with scores (models, C), frames (models, n_frames, C) or None


def clips_of(
    name: str,
    path: Path,
    models: Models,
    plan: Plan,
    *,
    decode: Callable[[Path, int], Iterator[Block]] = decode,
    n_done: int = 0,
    filled: tuple[int, int] | None = None,
) -> Iterator[Item]:
    """Decode a recording and prepare its clips one by one, without the first `n_done` windows.

    Where `filled` is given, a batch begins with the first item, which has it.
    """
    config, stride = models.config, plan.stride(models.config)
    source = stream.Stream(path, config.sample_rate, decode)
    begins, before = filled is not None, -1  # whether the next item begins a batch; the last window
    filled = (0, 0) if filled is None or n_done else filled
    for clip in stream.cut(source, config.n_samples, stride, plan.shifts(config)):
        if clip.start < n_done * stride:
            continue
        is_part = clip.start > 0 and clip.start % (KEPT_WINDOWS * stride) == 0
        begins = begins or (is_part and clip.start != before)
        heard = has_signal(clip.samples, config.sample_rate)
        image = models.prepare(clip.samples) if heard else None
        yield Item(name, source, clip.start, clip.begin, image, begins, filled=filled)
        begins, before, filled = False, clip.start, (0, 0)

    yield Item(name, source, is_end=True, begins_batch=begins, filled=filled)


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Collect items until `size` of them have an image, or there are many without one.

    A batch crosses the borders of recordings but not of parts and blocks: the last bit of a score
    depends on its batch, so a run that goes on with a part or a recording, or a worker that has a
    block, must batch it as the unbroken run does.
    """
    batch: list[Item] = []
    n_items = n_images = 0
    for item in items:
        if item.begins_batch:
            if batch:
                yield batch
            batch, (n_items, n_images) = [], item.filled

        n_items, n_images = n_items + 1, n_images + (item.image is not None)
        is_full = n_images == size or n_items == MAX_ITEMS
        if item.is_end:
            item = item._replace(filled=(0, 0) if is_full else (n_items, n_images))
        batch.append(item)
        if is_full:
            yield batch
            batch, n_items, n_images = [], 0, 0

    if batch:
        yield batch


def score_batch(models: Models, plan: Plan, batch: list[Item]) -> list[Scored]:
    """Score a batch: each item with its scores and, if the plan needs them, frames.

    A clip without signal scores 0, and the network does not see it. Where an interrupted run had
    images before the first item, that one's stands in for them.
    """
    images = [item.image for item in batch if item.image is not None]
    n_filled = batch[0].filled[1] if batch[0].begins_batch else 0
    answers = iter(_score_images(models, plan, images[:1] * n_filled + images))
    answers = itertools.islice(answers, n_filled, None)

    n_models, n_classes = len(models.models), len(models.class_names)
    nothing = np.zeros((n_models, n_classes), np.float32)
    no_frames = None
    if plan.needs_frames:
        no_frames = np.zeros((n_models, models.config.n_frames, n_classes), np.float32)

    scored: list[Scored] = []
    for item in batch:
        if item.is_end:
            scored.append((item, None, None))
        elif item.image is None:
            scored.append((item, nothing, no_frames))
        else:
            scored.append((item, *next(answers)))
    return scored


def _score_images(
    models: Models, plan: Plan, images: list[np.ndarray]
) -> Iterable[tuple[np.ndarray, np.ndarray | None]]:
    """Give scores (models, C) and frames (models, n_frames, C), or None, of each image."""
    if not images:
        return []

    clipwise, frame_max, frames = models.score(images, frames=plan.needs_frames)
    mixed = {
        "clipwise": clipwise,
        "framewise_max": frame_max,
        "mix": MIX * clipwise + (1 - MIX) * frame_max,
    }
    scores = np.moveaxis(mixed[plan.score], 1, 0)  # (B, models, C)
    if frames is None:
        return zip(scores, itertools.repeat(None), strict=False)
    return zip(scores, np.moveaxis(frames, 1, 0), strict=True)
