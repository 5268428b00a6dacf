"""When an epoch, a fold and a run end, and how much disk the run takes.

An epoch that has ended is the measure of those to come; until one has, its clips are. Early
stopping may end a fold before, so every time is the longest that is to be expected.
"""

import contextlib
import csv
import logging
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import torch

from configs import Config
from training import processes
from training.fold import Fold
from training.run_clock import OutOfTimeError, RunClock

logger = logging.getLogger("birdclef.train")

FIRST_LOOK_S = 60.0  # of training, after which the end of the run is estimated


# Time ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Left:
    """Seconds that are left of an epoch, of its fold and of the run."""

    epoch: float
    fold: float
    run: float

    def __str__(self) -> str:
        """Say the three on one line, for a bar."""
        return f"left: epoch {clock(self.epoch)}, fold {clock(self.fold)}, all {clock(self.run)}"


def check_room(run: RunClock) -> None:
    """Go on if another epoch fits into --max-hours.

    Raises:
        OutOfTimeError: it does not.
    """
    if not processes.from_first(run.has_room):
        raise OutOfTimeError


def status(fold: Fold) -> str:
    """Say the epoch's loss so far, its speed and the time that is left, for the bar."""
    n_clips = clips_done(fold)
    if not n_clips or not fold.clock.trained_s():
        return ""
    rate = n_clips / fold.clock.trained_s()
    loss = fold.progress.train_loss
    so_far = f"loss {loss.avg:.4f}, " if loss.count else ""  # the first may be read a step late
    return f"{so_far}{rate:.0f} clips/s, {time_left(fold)}"


def time_left(fold: Fold) -> Left:
    """Estimate what is left of the epoch, the fold and the run, at any time of a fold."""
    config, progress = fold.config, fold.progress
    is_inside = progress.batch > 0  # else the epoch has ended, or not begun
    of_epoch = _left_of_epoch(fold) if is_inside else 0.0

    whole_s = _whole_epoch_s(fold)
    of_fold = of_epoch + whole_s * max(0, fold.n_epochs - progress.epoch - is_inside)

    later = later_folds(config, fold.number).values()
    in_later = sum(max(0, config.epochs - done) for done in later)
    return Left(of_epoch, of_fold, of_fold + whole_s * in_later)


def _left_of_epoch(fold: Fold) -> float:
    sampler, valid_s = fold.train_sampler, _whole_validation_s(fold)
    to_train = max(0, sampler.n_items - fold.progress.batch * sampler.batch_size)
    return _clip_s(fold) * to_train + max(0.0, valid_s - fold.clock.validated_s())


def _whole_epoch_s(fold: Fold) -> float:
    """Seconds of an epoch: those of the last one, else from the clips so far."""
    if fold.clock.epoch_s:
        return fold.clock.epoch_s[-1]
    return _clip_s(fold) * fold.train_sampler.n_items + _whole_validation_s(fold)


def _whole_validation_s(fold: Fold) -> float:
    """Seconds of the last validation; before the first, its clips count as training ones."""
    if fold.clock.valid_s is None:
        return _clip_s(fold) * fold.valid_sampler.n_items
    return fold.clock.valid_s


def _clip_s(fold: Fold) -> float:
    """Seconds of a training clip in this epoch."""
    return fold.clock.trained_s() / max(1, clips_done(fold))


def clips_done(fold: Fold) -> int:
    """Count the clips that this process has trained on in this epoch."""
    sampler = fold.train_sampler
    done = min(fold.progress.batch * sampler.batch_size, sampler.n_items)
    return max(0, done - fold.clock.first_batch * sampler.batch_size)


# The end of the run -------------------------------------------------------------------------------


def look(fold: Fold, *, at_least_s: float = FIRST_LOOK_S) -> None:
    """Log once when the run ends, as soon as a minute of training, or a whole epoch, tells."""
    run = fold.clock
    is_known = run.trained_s() >= at_least_s or bool(run.epoch_s)
    if run.is_end_said or not is_known or not time_left(fold).run:
        return

    run.is_end_said = True
    if processes.is_first():
        say_end(fold)


def say_end(fold: Fold) -> None:
    """Log when the run ends and what its folds take on the disk; warn where that is too much."""
    config, left = fold.config, time_left(fold).run
    n_folds = len(config.folds)
    n_bytes = n_folds * fold_bytes(fold)
    ending = "1 fold ends" if n_folds == 1 else f"{n_folds} folds end"
    logger.info("%s about %s (in %s), %s", ending, at(left), clock(left), size(n_bytes))

    room = shutil.disk_usage(fold.dir).free + checkpoint_bytes(config.exp_dir)
    if room < n_bytes:
        logger.warning(
            "%s: the run takes about %s and the disk has room for %s; lower --keep-checkpoints",
            config.exp_dir,
            size(n_bytes),
            size(room),
        )


def checkpoint_bytes(exp_dir: Path) -> int:
    """Add up the checkpoints of an experiment; one may be replaced or deleted meanwhile."""
    n_bytes = 0
    for folder in exp_dir.glob("*"):
        for path in folder.glob("*.pth"):
            with contextlib.suppress(FileNotFoundError):
                n_bytes += path.stat().st_size
    return n_bytes


def fold_bytes(fold: Fold) -> int:
    """Estimate the bytes of a fold's folder: last.pth, the best checkpoints and the predictions."""
    parts = fold.parts
    states = [parts.model.state_dict(), parts.optimizer.state_dict()]
    states += [parts.ema.module.state_dict()] if parts.ema else []
    n_bytes = sum(one.numel() * one.element_size() for state in states for one in tensors_in(state))

    predictions = 5 * fold.valid_set.n_rows * len(fold.class_names)  # float32 and uint8
    return (fold.config.keep_checkpoints + 1) * n_bytes + predictions


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """Go through the tensors of a state, however deep they lie."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from tensors_in(one)


# Folds to come ------------------------------------------------------------------------------------


def later_folds(config: Config, number: int) -> dict[int, int]:
    """Count the epochs that the run's folds after this one have behind them, by their numbers."""
    folds = list(config.folds)
    after = folds[folds.index(number) + 1 :] if number in folds else []
    if not config.resume:
        return dict.fromkeys(after, 0)
    return {other: done_epochs(config.fold_dir(other)) for other in after}


def done_epochs(fold_dir: Path) -> int:
    """Count the epochs in a fold's history.csv; 0 where there is none."""
    path = fold_dir / "history.csv"
    if not path.exists():
        return 0
    with path.open(newline="", encoding="utf-8") as file:
        return max(0, sum(1 for row in csv.reader(file) if row) - 1)


# In words -----------------------------------------------------------------------------------------


def clock(seconds: float) -> str:
    """Write a length of time as 0:20, 1:20:00 or 2 d 3:00:00, to the second."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours}:{minutes:02d}:{rest:02d}"
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def at(seconds: float, start: datetime | None = None) -> str:
    """Name the moment that many seconds from now: Sun 14:20; more than six days on, its date."""
    moment = (start or datetime.now()) + timedelta(seconds=seconds)
    return f"{moment:%a %H:%M}" if seconds < 6 * 86_400 else f"{moment:%Y-%m-%d %H:%M}"


def size(n_bytes: float) -> str:
    """Write a size as 850 MB or 1.1 GB, in powers of ten."""
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{max(1, round(n_bytes / 1e6))} MB"
