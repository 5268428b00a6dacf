"""Log-mel: the power of a waveform in mel bands over time, in decibels.

The Fourier transforms of one clip are nearly all the work there is. MKL and pocketfft go through
one frame after the other; mel_kernel.py takes 64 frames through each step side by side. This module
puts together what it needs.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from configs import Config, UserError

if TYPE_CHECKING:
    from scipy.sparse import csr_array


@lru_cache
def mel_bank(sample_rate: int, n_fft: int, n_mels: int, fmin: float, fmax: float) -> csr_array:
    """Slaney's mel bank, as librosa.filters.mel makes it: (n_mels, 1 + n_fft // 2) float32, sparse.

    Triangles between neighbouring centres, equally spaced in mel (200 / 3 Hz a mel up to 1 kHz,
    above it 27 mel for a factor of 6.4), each of area 1 in Hz. Made here because importing librosa
    takes a second.
    """
    from scipy.sparse import csr_array

    if not 0 <= fmin < fmax <= sample_rate / 2:
        raise ValueError(
            f"expected 0 <= fmin < fmax <= {sample_rate / 2:g} Hz, got {fmin:g} and {fmax:g}"
        )
    log_step = math.log(6.4) / 27
    low, high = (
        3 * f / 200 if f < 1000 else 15 + math.log(f / 1000) / log_step for f in (fmin, fmax)
    )
    mels = np.linspace(low, high, n_mels + 2)
    edges = np.where(mels < 15, 200 * mels / 3, 1000 * np.exp(log_step * (mels - 15)))[
        :, None
    ]  # (n_mels + 2, 1) Hz
    bins = np.arange(1 + n_fft // 2) * (sample_rate / n_fft)  # Hz
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    triangles = np.maximum(0, np.minimum(rising, falling)) * (2 / (edges[2:] - edges[:-2]))
    return csr_array(triangles.astype(np.float32))


def check_bands(config: Config) -> None:
    """Refuse settings with a mel band that holds no frequency of the STFT: it would stay silent.

    Raises:
        UserError: there is one; the message says which setting to change.
    """
    settings = bank_settings(config)
    n_empty = count_empty_bands(**settings)
    if not n_empty:
        return

    n_fft = 2 * config.n_fft
    while count_empty_bands(**settings | {"n_fft": n_fft}):
        n_fft *= 2
    raise UserError(
        f"n_mels: {n_empty} of {config.n_mels} mel bands are empty: no frequency of an STFT with "
        f"n_fft={config.n_fft} lies in them; take fewer n_mels, a higher fmin or n_fft={n_fft}"
    )


def count_empty_bands(**settings: Any) -> int:
    """Count the bands of `mel_bank(**settings)` that hold no frequency of the STFT."""
    n_frequencies = np.diff(mel_bank(**settings).indptr)  # (n_mels,)
    return int((n_frequencies == 0).sum())


def mel_power(
    waveform: np.ndarray,
    *,
    sample_rate: int,
    n_fft: int,
    hop_length: int,
    n_mels: int,
    fmin: float,
    fmax: float,
    power: int = 2,
    dtype: type[np.floating] = np.float64,
) -> np.ndarray:
    """Power in mel bands over time: librosa's melspectrogram, many times faster.

    Args:
        waveform: (n_samples,), at least one; frames are centred, zeros stand beyond both ends.
        sample_rate: Hz.
        n_fft: samples in a Hann frame, even; a power of two is fast.
        hop_length: samples between frames.
        n_mels: number of bands.
        fmin: Hz, lower edge of the lowest band.
        fmax: Hz, upper edge of the highest one.
        power: 2 sums the powers of the frequencies in a band, 1 their magnitudes.
        dtype: what the transform is computed in. In float64 the result equals librosa's to 1e-4 dB
            down to 80 dB below a clip's peak; float32 takes half the time and was up to 2e-3 dB off
            on 120 field recordings.

    Returns:
        (n_mels, 1 + n_samples // hop_length) float32, >= 0; the same bits in any thread or process.

    Raises:
        ValueError: an empty waveform, more than one axis, an odd n_fft, or frequencies out of
            range.
    """
    if waveform.ndim != 1 or not len(waveform) or n_fft % 2:
        raise ValueError(
            f"expected a waveform (n,) with n >= 1 and an even n_fft, got {waveform.shape}, {n_fft}"
        )
    n_frames = 1 + len(waveform) // hop_length
    if n_fft < 16 or n_fft & (n_fft - 1):
        bank = mel_bank(sample_rate, n_fft, n_mels, fmin, fmax)
        spectrum = _stft_power(waveform, n_fft, hop_length) ** (power / 2)
        return (bank @ spectrum.T).astype(np.float32)

    from audio import mel_kernel  # and numba, which takes a third of a second

    n_blocks = mel_kernel.count_blocks(n_frames, n_fft, hop_length)
    padded = np.zeros(n_blocks * hop_length, dtype)
    padded[n_fft // 2 : n_fft // 2 + len(waveform)] = waveform
    mel = np.empty((n_mels, n_frames), np.float32)
    tables = _tables(sample_rate, n_fft, n_mels, fmin, fmax, np.dtype(dtype), power)
    mel_kernel.build(n_fft, power == 1)(padded, hop_length, *tables, mel)
    return mel


def _stft_power(waveform: np.ndarray, n_fft: int, hop_length: int) -> np.ndarray:
    """Transform frame by frame, for any n_fft: (n_frames, 1 + n_fft // 2)."""
    padded = np.pad(waveform.astype(np.float64), n_fft // 2)
    frames = sliding_window_view(padded, n_fft)[::hop_length] * _hann_window(n_fft)
    return np.abs(np.fft.rfft(frames)) ** 2


def power_to_db(power: np.ndarray, top_db: float, *, exponent: int = 2) -> np.ndarray:
    """Power >= 0 to decibels, power 1 being 0 dB: (..., n_mels, n_frames) float32.

    Nothing is below -100 dB, or more than `top_db` below the peak of its own clip, the last two
    axes. `exponent` 1 says that `power` holds magnitudes, as `mel_power` makes them with power=1.
    """
    floor = 1e-10 if exponent == 2 else 1e-5
    decibels = np.maximum(np.asarray(power, np.float32), np.float32(floor))
    np.log(decibels, out=decibels)  # vectorised by numpy on more processors than log10
    decibels *= 20 / exponent / math.log(10)
    return np.maximum(
        decibels, decibels.max(axis=(-2, -1), keepdims=True) - np.float32(top_db), out=decibels
    )


def log_mel(waveform: np.ndarray, *, top_db: float, **mel_settings: Any) -> np.ndarray:
    """`power_to_db` of `mel_power`, which takes the other settings."""
    mel = mel_power(waveform, **mel_settings)
    return power_to_db(mel, top_db, exponent=mel_settings.get("power", 2))


def mel_settings(config: Config) -> dict[str, Any]:
    """Collect the keyword arguments that `mel_power` needs."""
    names = ("sample_rate", "n_fft", "hop_length", "n_mels", "fmin", "fmax", "power")
    return {name: getattr(config, name) for name in names}


def bank_settings(config: Config) -> dict[str, Any]:
    """Collect the keyword arguments that `mel_bank` needs."""
    names = ("sample_rate", "n_fft", "n_mels", "fmin", "fmax")
    return {name: getattr(config, name) for name in names}


# Tables -------------------------------------------------------------------------------------------


def _hann_window(n_fft: int) -> np.ndarray:
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)


@lru_cache
def _tables(
    sample_rate: int,
    n_fft: int,
    n_mels: int,
    fmin: float,
    fmax: float,
    dtype: np.dtype,
    power: int,
) -> tuple[np.ndarray, ...]:
    """What the kernel looks up.

    Returns:
        Window (n_fft,); twiddle factors (passes of radix 8, n_fft // 8, 7) complex; the row in
        which each frequency ends up (n_fft,); the mel bank by frequency: where each one's entries
        start (2 + n_fft // 2,), their bands and their weights (n_weights,), a quarter of the
        bank's, for the kernel's powers are four times too high, or half, for its magnitudes.
    """
    from audio.mel_kernel import split_radices

    eights, rest = split_radices(n_fft)
    row = np.arange(n_fft // 8)
    twiddles = np.stack(
        [
            np.exp(-2j * np.pi * np.outer(row // 8**k * 8**k, np.arange(1, 8)) / n_fft)
            for k in range(eights)
        ]
    )
    # A pass sorts by its own digit of the frequency and appends it to those before: the first digit
    # found is the lowest of the frequency, and the highest of the row.
    frequency, row, worth = np.zeros(n_fft, np.int64), np.arange(n_fft), n_fft
    for radix in [rest] * (rest > 1) + [8] * eights:
        worth //= radix
        frequency += worth * (row % radix)
        row = row // radix
    bank = mel_bank(sample_rate, n_fft, n_mels, fmin, fmax).tocsc()
    return (
        _hann_window(n_fft).astype(dtype),
        twiddles.astype(np.complex64 if dtype == np.float32 else np.complex128),
        np.argsort(frequency),
        bank.indptr.astype(np.int64),
        bank.indices.astype(np.int64),
        (bank.data / 2**power).astype(dtype),
    )
