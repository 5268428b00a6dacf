"""A GPU that is not there: tensors with a device, shapes and no values.

torch's fake tensors refuse what meets a tensor of another device, and what asks for a value: on a
GPU the first is an error and the second a wait. Kernels, their numbers and backward passes need a
real one.
"""

import contextlib
from collections.abc import Callable, Iterator

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

CUDA = torch.device("cuda")


class Event:
    """Of a stream, which nothing runs on."""

    def record(self, *args: object) -> None:
        """Do nothing."""


def move(module: torch.nn.Module, change: Callable, recurse: bool = True) -> torch.nn.Module:
    """As torch.nn.Module._apply, which cannot exchange the data of fake tensors."""
    for child in module.children():
        child._apply(change)
    for name, parameter in module._parameters.items():
        if parameter is not None:
            moved = torch.nn.Parameter(change(parameter.detach()), parameter.requires_grad)
            module._parameters[name] = moved
    for name, buffer in module._buffers.items():
        if buffer is not None:
            module._buffers[name] = change(buffer)
    return module


def copied(tensor: FakeTensor, memo: dict[int, object]) -> torch.Tensor:
    """As torch.Tensor.__deepcopy__, which looks for values that a fake tensor has not."""
    copy = tensor.detach().clone()
    if isinstance(tensor, torch.nn.Parameter):
        copy = torch.nn.Parameter(copy, tensor.requires_grad)
    memo[id(tensor)] = copy
    return copy


@contextlib.contextmanager
def pretended_cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let "cuda" name a device within the block."""
    cuda, generator = torch.cuda, torch.Generator
    monkeypatch.setattr(torch.nn.Module, "_apply", move)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    monkeypatch.setattr(torch, "Generator", lambda device=None: generator())
    monkeypatch.setattr(cuda, "Event", Event)
    monkeypatch.setattr(cuda, "is_bf16_supported", lambda *args, **kwargs: True)
    monkeypatch.setattr(cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(FakeTensor, "__deepcopy__", copied, raising=False)
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield
