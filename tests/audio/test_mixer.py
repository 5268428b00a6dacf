"""Channels made one: averages, channels that cancel out, dead ones, samples that are not finite."""

import numpy as np
import pytest

from audio.mixer import Mixer

RATE = 32_000


@pytest.fixture
def bird(rng) -> np.ndarray:
    """Two seconds of a song, (64000,) float32."""
    time = np.arange(2 * RATE) / RATE
    song = 0.3 * np.sin(2 * np.pi * 3000 * time) * (time % 0.5 < 0.3)
    return (song + rng.normal(0, 0.01, len(time))).astype(np.float32)


def mix(channels: np.ndarray, n_block: int = 8000) -> tuple[np.ndarray, list[str]]:
    """Mix (frames, channels) in blocks; give the mono waveform and the remarks."""
    mixer = Mixer()
    blocks = [channels[start : start + n_block] for start in range(0, len(channels), n_block)]
    mono = np.concatenate([mixer.mix(block.astype("f4"), n_kept=len(block)) for block in blocks])
    return mono, mixer.remarks()


def noise(rng, n: int, level: float) -> np.ndarray:
    return rng.normal(0, level, n).astype(np.float32)


@pytest.mark.parametrize("n_channels", [1, 2, 3, 8])
def test_sound_channels_are_averaged_and_nothing_is_said(rng, bird, n_channels):
    levels = np.linspace(1, 0.5, n_channels)
    channels = bird[:, None] * levels + rng.normal(0, 0.01, (len(bird), n_channels))
    mono, remarks = mix(channels)
    np.testing.assert_allclose(mono, channels.mean(axis=1), atol=1e-6)
    assert remarks == []


@pytest.mark.parametrize("n_channels", [2, 8, 16])
def test_independent_channels_are_averaged(rng, n_channels):
    channels = rng.normal(0, 0.1, (2 * RATE, n_channels))
    mono, remarks = mix(channels)
    np.testing.assert_allclose(mono, channels.mean(axis=1), atol=1e-6)
    assert remarks == []


@pytest.mark.parametrize("gain", [0.8, 1.25])
@pytest.mark.parametrize("order", [1, -1])
def test_opposite_phase_takes_the_louder_channel(rng, bird, gain, order):
    other = -gain * bird + noise(rng, len(bird), 1e-4)
    mono, remarks = mix(np.stack([bird, other][::order], axis=1))
    np.testing.assert_array_equal(mono, bird if gain <= 1 else other)
    loudest = (1 if gain <= 1 else 2) if order == 1 else (2 if gain <= 1 else 1)
    assert remarks == [f"its channels cancel each other out; channel {loudest} is used alone"]


def test_opposite_phase_behind_noise_of_the_amplifiers(rng, bird):
    # The first second holds what each amplifier adds by itself, which does not cancel out.
    quiet = rng.normal(0, 1e-3, (RATE, 2))
    mono, remarks = mix(np.concatenate([quiet, np.stack([bird, -bird], axis=1)]))
    assert np.abs(mono[RATE:]).max() > 0.29 and len(remarks) == 1


def test_a_cable_that_is_changed_in_mid_recording(bird):
    channels = np.concatenate([np.stack([bird, bird], 1), np.stack([bird, -bird], 1)])
    mono, remarks = mix(channels)
    np.testing.assert_allclose(mono, np.concatenate([bird, bird]), atol=1e-6)
    assert len(remarks) == 1


def test_silence_in_opposite_phase_is_no_cause(rng):
    quiet = rng.normal(0, 2e-5, RATE)
    assert mix(np.stack([quiet, -quiet], axis=1))[1] == []


@pytest.mark.parametrize("dead", [0.0, 0.02])
def test_a_dead_channel_is_said_and_the_other_one_heard(bird, dead):
    mono, remarks = mix(np.stack([bird, np.full_like(bird, dead)], axis=1))
    np.testing.assert_allclose(mono - mono.mean(), bird / 2 - bird.mean() / 2, atol=1e-3)
    assert remarks[-1] == "no signal in channel 2 of 2"


def test_a_channel_that_begins_late_is_not_dead(bird):
    late = np.concatenate([np.zeros(RATE, np.float32), bird[RATE:]])
    assert mix(np.stack([bird, late], axis=1))[1] == []


@pytest.mark.parametrize("offset", [0.3, -0.02, 0.004])
def test_an_offset_is_taken_out(rng, offset):
    quiet = noise(rng, RATE, 0.01)
    mono, remarks = mix((quiet + np.float32(offset))[:, None], n_block=RATE)
    np.testing.assert_allclose(mono, quiet, atol=3e-4)
    assert remarks == [f"a constant offset of {float(remarks[0].split()[4]):.3g} is taken out"]
    assert float(remarks[0].split()[4]) == pytest.approx(offset, abs=3e-4)


@pytest.mark.parametrize(("n_bad", "is_broken"), [(1, False), (640, False), (641, True)])
def test_more_than_a_hundredth_that_is_not_finite_is_too_much(n_bad, is_broken):
    mixer = Mixer()
    block = np.ones((64_000, 1), np.float32)
    block[:n_bad] = np.nan
    assert np.isfinite(mixer.mix(block, n_kept=64_000)).all()
    assert mixer.is_broken() is is_broken
    assert "NaN or infinite" in mixer.remarks()[-1]


def test_what_is_not_finite_behind_the_kept_part_does_not_count():
    mixer = Mixer()
    block = np.ones((1000, 2), np.float32)
    block[500:] = np.inf
    mixer.mix(block, n_kept=500)
    assert not mixer.is_broken() and mixer.remarks() == []
