"""What validation has scored: it stays on the device until all batches are, for reading waits."""

from collections.abc import Sequence

import numpy as np
import torch

from metrics import AverageMeter
from training.readings import BatchLoss


class Scored:
    """Losses, scores and labels of batches, in their order."""

    def __init__(self) -> None:
        self._losses: list[Sequence[BatchLoss]] = []
        self._scores: list[torch.Tensor] = []
        self._labels: list[torch.Tensor] = []

    def add(self, losses: Sequence[BatchLoss], scores: torch.Tensor, labels: torch.Tensor) -> None:
        """Add a batch.

        Args:
            losses: of its parts.
            scores: (B, C).
            labels: (B, C) bool.
        """
        self._losses.append(losses)
        self._scores.append(scores)
        self._labels.append(labels)

    def read(self) -> tuple[AverageMeter, list[np.ndarray], list[np.ndarray]]:
        """Return the loss averaged over clips, and scores and labels, lists of (n, C) arrays."""
        meter = AverageMeter()
        if not self._losses:
            return meter, [], []

        values = torch.stack([loss for parts in self._losses for loss, _ in parts]).tolist()
        for parts in self._losses:
            n_clips = sum(n for _, n in parts)
            meter.update(sum(values.pop(0) * n / n_clips for _, n in parts), n_clips)
        scores, labels = torch.cat(self._scores), torch.cat(self._labels)
        return meter, [scores.cpu().numpy()], [labels.cpu().numpy()]
