"""From a waveform to an image, and every augmentation on the way.

Axes: a waveform is (n_samples,), an image (n_mels, n_frames), a batch (batch, 3, n_frames, n_mels). Results are
new float32 arrays, inputs stay as they are, and all randomness comes from the generator that is passed in.
"""

from __future__ import annotations

import math
import os
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from configs import Config

if TYPE_CHECKING:
    import torch
    from scipy.sparse import csr_array

    Mixed = tuple[torch.Tensor, torch.Tensor, torch.Tensor, float]

VOCODER_SAMPLES = 2048  # librosa's STFT frame; shorter waveforms are padded to it


# Waveforms -----------------------------------------------------------------------------------------------


def crop_or_pad(waveform: np.ndarray, n_samples: int, rng: np.random.Generator | None = None) -> np.ndarray:
    """Cut a recording to one clip; repeat it, then pad it with zeros, where it is shorter.

    Args:
        waveform: (n,), n >= 1, float or int16 (full scale 32767). Of a memory map only the clip is read.
        n_samples: length of the clip.
        rng: draws the start; None starts at 0, for validation.

    Returns:
        (n_samples,) float32. A shorter waveform is repeated whole times, the rest is zero.

    Raises:
        ValueError: an empty waveform, more than one axis, or another type.
    """
    if waveform.ndim != 1 or not len(waveform) or not (waveform.dtype.kind == "f" or waveform.dtype == np.int16):
        raise ValueError(f"expected a float or int16 waveform (n,), n >= 1, got {waveform.dtype} {waveform.shape}")
    spare = len(waveform) - n_samples
    start = int(rng.integers(spare, endpoint=True)) if rng is not None and spare > 0 else 0
    source = np.asarray(waveform[start : start + n_samples])
    clip = np.empty(n_samples, np.float32)
    whole = n_samples - n_samples % len(source)
    clip[:whole].reshape(-1, len(source))[:] = source
    clip[whole:] = 0
    if waveform.dtype == np.int16:
        clip *= np.float32(1 / 32767)
    return clip


def normalize_peak(waveform: np.ndarray) -> np.ndarray:
    """Scale (n,) samples to a largest absolute value of 1, as float32. Silence stays zeros."""
    peak = max(waveform.max(), -waveform.min())
    return (waveform / (peak if peak > 0 else 1)).astype(np.float32, copy=False)


