"""Image steps: the formulas of each noise, shaping, contrast, colour, masks and the bank of pink noise."""

import os
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_signal import mel_edges, octave_slope_db

import transforms
from configs import Config
from dataset import PinkNoiseImages
from transforms import (
    band_noise_image,
    build_masks,
    cut_rectangles,
    frequency_shaping,
    mel_power,
    min_max,
    mono_to_color,
    pink_noise_image,
    power_to_db,
    random_power,
    white_noise_image,
)

MEL = {"sample_rate": 32_000, "n_fft": 2048, "hop_length": 512, "n_mels": 224, "fmin": 20.0, "fmax": 16_000.0}
STEPS = {
    "random_power": lambda image, rng: random_power(image, 2, 0.7, rng),
    "white": white_noise_image,
    "pink": lambda image, rng: pink_noise_image(image, np.full_like(image, 0.5), rng),
    "band": band_noise_image,
    "shaping": frequency_shaping,
    "rectangles": cut_rectangles,
}


def an_image(n_mels: int = 64, n_frames: int = 50) -> np.ndarray:
    return np.random.default_rng(5).random((n_mels, n_frames), np.float32)


class Scripted:
    """Stands in for a generator: hands out the uniform numbers and integers it was given, and constant noise."""

    def __init__(self, *, uniform=(), integers=(), noise=0.5):
        self.uniforms, self.integer_draws, self.noise = list(uniform), list(integers), noise
        self.ranges = []

    def uniform(self, low, high):
        self.ranges.append((low, high))
        return low + (high - low) * self.uniforms.pop(0)

    def integers(self, low, high=None, endpoint=False):
        low, high = (0, low) if high is None else (low, high)
        self.ranges.append((int(low), int(high) if endpoint else int(high) - 1))
        return self.integer_draws.pop(0)

    def random(self, size=None, dtype=np.float64):
        return self.uniforms.pop(0) if size is None else np.full(size, self.noise, dtype)


# What every step keeps


@pytest.mark.parametrize("name", STEPS)
def test_input_stays_and_output_is_float32_and_repeatable(name):
    image = an_image()
    before = image.copy()
    first = STEPS[name](image, np.random.default_rng(1))
    np.testing.assert_array_equal(image, before)
    assert first.dtype == np.float32 and first.shape == image.shape and not np.shares_memory(first, image)
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


# Formulas, with the draws given


def test_white_noise_by_hand():
    image = np.float32([[0.0, 0.4], [0.8, 0.4]])  # mean 0.4
    noisy = white_noise_image(image, Scripted(uniform=[0.2], noise=0.5))  # U[0.3, 1.3) = 0.5
    np.testing.assert_allclose(noisy, image + (0.5 + 10) * 0.4 * 0.05 * 0.5, rtol=1e-6)


def test_pink_noise_by_hand():
    image, pink = np.float32([[0.0, 0.4], [0.8, 0.4]]), np.float32([[1.0, 0.0], [0.5, 0.25]])
    noisy = pink_noise_image(image, pink, Scripted(uniform=[0.7]))  # U[0.3, 1.3) = 1
    np.testing.assert_allclose(noisy, image + (pink + 2.5) * 4 * 0.4 * 0.05 * 1.0, rtol=1e-6)


def test_band_noise_by_hand():
    image = np.full((64, 3), 0.4, np.float32)
    script = Scripted(uniform=[0.7], integers=[10, 40], noise=0.25)
    noisy = band_noise_image(image, script)
    np.testing.assert_allclose(noisy[10:40], 0.4 + (0.25 + 9) * 0.05 * 0.4 * 0.05 * 1.0, rtol=1e-6)
    np.testing.assert_array_equal(np.delete(noisy, range(10, 40), axis=0), np.float32(0.4))
    assert script.ranges == [(0.3, 1.3), (0, 32), (30, 64)]


