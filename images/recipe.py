"""How an image is made: one to train on, from what is drawn for it, and one to validate on.

A training image is made from the mel powers of the birds in it. All draws are taken beforehand and
are a few numbers, so that `training_image` here and device_frontend.py, which makes a batch on the
training device, do the same with them.
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

import transforms
from audio.mel import mel_settings
from configs import Config
from images.noise import PinkNoiseImages, add_uniform

if TYPE_CHECKING:
    import torch


class Draws(NamedTuple):
    """What is drawn for one image; a strength of 0 leaves a noise out.

    Noises are as strong as the image's mean times their strength.
    """

    white_strength: float  # 0.05 * U[0.3, 1.3)
    white_key: int  # of noise.add_uniform
    pink_strength: float
    pink_number: int  # of PinkNoiseImages
    pink_shift: int  # frames
    band_strength: float
    band_key: int
    band_start: int  # rows
    band_stop: int
    ramp_rows: int  # of transforms.shape_frequencies
    weakened: float  # its x; 0: not shaped
    contrast: float  # exponent


class BirdDraws(NamedTuple):
    """What is drawn for one of the birds in an image."""

    exponent: float
    gain: float


class Ingredients(NamedTuple):
    """All that an image is made from."""

    waveforms: list[np.ndarray]  # each (n_samples,)
    bird_draws: list[BirdDraws]
    draws: Draws
    mask: np.ndarray | None  # (n_mels, n_frames) bool, True where the image is cut out

    def tensors(self) -> dict[str, "torch.Tensor"]:
        """Return them for batches.collate: waveforms stacked, draws in float32."""
        import torch

        mask = {} if self.mask is None else {"masks": torch.from_numpy(self.mask)}

        return {
            "waveforms": torch.from_numpy(np.stack(self.waveforms)),
            "bird_draws": torch.tensor(self.bird_draws, dtype=torch.float32),
            "draws": torch.tensor(self.draws, dtype=torch.float32),
            **mask,
        }


def draw_bird(rng: np.random.Generator) -> BirdDraws:
    """Draw the contrast [0.5, 3.5) and the loudness [1, 101) of a bird's mel power."""
    return BirdDraws(0.5 + 3 * rng.random(), rng.uniform(1, 101))


def draw_steps(config: Config, n_pink: int, rng: np.random.Generator) -> Draws:
    """Draw what happens to an image after its birds are mixed."""
    n_mels = config.n_mels

    def strength(p: float) -> float:
        return 0.05 * rng.uniform(0.3, 1.3) if rng.random() < p else 0.0

    def key() -> int:
        return int(rng.integers(2**24))  # float32 holds it exactly

    start = int(rng.integers(n_mels // 2, endpoint=True))
    return Draws(
        white_strength=strength(config.p_white_noise_image),
        white_key=key(),
        pink_strength=4 * strength(config.p_pink_noise_image),
        pink_number=int(rng.integers(n_pink)),
        pink_shift=int(rng.integers(config.n_frames)),
        band_strength=0.05 * strength(config.p_band_noise_image),
        band_key=key(),
        band_start=start,
        band_stop=int(rng.integers(min(start + 20, n_mels), n_mels, endpoint=True)),
        ramp_rows=int(rng.integers(n_mels // 2, n_mels, endpoint=True)),
        weakened=rng.uniform(0, 0.5) if rng.random() < config.p_frequency_shaping else 0.0,
        contrast=0.7 + 2 * rng.random(),
    )


def mix_birds(powers: list[np.ndarray], birds: list[BirdDraws]) -> np.ndarray:
    """Sum mel powers (n_mels, n_frames), each scaled, raised and amplified.

    The sum is of linear power: decibels do not add.
    """
    mixed = np.zeros_like(powers[0])
    for power, bird in zip(powers, birds, strict=True):
        one = transforms.raise_to(power, bird.exponent)
        one *= np.float32(bird.gain)
        mixed += one
    return mixed


def draw_mask(config: Config, rng: np.random.Generator) -> np.ndarray | None:
    """Draw where an image is cut out: (n_mels, n_frames) bool; None if nothing ever is."""
    if not config.p_masks:
        return None
    shape = (config.n_mels, config.n_frames)
    if rng.random() < config.p_masks:
        return transforms.draw_rectangles(shape, rng)
    return np.zeros(shape, bool)


def training_image(ingredients: Ingredients, config: Config, pink: PinkNoiseImages) -> np.ndarray:
    """Mix the birds' mel powers and go through the steps: (n_mels, n_frames)."""
    settings = mel_settings(config)
    powers = [
        transforms.mel_power(waveform, **settings, dtype=np.float32)
        for waveform in ingredients.waveforms
    ]
    image = to_unit_image(mix_birds(powers, ingredients.bird_draws), config.top_db)
    image = apply_steps(image, ingredients.draws, pink)

    if ingredients.mask is not None:
        image[ingredients.mask] = image.min()
    return image


def to_unit_image(power: np.ndarray, top_db: float) -> np.ndarray:
    """Turn power into decibels below its own peak and scale [-top_db, 0] to [0, 1].

    Silence gives zeros.
    """
    if not power.any():
        return np.zeros_like(power)

    image = transforms.power_to_db(power, top_db)
    image -= image.max()
    image += np.float32(top_db)
    image /= np.float32(top_db)
    return image


def apply_steps(image: np.ndarray, draws: Draws, pink: PinkNoiseImages) -> np.ndarray:
    """Add noises, shape frequencies and set the contrast of an image (n_mels, n_frames) >= 0.

    With m the image's mean and u uniform in [0, 1): white noise is (u + 10) * m * strength; 1/f
    noise (pink + 2.5) * m * strength; noise in the rows from band_start to band_stop (u + 9) * m *
    strength.

    Returns:
        (n_mels, n_frames) float32 in [0, 1].
    """
    image = np.array(image, np.float32)

    if draws.white_strength:
        add_uniform(image, draws.white_key, 10, draws.white_strength * image.mean())

    if draws.pink_strength:
        noise = np.roll(pink.image(draws.pink_number), draws.pink_shift, axis=1)
        noise += np.float32(2.5)
        noise *= np.float32(draws.pink_strength) * image.mean()
        image += noise

    if draws.band_strength:
        rows = image[draws.band_start : draws.band_stop]
        add_uniform(rows, draws.band_key, 9, draws.band_strength * image.mean())

    if draws.weakened:
        image = transforms.shape_frequencies(image, draws.ramp_rows, draws.weakened)
    return transforms.raise_to(image, draws.contrast)


def clip_image(waveform: np.ndarray, config: Config) -> np.ndarray:
    """Make the image (n_mels, n_frames) that a model is validated on and predicts from.

    Args:
        waveform: (n,) float32 or int16, n >= 1; only the first `config.n_samples` are used.
        config: clip and log-mel settings.
    """
    clip = transforms.normalize_peak(transforms.crop_or_pad(waveform, config.n_samples))
    return to_unit_image(transforms.mel_power(clip, **mel_settings(config)), config.top_db)
