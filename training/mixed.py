"""A batch after MixUp or CutMix, and its loss."""

from typing import NamedTuple

import numpy as np
import torch

from losses.named import Criterion
from training.fold import Fold
from transforms import cutmix, mixup


class Mixed(NamedTuple):
    """A batch after MixUp or CutMix: images (B, 3, T, F), and the targets of both parts.

    Targets are (B, C), or (B, 1 + S, C) with those of S steps of each clip. With a teacher its
    vector stands behind them (training/distillation.py).
    """

    images: torch.Tensor
    targets_a: torch.Tensor
    targets_b: torch.Tensor
    lam: float

    def part(self, clips: slice) -> "Mixed":
        """Take some of the clips."""
        return Mixed(self.images[clips], self.targets_a[clips], self.targets_b[clips], self.lam)


def mix_batch(fold: Fold, images: torch.Tensor, targets: torch.Tensor) -> Mixed:
    """Mix the clips by MixUp or CutMix, or leave them, as (seed, epoch, batch) decides."""
    config, progress = fold.config, fold.progress
    rng = np.random.default_rng((config.seed, progress.epoch + 1, progress.batch, 1))

    if rng.random() < config.p_mixup and len(images):
        return Mixed(*mixup(images, targets, config.mixup_alpha, rng))
    if rng.random() < config.p_cutmix and len(images):
        return Mixed(*cutmix(images, targets, config.cutmix_alpha, rng))
    return Mixed(images, targets, targets, 1.0)


def mixed_loss(criterion: Criterion, output: dict[str, torch.Tensor], mixed: Mixed) -> torch.Tensor:
    """Weigh the loss of both targets of mixed clips by lam."""
    if not len(mixed.images):  # the other processes wait for this one's backward pass
        return torch.stack([value.sum() for value in output.values()]).sum()

    loss = criterion(output, mixed.targets_a)
    if mixed.lam == 1.0:
        return loss
    return mixed.lam * loss + (1.0 - mixed.lam) * criterion(output, mixed.targets_b)
