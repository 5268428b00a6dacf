"""How an image is made: one to train on, from what is drawn for it, and one to validate on.

A training image is made from the mel powers of the birds in it. All draws are taken beforehand and
are a few numbers, so that `training_image` here and device_frontend.py, which makes a batch on the
training device, do the same with them.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

import transforms
from audio.mel import mel_settings
from configs import Config
from images import filters, masks
from images.noise import PinkNoiseImages, add_uniform
from images.view import View

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
    contrast: float  # exponent; 0: as it is


class BirdDraws(NamedTuple):
    """What is drawn for one of the birds in an image."""

    exponent: float  # 0: as it is, not scaled either
    gain: float  # of mel power


class Ingredients(NamedTuple):
    """All that an image is made from; what never happens is None."""

    waveforms: list[np.ndarray]  # each (n_samples,)
    bird_draws: list[BirdDraws]
    draws: Draws
    mask: np.ndarray | None = None  # (n_mels, n_frames) bool, True where the image is cut out
    band_gains: np.ndarray | None = None  # (n_mels,) float32, of mel power
    crop: masks.Crop | None = None  # the part that is stretched to the image's size

    def tensors(self) -> dict[str, "torch.Tensor"]:
        """Return them for batches.collate: waveforms stacked, draws in float32."""
        import torch

        together = {**self.loose(), "waveforms": np.stack(self.waveforms)}
        return {name: torch.from_numpy(value) for name, value in together.items()}

    def loose(self) -> dict[str, Any]:
        """As `tensors`, but arrays; waveforms stay a list, as they lie in memory or in files."""
        found = {
            "waveforms": self.waveforms,
            "bird_draws": np.array(self.bird_draws, np.float32),
            "draws": np.array(self.draws, np.float32),
        }
        if self.mask is not None:
            found["masks"] = self.mask
        if self.band_gains is not None:
            found["band_gains"] = self.band_gains
        if self.crop is not None:
            found["crops"] = np.array(self.crop, np.float32)
        return found


def happens(p: float, rng: np.random.Generator) -> bool:
    """Say whether something with probability p happens; of what is certain nothing is drawn."""
    return p >= 1 or (p > 0 and rng.random() < p)


def draw_bird(config: Config, rng: np.random.Generator) -> BirdDraws:
    """Draw the contrast [0.5, 3.5) and the loudness [1, 101) of a bird's mel power."""
    exponent, gain = 0.5 + 3 * rng.random(), rng.uniform(1, 101)
    if not happens(config.p_bird_contrast, rng):
        exponent = 0.0
    if not happens(config.p_bird_gain, rng):
        gain = 1.0
    if happens(config.p_gain, rng):
        gain *= 10 ** (rng.uniform(*config.gain_db) * config.power / 20)
    return BirdDraws(exponent, gain)


def draw_steps(config: Config, n_pink: int, rng: np.random.Generator) -> Draws:
    """Draw what happens to an image after its birds are mixed."""
    n_mels = config.n_mels

    def strength(p: float) -> float:
        return 0.05 * rng.uniform(0.3, 1.3) if rng.random() < p else 0.0

    def key() -> int:
        return int(rng.integers(2**24))  # float32 holds it exactly

    start = int(rng.integers(n_mels // 2, endpoint=True))
    draws = Draws(
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
    if not happens(config.p_contrast, rng):
        draws = draws._replace(contrast=0.0)
    return draws


def mix_birds(powers: list[np.ndarray], birds: list[BirdDraws]) -> np.ndarray:
    """Sum mel powers (n_mels, n_frames), each scaled, raised and amplified.

    The sum is of linear power: decibels do not add.
    """
    mixed = np.zeros_like(powers[0])
    for power, bird in zip(powers, birds, strict=True):
        one = transforms.raise_to(power, bird.exponent) if bird.exponent else power
        mixed += one * np.float32(bird.gain)
    return mixed


def draw_ingredients(
    waveforms: list[np.ndarray], config: Config, n_pink: int, rng: np.random.Generator
) -> Ingredients:
    """Draw all that happens to an image of these waveforms, in one order whatever makes it."""
    bird_draws = [draw_bird(config, rng) for _ in waveforms]
    draws = draw_steps(config, n_pink, rng)
    mask = masks.draw_mask(config, rng)
    band_gains = filters.draw_band_gains(config, rng)
    crop = masks.draw_crop(config, rng)
    return Ingredients(waveforms, bird_draws, draws, mask, band_gains, crop)


def training_image(ingredients: Ingredients, view: View, pink: PinkNoiseImages) -> np.ndarray:
    """Mix the birds' mel powers and go through the steps: (channels, frames, bands)."""
    settings = mel_settings(view.config)
    powers = [
        transforms.mel_power(waveform, **settings, dtype=np.float32)
        for waveform in ingredients.waveforms
    ]
    mel = mix_birds(powers, ingredients.bird_draws)
    if ingredients.band_gains is not None:
        mel *= ingredients.band_gains[:, None]

    image = apply_steps(view.levels(mel), ingredients.draws, pink)
    if ingredients.crop is not None:
        image = masks.stretch(image, ingredients.crop)
    if ingredients.mask is not None:
        image[ingredients.mask] = image.min()
    return view.finish(image)


def apply_steps(image: np.ndarray, draws: Draws, pink: PinkNoiseImages) -> np.ndarray:
    """Add noises, shape frequencies and set the contrast of an image (n_mels, n_frames) >= 0.

    With m the image's mean and u uniform in [0, 1): white noise is (u + 10) * m * strength; 1/f
    noise (pink + 2.5) * m * strength; noise in the rows from band_start to band_stop (u + 9) * m *
    strength.

    Returns:
        (n_mels, n_frames) float32, in [0, 1] where the contrast is set.
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
    return transforms.raise_to(image, draws.contrast) if draws.contrast else image


def clip_image(waveform: np.ndarray, view: View) -> np.ndarray:
    """Make the image (channels, frames, bands) that a model is validated on and predicts from.

    Args:
        waveform: (n,) float32 or int16, n >= 1; only the first clip is used.
        view: what the network sees; it has the settings of the clip, too.
    """
    config = view.config
    clip = transforms.normalize_peak(transforms.crop_or_pad(waveform, config.n_samples))
    return view.finish(view.levels(transforms.mel_power(clip, **mel_settings(config))))
