"""What a step leaves to be read: its losses and the norm of its gradient, on their way."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from training import processes

BatchLoss = tuple[Tensor, int]  # mean over clips, () on the device; and their number


class Reading:
    """The losses of a step's batches and the norm of its gradient, which no one waits for.

    They are copied while the device goes on. On CUDA they lie in pinned memory, and an event says
    when they are there.

    Args:
        losses: by batch, of its parts, on the device.
        norm: of all gradients, ().
        clips_of: says how many clips a batch has in all processes.

    Attributes:
        is_bad: () float32 on the device, 1 where one of them is not finite and 0 elsewhere, the
            same in all processes.
    """

    def __init__(
        self,
        losses: Mapping[int, Sequence[BatchLoss]],
        norm: Tensor,
        clips_of: Callable[[int], int],
    ) -> None:
        # What is read is multiplied by these weights and added up to a batch's loss, times clips.
        self.weights = {batch: [n for _, n in parts] for batch, parts in losses.items()}
        self.n_clips = {batch: sum(weights) for batch, weights in self.weights.items()}
        values = [loss for parts in losses.values() for loss, _ in parts]
        if processes.world_size() > 1:
            values = [_times_clips(parts) for parts in losses.values()]
            values = list(processes.sum_tensor(torch.stack(values)).unbind())
            self.weights = {batch: [1] for batch in losses}
            self.n_clips = {batch: clips_of(batch) for batch in losses}

        together = torch.stack([norm, *values])
        # Less itself, a finite number is 0, and any other is NaN; asking isfinite launches more.
        self.is_bad = (together - together).sum().ne(0).float()
        self._copy = together.to("cpu", non_blocking=True)  # into pinned memory, from CUDA
        self._is_there = torch.cuda.Event() if together.is_cuda else None
        if self._is_there is not None:
            self._is_there.record()

    def values(self) -> tuple[float, dict[int, tuple[float, int]]]:
        """Return the norm, and each batch's mean loss and clips; wait until they are there."""
        if self._is_there is not None:
            self._is_there.synchronize()
        norm, *rest = self._copy.tolist()

        losses = {}
        for batch, weights in self.weights.items():
            summed = sum(rest.pop(0) * weight for weight in weights)
            losses[batch] = (summed / self.n_clips[batch], self.n_clips[batch])
        return norm, losses


def _times_clips(parts: Sequence[BatchLoss]) -> Tensor:
    return torch.stack([loss * n_clips for loss, n_clips in parts]).sum()
