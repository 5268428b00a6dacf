"""Scripts as the shell would run them, in this process: importing torch takes seconds each time."""

import importlib
import logging
import sys
from pathlib import Path

import pytest

from configs import run_main
from tests.threads import reset_threads


def run_here(folder: Path, script: str, *flags: object) -> int:
    """Run `python <script> <flags>` in a folder; return its exit status."""
    module = importlib.import_module(script.removesuffix(".py").replace("/", "."))
    reset_threads()
    with pytest.MonkeyPatch.context() as inside:
        inside.chdir(folder)
        inside.setattr(sys, "argv", [script, *map(str, flags)])
        # A console handler keeps the stderr of its test, which is closed when the next one logs.
        inside.setattr(logging.getLogger("birdclef"), "handlers", [])
        with pytest.raises(SystemExit) as end:
            run_main(module.main)
    reset_threads()
    return int(end.value.code or 0)
