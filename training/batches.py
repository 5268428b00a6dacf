"""Batches: which rows, in which order, and which processes load them."""

import functools
import logging
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler
from tqdm import tqdm

from configs import Config, UserError
from dataset import Key, WaveformDataset
from training import processes
from training.kept import KeptBatches
from training.slots import ALIGNED_TO, SlotLoader, Slots, Stored, join
from training.stopwatch import Stopwatch

logger = logging.getLogger("birdclef.train")

Last = Literal["keep", "fill", "drop"]
Loader = DataLoader | KeptBatches
SHARED_MEMORY = Path("/dev/shm")
PREFETCHED = 2  # batches that a worker is ahead, so that one slow batch holds nothing up
SECONDS_TO_FINISH_A_STEP = 10  # that workers give the main process after SIGTERM
BIRDS = {"waveforms", "bird_draws"}  # of which an item has one to three


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


def collate(items: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
    """Stack items into a batch.

    An empty list gives an empty dict (a process without a share of the last batch).

    Where an image is one plane seen three times (stride 0), the batch has the plane alone, (B, 1,
    T, F): a third of the bytes to write, share between processes, pin and copy. `Fold.to_device`
    makes three channels of it. Waveforms of one item come after another's, as an image has one to
    three; `n_birds` (B,) says how many.
    """
    return join(pieces_of(items))


def collate_into(
    slots: Slots, items: Sequence[Mapping[str, Any]]
) -> Stored | dict[str, torch.Tensor]:
    """Stack items into a batch in a worker's next slot."""
    return slots.write(pieces_of(items))


def pieces_of(items: Sequence[Mapping[str, Any]]) -> dict[str, list[np.ndarray]]:
    """List what lies one after another in a batch of items, by name."""
    if not items:
        return {}

    stacked = [name for name in items[0] if name not in BIRDS]
    found = {name: [np.asarray(item[name])[None] for item in items] for name in stacked}
    if "image" in found and all(item["image"].stride(0) == 0 for item in items):
        found["image"] = [image[:, :1] for image in found["image"]]
    if "waveforms" in items[0]:
        found["waveforms"] = [
            np.asarray(waveform)[None] for item in items for waveform in item["waveforms"]
        ]
        found["bird_draws"] = [np.asarray(item["bird_draws"]) for item in items]
        found["n_birds"] = [np.array([len(item["waveforms"])]) for item in items]
    return found


def build_loader(
    dataset: WaveformDataset,
    config: Config,
    device: torch.device,
    *,
    rank: int = 0,
    world_size: int = 1,
) -> tuple[Loader, EpochSampler]:
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
    num_workers, slots = settle_workers(dataset, config, device, sampler.batch_size)
    settings: dict[str, Any] = {
        "batch_sampler": sampler,
        "collate_fn": collate,
        "worker_init_fn": leave_signals_to_the_main_process,
        "num_workers": num_workers,
        "persistent_workers": num_workers > 0,
        "prefetch_factor": PREFETCHED if num_workers else None,
        # So that the copy to the device can run beside the computation
        "pin_memory": device.type == "cuda",
        # Its own, or each epoch would draw the workers' seed from torch's global one
        "generator": torch.Generator(),
    }
    if slots is None:
        loader = DataLoader(dataset, **settings)
    else:
        settings["collate_fn"] = functools.partial(collate_into, slots)
        loader = SlotLoader(dataset, slots=slots, device=device, **settings)
    if device.type == "cuda" and not is_train:
        return KeptBatches(loader, device), sampler
    return loader, sampler


def settle_workers(
    dataset: WaveformDataset, config: Config, device: torch.device, batch_size: int
) -> tuple[int, Slots | None]:
    """Choose how many processes load batches, and where a GPU copies from make their memory.

    Raises:
        UserError: there is no room for it.
    """
    if not config.num_workers or not len(dataset):
        return config.num_workers, None

    item = dataset[1, 0]  # loads code and tables, which the forked workers then find there
    batch_bytes = batch_size * item_bytes(item, config.max_mixed_birds)
    n_batches = PREFETCHED + (2 if device.type == "cuda" else 1)
    num_workers = workers_that_fit(config.num_workers, batch_bytes, n_batches=n_batches)
    if not num_workers or device.type != "cuda":
        return num_workers, None
    try:
        return num_workers, Slots(num_workers, n_batches, batch_bytes)
    except RuntimeError as error:
        raise no_shared_memory() from error


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


def item_bytes(item: Mapping[str, torch.Tensor], max_birds: int) -> int:
    """Bytes of a batch that an item like this one takes, at most.

    Args:
        item: of a data set.
        max_birds: waveforms that an item may have.
    """
    pieces = pieces_of([item])
    n_birds = len(pieces.get("waveforms", []))
    sizes = {name: sum(part.nbytes for part in parts) for name, parts in pieces.items()}
    sizes |= {name: sizes[name] * max_birds // n_birds for name in BIRDS & sizes.keys()}
    return sum(sizes.values()) + ALIGNED_TO * len(sizes)


def workers_that_fit(
    num_workers: int,
    batch_bytes: int,
    shared_memory: Path = SHARED_MEMORY,
    *,
    n_batches: int = PREFETCHED + 1,
) -> int:
    """Lower the number of workers to what shared memory has room for, with a warning.

    Workers hand batches over in shared memory; a container often has little of it.

    Args:
        num_workers: wanted.
        batch_bytes: of one batch.
        shared_memory: where it is mounted; where nothing is, the system has no such limit.
        n_batches: of each worker that lie there at a time.
    """
    if not shared_memory.is_dir():
        return num_workers

    free = shutil.disk_usage(shared_memory).free
    fit = int(free // (n_batches * batch_bytes))
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
    loader: Loader,
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
    raise no_shared_memory()


def no_shared_memory() -> UserError:
    """Say what to do where shared memory is used up."""
    return UserError(
        f"{SHARED_MEMORY} has no shared memory left for the loader's batches; start the container "
        "with a larger --shm-size, or set --num-workers 0"
    )
