"""A batch too large for the device's memory goes through in halves; the step stays the same."""

import logging
from collections.abc import Callable
from typing import TypeVar

import torch

from configs import UserError
from training import processes
from training.fold import Fold
from training.mixed import Mixed
from training.remembered import Remembered

logger = logging.getLogger("birdclef.train")
T = TypeVar("T")


def train_in_parts_that_fit(
    fold: Fold, mixed: Mixed, forward_backward: Callable[[Fold, Mixed], T]
) -> list[tuple[T, int]]:
    """Go forward and backward through a batch in as few parts as the device's memory allows.

    Where a part does not fit, gradients and running statistics go back to what they were before the
    batch, and all of it goes through again in parts of half the size.

    Args:
        fold: its gradients add up; `progress.micro_batch` keeps the size of the parts.
        mixed: the whole batch.
        forward_backward: adds a part's gradients and returns its loss.

    Returns:
        What `forward_backward` returned for each part, and the part's number of clips.

    Raises:
        UserError: one clip alone is too much, or the batch is shared by several processes.
    """
    model = fold.parts.model
    before = GradientsBefore(model)
    statistics = fold.statistics
    if fold.progress.batch != fold.group.first:  # the group's own copy is older than this batch
        statistics = Remembered(model.buffers())
        statistics.remember()

    while True:
        try:
            size = fold.progress.micro_batch or len(mixed.images)
            torch.manual_seed(fold.step_seed())  # dropout, drop path, SpecAugment
            return [
                (forward_backward(fold, part), len(part.images)) for part in _parts(mixed, size)
            ]
        except torch.OutOfMemoryError as error:
            reason = _first_sentence(error)

        # Out of the except block, which holds on to the memory
        _halve_micro_batch(fold, len(mixed.images), reason)
        statistics.put_back()
        before.put_back()


def _parts(mixed: Mixed, size: int) -> list[Mixed]:
    """Cut a batch into parts; one without clips (no share of a small batch) is one part."""
    starts = range(0, max(1, len(mixed.images)), max(1, size))
    return [mixed.part(slice(start, start + size)) for start in starts]


def score_in_parts_that_fit(
    fold: Fold, images: torch.Tensor, score: Callable[[slice], T]
) -> list[T]:
    """Score a batch in as few parts as the device's memory allows, which changes no score.

    Raises:
        UserError: one clip alone is too much.
    """
    n_clips, precision = len(images), fold.precision
    while True:
        try:
            size = precision.valid_micro_batch or n_clips
            return [score(slice(start, start + size)) for start in range(0, n_clips, size)]
        except torch.OutOfMemoryError as error:
            reason = _first_sentence(error)

        precision.valid_micro_batch = _halve(
            min(precision.valid_micro_batch or n_clips, n_clips), reason
        )
        logger.warning(
            "%s; from here on %d clips at a time are validated", reason, precision.valid_micro_batch
        )


class GradientsBefore:
    """The gradients of a model as they are now, to go back to."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.parameters = list(model.parameters())
        self.gradients = [
            None if parameter.grad is None else parameter.grad.clone()
            for parameter in self.parameters
        ]

    def put_back(self) -> None:
        """Undo what backward passes added."""
        for parameter, gradient in zip(self.parameters, self.gradients, strict=True):
            parameter.grad = None if gradient is None else gradient.clone()


def _halve_micro_batch(fold: Fold, n_clips: int, reason: str) -> None:
    """From here on, let half as many clips through the model at once."""
    if processes.world_size() > 1:  # the others are in the middle of this batch
        raise UserError(
            f"{reason}; with several processes a batch cannot be split on the way: lower train_bs"
        )

    progress = fold.progress
    progress.micro_batch = _halve(min(progress.micro_batch or n_clips, n_clips), reason)
    logger.warning(
        "%s; from here on %d clips at a time, added up to the same batch (batch statistics are "
        "those of the %d)",
        reason,
        progress.micro_batch,
        progress.micro_batch,
    )


def _halve(n_clips: int, reason: str) -> int:
    """Return half as many clips, rounded up, and free what CUDA holds in reserve.

    Raises:
        UserError: one clip was too many.
    """
    if n_clips == 1:
        raise UserError(
            f"{reason}; one clip alone does not fit: take a smaller base_model_name, period or "
            "n_mels"
        )

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return -(-n_clips // 2)


def _first_sentence(error: torch.OutOfMemoryError) -> str:
    return str(error).split(". ")[0]
