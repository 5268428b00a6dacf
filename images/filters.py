"""Random filters of a training clip, as gains of its mel bands: low-pass, equaliser, FilterAugment.

A filter that is slow to change over frequency multiplies the power of a band by its response at
the band's centre, so it needs no filtering of the waveform.
"""

import math
from functools import lru_cache

import numpy as np

from audio.mel import bank_settings, mel_bank
from configs import Config

SLOPE_DB = 12.0  # of the low-pass, per octave
EQUALISER_OCTAVES = (0.25, 1.0)  # range of the width of a rise or dip
FILTER_BANDS = (2, 5)  # range of the number of FilterAugment's bands


def draw_band_gains(config: Config, rng: np.random.Generator) -> np.ndarray | None:
    """Draw the gains of mel power in the bands: (n_mels,) float32; None if there never are any."""
    if not config.p_low_pass and not config.p_equaliser and not config.p_filter_augment:
        return None

    hertz = band_centres(**bank_settings(config))
    gain_db = np.zeros(len(hertz))
    if rng.random() < config.p_low_pass:
        gain_db += low_pass_db(hertz, _log_uniform(config.low_pass_hz, rng))
    if rng.random() < config.p_equaliser:
        gain_db += _draw_equaliser(hertz, config.filter_db, rng)
    if rng.random() < config.p_filter_augment:
        gain_db += _draw_filter_augment(len(hertz), config.filter_db, rng)
    return (10 ** (gain_db * config.power / 20)).astype(np.float32)


@lru_cache
def band_centres(**bank: float) -> np.ndarray:
    """Return the frequency at which each band of the mel bank is highest: (n_mels,) Hz."""
    peaks = mel_bank(**bank).toarray().argmax(axis=1)
    return peaks * (bank["sample_rate"] / bank["n_fft"])


def low_pass_db(hertz: np.ndarray, edge_hz: float) -> np.ndarray:
    """Gain of a second-order Butterworth low-pass: -3 dB at its edge, then -12 dB an octave."""
    return -10 * np.log10(1 + (hertz / edge_hz) ** (SLOPE_DB / 3))


def _draw_equaliser(
    hertz: np.ndarray, range_db: tuple[float, float], rng: np.random.Generator
) -> np.ndarray:
    """A bell over the logarithm of frequency, centred on a band, its gain from the range."""
    heard = hertz[hertz > 0]
    centre = _log_uniform((heard[0], heard[-1]), rng)
    width, height_db = rng.uniform(*EQUALISER_OCTAVES), rng.uniform(*range_db)
    octaves = np.log2(np.maximum(hertz, heard[0]) / centre)
    return height_db * np.exp(-0.5 * (octaves / width) ** 2)


def _draw_filter_augment(
    n_bands: int, range_db: tuple[float, float], rng: np.random.Generator
) -> np.ndarray:
    """FilterAugment, linear type (arXiv:2110.03282): gains at random bands, joined by lines."""
    n_inner = int(rng.integers(*FILTER_BANDS, endpoint=True)) - 1
    inner = np.sort(rng.uniform(0, n_bands - 1, n_inner))
    corners = np.concatenate([[0], inner, [n_bands - 1]])
    return np.interp(np.arange(n_bands), corners, rng.uniform(*range_db, len(corners)))


def _log_uniform(limits: tuple[float, float], rng: np.random.Generator) -> float:
    return math.exp(rng.uniform(math.log(limits[0]), math.log(limits[1])))
