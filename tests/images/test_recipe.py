"""The recipe of a training image: ranges of what is drawn, and formulas of what is done."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs import Config
from images.noise import PinkNoiseImages
from images.recipe import (
    BirdDraws,
    Draws,
    apply_steps,
    draw_bird,
    draw_steps,
    mix_birds,
)
from images.view import View
from tests.images.test_noise import mix

MEL = {
    "sample_rate": 32_000,
    "n_fft": 256,
    "hop_length": 512,
    "n_mels": 64,
    "fmin": 20.0,
    "fmax": 16_000.0,
}
PINK = PinkNoiseImages(8, n_frames=50, top_db=80.0, size=4, **MEL)
NOTHING = Draws(
    white_strength=0.0,
    white_key=0,
    pink_strength=0.0,
    pink_number=0,
    pink_shift=0,
    band_strength=0.0,
    band_key=0,
    band_start=0,
    band_stop=20,
    ramp_rows=32,
    weakened=0.0,
    contrast=1.0,
)


def an_image(n_mels: int = 64, n_frames: int = 50) -> np.ndarray:
    return np.random.default_rng(5).random((n_mels, n_frames), np.float32)


def uniform(key: int, shape: tuple[int, int]) -> np.ndarray:
    return np.array(
        [(mix(key, position) >> 8) / 2**24 for position in range(shape[0] * shape[1])]
    ).reshape(shape)


def scaled(image: np.ndarray) -> np.ndarray:
    return (image - image.min()) / (image.max() - image.min())


# What is drawn


def test_ranges_of_a_birds_draws(rng):
    draws = np.array([draw_bird(Config(), rng) for _ in range(2000)])  # (2000, 2)
    assert (draws.min(axis=0) >= (0.5, 1)).all() and (draws.max(axis=0) < (3.5, 101)).all()
    np.testing.assert_allclose(draws.min(axis=0), (0.5, 1), atol=0.4)
    np.testing.assert_allclose(draws.max(axis=0), (3.5, 101), atol=0.4)


def test_ranges_of_the_steps(rng):
    config = Config(n_mels=64)
    several = [draw_steps(config, 32, rng) for _ in range(4000)]
    columns = {
        name: np.array(values)
        for name, values in zip(Draws._fields, zip(*several, strict=True), strict=True)
    }
    for name, factor, p in [("white", 1, 0.9), ("pink", 4, 0.9), ("band", 0.05, 0.9)]:
        strength = columns[f"{name}_strength"]
        assert np.mean(strength > 0) == pytest.approx(p, abs=0.02)
        used = strength[strength > 0] / factor / 0.05
        assert 0.3 <= used.min() < 0.31 and 1.29 < used.max() < 1.3
    assert set(columns["pink_number"]) == set(range(32)) and set(columns["pink_shift"]) == set(
        range(313)
    )
    assert set(columns["band_start"]) == set(range(33)) and columns["band_stop"].max() == 64
    assert set(columns["band_stop"] - columns["band_start"]) == set(range(20, 65))
    assert set(columns["ramp_rows"]) == set(range(32, 65))
    assert np.mean(columns["weakened"] > 0) == pytest.approx(0.5, abs=0.03)
    assert 0.49 < columns["weakened"].max() < 0.5
    assert 0.7 <= columns["contrast"].min() < 0.71 and 2.69 < columns["contrast"].max() < 2.7
    assert (
        2**23 < columns["white_key"].max() < 2**24
        and len({*columns["white_key"], *columns["band_key"]}) > 7980
    )


@settings(max_examples=50, deadline=None)
@given(n_mels=st.integers(8, 80), seed=st.integers(0, 2**32))
def test_the_band_has_20_rows_where_there_are_any(n_mels, seed):
    draws = draw_steps(Config(n_mels=n_mels), 32, np.random.default_rng(seed))
    assert 0 <= draws.band_start <= n_mels // 2
    assert min(n_mels, draws.band_start + 20) <= draws.band_stop <= n_mels
    assert n_mels // 2 <= draws.ramp_rows <= n_mels


def test_what_is_switched_off_is_never_drawn(rng):
    off = {
        "p_white_noise_image": 0,
        "p_pink_noise_image": 0,
        "p_band_noise_image": 0,
        "p_frequency_shaping": 0,
    }
    several = [draw_steps(Config(**off), 32, rng) for _ in range(300)]
    assert {draws[:1] + draws[2:3] + draws[5:6] + draws[10:11] for draws in several} == {
        (0, 0, 0, 0)
    }


# What is done


def test_white_noise_by_hand():
    image = an_image()
    noisy = apply_steps(image, NOTHING._replace(white_strength=0.04, white_key=77), PINK)
    expected = image + (uniform(77, image.shape) + 10) * image.mean() * 0.04
    np.testing.assert_allclose(noisy, scaled(expected), atol=2e-6)


def test_pink_noise_by_hand():
    image = an_image()
    noisy = apply_steps(
        image, NOTHING._replace(pink_strength=0.2, pink_number=3, pink_shift=7), PINK
    )
    pink = np.concatenate([PINK.image(3)[:, -7:], PINK.image(3)[:, :-7]], axis=1)
    np.testing.assert_allclose(noisy, scaled(image + (pink + 2.5) * image.mean() * 0.2), atol=2e-6)


def test_band_noise_by_hand():
    image = an_image()
    draws = NOTHING._replace(band_strength=0.002, band_key=5, band_start=10, band_stop=40)
    expected = image.astype(np.float64)
    expected[10:40] += (uniform(5, (30, 50)) + 9) * image.mean() * 0.002
    np.testing.assert_allclose(apply_steps(image, draws, PINK), scaled(expected), atol=2e-6)


def test_shaping_and_contrast_by_hand():
    image = an_image()
    shaped = image * (1 - 0.4 * np.minimum(np.arange(64) / 40, 1))[:, None]
    done = apply_steps(image, NOTHING._replace(ramp_rows=40, weakened=0.4, contrast=1.7), PINK)
    np.testing.assert_allclose(done, scaled(shaped) ** 1.7, atol=2e-6)


def test_noises_come_in_order_each_with_the_mean_at_its_turn(rng):
    every = ("p_white_noise_image", "p_pink_noise_image", "p_band_noise_image")
    config = Config(n_mels=64, p_frequency_shaping=1, **dict.fromkeys(every, 1))
    image, draws = an_image(), draw_steps(config, 4, rng)

    step = image.astype(np.float64)
    step += (uniform(draws.white_key, image.shape) + 10) * step.mean() * draws.white_strength
    step += (
        (np.roll(PINK.image(draws.pink_number), draws.pink_shift, 1) + 2.5)
        * step.mean()
        * draws.pink_strength
    )
    rows = slice(draws.band_start, draws.band_stop)
    noise = uniform(draws.band_key, step[rows].shape)
    step[rows] += (noise + 9) * step.mean() * draws.band_strength
    step *= (1 - draws.weakened * np.minimum(np.arange(64) / draws.ramp_rows, 1))[:, None]
    np.testing.assert_allclose(
        apply_steps(image, draws, PINK), scaled(step) ** draws.contrast, atol=2e-5
    )


def test_input_stays_and_zeros_stay_zeros(rng):
    image, draws = an_image(), draw_steps(Config(n_mels=64), 4, rng)
    before = image.copy()
    result = apply_steps(image, draws, PINK)
    np.testing.assert_array_equal(image, before)
    assert result.dtype == np.float32 and not np.shares_memory(result, image)
    assert not apply_steps(np.zeros((64, 50), np.float32), draws, PINK).any()


def test_birds_are_mixed_as_linear_power():
    a, b = np.float32([[0.0, 2.0], [4.0, 1.0]]), np.float32([[5.0, 5.0], [9.0, 7.0]])
    mixed = mix_birds([a, b], [BirdDraws(2.0, 10.0), BirdDraws(0.5, 100.0)])
    expected = 10 * (a / 4) ** 2 + 100 * ((b - 5) / 4) ** 0.5
    np.testing.assert_allclose(mixed, expected, rtol=1e-5)
    np.testing.assert_array_equal(mix_birds([a], [BirdDraws(1.0, 4.0)]), a)


def test_unit_image_by_hand():
    view = View(Config())
    image = view.levels(np.float32([[1.0, 0.1], [1e-4, 1e-12]]))
    np.testing.assert_allclose(image, [[1.0, 1 - 10 / 80], [0.5, 0.0]], atol=1e-6)
    assert not view.levels(np.zeros((3, 4), np.float32)).any()
