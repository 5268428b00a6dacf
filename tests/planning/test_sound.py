"""planning/sound.py on tones whose place, length and level are known."""

import numpy as np
import pytest

from planning import sound
from planning.sound import measure

RATE = 32_000


def beeps(hertz: float, length_s: float, every_s: float, seconds: float = 6.0) -> np.ndarray:
    """Tones over faint noise."""
    time = np.arange(round(seconds * RATE)) / RATE
    sings = (time % every_s) < length_s
    noise = 1e-3 * np.random.default_rng(1).standard_normal(len(time))
    return (0.5 * np.sin(2 * np.pi * hertz * time) * sings + noise).astype(np.float32)


@pytest.mark.parametrize("hertz", [1500, 4000, 9000])
@pytest.mark.parametrize("length_s", [0.1, 0.4])
def test_a_tone_is_found_where_it_is_and_as_long_as_it_is(hertz, length_s):
    found = measure(beeps(hertz, length_s, 1.0), RATE, "robin")
    assert found.label == "robin" and found.seconds == 6.0
    assert found.low_hz <= hertz <= found.high_hz
    assert found.high_hz - found.low_hz < 800  # 99 % of the energy, with the edges of the beeps
    assert len(found.calls_s) == 5  # the first begins before the recording
    np.testing.assert_allclose(found.calls_s, length_s, atol=0.04)  # a frame is 32 ms long
    assert found.active_share == pytest.approx(length_s, abs=0.05)


def test_levels_are_those_of_the_samples():
    tone = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(2 * RATE) / RATE).astype(np.float32)
    found = measure(tone, RATE, "")
    assert found.peak_db == pytest.approx(20 * np.log10(0.5), abs=0.01)
    assert found.loudness_db == pytest.approx(20 * np.log10(0.5) - 3.01, abs=0.01)
    assert not found.clipped and found.silent_share == 0
    assert measure(np.clip(3 * tone, -1, 1), RATE, "").clipped
    low = 0.5 * np.sin(2 * np.pi * 80 * np.arange(2 * RATE) / RATE).astype(np.float32)
    assert not measure(low, RATE, "").clipped


def test_what_was_low_passed_ends_there():
    noise = np.random.default_rng(2).standard_normal(4 * RATE)
    spectrum = np.fft.rfft(noise)
    spectrum[np.fft.rfftfreq(len(noise), 1 / RATE) > 8000] = 0
    low_passed = 0.1 * np.fft.irfft(spectrum).astype(np.float32)
    assert measure(low_passed, RATE, "").used_hz == pytest.approx(8000, abs=500)
    assert measure(0.1 * noise.astype(np.float32), RATE, "").used_hz > 15_900


def test_steady_noise_has_no_calls():
    noise = (0.1 * np.random.default_rng(3).standard_normal(8 * RATE)).astype(np.float32)
    found = measure(noise, RATE, "")
    assert found.active_share == 0 and len(found.calls_s) == 0
    assert found.bands.sum() == pytest.approx(1)  # a texture: all of it counts


def test_half_silence_is_half():
    waveform = beeps(2000, 1.0, 1.0, 4.0)
    waveform[: 2 * RATE] = 0
    assert measure(waveform, RATE, "").silent_share == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("waveform", [np.zeros(RATE, "f4"), np.ones(500, "f4"), np.zeros(0, "f4")])
def test_nothing_to_measure_is_none(waveform):
    assert measure(waveform, RATE, "") is None


def test_short_gaps_are_filled_and_short_runs_left_out():
    flags = np.array([0, 0, 1, 1, 1, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0], bool)
    assert sound.run_lengths(flags) == [3, 2, 1]
    assert sound.run_lengths(np.array([1, 1, 0, 1, 0, 1], bool)) == [1]  # ends are cut
    assert list(np.flatnonzero(sound._without_short(flags, 3))) == [2, 3, 4]
    assert sound._without_short(~flags, 3, keep_ends=True)[:2].all()


def test_shares_lie_in_the_band_of_their_frequency():
    found = measure(beeps(3000, 0.2, 1.0), RATE, "")
    edges = sound.shown_edges(RATE)
    band = np.searchsorted(edges, 3000) - 1
    assert found.bands[band] > 0.9 and edges[0] == 100 and edges[-1] == RATE / 2
