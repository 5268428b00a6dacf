"""Where an epoch's time goes: seconds by part, and what they say about the machine."""

import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Mapping

import torch

from configs import Config

WAITING, VALID_WAITING = "waiting for data", "validation: waiting for data"
REST = "everything else"
PARTS = (
    WAITING,
    "copy to the device",
    "forward",
    "backward",
    "optimizer step",
    VALID_WAITING,
    "validation: model",
    "metric",
    "checkpoint",
    REST,
)
DATA_LIMIT = 0.1  # fraction of the time spent waiting from which the data hold the model up


class Stopwatch:
    """Seconds spent in each part since the start; every moment belongs to exactly one of them.

    Parts may lie within parts: an inner one's time is not the outer one's as well, so that all of
    them add up to the clock. Reading the clock takes about a microsecond a part, so this runs
    whether someone looks at it or not.

    Args:
        wait: called before each look at the clock, to wait for a device that computes beside the
            program; without it a part holds what the program spent there, and a GPU's work shows up
            where the program waits for it.
    """

    def __init__(self, wait: Callable[[], object] | None = None) -> None:
        self.wait = wait
        self.restart()

    def restart(self) -> None:
        """Start from zero, outside of any named part."""
        self._seconds: dict[str, float] = dict.fromkeys(PARTS, 0.0)
        self._part, self._since = REST, time.perf_counter()

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the block as this part, one of PARTS."""
        outer = self._turn_to(name)
        try:
            yield
        finally:
            self._turn_to(outer)

    def seconds(self) -> dict[str, float]:
        """Seconds of every part until now, in the order of PARTS; they sum up to the clock."""
        self._turn_to(self._part)
        return dict(self._seconds)

    def _turn_to(self, name: str) -> str:
        if self.wait is not None:
            self.wait()
        now = time.perf_counter()
        self._seconds[self._part] += now - self._since
        before, self._part, self._since = self._part, name, now
        return before


def build_watch(config: Config, device: torch.device) -> Stopwatch:
    """Make a run's stopwatch; it waits for a GPU, which slows training, only for --profile."""
    is_waited_for = config.profile and device.type != "cpu"
    wait = functools.partial(torch.accelerator.synchronize, device) if is_waited_for else None
    return Stopwatch(wait)


def describe_parts(seconds: Mapping[str, float]) -> str:
    """Draw a table, a line a part, with its seconds and percentage; the last line is the sum."""
    whole = sum(seconds.values())
    rows = [*seconds.items(), ("sum", whole)]
    return "\n".join(
        f"{name:<28} {value:9.2f} s {100 * value / (whole or 1.0):6.1f} %" for name, value in rows
    )


def find_limit(seconds: Mapping[str, float], *, num_workers: int, on_cpu: bool) -> str:
    """Say whether the data or the model limits the machine, and what would change that.

    While the model has a batch ready whenever it is done with the one before, waiting is next to
    nothing, however much work the data are; a tenth of the time spent waiting says that they are
    not ready.

    Args:
        seconds: by part.
        num_workers: loader processes of the run.
        on_cpu: whether the model is trained on the processors that load the data.
    """
    waiting = (seconds[WAITING] + seconds[VALID_WAITING]) / (sum(seconds.values()) or 1.0)
    waited = f"{100 * waiting:.0f} % of the time waiting for data"
    if waiting < DATA_LIMIT:
        change = "a smaller base_model_name" + (
            ", compile_model" if on_cpu else ", amp, compile_model, a larger train_bs"
        )
        return f"the model limits this machine ({waited}); what would shorten an epoch: {change}"
    if num_workers == 0:
        change = "num_workers of 1 or more, so that data are made while the model computes"
    elif on_cpu:
        change = (
            f"another num_workers than {num_workers}; the model computes on the same processors"
        )
    else:
        change = (
            f"more num_workers than {num_workers} if there are processors left, or frontend=device"
        )
    return f"the data limit this machine ({waited}); what would shorten an epoch: {change}"
