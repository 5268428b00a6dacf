"""Batches in memory that is made once: workers write into it, and a GPU copies out of it.

A batch of waveforms has 40 to 120 MB. The usual way makes each anew in shared memory, hands its
files from process to process and copies it into pinned memory; here a worker writes the clips where
the GPU's copy begins, and hands over the number of a slot.
"""

import contextlib
import logging
import math
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, get_worker_info

logger = logging.getLogger("birdclef.train")

ALIGNED_TO = 64  # bytes, at which the arrays of a batch begin
PORTABLE = 1  # cudaHostRegisterPortable: pinned for every GPU of the process
Pieces = Mapping[str, Sequence[np.ndarray]]  # by name, what lies one after another in a batch


@dataclass(frozen=True)
class Stored:
    """Where a batch lies: a worker's slot and, by name, type, shape and first byte in it."""

    worker: int
    slot: int
    arrays: dict[str, tuple[np.dtype, tuple[int, ...], int]]


class Slots:
    """Shared memory for the batches of a loader's workers; each worker takes its slots in turn.

    A worker makes at most `prefetch_factor` batches beyond the last one that was handed out. With
    two slots more than that, a batch is safe until the one after the next is asked for.

    Args:
        n_workers: processes.
        n_slots: batches of each.
        slot_bytes: of the largest batch.

    Raises:
        RuntimeError: there is not so much shared memory.
    """

    def __init__(self, n_workers: int, n_slots: int, slot_bytes: int) -> None:
        slot_bytes = _aligned(slot_bytes)
        memory = torch.empty((n_workers, n_slots, slot_bytes), dtype=torch.uint8)
        self.memory = memory.share_memory_()
        self._next = 0  # slot of the worker that this is a copy in

    def write(self, pieces: Pieces) -> Stored | dict[str, torch.Tensor]:
        """Lay a batch into this worker's next slot; one that is too large comes back as it is."""
        arrays, end = {}, 0
        for name, parts in pieces.items():
            dtype, shape = joined_type(parts), joined_shape(parts)
            arrays[name] = (dtype, shape, end)
            end = _aligned(end + dtype.itemsize * math.prod(shape))
        if not arrays or end > self.memory.shape[2]:
            return join(pieces)

        info = get_worker_info()
        stored = Stored(info.id if info else 0, self._next, arrays)
        self._next = (self._next + 1) % self.memory.shape[1]
        for name, array in self._views(stored).items():
            np.concatenate(pieces[name], out=array)
        return stored

    def read(self, stored: Stored) -> dict[str, torch.Tensor]:
        """Return a batch as views of its slot."""
        return {name: torch.from_numpy(array) for name, array in self._views(stored).items()}

    def _views(self, stored: Stored) -> dict[str, np.ndarray]:
        slot = self.memory[stored.worker, stored.slot].numpy()
        return {
            name: np.ndarray(shape, dtype, slot, offset)
            for name, (dtype, shape, offset) in stored.arrays.items()
        }

    def pin(self, device: torch.device) -> None:
        """Let CUDA copy from here while the program goes on; where it refuses, copies wait."""
        cudart: Any = torch.cuda.cudart()
        address, n_bytes = self.memory.data_ptr(), self.memory.numel()
        error = cudart.cudaHostRegister(address, n_bytes, PORTABLE)
        if error == cudart.cudaError.success:
            # It holds the memory, which so outlives its registration.
            weakref.finalize(self, _unpin, cudart, self.memory)
            return

        logger.warning(
            "%.1f GB for batches cannot be pinned (CUDA error %d); copies to the GPU wait for "
            "each other",
            n_bytes / 1e9,
            int(error),
        )
        with contextlib.suppress(RuntimeError):  # the next launch would raise the same error
            torch.zeros(1, device=device).add_(1)


def _unpin(cudart: Any, memory: torch.Tensor) -> None:
    cudart.cudaHostUnregister(memory.data_ptr())


def join(pieces: Pieces) -> dict[str, torch.Tensor]:
    """Lay a batch into memory of its own."""
    return {name: torch.from_numpy(np.concatenate(parts)) for name, parts in pieces.items()}


def joined_type(parts: Sequence[np.ndarray]) -> np.dtype:
    """Return the type that holds all parts."""
    return np.result_type(*{part.dtype for part in parts})


def joined_shape(parts: Sequence[np.ndarray]) -> tuple[int, ...]:
    """Return the shape of the parts one after another."""
    return (sum(map(len, parts)), *parts[0].shape[1:])


def _aligned(n_bytes: int) -> int:
    return -(-n_bytes // ALIGNED_TO) * ALIGNED_TO


class SlotLoader(DataLoader):
    """A loader whose batches lie in slots, and are on the device one batch ahead.

    On CUDA a batch is copied on a stream of its own while the one before it is trained on.

    Args:
        slots: that its workers' `collate_fn` writes into.
        device: where batches are to be.
    """

    def __init__(self, *args: Any, slots: Slots, device: torch.device, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.slots, self.device = slots, device
        self._is_pinned = False

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:  # type: ignore[override]
        loaded = super().__iter__()  # forks the workers, which are not to have pinned memory
        if self.device.type != "cuda":
            return map(self._tensors, loaded)
        if not self._is_pinned:
            self.slots.pin(self.device)
            self._is_pinned = True
        return self._copied_ahead(loaded)

    def _tensors(self, loaded: Stored | dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return self.slots.read(loaded) if isinstance(loaded, Stored) else loaded

    def _copied_ahead(self, loaded: Iterator[Any]) -> Iterator[dict[str, torch.Tensor]]:
        stream, ahead = torch.cuda.Stream(self.device), None
        for batch in map(self._tensors, loaded):
            copy = Copy(batch, self.device, stream)
            if ahead is not None:
                yield ahead.here()
            ahead = copy
        if ahead is not None:
            yield ahead.here()


class Copy:
    """A batch on its way to a GPU.

    Args:
        batch: in pinned memory.
        device: the GPU.
        stream: that the copy runs on.
    """

    def __init__(
        self, batch: dict[str, torch.Tensor], device: torch.device, stream: torch.cuda.Stream
    ) -> None:
        self._device, self._there = device, torch.cuda.Event()
        with torch.cuda.stream(stream):
            self._batch = {
                name: value.to(device, non_blocking=True) for name, value in batch.items()
            }
            self._there.record()

    def here(self) -> dict[str, torch.Tensor]:
        """Wait until it is there, a step after the copy began, and return it."""
        self._there.synchronize()
        for value in self._batch.values():
            value.record_stream(torch.cuda.current_stream(self._device))  # whose kernels read it
        return self._batch
