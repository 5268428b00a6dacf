"""`--train-bs auto`: the largest batch that a device has memory for, found once.

On CUDA real steps say so, with doubled and then halved sizes: the run's own images, model,
optimizer and average. A CPU has no such end, as it would rather swap, so there the rule is another:
a power of two, at most 32, whose activations fit in half of the memory that is free.

The learning rate stays what it is: which one fits a batch is not known by its size.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from configs import Config, UserError
from training import folder, processes
from training.batches import collate
from training.devices import pick_frontend
from training.fold import Fold
from training.mixed import Mixed

logger = logging.getLogger("birdclef.train")

FIRST_SIZE = 8  # clips that are tried first; found sizes are multiples of it, or smaller
FEWEST_STEPS = 8  # of an epoch, which a larger batch would take from the optimizer
MOST_ON_CPU = 32  # clips, from which on a CPU gains nothing
SHARE_ON_CPU = 0.5  # of the free memory
BACKWARD = 2  # times the bytes of the activations: gradients of them come to it

ForwardBackward = Callable[[Fold, Mixed], torch.Tensor]


class Training(NamedTuple):
    """What train.py does, of which a trial takes a step.

    Attributes:
        build: makes a fold, which is thrown away.
        forward_backward: adds the gradients of a batch.
        optimizer_step: steps.
    """

    build: Callable[[Config], Fold]
    forward_backward: ForwardBackward
    optimizer_step: Callable[[Fold], None]


def settle_batch_size(
    config: Config, device: torch.device, n_clips: int, training: Training
) -> Config:
    """Put a number in the place of `train_bs: auto`; other settings come back as they are.

    Args:
        config: settings of the run.
        device: that is trained on.
        n_clips: of an epoch, about.
        training: of train.py.

    Returns:
        Settings with the size of the experiment's earlier folds, or of those it goes on with, if
        there are any; else with the size that is found here.

    Raises:
        UserError: one clip alone does not fit.
    """
    if config.train_bs != "auto":
        return config

    size, why = processes.from_first(
        lambda: earlier_size(config) or find_size(config, device, n_clips, training)
    )
    if device.type == "cuda":
        torch.cuda.empty_cache()  # of what the trial has left
    logger.info("train_bs auto: %d clips, %s; lr stays %g, whatever the size", size, why, config.lr)
    return replace(config, train_bs=size)


def earlier_size(config: Config) -> tuple[int, str] | None:
    """Find the batch size that this experiment has been trained with, and where that stands."""
    if not config.resume:
        return None
    for settings in sorted(config.exp_dir.glob("*/config.yaml")):
        size = folder.newest_settings(settings.parent).get("train_bs")
        if isinstance(size, int):
            return size, f"as {settings.parent} has been trained with"
    return None


def find_size(
    config: Config, device: torch.device, n_clips: int, training: Training
) -> tuple[int, str]:
    """Find the size for this device; say by which rule (see the module)."""
    frontend = pick_frontend(config, device)
    trial = replace(config, train_bs=2, num_workers=0, frontend=frontend, find_lr=False)
    trial = replace(trial, train_dir=config.fold_dir(config.folds[0]), last_batch="keep")
    fold = training.build(trial)
    fold.parts.model.train()
    most = max(1, n_clips // FEWEST_STEPS)

    if not runs_out_of_memory(device):
        free = free_bytes()
        clip = activation_bytes(fold, training.forward_backward)
        size = size_for_memory(clip, free, most)
        told = f"{clip / 1e6:.0f} MB of activations each, {free / 1e9:.1f} GB are free"
        return size, f"a CPU's share: {told}"

    with _without_trials_of_convolutions():
        size = largest_that_fits(
            lambda n: _fits(fold, n, training),
            most // processes.world_size(),
        )
    return size * processes.world_size(), f"the most that fit on {device} and leave 8 steps"


def runs_out_of_memory(device: torch.device) -> bool:
    """Say whether a device refuses what it has no memory for, and goes on."""
    return device.type == "cuda"


# By trial -----------------------------------------------------------------------------------------


def largest_that_fits(fits: Callable[[int], bool], most: int) -> int:
    """Find the largest size up to `most` that fits, to FIRST_SIZE clips, by doubling and halving.

    Args:
        fits: tries a size; what fits, fits with fewer, too.
        most: not tried beyond; at least 1.

    Raises:
        UserError: not even 1 fits.
    """
    size = max(1, min(FIRST_SIZE, most))
    while not fits(size):
        if size == 1:
            raise UserError(
                "train_bs auto: one clip alone does not fit: take a smaller base_model_name, "
                "period or n_mels"
            )
        size //= 2
    if size < FIRST_SIZE:
        return size

    too_large = most + 1
    while size * 2 <= most:
        if not fits(size * 2):
            too_large = size * 2
            break
        size *= 2
    while too_large - size > FIRST_SIZE:
        middle = (size + too_large) // 2 // FIRST_SIZE * FIRST_SIZE
        middle = max(middle, size + FIRST_SIZE)
        if middle > most or not fits(middle):
            too_large = middle
        else:
            size = middle
    return size


def _fits(fold: Fold, size: int, training: Training) -> bool:
    """Take an optimizer step with a batch of real clips; say whether memory sufficed."""
    try:
        fold.group.losses = {}
        fold.start_group()
        fold.parts.optimizer.zero_grad(set_to_none=True)
        fold.statistics.remember()
        mixed = _real_batch(fold, size)
        # Mixed clips lie in memory beside those that they are made of.
        mixed = mixed._replace(images=mixed.images.clone(memory_format=torch.contiguous_format))
        fold.group.losses[0] = [(training.forward_backward(fold, mixed), size)]
        training.optimizer_step(fold)
        return True
    except torch.OutOfMemoryError:
        return False
    finally:
        fold.parts.optimizer.zero_grad(set_to_none=True)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _real_batch(fold: Fold, size: int) -> Mixed:
    """Make a batch of training clips; a few of them stand for as many as are wanted."""
    dataset = fold.train_set
    few = [dataset[1, number % len(dataset)] for number in range(min(size, FIRST_SIZE))]
    images, targets = fold.to_device(collate([few[number % len(few)] for number in range(size)]))
    return Mixed(images, targets, targets, 1.0)


def _without_trials_of_convolutions() -> Any:
    """Keep cuDNN from trying its algorithms for every size, which takes half a minute each."""
    return torch.backends.cudnn.flags(benchmark=False)


# By rule ------------------------------------------------------------------------------------------


def size_for_memory(clip_bytes: int, free: int, most: int) -> int:
    """Return a power of two, up to MOST_ON_CPU and `most`, whose step takes a share of memory."""
    size = 1
    while size * 2 <= min(most, MOST_ON_CPU):
        if size * 2 * clip_bytes * BACKWARD > free * SHARE_ON_CPU:
            break
        size *= 2
    return size


def activation_bytes(fold: Fold, forward_backward: ForwardBackward) -> int:
    """Count the bytes that a clip's forward pass keeps for the backward one."""
    kept: dict[int, int] = {}
    own = {parameter.untyped_storage().data_ptr() for parameter in fold.parts.model.parameters()}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    mixed = _real_batch(fold, 2)  # batch statistics need two
    fold.start_group()
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        forward_backward(fold, mixed)
    fold.parts.optimizer.zero_grad(set_to_none=True)
    return -(-sum(kept.values()) // len(mixed.images))


def free_bytes(root: Path = Path("/")) -> int:
    """Bytes of memory that are free here, or left of a container's limit; 8 GB where none says.

    Args:
        root: of the file system that holds proc and sys.
    """
    found = [*_free_of_machine(root / "proc/meminfo"), *_free_of_container(root / "sys/fs/cgroup")]
    return min(found, default=8 * 10**9)


def _free_of_machine(meminfo: Path) -> Iterator[int]:
    if not meminfo.exists():
        return
    for line in meminfo.read_text().splitlines():
        if line.startswith("MemAvailable:"):
            yield int(line.split()[1]) * 1024


def _free_of_container(group: Path) -> Iterator[int]:
    limit, used = group / "memory.max", group / "memory.current"
    if limit.exists() and used.exists() and limit.read_text().strip() != "max":
        yield max(0, int(limit.read_text()) - int(used.read_text()))
