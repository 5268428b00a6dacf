"""Slow, obvious versions of the signal code, from the definitions; they share no code with ours."""

import math

import numpy as np


def slow_stft_power(waveform: np.ndarray, n_fft: int, hop_length: int) -> np.ndarray:
    """|STFT|^2 as sums over a cosine and a sine: Hann window, centred, zeros beyond the ends.

    Returns:
        (1 + n_fft // 2, n_frames) float64.
    """
    n_frames = 1 + len(waveform) // hop_length
    time = np.arange(n_fft)
    window = np.array([0.5 - 0.5 * math.cos(2 * math.pi * t / n_fft) for t in time])
    power = np.zeros((1 + n_fft // 2, n_frames))
    for frame in range(n_frames):
        first = frame * hop_length - n_fft // 2
        samples = np.array(
            [waveform[i] if 0 <= i < len(waveform) else 0.0 for i in range(first, first + n_fft)]
        )
        for k in range(1 + n_fft // 2):
            angle = 2 * math.pi * k * time / n_fft
            in_phase = float(np.sum(samples * window * np.cos(angle)))
            quadrature = float(np.sum(samples * window * np.sin(angle)))
            power[k, frame] = in_phase**2 + quadrature**2
    return power


def hz_to_mel(hz: float) -> float:
    """Slaney's scale: 3 mel every 200 Hz up to 1000 Hz, then 27 mel for each factor of 6.4."""
    return 3 * hz / 200 if hz < 1000 else 15 + 27 * math.log(hz / 1000) / math.log(6.4)


def mel_to_hz(mel: float) -> float:
    """Inverse of hz_to_mel."""
    return 200 * mel / 3 if mel < 15 else 1000 * 6.4 ** ((mel - 15) / 27)


def mel_edges(n_mels: int, fmin: float, fmax: float) -> list[float]:
    """Corners of the triangles, n_mels + 2 in Hz; band i has the corners i, i + 1 and i + 2."""
    low, high = hz_to_mel(fmin), hz_to_mel(fmax)
    return [mel_to_hz(low + (high - low) * i / (n_mels + 1)) for i in range(n_mels + 2)]


def slow_mel_bank(
    sample_rate: int, n_fft: int, n_mels: int, fmin: float, fmax: float
) -> np.ndarray:
    """Triangles of area 1 Hz, sampled at the FFT's bins: (n_mels, 1 + n_fft // 2) float64."""
    edges = mel_edges(n_mels, fmin, fmax)
    bank = np.zeros((n_mels, 1 + n_fft // 2))
    for band in range(n_mels):
        left, centre, right = edges[band : band + 3]
        for k in range(1 + n_fft // 2):
            hz = k * sample_rate / n_fft
            if left < hz <= centre:
                bank[band, k] = (hz - left) / (centre - left)
            elif centre < hz < right:
                bank[band, k] = (right - hz) / (right - centre)
            bank[band, k] *= 2 / (right - left)
    return bank


def slow_crop_or_pad(waveform: np.ndarray, n_samples: int, start: int) -> list[float]:
    """Sample by sample: from `start`, or whole copies and then zeros."""
    n = len(waveform)
    if n >= n_samples:
        return [float(waveform[start + i]) for i in range(n_samples)]
    whole = (n_samples // n) * n
    return [float(waveform[i % n]) if i < whole else 0.0 for i in range(n_samples)]


def octave_slope_db(power: np.ndarray, frequencies: np.ndarray) -> float:
    """Slope of 10 * log10(power) over log2(frequency), by least squares, in dB an octave."""
    return float(np.polyfit(np.log2(frequencies), 10 * np.log10(power), 1)[0])
