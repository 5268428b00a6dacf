"""What the network sees of a clip's mel power: its scale, its size and its channels.

Training images, validation, predict.py, exported models and the device front end share it:
`View` is for one clip in numpy, `view_torch.TorchView` for a batch. All that is not done value by
value is a product with a matrix made here, so that both do the same.

Axes: a plane is (n_mels, n_frames) here, and what comes out is (channels, frames, bands), as the
model takes it.
"""

import math
from collections.abc import Callable

import numpy as np

import transforms
from configs import Config

DELTA_FRAMES = 9  # librosa's default: frames that a difference is fitted to

# Per-channel energy normalisation, with librosa's defaults: Lostanlen et al., "Per-channel energy
# normalization: why and how", IEEE Signal Processing Letters 26(1), 2019.
PCEN_GAIN = 0.98
PCEN_BIAS = 2.0
PCEN_POWER = 0.5
PCEN_EPS = 1e-6
PCEN_SECONDS = 0.4  # of the smoothing
PCEN_SCALE = np.float32(2**31)  # librosa expects samples of 32-bit integers


class View:
    """Turns mel power into what the network sees.

    Args:
        config: clip and log-mel settings.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.normalise = NORMALISATIONS[config.normalisation]
        self.differences: tuple[np.ndarray, ...] = ()
        if config.channels == "differences":
            self.differences = tuple(difference_matrix(config.n_frames, k) for k in (1, 2))

        self.resize_frames = self.resize_bands = None
        if config.image_size is not None:
            self.resize_frames = resize_matrix(config.n_frames, config.image_frames)
            self.resize_bands = resize_matrix(config.n_mels, config.image_bands)

    def levels(self, mel: np.ndarray) -> np.ndarray:
        """Compress mel power (n_mels, n_frames): decibels in [0, 1], or PCEN; silence gives zeros.

        Decibels from -top_db to 0 become 0 to 1. They are relative to the peak of the clip, or to
        full scale, where louder ones are above 1.
        """
        config = self.config
        if not mel.any():
            return np.zeros_like(mel)
        if config.compression == "pcen":
            return pcen(mel, self._smoothing())

        if config.db_reference == "full_scale":
            image = transforms.power_to_db(mel, math.inf, exponent=config.power)
            image += np.float32(config.top_db)
            image = np.maximum(image, 0, out=image)
        else:
            image = transforms.power_to_db(mel, config.top_db, exponent=config.power)
            image -= image.max()
            image += np.float32(config.top_db)
        image /= np.float32(config.top_db)
        return image

    def finish(self, image: np.ndarray) -> np.ndarray:
        """Add channels, resize and normalise an image (n_mels, n_frames).

        Returns:
            (channels, image_frames, image_bands) float32; one channel where all are equal.
        """
        planes = [image, *(image @ matrix for matrix in self.differences)]
        if self.config.channels == "floor":
            planes = [above_floor(image), image, image]
        if self.resize_frames is not None and self.resize_bands is not None:
            planes = [self.resize_bands.T @ plane @ self.resize_frames for plane in planes]
        images = [self.normalise(np.ascontiguousarray(plane.T)) for plane in planes]
        return images[0][None] if len(images) == 1 else np.stack(images)

    def _smoothing(self) -> tuple[np.ndarray, np.ndarray]:
        config = self.config
        return smoothing_matrix(config.n_frames, config.hop_length / config.sample_rate)


def above_floor(image: np.ndarray) -> np.ndarray:
    """Take from each band of (n_mels, n_frames) its median over time; what lies below it is 0.

    Noise that does not change leaves little of itself, whatever its colour and level.
    """
    middle = image.shape[1] // 2  # of an even number of frames the upper one
    median = np.partition(image, middle, axis=1)[:, middle : middle + 1]
    return np.maximum(image - median, 0)


def standardise(image: np.ndarray) -> np.ndarray:
    """Shift and scale to a mean of 0 and a deviation of 1; a flat image gives zeros."""
    centred = np.asarray(image, np.float32) - image.mean(dtype=np.float32)
    deviation = centred.std(dtype=np.float32)
    return centred / deviation if deviation > FLAT else np.zeros_like(centred)


def leave(image: np.ndarray) -> np.ndarray:
    """Return the image as it is."""
    return np.asarray(image, np.float32)


FLAT = 1e-6  # deviation of an image that only rounding keeps from being flat
NORMALISATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "min_max": transforms.min_max,
    "standard": standardise,
    "fixed": leave,
}


# Matrices -----------------------------------------------------------------------------------------


def difference_matrix(n_frames: int, order: int) -> np.ndarray:
    """Make D (n_frames, n_frames) float32 such that image @ D is librosa's delta of that order.

    It is a Savitzky-Golay filter of 9 frames (Anal. Chem. 36, 1964); at both ends the polynomial
    of the outermost 9 is used.

    Raises:
        ValueError: the clip has fewer than 9 frames.
    """
    from scipy.signal import savgol_filter

    if n_frames < DELTA_FRAMES:
        raise ValueError(f"differences need {DELTA_FRAMES} frames, the clip has {n_frames}")
    unit = np.eye(n_frames)
    return savgol_filter(unit, DELTA_FRAMES, order, deriv=order, mode="interp").astype(np.float32)


def resize_matrix(n_before: int, n_after: int) -> np.ndarray:
    """Make R (n_before, n_after) float32 such that values @ R are resized, smoothed when shrunk.

    Linear interpolation between the centres of equal cells; when there are fewer cells than before,
    a triangle as wide as two of the new ones (torch's "bilinear" with antialias=True).
    """
    scale = n_before / n_after
    width = max(1.0, scale)
    centres = (np.arange(n_after) + 0.5) * scale
    distances = np.abs(np.arange(n_before)[:, None] + 0.5 - centres) / width
    weights = np.maximum(0, 1 - distances)  # (n_before, n_after)
    return (weights / weights.sum(axis=0)).astype(np.float32)


def smoothing_matrix(n_frames: int, hop_s: float) -> tuple[np.ndarray, np.ndarray]:
    """Write PCEN's smoothing m[t] = (1 - b) m[t - 1] + b x[t], m[-1] = 1, as m = x @ A + start.

    Returns:
        A (n_frames, n_frames) and start (n_frames,), float32.
    """
    frames = PCEN_SECONDS / hop_s
    b = (math.sqrt(1 + 4 * frames**2) - 1) / (2 * frames**2)  # as librosa derives it

    age = np.arange(n_frames) - np.arange(n_frames)[:, None]  # (from, to)
    weights = np.where(age >= 0, b * (1 - b) ** np.maximum(age, 0), 0)
    start = (1 - b) ** (np.arange(n_frames) + 1)
    return weights.astype(np.float32), start.astype(np.float32)


def pcen(mel: np.ndarray, smoothing: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Per-channel energy normalisation of mel power (n_mels, n_frames) float32, as librosa's."""
    weights, start = smoothing
    mel = mel * PCEN_SCALE
    smooth = mel @ weights + start
    quiet = np.exp(-PCEN_GAIN * (math.log(PCEN_EPS) + np.log1p(smooth / np.float32(PCEN_EPS))))
    compressed = np.expm1(PCEN_POWER * np.log1p(mel * quiet / PCEN_BIAS))
    return (PCEN_BIAS**PCEN_POWER * compressed).astype(np.float32, copy=False)
