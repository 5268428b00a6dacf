"""Noise by key and by number: the same in any process, and what it should be."""

import pickle

import numpy as np
import pytest

from images.noise import PinkNoiseImages, add_uniform
from tests.reference_signal import mel_edges, octave_slope_db
from transforms import mel_power, power_to_db

MEL = {
    "sample_rate": 32_000,
    "n_fft": 2048,
    "hop_length": 512,
    "n_mels": 224,
    "fmin": 20.0,
    "fmax": 16_000.0,
}

# Uniform noise


def uniform(key: int, shape: tuple[int, int] = (200, 300)) -> np.ndarray:
    noise = np.zeros(shape, np.float32)
    add_uniform(noise, key, 0, 1)
    return noise


def mix(key: int, position: int) -> int:
    """The 32-bit mix, in Python's integers."""
    x = position * 0x9E3779B9 + key & 0xFFFFFFFF
    x = (x ^ x >> 16) * 0x7FEB352D & 0xFFFFFFFF
    x = (x ^ x >> 15) * 0x846CA68B & 0xFFFFFFFF
    return x ^ x >> 16


@pytest.mark.parametrize("key", [0, 1, 2**31, 2**32 - 1, 123_456_789])
def test_values_follow_from_key_and_position(key):
    expected = [(mix(key, position) >> 8) / 2**24 for position in range(60)]
    np.testing.assert_array_equal(uniform(key, (6, 10)).ravel(), np.float32(expected))


def test_offset_and_unit_by_hand():
    image = np.full((2, 3), 5, np.float32)
    add_uniform(image, 9, 10, 0.5)
    expected = [5 + ((mix(9, position) >> 8) / 2**24 + 10) * 0.5 for position in range(6)]
    np.testing.assert_allclose(image.ravel(), expected, rtol=1e-6)


def test_it_is_uniform_and_free_of_patterns():
    noise = np.stack([uniform(key) for key in (3, 4, 5, 1000)])  # (4, 200, 300)
    assert noise.min() >= 0 and noise.max() < 1
    share, _ = np.histogram(noise, 100, (0, 1))
    deviations = (share - noise.size / 100) / np.sqrt(noise.size / 100 * 0.99)
    assert np.square(deviations).sum() < 99 + 5 * np.sqrt(
        2 * 99
    )  # chi-squared with 99 degrees of freedom
    centred = noise.astype(np.float64) - 0.5
    bound = 5 * centred.var() / np.sqrt(centred[0].size)  # five standard errors
    for shift in (1, 2, 64, 128):  # neighbours in a row, and in a column
        assert abs(np.mean(centred * np.roll(centred, shift, axis=2))) < bound
        assert abs(np.mean(centred * np.roll(centred, shift, axis=1))) < bound
    for other in centred[1:]:
        assert abs(np.mean(centred[0] * other)) < bound


def test_rows_of_an_image_are_changed_in_place():
    image = np.zeros((9, 4), np.float32)
    add_uniform(image[3:5], 1, 1, 1)
    assert (image[3:5] >= 1).all() and not image[:3].any() and not image[5:].any()


# Pink noise


def a_bank(seed: int = 8, **changes) -> PinkNoiseImages:
    return PinkNoiseImages(seed, **{"n_frames": 313, "top_db": 80.0, **MEL, **changes})


def test_construction_makes_nothing_and_asking_makes_one():
    bank = a_bank()
    assert len(bank._images) == 0 and len(pickle.dumps(bank)) < 1000
    bank.image(3)
    assert list(bank._images) == [3]


def test_every_worker_makes_the_same():
    one, other = a_bank(size=3), a_bank(size=3)
    one.image(0)  # made before, in one of them
    for k in (1, 2):
        image = one.image(k)
        np.testing.assert_array_equal(image, other.image(k))
        assert image.shape == (224, 313) and image.dtype == np.float32
        assert image.min() == 0 and image.max() == 1
    assert not np.array_equal(a_bank(seed=9).log_mel(0), one.log_mel(0))
    assert not np.array_equal(one.log_mel(1), one.log_mel(0))


def test_what_is_handed_out_cannot_be_overwritten():
    with pytest.raises(ValueError, match="read-only"):
        a_bank(size=1, n_frames=20).image(0)[:] = 7


def test_power_falls_by_3_db_an_octave():
    power = np.mean([10 ** (a_bank().log_mel(k) / 10) for k in range(4)], axis=(0, 2))  # (n_mels,)
    centres = np.array(mel_edges(224, 20.0, 16_000.0)[1:-1])
    inside = (centres > 150) & (centres < 15_500)
    assert octave_slope_db(power[inside], centres[inside]) == pytest.approx(-3.01, abs=0.15)


@pytest.mark.parametrize(
    ("n_fft", "hop_length", "n_frames"), [(2048, 512, 313), (256, 100, 11), (2048, 512, 2)]
)
def test_a_roll_is_the_image_of_the_delayed_noise(n_fft, hop_length, n_frames, monkeypatch):
    """Noise delayed circularly by whole hops gives the rolled image, its ends included."""
    import colorednoise

    changes = {"n_fft": n_fft, "hop_length": hop_length, "n_frames": n_frames, "n_mels": 20}
    image = a_bank(**changes).log_mel(3)
    original = colorednoise.powerlaw_psd_gaussian
    delay = 7 * hop_length
    monkeypatch.setattr(
        colorednoise,
        "powerlaw_psd_gaussian",
        lambda *args, **settings: np.roll(original(*args, **settings), delay),
    )
    np.testing.assert_allclose(np.roll(image, 7, axis=1), a_bank(**changes).log_mel(3), atol=1e-3)


def test_zeros_beyond_the_ends_would_have_shown():
    """The check above can fail: mel_power's own edges are up to 10 dB too quiet for a roll."""
    noise = np.random.default_rng(0).standard_normal(313 * 512).astype(np.float32)
    settings = MEL | {"n_mels": 20}
    image, delayed = (
        power_to_db(mel_power(np.roll(noise, d), **settings), 80.0)[:, :-1] for d in (0, 7 * 512)
    )
    assert np.abs(np.roll(image, 7, axis=1) - delayed).max() > 1
