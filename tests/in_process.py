"""Scripts as the shell would run them, in this process: importing torch takes seconds each time."""

import importlib
import sys
from pathlib import Path

import pytest

from configs import run_main


def run_here(folder: Path, script: str, *flags: object) -> int:
    """Run `python <script> <flags>` in a folder; return its exit status."""
    module = importlib.import_module(script.removesuffix(".py").replace("/", "."))
    with pytest.MonkeyPatch.context() as inside:
        inside.chdir(folder)
        inside.setattr(sys, "argv", [script, *map(str, flags)])
        with pytest.raises(SystemExit) as end:
            run_main(module.main)
    return int(end.value.code or 0)
