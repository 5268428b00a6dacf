"""Validation clips that stay on the GPU: they are the same in each epoch, and need making once."""

import logging
from collections.abc import Iterable, Iterator

import torch

logger = logging.getLogger("birdclef.train")

Batch = dict[str, torch.Tensor]
SHARE_KEPT = 0.5  # of the memory that is left on the GPU after an epoch of training


class KeptBatches:
    """The batches of a loader, which after the first pass come from the device's memory.

    Where they do not fit, each pass goes through the loader.

    Args:
        loader: of the same batches in each pass; its workers end when the batches are kept.
        device: the GPU.
    """

    def __init__(self, loader: Iterable[Batch], device: torch.device) -> None:
        self._loader: Iterable[Batch] | None = loader
        self._n_batches = len(loader)  # type: ignore[arg-type]
        self.dataset = loader.dataset  # type: ignore[attr-defined]
        self.device = device
        self._kept: list[Batch] = []

    def __len__(self) -> int:
        return self._n_batches

    def __iter__(self) -> Iterator[Batch]:
        if self._loader is None:
            yield from self._kept
            return

        room = SHARE_KEPT * free_memory(self.device)
        kept: list[Batch] = []
        for loaded in self._loader:
            batch = {name: value.to(self.device) for name, value in loaded.items()}
            room -= sum(value.untyped_storage().nbytes() for value in batch.values())
            if room >= 0:
                kept.append(batch)
            else:
                kept.clear()  # training gets the memory back before the pass is over
            yield batch
        if len(kept) == len(self):
            self._kept, self._loader = kept, None
            logger.info("the %d batches of validation stay on the device", len(kept))


def free_memory(device: torch.device) -> int:
    """Return the bytes that nobody uses on a GPU: neither other programs, nor torch, by now."""
    return torch.cuda.mem_get_info(device)[0]
