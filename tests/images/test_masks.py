"""Stripes, rectangles and stretched parts of an image, against loops."""

import numpy as np
import pytest
import torch

from configs import Config
from images.device_frontend import stretch as stretch_batch
from images.masks import Crop, draw_crop, draw_mask, stretch


def test_nothing_is_drawn_where_nothing_is_wanted(rng):
    before = rng.bit_generator.state
    assert draw_mask(Config(), rng) is None and draw_crop(Config(), rng) is None
    assert rng.bit_generator.state == before


def test_stripes_are_whole_rows_and_frames_of_the_given_widths(rng):
    config = Config(n_mels=50, p_stripes=1.0, time_stripe_frames=60, band_stripe_bands=9)
    widths = []
    for _ in range(600):
        mask = draw_mask(config, rng)
        rows, frames = mask.all(axis=1), mask.all(axis=0)
        np.testing.assert_array_equal(mask, rows[:, None] | frames[None])
        for line in (rows, frames):
            assert (np.diff(line.astype(int)) == 1).sum() + line[0] <= 1  # one stripe, no gap
        widths.append((rows.sum(), frames.sum()))
    bands, frames = np.array(widths).T
    assert set(bands) == set(range(10)) and frames.max() == 60 and frames.min() == 0
    assert frames.mean() == pytest.approx(30, abs=3)


def test_how_many_stripes_and_how_often(rng):
    config = Config(p_stripes=0.25, time_stripes=0, band_stripes=2, band_stripe_bands=5)
    masks = [draw_mask(config, rng) for _ in range(2000)]
    counts = [(np.diff(mask[:, 0].astype(int), prepend=0) == 1).sum() for mask in masks]
    assert max(counts) == 2 and not any(mask.all(axis=0).any() for mask in masks)
    # A stripe of 0 bands, one in six, cannot be seen.
    assert np.mean(np.array(counts) > 0) == pytest.approx(0.25 * 35 / 36, abs=0.03)


def test_the_whole_image_stretched_is_the_image(rng):
    image = rng.random((12, 30), np.float32)
    np.testing.assert_allclose(stretch(image, Crop(0, 12, 0, 30)), image, atol=1e-6)


def test_a_part_is_stretched_by_linear_interpolation(rng):
    image, crop = rng.random((12, 30), np.float32), Crop(1.5, 8.0, 4.2, 20.0)

    def at(row: float, frame: float) -> float:
        row, frame = np.clip(row, 0, 11), np.clip(frame, 0, 29)
        by_frame = [np.interp(frame, np.arange(30), line) for line in image]
        return float(np.interp(row, np.arange(12), by_frame))

    expected = [
        [at(1.5 + (r + 0.5) * 8 / 12 - 0.5, 4.2 + (t + 0.5) * 20 / 30 - 0.5) for t in range(30)]
        for r in range(12)
    ]
    np.testing.assert_allclose(stretch(image, crop), expected, atol=1e-5)
    batch = torch.from_numpy(image.T.copy())[None]
    on_device = stretch_batch(batch, torch.tensor([crop]))[0].T
    np.testing.assert_allclose(on_device.numpy(), expected, atol=1e-5)


def test_crops_lie_inside_and_have_the_given_share(rng):
    config = Config(n_mels=40, p_resized_crop=0.5, resized_crop_scale=(0.6, 0.9))
    crops = np.array([draw_crop(config, rng) for _ in range(1000)])
    whole = crops[:, 1] == 40
    assert whole.mean() == pytest.approx(0.5, abs=0.05)
    first_row, n_rows, first_frame, n_frames = crops[~whole].T
    assert (first_row >= 0).all() and (first_row + n_rows <= 40).all()
    assert (first_frame >= 0).all() and (first_frame + n_frames <= config.n_frames).all()
    assert 24 <= n_rows.min() < 24.5 and 35.5 < n_rows.max() <= 36
