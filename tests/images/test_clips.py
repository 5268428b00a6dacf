"""Where clips are cut, what lies under them, and how two are mixed: values worked by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from images import clips


def with_burst(start: int, stop: int, n: int = 40_000) -> np.ndarray:
    recording = 0.01 * np.sin(np.arange(n) * 0.7).astype(np.float32)
    recording[start:stop] *= 50
    return recording


def test_a_clip_has_a_signal_if_any_two_samples_differ():
    assert not clips.has_signal(np.zeros(5_000, np.int16))
    assert not clips.has_signal(np.full(5_000, 0.3, np.float32))
    late = np.zeros(5_000, np.float32)
    late[4_999] = 1e-30
    assert clips.has_signal(late) and clips.has_signal(np.arange(3))
    assert not clips.has_signal(np.ones(1))


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(20, 300),
    where=st.integers(0, 299),
    n_samples=st.integers(2, 19),
    seed=st.integers(0, 1000),
)
def test_a_start_with_signal_leads_to_a_clip_that_has_one(n, where, n_samples, seed):
    recording = np.zeros(n, np.int16)
    recording[where % n] = 7
    start = clips.start_with_signal(recording, n_samples, np.random.default_rng(seed))
    assert start is not None and 0 <= start <= n - n_samples
    assert clips.has_signal(recording[start : start + n_samples])


def test_a_recording_without_a_signal_has_no_such_start(rng):
    assert clips.start_with_signal(np.full(500, 3, np.int16), 100, rng) is None


def test_the_loudest_clip_holds_the_burst(rng):
    recording = with_burst(21_000, 24_000)
    start = clips.choose_start(recording, 8_000, "loudest", rng)
    assert start is not None and start <= 21_000 and start + 8_000 >= 24_000
    energies = [float(np.sum(recording[k : k + 8_000] ** 2)) for k in range(0, 32_000, 512)]
    assert np.sum(recording[start : start + 8_000] ** 2) >= 0.999 * max(energies)
    as_int16 = np.round(recording * 32767).astype(np.int16)
    assert clips.choose_start(as_int16, 8_000, "loudest", rng) == start


def test_active_clips_are_where_much_happens_and_not_always_the_same(rng):
    recording = with_burst(21_000, 24_000)
    starts = {clips.choose_start(recording, 8_000, "active", rng) for _ in range(200)}
    assert len(starts) > 100
    # Each touches the burst, to a frame.
    assert all(13_000 <= start < 24_000 + clips.FRAME for start in starts)
    assert clips.choose_start(with_burst(0, 0), 8_000, "active", rng) is None  # nothing stands out


@pytest.mark.parametrize("position", ["random", "loudest", "active"])
def test_a_recording_of_a_clip_or_less_leaves_no_choice(position, rng):
    assert clips.choose_start(with_burst(0, 900, n=8_000), 8_000, position, rng) is None


def test_a_background_is_a_rolled_part_of_it(rng):
    background = np.arange(1_000, dtype=np.float32)
    clip = clips.cut_background(background, 300, rng)
    steps = np.diff(clip)
    assert sorted(set(steps)) == [-299.0, 1.0] and (steps == -299).sum() == 1
    short = clips.cut_background(np.arange(4, dtype=np.int16), 10, rng)
    assert sorted(short.tolist()) == [0, 0, 0, 1, 1, 1, 2, 2, 3, 3] and short.dtype == np.int16


@pytest.mark.parametrize("snr_db", [-5.0, 0.0, 15.0])
def test_what_is_added_lies_at_the_snr(snr_db, rng):
    waveform, other = (rng.standard_normal(20_000).astype(np.float32) for _ in range(2))
    before = waveform.copy()
    added = clips.add_at_snr(waveform, 3 * other, snr_db) - waveform
    measured = 10 * np.log10(np.mean(waveform**2) / np.mean(added**2))
    assert measured == pytest.approx(snr_db, abs=1e-3)
    np.testing.assert_array_equal(waveform, before)
    np.testing.assert_array_equal(clips.add_at_snr(waveform, 0 * other, snr_db), waveform)
    assert not clips.add_at_snr(0 * waveform, other, snr_db).any()


def test_blend_by_hand():
    one, other = np.float32([1.0, -1.0]), np.float32([0.0, 1.0])
    mixed = clips.blend(one, other, 0.75)
    assert mixed.tolist() == [0.75, -0.5] and mixed.dtype == np.float32
