"""Batches: which rows, in which order, and through which processes they come."""

import os
import signal
from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler, default_collate

from configs import Config
from dataset import Key, WaveformDataset


class EpochSampler(Sampler[list[Key]]):
    """Batches of (epoch, index) keys, in an order that (seed, epoch) alone decides.

    The epoch travels with each key, because an attribute set on the data set never reaches workers
    that persist (pytorch/pytorch issue 97326). Iteration starts at the batch that `set_position`
    named, so that a run stopped inside an epoch goes on there without loading what it has already
    seen.

    Args:
        n_items: length of the data set.
        batch_size: items in a batch; the last one may be smaller.
        seed: the run's seed.
        shuffle: a new order each epoch; otherwise rows in order.
        rank, world_size: of the processes that share each batch; this one's is every
        `world_size`-th key from
            `rank` on. In a small last batch it may have none.
    """

    def __init__(
        self,
        n_items: int,
        batch_size: int,
        *,
        seed: int,
        shuffle: bool,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.n_items, self.batch_size, self.seed, self.shuffle = n_items, batch_size, seed, shuffle
        self.share = slice(rank, None, world_size)
        self.epoch, self.first_batch = 0, 0

    def set_position(self, epoch: int, first_batch: int = 0) -> None:
        """Choose the epoch and its batch that the next iteration starts with."""
        self.epoch, self.first_batch = epoch, first_batch

    def __len__(self) -> int:
        """Return the batches of a whole epoch."""
        return -(-self.n_items // self.batch_size)

    def __iter__(self) -> Iterator[list[Key]]:
        order = self.order(self.epoch)
        for batch in range(self.first_batch, len(self)):
            yield [(self.epoch, int(index)) for index in self._of_batch(order, batch)[self.share]]

    def keys(self, batch: int) -> list[Key]:
        """List the keys of one batch of the current epoch, those of all processes."""
        return [(self.epoch, int(index)) for index in self._of_batch(self.order(self.epoch), batch)]

    def order(self, epoch: int) -> np.ndarray:
        """Return the rows in the order of an epoch, (n_items,) int64."""
        if not self.shuffle:
            return np.arange(self.n_items)
        return np.random.default_rng((self.seed, epoch)).permutation(self.n_items)

    def _of_batch(self, order: np.ndarray, batch: int) -> np.ndarray:
        return order[batch * self.batch_size : (batch + 1) * self.batch_size]


def leave_signals_to_the_main_process(worker: int) -> None:
    """Let a loader's worker go on when the whole process group is told to stop: the main process finishes its step."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(
        signal.SIGALRM, lambda *_: os._exit(0)
    )  # a death by signal would raise in the main process
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(10))  # seconds for that step


def collate(items: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Stack items; of no items, a process's share of a small batch, nothing comes.

    Where an image is one plane seen three times (stride 0), the batch has the plane alone, (B, 1,
    T, F): a third of the bytes to write, share between processes, pin and copy. `step.to_device`
    makes three channels of it.
    """
    if items and "waveforms" in items[0]:
        return collate_waveforms(items)
    if items and all("image" in item and item["image"].stride(0) == 0 for item in items):
        items = [{**item, "image": item["image"][:1]} for item in items]
    return default_collate(items) if items else {}


def collate_waveforms(items: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Put one item's birds after another's, for an image has one to three of them; stack the rest."""
    joined = ("waveforms", "bird_draws")
    stacked: dict[str, torch.Tensor] = default_collate(
        [{name: value for name, value in item.items() if name not in joined} for item in items]
    )
    birds = {name: torch.cat([item[name] for item in items]) for name in joined}
    return {**birds, **stacked, "n_birds": torch.tensor([len(item["waveforms"]) for item in items])}


def build_loader(
    dataset: WaveformDataset,
    config: Config,
    device: torch.device,
    *,
    rank: int = 0,
    world_size: int = 1,
) -> tuple[DataLoader, EpochSampler]:
    """Make the loader of a data set and the sampler that says which epoch and batch it starts with."""
    train = dataset.mode == "train"
    batch_size = config.train_bs if train else config.valid_bs
    sampler = EpochSampler(
        len(dataset), batch_size, seed=config.seed, shuffle=train, rank=rank, world_size=world_size
    )
    loader = DataLoader(
        dataset,
        batch_sampler=sampler,
        collate_fn=collate,
        worker_init_fn=leave_signals_to_the_main_process,
        num_workers=config.num_workers,
        persistent_workers=config.num_workers > 0,
        prefetch_factor=2
        if config.num_workers
        else None,  # batches a worker is ahead: one slow batch holds nothing up
        pin_memory=device.type
        == "cuda",  # so that the copy to the device can run beside the computation
        generator=torch.Generator(),  # its own, or each epoch would draw the workers' seed from torch's global one
    )
    return loader, sampler
