"""Freed memory stays with the process once that was asked for."""

import subprocess
import sys
from pathlib import Path

import pytest

from settings import allocator

ROOT = Path(__file__).resolve().parent.parent.parent

# Frees 128 MB and says how much of it the process still holds, before and after the call.
CODE = """
import sys
import numpy as np
from settings.allocator import keep_freed_memory

def resident_mb():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 2**20

def kept_mb():
    before = resident_mb()
    block = np.ones(2**24)
    del block
    return resident_mb() - before

first, is_set, second = kept_mb(), keep_freed_memory(), kept_mb()
print(first < 10, is_set, second > 100)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallopt is glibc's")
def test_freed_blocks_stay_with_the_process():
    answer = subprocess.run(
        [sys.executable, "-c", CODE], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert answer.stdout.split() == ["True", "True", "True"]


def test_elsewhere_nothing_is_set(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    assert allocator.keep_freed_memory.__wrapped__() is False
