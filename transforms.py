"""From a waveform to an image, and every augmentation on the way.

Axes: a waveform is (n_samples,), an image (n_mels, n_frames), a batch (batch, 3, n_frames, n_mels).
Results are new float32 arrays, inputs stay as they are, and all randomness comes from the generator
that is passed in.
"""

from __future__ import annotations

import math
import os
import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from audio.mel import log_mel as log_mel  # "as": callers find these four here, too
from audio.mel import mel_bank as mel_bank
from audio.mel import mel_power as mel_power
from audio.mel import power_to_db as power_to_db
from configs import Config

if TYPE_CHECKING:
    import torch

    Mixed = tuple[torch.Tensor, torch.Tensor, torch.Tensor, float]

VOCODER_SAMPLES = 2048  # librosa's STFT frame; shorter waveforms are padded to it


# Waveforms ----------------------------------------------------------------------------------------


def crop_or_pad(
    waveform: np.ndarray, n_samples: int, rng: np.random.Generator | None = None
) -> np.ndarray:
    """Cut one clip out of a recording; repeat a shorter one, then pad it with zeros.

    Args:
        waveform: (n,), n >= 1, float or int16 (full scale 32767). Only the clip is read of a
            memory map.
        n_samples: length of the clip.
        rng: draws the start; None starts at 0, for validation.

    Returns:
        (n_samples,) float32. A shorter waveform is repeated whole times, the rest is zero.

    Raises:
        ValueError: an empty waveform, more than one axis, or another type.
    """
    return to_float32(cut_clip(waveform, n_samples, rng))


def cut_clip(
    waveform: np.ndarray,
    n_samples: int,
    rng: np.random.Generator | None = None,
    *,
    start: int | None = None,
) -> np.ndarray:
    """As `crop_or_pad`, but int16 stays int16; everything else becomes float32.

    A given `start` is used as it is.
    """
    is_int16 = waveform.dtype == np.int16
    if waveform.ndim != 1 or not len(waveform) or not (is_int16 or waveform.dtype.kind == "f"):
        raise ValueError(
            "expected a float or int16 waveform (n,), n >= 1, "
            f"got {waveform.dtype} {waveform.shape}"
        )

    if start is None:
        start = draw_start(len(waveform), n_samples, rng)
    source = np.asarray(waveform[start : start + n_samples])

    clip = np.empty(n_samples, np.int16 if is_int16 else np.float32)
    whole = n_samples - n_samples % len(source)
    clip[:whole].reshape(-1, len(source))[:] = source
    clip[whole:] = 0
    return clip


def draw_start(length: int, n_samples: int, rng: np.random.Generator | None) -> int:
    """Draw where to cut a clip out of `length` samples; 0 without a generator, or if all is it."""
    spare = length - n_samples
    return int(rng.integers(spare, endpoint=True)) if rng is not None and spare > 0 else 0


def to_float32(clip: np.ndarray) -> np.ndarray:
    """Turn int16 of full scale 32767 into float32 of full scale 1; float32 is returned as it is."""
    return clip * np.float32(1 / 32767) if clip.dtype == np.int16 else clip


def normalize_peak(waveform: np.ndarray) -> np.ndarray:
    """Scale (n,) samples to a largest absolute value of 1, as float32. Silence stays zeros."""
    peak = max(waveform.max(), -waveform.min())
    return (waveform / (peak if peak > 0 else 1)).astype(np.float32, copy=False)


