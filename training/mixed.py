"""A batch after MixUp or CutMix, and its loss."""

from typing import NamedTuple

import torch

from losses.named import Criterion


class Mixed(NamedTuple):
    """A batch after MixUp or CutMix: images (B, 3, T, F), and the targets of both parts.

    Targets are (B, C), or (B, 1 + S, C) with those of S steps of each clip.
    """

    images: torch.Tensor
    targets_a: torch.Tensor
    targets_b: torch.Tensor
    lam: float

    def part(self, clips: slice) -> "Mixed":
        """Take some of the clips."""
        return Mixed(self.images[clips], self.targets_a[clips], self.targets_b[clips], self.lam)


def mixed_loss(criterion: Criterion, output: dict[str, torch.Tensor], mixed: Mixed) -> torch.Tensor:
    """Weigh the loss of both targets of mixed clips by lam."""
    if not len(mixed.images):  # the other processes wait for this one's backward pass
        return torch.stack([value.sum() for value in output.values()]).sum()

    loss = criterion(output, mixed.targets_a)
    if mixed.lam == 1.0:
        return loss
    return mixed.lam * loss + (1.0 - mixed.lam) * criterion(output, mixed.targets_b)
