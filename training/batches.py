"""Batches: which rows, in which order, and which processes load them."""

import logging
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler, default_collate
from tqdm import tqdm

from configs import Config, UserError
from dataset import Key, WaveformDataset
from training import processes
from training.stopwatch import Stopwatch

logger = logging.getLogger("birdclef.train")

Last = Literal["keep", "fill", "drop"]
SHARED_MEMORY = Path("/dev/shm")
PREFETCHED = 2  # batches that a worker is ahead, so that one slow batch holds nothing up
FLOAT32_BYTES = 4
SECONDS_TO_FINISH_A_STEP = 10  # that workers give the main process after SIGTERM


class EpochSampler(Sampler[list[Key]]):
    """Batches of (epoch, index) keys, in an order that (seed, epoch) alone decides.

    The epoch travels with each key, because an attribute set on the data set never reaches workers
    that persist (pytorch/pytorch issue 97326). Iteration starts at the batch that `set_position`
    named, so that a run stopped inside an epoch goes on there without loading what it has already
    seen.

    Args:
        n_items: length of the data set.
        batch_size: items in a batch.
        seed: the run's seed.
        shuffle: a new order each epoch; otherwise rows in order.
        rank, world_size: of the processes that share each batch; this one takes every
            `world_size`-th key from `rank` on. In a small last batch it may have none.
        last: what becomes of a last batch that is too small. "keep" leaves it so, "fill" adds the
            first items of the epoch's order, "drop" leaves it out.
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
        last: Last = "keep",
    ) -> None:
        self.batch_size, self.seed, self.shuffle = batch_size, seed, shuffle
        self.n_rows, self.n_items = n_items, n_items  # of the data set; and of an epoch
        if last == "fill":
            self.n_items = -(-n_items // batch_size) * batch_size
        elif last == "drop":
            self.n_items = n_items // batch_size * batch_size
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

    def rows(self) -> list[int]:
        """List the rows of all batches from the position on, those of this process."""
        return [row for keys in self for _, row in keys]

    def keys(self, batch: int) -> list[Key]:
        """List the keys of one batch of the current epoch, those of all processes."""
        return [(self.epoch, int(index)) for index in self._of_batch(self.order(self.epoch), batch)]

    def order(self, epoch: int) -> np.ndarray:
        """Return the rows in the order of an epoch, (n_items,) int64.

        To fill the last batch they begin again; rows behind the last whole batch may be dropped.
        """
        rows = np.arange(self.n_rows)
        if self.shuffle:
            rows = np.random.default_rng((self.seed, epoch)).permutation(self.n_rows)
        return np.resize(rows, self.n_items)

    def _of_batch(self, order: np.ndarray, batch: int) -> np.ndarray:
        return order[batch * self.batch_size : (batch + 1) * self.batch_size]


def leave_signals_to_the_main_process(worker: int) -> None:
    """Let a loader's worker go on when the process group is told to stop.

    The main process still finishes its step.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A death by signal would raise in the main process.
    signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(SECONDS_TO_FINISH_A_STEP))


