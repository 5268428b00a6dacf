"""Several processes that train one model, as `torchrun --nproc_per_node=N train.py` starts them.

Every process takes its share of each batch. What they add up is exact: losses and gradients are
summed, weighed by clips, and batch statistics are those of the whole batch, so a batch means the
same for any number of processes. Outside torchrun there is one process, and every function here
returns what it was given.
"""

import contextlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from configs import UserError

T = TypeVar("T")
# gloo says so in a plain RuntimeError; NCCL has an error of its own.
LOST_CONNECTION = "Connection closed by peer"
# What the first process does alone, as measuring features of an archive, may take longer than the
# 10 or 30 minutes that torch waits. Of a process that has died the others hear at once.
PATIENCE = timedelta(hours=24)


def rank() -> int:
    """Return this process's number, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_first() -> bool:
    """Say whether this is the process that writes and logs."""
    return rank() == 0


def is_first_of_torchrun() -> bool:
    """Say the same before the processes have joined and after they have parted."""
    return os.environ.get("RANK", "0") == "0"


def is_restart() -> bool:
    """Say whether torchrun started the processes again after one of them had died."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def local_device(name: str) -> str:
    """Choose the device of this process: under torchrun each has a CUDA device of its own."""
    is_one_of_several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if is_one_of_several and (name == "cuda" or (name == "auto" and torch.cuda.is_available())):
        return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    return name


@contextlib.contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """Join the other processes of torchrun for the block: by NCCL on CUDA, by gloo elsewhere.

    All but the first process log errors alone.

    Raises:
        UserError: another process is gone, which says itself why.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    store, rank_here, n_processes = next(dist.rendezvous("env://"))
    # After a restart torchrun's store still holds where the processes before it listened; they
    # would be called.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        store=dist.PrefixStore(f"attempt_{attempt}", store),
        rank=rank_here,
        world_size=n_processes,
        timeout=PATIENCE,
    )
    logger = logging.getLogger("birdclef")
    level = logger.level
    if not is_first():
        logger.setLevel(logging.ERROR)
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or LOST_CONNECTION in str(error):
            raise UserError(
                "another of the processes has ended; its message, near this one, says why"
            ) from error
        raise
    finally:
        logger.setLevel(level)
        dist.destroy_process_group()


# What the processes tell each other ---------------------------------------------------------------


def from_first(make: Callable[[], T]) -> T:
    """Call a function in the first process alone and return its result in all of them.

    Raises:
        UserError: in all of them, where the function raised one or an OSError.
    """
    if world_size() == 1:
        return make()

    box: list[Any] = [None, None]
    if is_first():
        try:
            box[0] = make()
        except (UserError, OSError) as error:
            box[1] = str(error)
    dist.broadcast_object_list(box)
    if box[1] is not None:
        raise UserError(box[1])
    return box[0]


def total(*values: float) -> list[float]:
    """Sum each number over all processes, in float64."""
    if world_size() == 1:
        return list(values)
    sums = torch.tensor(values, dtype=torch.float64, device=_device())
    dist.all_reduce(sums)
    return sums.tolist()


def sum_tensor(tensor: Tensor) -> Tensor:
    """Sum a tensor over all processes, in place on its device; the program does not wait for it."""
    if world_size() > 1:
        dist.all_reduce(tensor)
    return tensor


def gather(value: T) -> list[T]:
    """Collect a value from each process, in the order of their numbers, in all of them."""
    if world_size() == 1:
        return [value]

    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def gather_rows(rows: list[int], *arrays: list[np.ndarray]) -> list[np.ndarray]:
    """Join what all processes made of their rows, in the order of the rows, in all of them.

    Args:
        rows: row numbers of this process, each in one process alone.
        arrays: lists of arrays whose first axes together are those rows.
    """
    shares = [share for share in gather((rows, arrays)) if share[0]]
    order = np.argsort(np.concatenate([share_rows for share_rows, _ in shares]))

    joined = []
    for number in range(len(arrays)):
        parts = [part for _, share_arrays in shares for part in share_arrays[number]]
        joined.append(np.concatenate(parts)[order])
    return joined


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace each gradient by its sum over all processes, in one exchange a dtype.

    A sum, not torch's DistributedDataParallel, which takes the mean: shares of a batch differ in
    size, and one may be empty, so each loss is weighed by its clips beforehand. The exchange comes
    once an optimizer step.
    """
    if world_size() == 1:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    for dtype in dict.fromkeys(gradient.dtype for gradient in gradients):
        alike = [gradient for gradient in gradients if gradient.dtype == dtype]
        flat = torch.cat([gradient.reshape(-1) for gradient in alike])
        dist.all_reduce(flat)
        for gradient, summed in zip(
            alike, flat.split([gradient.numel() for gradient in alike]), strict=True
        ):
            gradient.copy_(summed.view_as(gradient))


def _device() -> torch.device:
    return (
        torch.device("cuda", torch.cuda.current_device())
        if dist.get_backend() == "nccl"
        else torch.device("cpu")
    )


# Batch statistics over all processes --------------------------------------------------------------


class _Sum(torch.autograd.Function):
    """Sum a tensor over all processes; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        tensor = tensor.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(tensor)
        return tensor

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _Sum.apply(gradient)


class SyncBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalisation by the statistics of all processes' clips together, on any device.

    torch's own needs CUDA; this one is what the tests run. Same parameters, buffers and running
    statistics as the layer it stands for, timm's with an activation included.

    Args:
        norm: the layer that it takes the place of, with parameters and buffers.
    """

    def __init__(self, norm: nn.modules.batchnorm._BatchNorm) -> None:
        super().__init__(
            norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats
        )
        self.weight, self.bias = norm.weight, norm.bias
        self.running_mean, self.running_var = norm.running_mean, norm.running_var
        self.num_batches_tracked = norm.num_batches_tracked
        self.after = [getattr(norm, name) for name in ("drop", "act") if hasattr(norm, name)]
        self.train(norm.training)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, C, ...) over all but the channels; B may be 0 in some of the processes."""
        x = self._normalize(x) if self.training else self._by_running_statistics(x)
        for layer in self.after:
            x = layer(x)
        return x

    def _by_running_statistics(self, x: Tensor) -> Tensor:
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
        )

    def _normalize(self, x: Tensor) -> Tensor:
        channels = (1, -1) + (1,) * (x.dim() - 2)
        others = [0, *range(2, x.dim())]
        values = x.float()
        count = x.numel() / x.shape[1] if len(x) else 0.0
        sums = _Sum.apply(torch.cat([values.sum(others), values.new_tensor([count])]))  # (C + 1,)
        mean, n = sums[:-1] / sums[-1], sums[-1].detach()
        centred = values - mean.view(channels)
        variance = (
            _Sum.apply(centred.square().sum(others)) / n
        )  # around the mean of all, or float32 would cancel
        self._track(mean.detach(), variance.detach(), n)
        scale = (variance + self.eps).rsqrt() * self.weight  # (C,)
        return (centred * scale.view(channels) + self.bias.view(channels)).to(x.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, n: Tensor) -> None:
        assert (
            self.num_batches_tracked is not None
            and self.running_mean is not None
            and self.running_var is not None
        )
        self.num_batches_tracked += 1
        momentum = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(
            variance * (n / (n - 1).clamp(min=1)), momentum
        )  # without bias, as torch does


def synchronize_batch_norm(model: nn.Module) -> nn.Module:
    """Let each batch normalisation see the clips of all processes, if there are several."""
    if world_size() == 1:
        return model
    for name, layer in list(model.named_modules()):
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            model.set_submodule(name, SyncBatchNorm(layer))
    return model
