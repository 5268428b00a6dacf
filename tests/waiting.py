"""Refuse whatever waits for a device: reading a number, copying to the CPU."""

import contextlib

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from training.readings import Reading

WAITS = {
    *("item", "tolist", "cpu", "numpy", "nonzero", "__bool__", "__float__", "__int__"),
    *("__index__", "unique", "masked_select"),
}
WAITING_OPERATIONS = ("_local_scalar_dense", "is_nonzero", "equal", "nonzero", "_unique2")


class WaitError(Exception):
    """A step asked a device for a number."""


class NoWaits(TorchFunctionMode):
    """Raises where a tensor's value is asked for, or a tensor copied to the CPU by waiting."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name = getattr(function, "__name__", "")
        if name in WAITS:
            raise WaitError(name)
        is_copy = name == "to" and any(one == "cpu" for one in args[1:])  # not "the own device"
        if is_copy and not (kwargs or {}).get("non_blocking"):
            raise WaitError("a copy to the CPU")
        return function(*args, **(kwargs or {}))


class NoReads(TorchDispatchMode):
    """Raises where an operation has to know a tensor's value."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if any(f"aten.{name}." in f"{func}." for name in WAITING_OPERATIONS):
            raise WaitError(str(func))
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def waiting_refused(monkeypatch):
    """Refuse all waits but those for the readings of earlier steps, which have arrived by then."""
    original = Reading.values

    def values(self):
        with torch._C.DisableTorchFunction(), torch.utils._python_dispatch._disable_current_modes():
            return original(self)

    monkeypatch.setattr(Reading, "values", values)
    with NoWaits(), NoReads():
        yield
