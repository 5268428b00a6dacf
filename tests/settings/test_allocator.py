"""Freed memory is kept, so that a step does not fault the same pages in again."""

import subprocess
import sys
from pathlib import Path

import pytest

from settings import allocator

ROOT = Path(allocator.__file__).resolve().parent.parent
COUNT_FAULTS = """
import resource, sys
import torch
from settings.allocator import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
def step():
    blocks = [torch.ones(10 * 2**20) for _ in range(3)]  # 40 MB each, above glibc's threshold
for _ in range(5):  # until the heap has found its shape
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(2):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(mode: str) -> int:
    """Pages that the kernel had to bring in during two steps, in a process of its own."""
    command = [sys.executable, "-c", COUNT_FAULTS, mode]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc is on Linux")
def test_blocks_that_are_freed_and_asked_for_again_cost_no_page_faults():
    assert faults("kept") < 100 < faults("as it is")


def test_where_there_is_no_glibc_nothing_is_set(monkeypatch):
    monkeypatch.setattr(allocator.sys, "platform", "darwin")
    assert allocator.keep_freed_memory.__wrapped__() is False