@dataclass(frozen=True)
class WaveformTransform(ABC):
    """A change of a waveform (n,) that happens with probability `p`; the result is a new float32 array."""

    p: float = field(default=1.0, kw_only=True)

    def __call__(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the waveform, changed with probability `p`; only TimeStretch changes its length."""
        copy = np.array(waveform, dtype=np.float32)
        return self._apply(copy, rng).astype(np.float32, copy=False) if rng.random() < self.p else copy

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
    """Add white noise of a standard deviation drawn from [0, max_amplitude], meant for a peak of 1."""

    max_amplitude: float = 0.04

    def _apply(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return waveform + rng.uniform(0, self.max_amplitude) * rng.standard_normal(len(waveform), np.float32)


@dataclass(frozen=True)
class GaussianNoise(WaveformTransform):
    """Add white noise at a signal-to-noise ratio drawn from `snr_db`; silence, which has none, stays."""

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
        return librosa.effects.pitch_shift(y=padded, sr=self.sample_rate, n_steps=n_steps)[: len(waveform)]


@dataclass(frozen=True)
class TimeStretch(WaveformTransform):
    """Play at a rate drawn from `rate` (above 1 is faster) at the same pitch: n samples become round(n / rate)."""

    rate: tuple[float, float] = (0.9, 1.1)

    def _apply(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        import librosa

        padded = np.pad(waveform, (0, max(0, VOCODER_SAMPLES - len(waveform))))
        rate = rng.uniform(*self.rate)
        return librosa.effects.time_stretch(y=padded, rate=rate)[: max(1, round(len(waveform) / rate))]


@dataclass(frozen=True)
class RandomVolume(WaveformTransform):
    """Multiply by a constant gain drawn from `gain_db`."""

    gain_db: tuple[float, float] = (-10.0, 10.0)

    def _apply(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return waveform * 10 ** (rng.uniform(*self.gain_db) / 20)


@dataclass(frozen=True)
class CosineVolume(RandomVolume):
    """Multiply by a gain that swings, as a cosine in dB, from one value of `gain_db` to another and back."""

    def _apply(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        ends, middle = rng.uniform(*self.gain_db), rng.uniform(*self.gain_db)
        phase = 2 * np.pi * np.arange(len(waveform)) / len(waveform)
        return waveform * 10 ** (((ends + middle) + (ends - middle) * np.cos(phase)) / 2 / 20)


def build_waveform_augmentation(config: Config) -> Compose | None:
    """Collect the transforms whose chance is above 0; None if there are none.

    Give them a peak of 1 and n_samples times the fastest stretch (else a faster clip ends in zeros), and crop
    what they return. Noise comes after the phase vocoders, which would smear it, and the gains come last.
    """
    transforms = [
        PitchShift(config.sample_rate, config.pitch_shift_semitones, p=config.p_pitch_shift),
        TimeStretch(config.time_stretch_rate, p=config.p_time_stretch),
        NoiseInjection(config.noise_injection_max, p=config.p_noise_injection),
        GaussianNoise(config.noise_snr_db, p=config.p_gaussian_noise),
        PinkNoise(config.noise_snr_db, p=config.p_pink_noise),
        RandomVolume(config.volume_db, p=config.p_random_volume),
        CosineVolume(config.volume_db, p=config.p_cosine_volume),
    ]
    chosen = [transform for transform in transforms if transform.p > 0]
    return Compose(chosen) if chosen else None


# Log-mel -------------------------------------------------------------------------------------------------


@lru_cache
def mel_bank(sample_rate: int, n_fft: int, n_mels: int, fmin: float, fmax: float) -> csr_array:
    """Slaney's mel bank, as librosa.filters.mel makes it: (n_mels, 1 + n_fft // 2) float32, sparse.

    Triangles between neighbouring centres, equally spaced in mel (200 / 3 Hz a mel up to 1 kHz, above it
    27 mel for a factor of 6.4), each of area 1 in Hz. Made here because importing librosa takes a second.
    """
    from scipy.sparse import csr_array

    if not 0 <= fmin < fmax <= sample_rate / 2:
        raise ValueError(f"expected 0 <= fmin < fmax <= {sample_rate / 2:g} Hz, got {fmin:g} and {fmax:g}")
    log_step = math.log(6.4) / 27
    low, high = (3 * f / 200 if f < 1000 else 15 + math.log(f / 1000) / log_step for f in (fmin, fmax))
    mels = np.linspace(low, high, n_mels + 2)
    edges = np.where(mels < 15, 200 * mels / 3, 1000 * np.exp(log_step * (mels - 15)))[:, None]  # (n_mels + 2, 1) Hz
    bins = np.arange(1 + n_fft // 2) * (sample_rate / n_fft)  # Hz
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    triangles = np.maximum(0, np.minimum(rising, falling)) * (2 / (edges[2:] - edges[:-2]))
    return csr_array(triangles.astype(np.float32))


def mel_power(
    waveform: np.ndarray, *, sample_rate: int, n_fft: int, hop_length: int, n_mels: int, fmin: float, fmax: float
) -> np.ndarray:
    """Power in mel bands over time: librosa's melspectrogram, several times faster.

    Equal to 1e-4 dB down to 80 dB below a clip's peak; a transform in float32 would be up to 4e-3 dB off.

    Args:
        waveform: (n_samples,), at least one; frames are centred, zeros stand beyond both ends.
        sample_rate: Hz.
        n_fft: samples in a Hann frame, even.
        hop_length: samples between frames.
        n_mels: number of bands.
        fmin: Hz, lower edge of the lowest band.
        fmax: Hz, upper edge of the highest one.

    Returns:
        (n_mels, 1 + n_samples // hop_length) float32, >= 0; the same bits for any number of threads.

    Raises:
        ValueError: an empty waveform, more than one axis, an odd n_fft, or frequencies out of range.
    """
    import torch

    if waveform.ndim != 1 or not len(waveform) or n_fft % 2:
        raise ValueError(f"expected a waveform (n,) with n >= 1 and an even n_fft, got {waveform.shape}, {n_fft}")
    padded = np.zeros(len(waveform) + n_fft)
    padded[n_fft // 2 : -n_fft // 2] = waveform
    window, bank = _hann_window(n_fft), mel_bank(sample_rate, n_fft, n_mels, fmin, fmax)
    frames = torch.from_numpy(padded).unfold(0, n_fft, hop_length)  # (n_frames, n_fft), a view
    parts = []
    # 1 MB at a time stays in the cache. MKL's FFT treats each frame by itself, and the sparse product
    # (one weight in 110 is not 0) runs in this thread: the number of threads cannot change a bit.
    for some_frames in frames.split(max(1, 2**17 // n_fft)):
        spectrum = torch.view_as_real(torch.fft.rfft(some_frames * window))  # (frames, 1 + n_fft // 2, 2) float64
        squares = spectrum.float().square_().numpy()
        power = np.add(squares[..., 0].T, squares[..., 1].T, order="C")  # (1 + n_fft // 2, frames)
        parts.append(bank @ power)  # (n_mels, frames)
    return np.concatenate(parts, axis=1)


@lru_cache
def _hann_window(n_fft: int) -> torch.Tensor:
    import torch

    return torch.hann_window(n_fft, dtype=torch.float64)


def power_to_db(power: np.ndarray, top_db: float) -> np.ndarray:
    """Power >= 0 to decibels, power 1 being 0 dB: (..., n_mels, n_frames) to the same shape, float32.

    Nothing is below -100 dB, or more than `top_db` below the peak of its own clip, the last two axes.
    """
    decibels = np.maximum(np.asarray(power, np.float32), np.float32(1e-10))
    np.log(decibels, out=decibels)  # vectorised by numpy on more processors than log10
    decibels *= 10 / math.log(10)
    return np.maximum(decibels, decibels.max(axis=(-2, -1), keepdims=True) - np.float32(top_db), out=decibels)


def log_mel(waveform: np.ndarray, *, top_db: float, **mel_settings: Any) -> np.ndarray:
    """`power_to_db` of `mel_power`, which takes the other settings."""
    return power_to_db(mel_power(waveform, **mel_settings), top_db)


# Images --------------------------------------------------------------------------------------------------


def min_max(image: np.ndarray) -> np.ndarray:
    """Shift and scale to [0, 1]; a flat image gives zeros."""
    scaled = np.asarray(image, np.float32) - np.float32(image.min())
    span = scaled.max()
    return np.divide(scaled, span, out=scaled) if span > 0 else scaled


def random_power(image: np.ndarray, power: float, c: float, rng: np.random.Generator) -> np.ndarray:
    """Scale to [0, 1], then raise to an exponent drawn from [c, c + power), c > 0; a flat image gives zeros."""
    exponent = rng.random() * power + c
    scaled = min_max(image)
    with np.errstate(divide="ignore"):  # log 0 = -inf, and exp gives the 0 back
        np.log(scaled, out=scaled)  # exp(exponent * log) is vectorised on more processors than np.power
    scaled *= exponent
    return np.exp(scaled, out=scaled)


def _noise_unit(image: np.ndarray, rng: np.random.Generator) -> np.float32:
    return image.mean() * np.float32(0.05 * rng.uniform(0.3, 1.3))


def _noise(shape: tuple[int, ...], offset: float, unit: np.float32, rng: np.random.Generator) -> np.ndarray:
    noise = rng.random(shape, np.float32)
    noise += np.float32(offset)
    noise *= unit
    return noise


def white_noise_image(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add (U[0, 1) + 10) * mean * 0.05 * U[0.3, 1.3), the mean being the image's."""
    unit = _noise_unit(image, rng)
    return _noise(image.shape, 10, unit, rng) + image


def pink_noise_image(image: np.ndarray, pink: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add (pink + 2.5) * 4 * mean * 0.05 * U[0.3, 1.3); `pink` is in [0, 1], of the image's shape and type."""
    noisy = pink + np.float32(2.5)
    noisy *= 4 * _noise_unit(image, rng)
    noisy += image
    return noisy


def band_noise_image(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add (U[0, 1) + 9) * 0.05 * mean * 0.05 * U[0.3, 1.3) to rows a to b - 1.

    a is drawn from [0, n_mels / 2], b from [a + 20, n_mels] (n_mels where a + 20 is beyond it).
    """
    n_mels, unit = len(image), np.float32(0.05) * _noise_unit(image, rng)
    start = int(rng.integers(n_mels // 2, endpoint=True))
    stop = int(rng.integers(min(start + 20, n_mels), n_mels, endpoint=True))
    noisy = np.array(image, np.float32)
    noisy[start:stop] += _noise(noisy[start:stop].shape, 9, unit, rng)
    return noisy


def frequency_shaping(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Weaken the high bands: gain 1 to 1 - x over r rows, 1 - x above; then scale to a maximum of 1.

    r is drawn from [n_mels / 2, n_mels], x from [0, 0.5). An image >= 0 is expected; zeros stay zeros.
    """
    ramp_rows = int(rng.integers(len(image) // 2, len(image), endpoint=True))
    gain = 1 - rng.uniform(0, 0.5) * np.minimum(np.arange(len(image)) / ramp_rows, 1)
    shaped = image * gain.astype(np.float32)[:, None]
    peak = shaped.max()
    return np.divide(shaped, peak, out=shaped) if peak > 0 else shaped


def mono_to_color(image: np.ndarray) -> np.ndarray:
    """Scale to [0, 1] and repeat: two axes, in either order, to (3, ...). A flat image gives zeros."""
    return np.repeat(min_max(np.ascontiguousarray(image))[None], 3, axis=0)


@lru_cache(maxsize=1)
def _rectangle_cutter() -> Any:
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # or the import asks the network for news
    import albumentations as A

    size = {"hole_height_range": (0.05, 0.2), "hole_width_range": (0.05, 0.2)}
    return A.Compose([A.CoarseDropout((1, 4), **size, fill=0, p=1.0, strict=True)], strict=True)


def cut_rectangles(image: np.ndarray, rng: np.random.Generator, p: float = 1.0) -> np.ndarray:
    """With probability `p`, set 1 to 4 rectangles, a twentieth to a fifth of each axis, to the image's minimum."""
    if rng.random() >= p:
        return np.array(image, np.float32)
    cutter = _rectangle_cutter()
    # Seeded, its two generators would repeat each other in every member; so it draws from ours.
    cutter.set_random_state(rng, random.Random(int(rng.integers(2**63))))
    low = image.min()
    return cutter(image=image - low)["image"] + low


def build_masks(config: Config) -> Callable[[np.ndarray, np.random.Generator], np.ndarray] | None:
    """Return `cut_rectangles` with the chance `p_masks`; None if it is 0."""
    return partial(cut_rectangles, p=config.p_masks) if config.p_masks > 0 else None


# Batches -------------------------------------------------------------------------------------------------


def mixup(images: torch.Tensor, targets: torch.Tensor, alpha: float, rng: np.random.Generator) -> Mixed:
    """Blend each image with that of another clip of the batch.

    Args:
        images: (B, 3, T, F), any device and float type.
        targets: (B, C).
        alpha: lam is drawn from Beta(alpha, alpha).
        rng: draws lam and the partners.

    Returns:
        lam * images + (1 - lam) * partners, targets, the partners' targets, lam (which weighs the losses too).
    """
    lam = float(rng.beta(alpha, alpha))
    partners = rng.permutation(len(images)).tolist()
    return images.lerp(images[partners], 1 - lam), targets, targets[partners], lam


def cutmix(images: torch.Tensor, targets: torch.Tensor, alpha: float, rng: np.random.Generator) -> Mixed:
    """Paste a span of time, over all frequencies, from another clip of the batch.

    As `mixup`, but the span is round((1 - lam) * T) frames, and lam is returned as the share really kept.
    """
    n_frames = images.shape[2]
    pasted = round((1 - float(rng.beta(alpha, alpha))) * n_frames)
    start = int(rng.integers(n_frames - pasted, endpoint=True))
    partners = rng.permutation(len(images)).tolist()
    mixed = images.clone()
    mixed[:, :, start : start + pasted] = images[partners, :, start : start + pasted]
    return mixed, targets, targets[partners], 1 - pasted / n_frames
