"""A step with a loss or gradient that is not finite leaves no trace; the log names its clips."""

import logging
import math
from collections.abc import Mapping

import numpy as np
import torch

from checkpoint import LAST_NAME
from configs import UserError
from training import processes
from training.fold import Fold

logger = logging.getLogger("birdclef.train")


def read_losses(fold: Fold, norm: torch.Tensor) -> bool:
    """Read the losses of a step's batches and the norm of its gradients, all in one go.

    Finite losses go to the epoch's mean; the recordings of the other batches are logged.

    Args:
        fold: its `group` holds the losses, on the device.
        norm: of all gradients, ().

    Returns:
        Whether all of them are finite.
    """
    losses = fold.group.losses
    parts = [part for parts in losses.values() for part, _ in parts]
    values = torch.stack([norm, *parts]).tolist()
    norm_here = values.pop(0)

    means = {}
    for batch, batch_parts in losses.items():
        sizes = [n_clips for _, n_clips in batch_parts]
        summed = sum(values.pop(0) * n_clips for n_clips in sizes)
        summed, n_clips = processes.total(summed, sum(sizes))
        means[batch] = (summed / n_clips, int(n_clips))
    return note_losses(fold, norm_here, means)


def note_losses(fold: Fold, norm: float, losses: Mapping[int, tuple[float, int]]) -> bool:
    """Take a step's losses into the epoch's mean, or log whose are not finite.

    Args:
        fold: the batches are of its epoch.
        norm: of the gradient.
        losses: by batch, the mean over its clips, and their number.

    Returns:
        Whether losses and norm are finite.
    """
    is_sound = math.isfinite(norm)
    for batch, (loss, n_clips) in losses.items():
        if math.isfinite(loss):
            fold.progress.train_loss.update(loss, n_clips)
        else:
            is_sound = False
            report_bad_batch(fold, batch, f"loss {loss}")
    return is_sound


def report_bad_batch(fold: Fold, batch: int, what: str) -> None:
    """Log the recordings of a batch of this epoch, with those that were mixed into them."""
    dataset = fold.train_set
    rows = {row for key in fold.train_sampler.keys(batch) for row in dataset.birds_of(key)}
    names = ", ".join(sorted(dataset.filename(row) for row in rows))
    logger.warning(
        "epoch %d batch %d: %s, the step is skipped; its recordings: %s",
        fold.progress.epoch + 1,
        batch,
        what,
        names,
    )


def skip_step(fold: Fold) -> None:
    """Count a step without effect and undo what its forward passes did to the running statistics.

    Raises:
        UserError: it is the `max_bad_steps`-th in a row.
    """
    fold.statistics.put_back()
    count_bad_step(fold)


def count_bad_step(fold: Fold) -> None:
    """Count a step that was left out.

    Raises:
        UserError: it is the `max_bad_steps`-th in a row.
    """
    progress = fold.progress
    progress.skipped_steps += 1
    progress.bad_steps += 1

    if progress.bad_steps >= fold.config.max_bad_steps:
        raise UserError(
            f"{progress.bad_steps} steps in a row without a finite loss and gradient (epoch "
            f"{progress.epoch + 1}); {fold.dir / LAST_NAME} holds the last good state; try a lower "
            "lr, a grad_clip, or amp_dtype=bfloat16"
        )


def check_scores(fold: Fold, scores: np.ndarray) -> None:
    """Refuse validation scores (N, C) that are not finite.

    Raises:
        UserError: some are not.
    """
    if not np.isfinite(scores).all():
        raise UserError(
            f"epoch {fold.progress.epoch + 1}: scores are not finite; {fold.dir} holds the epochs "
            "before it"
        )
