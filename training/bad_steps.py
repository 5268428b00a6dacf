"""A step with a loss or gradient that is not finite leaves no trace; the log names its clips."""

import logging

import numpy as np

from checkpoint import LAST_NAME
from configs import UserError
from training.fold import Fold

logger = logging.getLogger("birdclef.train")


def report_bad_batch(fold: Fold, what: str) -> None:
    """Log the recordings of the current batch, with those that were mixed into them."""
    progress, dataset = fold.progress, fold.train_set
    keys = fold.train_sampler.keys(progress.batch)
    rows = {row for key in keys for row in dataset.birds_of(key)}
    names = ", ".join(sorted(dataset.filename(row) for row in rows))
    logger.warning(
        "epoch %d batch %d: %s, the step is skipped; its recordings: %s",
        progress.epoch + 1,
        progress.batch,
        what,
        names,
    )


def skip_step(fold: Fold) -> None:
    """Count a step without effect and undo what its forward passes did to the running statistics.

    Raises:
        UserError: it is the `max_bad_steps`-th in a row.
    """
    progress = fold.progress
    fold.statistics.put_back()
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
