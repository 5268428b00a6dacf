"""Where a training image is cut out, and which part of it is stretched to its size."""

from typing import NamedTuple

import numpy as np

import transforms
from configs import Config


def draw_mask(config: Config, rng: np.random.Generator) -> np.ndarray | None:
    """Draw where an image is cut out: (n_mels, n_frames) bool; None if nothing ever is."""
    if not config.p_masks and not config.p_stripes:
        return None

    shape = (config.n_mels, config.n_frames)
    mask = np.zeros(shape, bool)
    if config.p_masks and rng.random() < config.p_masks:
        mask = transforms.draw_rectangles(shape, rng)
    if config.p_stripes and rng.random() < config.p_stripes:
        _cut_stripes(mask, config.band_stripes, config.band_stripe_bands, rng)
        _cut_stripes(mask.T, config.time_stripes, config.time_stripe_frames, rng)
    return mask


def _cut_stripes(mask: np.ndarray, number: int, widest: int, rng: np.random.Generator) -> None:
    """Cut stripes of 0 to `widest` rows, each anywhere (SpecAugment, arXiv:1904.08779)."""
    for _ in range(number):
        width = int(rng.integers(min(widest, len(mask)), endpoint=True))
        start = int(rng.integers(len(mask) - width, endpoint=True))
        mask[start : start + width] = True


class Crop(NamedTuple):
    """A part of an image, in rows and frames; they need not be whole."""

    first_row: float
    n_rows: float
    first_frame: float
    n_frames: float


def draw_crop(config: Config, rng: np.random.Generator) -> Crop | None:
    """Draw the part of an image that is stretched to its size; None if none ever is."""
    if not config.p_resized_crop:
        return None

    n_rows, n_frames = config.n_mels, config.n_frames
    if rng.random() >= config.p_resized_crop:
        return Crop(0.0, n_rows, 0.0, n_frames)
    rows = n_rows * rng.uniform(*config.resized_crop_scale)
    frames = n_frames * rng.uniform(*config.resized_crop_scale)
    return Crop(rng.uniform(0, n_rows - rows), rows, rng.uniform(0, n_frames - frames), frames)


def stretch(image: np.ndarray, crop: Crop) -> np.ndarray:
    """Stretch a part of an image (n_mels, n_frames) to its size, by linear interpolation."""
    n_rows, n_frames = image.shape
    low, high, share = _neighbours(n_rows, crop.first_row, crop.n_rows)
    image = image[low] * (1 - share[:, None]) + image[high] * share[:, None]

    low, high, share = _neighbours(n_frames, crop.first_frame, crop.n_frames)
    return image[:, low] * (1 - share) + image[:, high] * share


def _neighbours(n: int, first: float, length: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the two cells, and the share of the second, that each new cell's centre lies between."""
    centres = first + (np.arange(n) + 0.5) * (length / n) - 0.5
    centres = np.clip(centres, 0, n - 1)
    low = np.floor(centres).astype(np.int64)
    return low, np.minimum(low + 1, n - 1), (centres - low).astype(np.float32)
