"""Where windows start, and which of them hold a signal."""

import numpy as np
import pytest
import soxr
from hypothesis import given
from hypothesis import strategies as st

from audio.windows import has_signal, window_starts


def starts(n_total: int, n_samples: int, stride: int) -> list[int]:
    return list(window_starts(n_total.__gt__, n_samples, stride))


@pytest.mark.parametrize(
    ("n_total", "wanted"),
    [
        (0, []),
        (1, [0]),  # a recording has a window, however short it is
        (1000, [0]),
        (1099, [0]),  # 99 samples more are less than a tenth
        (1100, [0, 1000]),
        (3010, [0, 1000, 2000]),
        (3100, [0, 1000, 2000, 3000]),
    ],
)
def test_a_rest_below_a_tenth_of_a_window_makes_none(n_total, wanted):
    assert starts(n_total, 1000, 1000) == wanted


def test_overlapping_windows_and_ones_with_gaps_follow_the_same_rule():
    assert starts(2099, 1000, 500) == [0, 500, 1000]  # 99 samples are in no window yet
    assert starts(2100, 1000, 500) == [0, 500, 1000, 1500]
    assert starts(3099, 1000, 1500) == [0, 1500]  # of the third, 99 samples are there
    assert starts(3100, 1000, 1500) == [0, 1500, 3000]


@given(st.integers(0, 300), st.integers(1, 40), st.integers(1, 60))
def test_what_no_window_reaches_is_less_than_a_tenth(n_total, n_samples, stride):
    found = starts(n_total, n_samples, stride)
    assert found == [number * stride for number in range(len(found))]
    assert bool(found) == (n_total > 0)
    for number, start in enumerate(found[1:], 1):  # each adds a tenth or more
        reached = max(start, found[number - 1] + n_samples)
        assert 10 * (n_total - reached) >= n_samples
    if found:  # and one more would not
        after = max(found[-1] + stride, found[-1] + n_samples)
        assert n_total - after < n_samples / 10


@pytest.mark.parametrize("level", [0.0, 0.25, -1.0])
def test_zeros_and_constants_hold_no_signal(level):
    assert not has_signal(np.full(8000, level, np.float32), 8000)
    assert not has_signal(np.full(1, level, np.float32), 8000)


def test_the_ringing_of_a_resampler_at_the_ends_is_no_signal():
    dead = soxr.resample(np.full(24_000, 0.25, np.float32), 48_000, 32_000)
    assert np.ptp(dead) > 0.001 and not has_signal(dead, 32_000)


def test_a_step_of_16_bits_and_a_click_are_signals():
    clip = np.zeros(8000, np.float32)
    clip[4000] = 2**-16
    assert not has_signal(clip, 8000)
    clip[4000] = 2**-15
    assert has_signal(clip, 8000)
    assert has_signal(np.array([0, 0.1], np.float32), 8000)  # too short to have ends
