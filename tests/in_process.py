"""Scripts as the shell would run them, in this process: importing torch takes seconds each time."""

import contextlib
import importlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from configs import run_main


def run_here(folder: Path, script: str, *flags: object) -> int:
    """Run `python <script> <flags>` in a folder; return its exit status."""
    module = importlib.import_module(script.removesuffix(".py").replace("/", "."))
    with _own_threads(), pytest.MonkeyPatch.context() as inside:
        inside.chdir(folder)
        inside.setattr(sys, "argv", [script, *map(str, flags)])
        # A console handler keeps the stderr of its test, which is closed when the next one logs.
        inside.setattr(logging.getLogger("birdclef"), "handlers", [])
        with pytest.raises(SystemExit) as end:
            run_main(module.main)
    return int(end.value.code or 0)


@contextlib.contextmanager
def _own_threads() -> Iterator[None]:
    """Undo what a script's libraries do to torch's number of threads: sums depend on it."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