@settings(max_examples=80, deadline=None)
@given(n_mels=st.integers(8, 80), seed=st.integers(0, 2**32))
def test_band_noise_takes_at_least_20_rows_where_there_are_any(n_mels, seed):
    changed = band_noise_image(np.ones((n_mels, 4), np.float32), np.random.default_rng(seed)).min(axis=1) > 1
    rows = np.flatnonzero(changed)
    assert len(rows) >= min(20, n_mels - n_mels // 2) and rows[0] <= n_mels // 2
    assert len(rows) == rows[-1] - rows[0] + 1


def test_shaping_by_hand():
    script = Scripted(uniform=[0.8], integers=[5])  # r = 5 rows, x = 0.4
    shaped = frequency_shaping(np.full((8, 2), 3.0, np.float32), script)
    np.testing.assert_allclose(shaped[:, 0], [1, 0.92, 0.84, 0.76, 0.68, 0.6, 0.6, 0.6], rtol=1e-6)
    assert script.ranges == [(4, 8), (0, 0.5)]


def test_shaping_rescales_to_a_maximum_of_one(rng):
    assert all(frequency_shaping(an_image() * scale, rng).max() == 1 for scale in (0.01, 1.0, 250.0))


def test_noise_is_uniform_over_one_unit(rng):
    image = np.ones((200, 300), np.float32)
    noise = white_noise_image(image, rng) - 1  # (U + 10) * unit
    unit = (noise.max() - noise.min()) / 1
    assert 0.05 * 0.3 * 0.99 < unit < 0.05 * 1.3
    assert noise.mean() == pytest.approx(10.5 * unit, rel=0.01)


def test_random_power_by_hand():
    image = np.float32([[-3.0, -1.0], [1.0, 5.0]])  # [0, 0.25, 0.5, 1] when scaled
    raised = random_power(image, 2, 0.5, Scripted(uniform=[0.75]))  # exponent 0.75 * 2 + 0.5 = 2
    np.testing.assert_allclose(raised, [[0, 1 / 16], [1 / 4, 1]], rtol=1e-6)


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


# Pink noise


def a_bank(seed: int = 8, **changes) -> PinkNoiseImages:
    return PinkNoiseImages(seed, **{"n_frames": 313, "top_db": 80.0, **MEL, **changes})


def test_construction_makes_nothing_and_drawing_makes_one(rng):
    bank = a_bank()
    assert len(bank._images) == 0 and len(pickle.dumps(bank)) < 1000
    bank.draw(rng)
    assert len(bank._images) == 1


def test_every_worker_draws_the_same(rng):
    one, other = a_bank(size=3), a_bank(size=3)
    for seed in (5, 6, 7, 8):  # one has made other images before the last ones are compared
        one.draw(np.random.default_rng(seed))
    for seed in (8, 5):
        image = one.draw(np.random.default_rng(seed))
        np.testing.assert_array_equal(image, other.draw(np.random.default_rng(seed)))
        assert image.shape == (224, 313) and image.dtype == np.float32
        assert image.min() == 0 and image.max() == 1
    assert not np.array_equal(a_bank(seed=9).log_mel(0), one.log_mel(0))
    assert not np.array_equal(one.log_mel(1), one.log_mel(0))


def test_what_is_drawn_may_be_overwritten():
    bank = a_bank(size=1, n_frames=20)
    bank.draw(np.random.default_rng(0))[:] = 7
    assert bank.draw(np.random.default_rng(0)).max() == 1


def test_power_falls_by_3_db_an_octave():
    power = np.mean([10 ** (a_bank().log_mel(k) / 10) for k in range(4)], axis=(0, 2))  # (n_mels,)
    centres = np.array(mel_edges(224, 20.0, 16_000.0)[1:-1])
    inside = (centres > 150) & (centres < 15_500)
    assert octave_slope_db(power[inside], centres[inside]) == pytest.approx(-3.01, abs=0.15)


@pytest.mark.parametrize(("n_fft", "hop_length", "n_frames"), [(2048, 512, 313), (256, 100, 11), (2048, 512, 2)])
def test_a_roll_is_the_image_of_the_delayed_noise(n_fft, hop_length, n_frames, monkeypatch):
    """No frame is special: the noise, delayed circularly by whole hops, gives the rolled image, its ends included."""
    import colorednoise

    changes = {"n_fft": n_fft, "hop_length": hop_length, "n_frames": n_frames, "n_mels": 20}
    image = a_bank(**changes).log_mel(3)
    original = colorednoise.powerlaw_psd_gaussian
    delay = 7 * hop_length
    monkeypatch.setattr(
        colorednoise, "powerlaw_psd_gaussian", lambda *args, **settings: np.roll(original(*args, **settings), delay)
    )
    np.testing.assert_allclose(np.roll(image, 7, axis=1), a_bank(**changes).log_mel(3), atol=1e-3)


def test_zeros_beyond_the_ends_would_have_shown():
    """The check above can fail: mel_power's own edges are up to 10 dB too quiet for a roll."""
    noise = np.random.default_rng(0).standard_normal(313 * 512).astype(np.float32)
    settings = MEL | {"n_mels": 20}
    image, delayed = (power_to_db(mel_power(np.roll(noise, d), **settings), 80.0)[:, :-1] for d in (0, 7 * 512))
    assert np.abs(np.roll(image, 7, axis=1) - delayed).max() > 1


# Masks


def test_masks_are_rectangles_of_the_quietest_value(rng):
    for _ in range(30):
        image = an_image(100, 200) + 2
        masked = cut_rectangles(image, rng)
        changed = masked != image
        np.testing.assert_allclose(masked[changed], image.min(), rtol=1e-6)
        np.testing.assert_allclose(masked[~changed], image[~changed], rtol=1e-6)
        share = np.mean(np.abs(masked - image.min()) < 1e-6)
        assert 0.05 * 0.05 * 0.8 < share < 4 * 0.2 * 0.2


def test_masks_happen_with_their_chance():
    assert build_masks(Config(p_masks=0.0)) is None
    masks = pickle.loads(pickle.dumps(build_masks(Config(p_masks=0.25))))  # workers may be spawned
    image = an_image()
    share = np.mean([not np.array_equal(masks(image, np.random.default_rng(seed)), image) for seed in range(800)])
    assert share == pytest.approx(0.25, abs=0.06)  # four standard deviations


def test_albumentations_is_told_not_to_ask_the_network(monkeypatch):
    monkeypatch.delenv("NO_ALBUMENTATIONS_UPDATE", raising=False)
    transforms._rectangle_cutter.cache_clear()
    cut_rectangles(an_image(), np.random.default_rng(0))
    assert os.environ["NO_ALBUMENTATIONS_UPDATE"] == "1"


def test_masks_draw_from_our_generator_alone():
    """Two masks in a row must differ although the pipeline is one and the same object."""
    rng = np.random.default_rng(0)
    first, second = cut_rectangles(an_image(), rng), cut_rectangles(an_image(), rng)
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(first, cut_rectangles(an_image(), np.random.default_rng(0)))