@dataclass(frozen=True)
class WaveformTransform(ABC):
    """A change of a waveform (n,) with probability `p`; the result is a new float32 array."""

    p: float = field(default=1.0, kw_only=True)

    def __call__(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the waveform, changed with probability `p`."""
        copy = np.array(waveform, dtype=np.float32)
        if rng.random() >= self.p:
            return copy
        return self._apply(copy, rng).astype(np.float32, copy=False)

    @abstractmethod
    def _apply(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray: ...


@dataclass(frozen=True)
class Compose(WaveformTransform):
    """All transforms, one after another."""

    transforms: Sequence[WaveformTransform]

    def _apply(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        for transform in self.transforms:
            waveform = transform(waveform, rng)
        return waveform


@dataclass(frozen=True)
class OneOf(Compose):
    """One of the transforms, each with the same chance; then its own `p` counts."""

    def _apply(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return self.transforms[int(rng.integers(len(self.transforms)))](waveform, rng)


@dataclass(frozen=True)
class Normalize(WaveformTransform):
    """Scale to a peak of 1; silence stays zeros."""

    def _apply(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return normalize_peak(waveform)


@dataclass(frozen=True)
class NoiseInjection(WaveformTransform):
    """Add white noise with a standard deviation from [0, max_amplitude], meant for a peak of 1."""

    max_amplitude: float = 0.04

    def _apply(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        amplitude = rng.uniform(0, self.max_amplitude)
        return waveform + amplitude * rng.standard_normal(len(waveform), np.float32)


@dataclass(frozen=True)
class GaussianNoise(WaveformTransform):
    """Add white noise at a signal-to-noise ratio drawn from `snr_db`; silence stays as it is."""

    snr_db: tuple[float, float] = (5.0, 20.0)

    def _apply(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        noise = self._noise(len(waveform), rng)
        power_ratio = np.mean(np.square(waveform)) / np.mean(np.square(noise))

        return waveform + math.sqrt(power_ratio * 10 ** (-rng.uniform(*self.snr_db) / 10)) * noise

    def _noise(self, n_samples: int, rng: np.random.Generator) -> np.ndarray:
        return rng.standard_normal(n_samples, np.float32)


@dataclass(frozen=True)
class PinkNoise(GaussianNoise):
    """The same with noise whose power falls by 3 dB an octave, as that of wind and surf does."""

    def _noise(self, n_samples: int, rng: np.random.Generator) -> np.ndarray:
        import colorednoise

        # np.random.seed does not reach colorednoise; a single sample has no spectrum.
        noise = colorednoise.powerlaw_psd_gaussian(1, max(2, n_samples), random_state=rng)
        return noise[:n_samples].astype(np.float32)


@dataclass(frozen=True)
class PitchShift(WaveformTransform):
    """Shift the pitch by a number of semitones drawn from `semitones`; the length stays."""

    sample_rate: int
    semitones: tuple[float, float] = (-2.0, 2.0)

    def _apply(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        import librosa

        padded = np.pad(waveform, (0, max(0, VOCODER_SAMPLES - len(waveform))))
        n_steps = rng.uniform(*self.semitones)
        shifted = librosa.effects.pitch_shift(y=padded, sr=self.sample_rate, n_steps=n_steps)
        return shifted[: len(waveform)]


@dataclass(frozen=True)
class TimeStretch(WaveformTransform):
    """Play at a rate drawn from `rate`, above 1 faster, at the same pitch.

    n samples become round(n / rate).
    """

    rate: tuple[float, float] = (0.9, 1.1)

    def _apply(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        import librosa

        padded = np.pad(waveform, (0, max(0, VOCODER_SAMPLES - len(waveform))))
        rate = rng.uniform(*self.rate)
        stretched = librosa.effects.time_stretch(y=padded, rate=rate)
        return stretched[: max(1, round(len(waveform) / rate))]


@dataclass(frozen=True)
class Speed(WaveformTransform):
    """Play at a rate drawn from `rate`, above 1 faster and higher: n samples become n / rate."""

    rate: tuple[float, float] = (0.9, 1.1)

    def _apply(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        import soxr

        # A stretch of 1 : rate is a change of sample rate that nobody is told of.
        return soxr.resample(waveform, rng.uniform(*self.rate), 1.0, quality="HQ")


@dataclass(frozen=True)
class RandomVolume(WaveformTransform):
    """Multiply by a constant gain drawn from `gain_db`."""

    gain_db: tuple[float, float] = (-10.0, 10.0)

    def _apply(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return waveform * 10 ** (rng.uniform(*self.gain_db) / 20)


@dataclass(frozen=True)
class CosineVolume(RandomVolume):
    """Multiply by a gain that swings as a cosine in dB between two values of `gain_db`."""

    def _apply(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        ends, middle = rng.uniform(*self.gain_db), rng.uniform(*self.gain_db)
        phase = 2 * np.pi * np.arange(len(waveform)) / len(waveform)
        gain_db = ((ends + middle) + (ends - middle) * np.cos(phase)) / 2
        return waveform * 10 ** (gain_db / 20)


def build_waveform_augmentation(config: Config) -> Compose | None:
    """Collect the transforms whose probability is above 0; None if there are none.

    They expect a peak of 1 and `samples_needed` samples (else a faster clip ends in zeros); crop
    what they return. Noise comes after the phase vocoders, which would smear it, and
    the gains come last.
    """
    transforms = [
        PitchShift(config.sample_rate, config.pitch_shift_semitones, p=config.p_pitch_shift),
        TimeStretch(config.time_stretch_rate, p=config.p_time_stretch),
        Speed(config.speed_rate, p=config.p_speed),
        NoiseInjection(config.noise_injection_max, p=config.p_noise_injection),
        GaussianNoise(config.noise_snr_db, p=config.p_gaussian_noise),
        PinkNoise(config.noise_snr_db, p=config.p_pink_noise),
        RandomVolume(config.volume_db, p=config.p_random_volume),
        CosineVolume(config.volume_db, p=config.p_cosine_volume),
    ]
    chosen = [transform for transform in transforms if transform.p > 0]
    return Compose(chosen) if chosen else None


def samples_needed(config: Config) -> int:
    """Return how many samples leave a whole clip after the fastest stretch and speed."""
    n_samples = config.n_samples
    if config.p_time_stretch:
        n_samples = math.ceil(n_samples * max(1.0, config.time_stretch_rate[1]))
    if config.p_speed:
        n_samples = math.ceil(n_samples * max(1.0, config.speed_rate[1])) + 1
    return n_samples


# Images -------------------------------------------------------------------------------------------


def min_max(image: np.ndarray) -> np.ndarray:
    """Shift and scale to [0, 1]; a flat image gives zeros."""
    scaled = np.asarray(image, np.float32) - np.float32(image.min())
    span = scaled.max()
    return np.divide(scaled, span, out=scaled) if span > 0 else scaled


def raise_to(image: np.ndarray, exponent: float) -> np.ndarray:
    """Scale to [0, 1], then raise to an exponent > 0; a flat image gives zeros."""
    scaled = min_max(image)

    # exp(exponent * log) is vectorised on more processors than np.power.
    with np.errstate(divide="ignore"):  # log 0 = -inf, and exp gives the 0 back
        np.log(scaled, out=scaled)
    scaled *= exponent
    return np.exp(scaled, out=scaled)


def random_power(image: np.ndarray, power: float, c: float, rng: np.random.Generator) -> np.ndarray:
    """Scale to [0, 1], then raise to an exponent drawn from [c, c + power), c > 0."""
    return raise_to(image, rng.random() * power + c)


def shape_frequencies(image: np.ndarray, ramp_rows: int, x: float) -> np.ndarray:
    """Weaken the high bands, then scale to a maximum of 1.

    The gain falls from 1 to 1 - x over `ramp_rows` rows and stays there above. Expects an image
    >= 0; zeros stay zeros.
    """
    gain = 1 - x * np.minimum(np.arange(len(image)) / ramp_rows, 1)
    shaped = image * gain.astype(np.float32)[:, None]
    peak = shaped.max()
    return np.divide(shaped, peak, out=shaped) if peak > 0 else shaped


def mono_to_color(image: np.ndarray) -> np.ndarray:
    """Scale two axes, in either order, to [0, 1] and repeat them: (3, ...)."""
    return np.repeat(min_max(np.ascontiguousarray(image))[None], 3, axis=0)


@lru_cache(maxsize=1)
def _rectangle_cutter() -> Any:
    # Without it the import asks the network for news.
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    import albumentations as A

    size = {"hole_height_range": (0.05, 0.2), "hole_width_range": (0.05, 0.2)}
    return A.Compose([A.CoarseDropout((1, 4), **size, fill=0, p=1.0, strict=True)], strict=True)


def draw_rectangles(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Draw 1 to 4 rectangles, each a twentieth to a fifth of each axis: `shape`, True inside."""
    cutter = _rectangle_cutter()

    # Given a seed, its two generators would draw the same numbers; so it draws from ours.
    cutter.set_random_state(rng, random.Random(int(rng.integers(2**63))))
    return cutter(image=np.ones(shape, np.float32))["image"] == 0


# Batches ------------------------------------------------------------------------------------------


def mixup(
    images: torch.Tensor, targets: torch.Tensor, alpha: float, rng: np.random.Generator
) -> Mixed:
    """Blend each image with that of another clip of the batch.

    Args:
        images: (B, 3, T, F), any device and float type.
        targets: (B, C).
        alpha: lam is drawn from Beta(alpha, alpha).
        rng: draws lam and the partners.

    Returns:
        lam * images + (1 - lam) * partners, targets, the partners' targets, lam (which weighs the
        losses too).
    """
    lam = float(rng.beta(alpha, alpha))
    partners = _draw_partners(images, rng)
    return images.lerp(images[partners], 1 - lam), targets, targets[partners], lam


def cutmix(
    images: torch.Tensor, targets: torch.Tensor, alpha: float, rng: np.random.Generator
) -> Mixed:
    """Paste a span of time, over all frequencies, from another clip of the batch.

    As `mixup`, but the span is round((1 - lam) * T) frames, and lam is returned as the share really
    kept. Targets of steps, (B, 1 + S, C), are pasted with it: both lists of targets that are
    returned have them.
    """
    n_frames = images.shape[2]
    pasted = round((1 - float(rng.beta(alpha, alpha))) * n_frames)
    start = int(rng.integers(n_frames - pasted, endpoint=True))
    partners = _draw_partners(images, rng)

    mixed = images.clone()
    mixed[:, :, start : start + pasted] = images[partners, :, start : start + pasted]
    others = targets[partners]
    if targets.ndim == 3:
        n_steps = targets.shape[1] - 1
        first, last = (round(frame * n_steps / n_frames) for frame in (start, start + pasted))
        targets, others = targets.clone(), others.clone()
        targets[:, 1 + first : 1 + last] = others[:, 1 + first : 1 + last]
        others[:, 1:] = targets[:, 1:]
    return mixed, targets, others, 1 - pasted / n_frames


def _draw_partners(images: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Draw another clip for each: their numbers (B,), on the device of the images.

    From pinned memory they are copied to a GPU without a wait, as a list would not be.
    """
    import torch  # with its images it is there already; alone it takes seconds

    partners = torch.from_numpy(rng.permutation(len(images)))
    if images.is_cuda:
        partners = partners.pin_memory().to(images.device, non_blocking=True)
    return partners
