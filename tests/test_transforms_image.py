"""Image steps: shaping, contrast, colour and masks."""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import transforms
from transforms import (
    draw_rectangles,
    min_max,
    mono_to_color,
    raise_to,
    random_power,
    shape_frequencies,
)

STEPS = {
    "random_power": lambda image, rng: random_power(image, 2, 0.7, rng),
    "shaping": lambda image, rng: shape_frequencies(
        image, int(rng.integers(4, 9)), rng.uniform(0, 0.5)
    ),
}


def an_image(n_mels: int = 64, n_frames: int = 50) -> np.ndarray:
    return np.random.default_rng(5).random((n_mels, n_frames), np.float32)


# What every step keeps


@pytest.mark.parametrize("name", STEPS)
def test_input_stays_and_output_is_float32_and_repeatable(name):
    image = an_image()
    before = image.copy()
    first = STEPS[name](image, np.random.default_rng(1))
    np.testing.assert_array_equal(image, before)
    assert (
        first.dtype == np.float32
        and first.shape == image.shape
        and not np.shares_memory(first, image)
    )
    np.testing.assert_array_equal(first, STEPS[name](image, np.random.default_rng(1)))
    assert not np.array_equal(first, STEPS[name](image, np.random.default_rng(2)))


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("n_mels", [8, 21, 39, 40, 41])
def test_zeros_stay_zeros_whatever_the_height(name, n_mels, rng):
    for _ in range(20):
        np.testing.assert_array_equal(STEPS[name](np.zeros((n_mels, 9), np.float32), rng), 0)


@pytest.mark.parametrize("name", STEPS)
def test_global_generators_are_neither_read_nor_moved(name):
    first = STEPS[name](an_image(), np.random.default_rng(1))
    state = np.random.get_state()[1].copy()  # noqa: NPY002 - what must not be touched
    np.testing.assert_array_equal(STEPS[name](an_image(), np.random.default_rng(1)), first)
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002


# Formulas


def test_shaping_by_hand():
    shaped = shape_frequencies(np.full((8, 2), 3.0, np.float32), 5, 0.4)
    np.testing.assert_allclose(shaped[:, 0], [1, 0.92, 0.84, 0.76, 0.68, 0.6, 0.6, 0.6], rtol=1e-6)


def test_shaping_rescales_to_a_maximum_of_one():
    assert all(
        shape_frequencies(an_image() * scale, 40, 0.3).max() == 1 for scale in (0.01, 1.0, 250.0)
    )


def test_raising_by_hand():
    image = np.float32([[-3.0, -1.0], [1.0, 5.0]])  # [0, 0.25, 0.5, 1] when scaled
    np.testing.assert_allclose(raise_to(image, 2), [[0, 1 / 16], [1 / 4, 1]], rtol=1e-6)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32), scale=st.floats(1e-6, 1e6))
def test_random_power_is_the_power_and_keeps_the_order(seed, scale):
    image = np.random.default_rng(seed).random((6, 7), np.float32) * np.float32(scale)
    exponent = np.random.default_rng(seed).random() * 3 + 0.5
    raised = random_power(image, 3, 0.5, np.random.default_rng(seed))
    scaled = (image.astype(np.float64) - image.min()) / (image.max() - image.min())
    np.testing.assert_allclose(raised, scaled**exponent, rtol=1e-5, atol=1e-6)
    assert raised.min() == 0 and raised.max() == 1
    order = np.argsort(image, axis=None)
    assert (np.diff(raised.ravel()[order]) >= 0).all()


@pytest.mark.parametrize("value", [0.0, 7.5, -80.0])
def test_flat_images_give_zeros(value, rng):
    flat = np.full((5, 6), value, np.float32)
    for result in (min_max(flat), random_power(flat, 2, 0.7, rng), mono_to_color(flat)):
        assert not result.any() and np.isfinite(result).all()


def test_color_is_three_equal_channels_from_0_to_1():
    image = np.float32([[-80.0, -40.0, -20.0], [0.0, -60.0, -80.0]])
    color = mono_to_color(image)
    assert color.shape == (3, 2, 3) and color.dtype == np.float32
    for channel in color:
        np.testing.assert_allclose(channel, [[0, 0.5, 0.75], [1, 0.25, 0]], rtol=1e-6)
    np.testing.assert_array_equal(mono_to_color(image.T), color.transpose(0, 2, 1))
    color[0] = 9
    assert color[1].max() == 1  # the channels do not share memory


# Masks


def test_masks_are_one_to_four_rectangles(rng):
    for _ in range(30):
        mask = draw_rectangles((100, 200), rng)
        assert mask.shape == (100, 200) and mask.dtype == bool
        assert 0.05 * 0.05 * 0.8 < mask.mean() < 4 * 0.2 * 0.2
        rows, columns = mask.any(axis=1).sum(), mask.any(axis=0).sum()
        assert rows <= 4 * 20 and columns <= 4 * 40


def test_albumentations_is_told_not_to_ask_the_network(monkeypatch, rng):
    monkeypatch.delenv("NO_ALBUMENTATIONS_UPDATE", raising=False)
    transforms._rectangle_cutter.cache_clear()
    draw_rectangles((30, 40), rng)
    assert os.environ["NO_ALBUMENTATIONS_UPDATE"] == "1"


def test_masks_draw_from_our_generator_alone():
    """Two masks in a row must differ although the pipeline is one and the same object."""
    rng = np.random.default_rng(0)
    first, second = draw_rectangles((64, 50), rng), draw_rectangles((64, 50), rng)
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(first, draw_rectangles((64, 50), np.random.default_rng(0)))
