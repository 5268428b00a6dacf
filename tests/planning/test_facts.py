"""planning/facts.py: sums of what was seen."""

import numpy as np
import pytest

from planning.archive import look_at_archive
from planning.facts import Pace, call_length, collect
from planning.machine import Machine
from tests.planning.made_up import facts

MACHINE = Machine(cores=3, memory_gb=8, device="cpu", device_name="", device_gb=0, disk_gb=50)


def test_an_archive_is_summed_up(planned):
    found = collect(look_at_archive(planned), MACHINE, planned, 1.5)
    assert found.n_recordings == 12 and found.hours == pytest.approx(33 / 3600)
    assert (found.n_species, found.least, found.median, found.most) == (3, 4, 4, 4)
    assert found.seconds == 3 and found.usual_rate == 32_000
    assert 1000 < found.low_hz < 1600 and 4400 < found.high_hz < 5500
    assert found.call_s == pytest.approx(0.3, abs=0.04)
    assert found.stereo_share == pytest.approx(1 / 12)
    assert found.cores == 3 and found.hours_wanted == 1.5 and found.pace is None


def test_short_calls_count_by_their_time():
    calls = np.array([0.02] * 40 + [1.0] * 9)  # 0.8 s of flicker, 9 s of song
    assert call_length(calls, 0.5) == 1.0
    assert call_length(calls, 0.05) == 0.02
    assert np.median(calls) == 0.02


def test_a_pace_is_added():
    pace = Pace(16, 10.0, 30.0)
    assert facts().with_pace(pace).pace == pace