def collate(items: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Stack items into a batch.

    An empty list gives an empty dict (a process without a share of the last batch).

    Where an image is one plane seen three times (stride 0), the batch has the plane alone, (B, 1,
    T, F): a third of the bytes to write, share between processes, pin and copy. `Fold.to_device`
    makes three channels of it.
    """
    if not items:
        return {}

    if "waveforms" in items[0]:
        return collate_waveforms(items)

    if all("image" in item and item["image"].stride(0) == 0 for item in items):
        items = [{**item, "image": item["image"][:1]} for item in items]
    return default_collate(items)


def collate_waveforms(items: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Put one item's birds after another's, as an image has one to three; stack the rest."""
    joined = ("waveforms", "bird_draws")
    birds = {name: torch.cat([item[name] for item in items]) for name in joined}
    n_birds = torch.tensor([len(item["waveforms"]) for item in items])

    rest = [{name: item[name] for name in item if name not in joined} for item in items]
    return {**birds, **default_collate(rest), "n_birds": n_birds}


def build_loader(
    dataset: WaveformDataset,
    config: Config,
    device: torch.device,
    *,
    rank: int = 0,
    world_size: int = 1,
) -> tuple[DataLoader, EpochSampler]:
    """Make a data set's loader and the sampler that says which epoch and batch it starts with.

    Raises:
        UserError: every batch would be dropped.
    """
    is_train = dataset.mode == "train"
    sampler = EpochSampler(
        len(dataset),
        config.batch_size if is_train else config.valid_bs,
        seed=config.seed,
        shuffle=is_train,
        rank=rank,
        world_size=world_size,
        last=pick_last_batch(config, device) if is_train else "keep",
    )
    if is_train and not len(sampler):
        raise UserError(
            f"last_batch=drop: {len(dataset)} clips are less than a batch of {config.train_bs}, "
            "so nothing would be trained on; take last_batch=fill or a smaller train_bs"
        )
    batch_bytes = sampler.batch_size * item_bytes(dataset, config)
    num_workers = workers_that_fit(config.num_workers, batch_bytes)
    if num_workers and len(dataset):
        _ = dataset[1, 0]  # loads code and tables, which the forked workers then find there
    loader = DataLoader(
        dataset,
        batch_sampler=sampler,
        collate_fn=collate,
        worker_init_fn=leave_signals_to_the_main_process,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        prefetch_factor=PREFETCHED if num_workers else None,
        # So that the copy to the device can run beside the computation
        pin_memory=device.type == "cuda",
        # Its own, or each epoch would draw the workers' seed from torch's global one
        generator=torch.Generator(),
    )
    return loader, sampler


def pick_last_batch(config: Config, device: torch.device) -> Last:
    """Choose what becomes of an epoch's last, smaller batch.

    CUDA tries its algorithms, captures and compiles for each shape anew, so "auto" has one shape
    there.
    """
    if config.last_batch != "auto":
        return config.last_batch
    return "fill" if device.type == "cuda" else "keep"


def fill_batch(images: torch.Tensor, n_clips: int) -> torch.Tensor:
    """Repeat the last of images (B, ...) until there are `n_clips`; as many or more stay."""
    missing = n_clips - len(images)
    if missing <= 0 or not len(images):
        return images
    return torch.cat([images, images[-1:].expand(missing, *images.shape[1:])])


def item_bytes(dataset: WaveformDataset, config: Config) -> int:
    """Bytes that a worker hands over for an item, at most."""
    if dataset.mode == "train" and config.frontend == "device":
        return FLOAT32_BYTES * config.max_mixed_birds * config.n_samples
    return FLOAT32_BYTES * (config.image_frames * config.image_bands + len(dataset.class_names))


def workers_that_fit(
    num_workers: int, batch_bytes: int, shared_memory: Path = SHARED_MEMORY
) -> int:
    """Lower the number of workers to what shared memory has room for, with a warning.

    Workers hand batches over in shared memory; a container often has little of it.

    Args:
        num_workers: wanted.
        batch_bytes: of one batch.
        shared_memory: where it is mounted; where nothing is, the system has no such limit.
    """
    if num_workers == 0 or not shared_memory.is_dir():
        return num_workers

    free = shutil.disk_usage(shared_memory).free
    fit = int(free // ((PREFETCHED + 1) * batch_bytes))
    if fit >= num_workers:
        return num_workers

    logger.warning(
        "%s has %.1f MB of shared memory left, room for %d of %d loader processes (a batch takes "
        "%.1f MB); %d are used. Start the container with a larger --shm-size, or set "
        "--num-workers %d",
        shared_memory,
        free / 1e6,
        fit,
        num_workers,
        batch_bytes / 1e6,
        fit,
        fit,
    )
    return fit


def batches_in_turn(
    loader: DataLoader,
    watch: Stopwatch,
    part: str,
    *,
    what: str,
    done: int = 0,
    status: Callable[[], str] = str,
) -> Iterator[dict[str, torch.Tensor]]:
    """Yield the batches after those that are done; time spent waiting counts as `part`.

    A bar shows how far it is, with what `status` says before each batch. It vanishes at the end,
    and is not there when output is not a terminal.
    """
    bar = tqdm(
        loader,
        desc=what,
        initial=done,
        total=len(loader),
        leave=False,
        disable=None if processes.is_first() else True,  # None: shown on a terminal
        unit="batch",
    )
    batches = iter(bar)
    while True:
        if not bar.disable:
            bar.set_postfix_str(status(), refresh=False)
        with watch.part(part):
            batch = _next_batch(batches)
        if batch is None:
            return
        yield batch


def _next_batch(batches: Iterator[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor] | None:
    try:
        return next(batches, None)
    except RuntimeError as error:
        if "shared memory" not in str(error):
            raise
    raise UserError(
        f"{SHARED_MEMORY} has no shared memory left for the loader's batches; start the container "
        "with a larger --shm-size, or set --num-workers 0"
    )
