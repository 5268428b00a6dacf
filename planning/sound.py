"""What one recording sounds like: where its energy lies, how long its calls are, how loud it is.

Frames that stand out of the recording's own background, band by band, are its active ones. The
energy that they have above that background is what a network could learn from.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.fft

LOOK_S = 0.032  # of a spectrum
LOOK_STEP_S = 0.010  # from one to the next
CUT_BANDS = 24  # that calls are looked for in
CUT_LOW_HZ = 300.0  # below is wind
CUT_BINS = 8  # frequencies of such a band, at least: single ones flicker
BACKGROUND_SHARE = 20  # percentile of a band's frames that is its background
STANDS_OUT_DB = 10.0  # above it; flicker of a band of noise stays below 7 dB
SHORTEST_CALL_S = 0.02
LONGEST_GAP_S = 0.05  # inside a call
USED_DB = 80.0  # below the loudest frequency: what lies deeper was never recorded
SILENT_DB = -80.0  # a frame's level below full scale
AT_PEAK = 0.999  # of the recording's peak; clipped samples lie there, each as high as the last
FLAT_TOP = 1e-4  # of the peak: how far they differ
CLIPPED_SHARE = 1e-4  # of all samples
SHOWN_BANDS = 32  # of the picture of where energy lies
SHOWN_LOW_HZ = 100.0


@dataclass(frozen=True)
class Measured:
    """What was measured on the start of a recording.

    Attributes:
        label: its species.
        seconds: length that was looked at.
        peak_db: dB re full scale.
        loudness_db: level of its root mean square, dB re full scale.
        clipped: whether more than one sample in 10,000 lies on a flat top.
        silent_share: frames without sound, 0 to 1.
        used_hz: the highest frequency that was recorded at all.
        low_hz: above it lie 99 % of the energy of what stands out.
        high_hz: below it lie 99 % of that energy.
        active_share: frames that stand out, 0 to 1.
        calls_s: (n,) lengths of the runs of such frames, seconds.
        bands: (SHOWN_BANDS,) share of the energy of what stands out, sum 1 or all 0.
    """

    label: str
    seconds: float
    peak_db: float
    loudness_db: float
    clipped: bool
    silent_share: float
    used_hz: float
    low_hz: float
    high_hz: float
    active_share: float
    calls_s: np.ndarray
    bands: np.ndarray


def measure(waveform: np.ndarray, sample_rate: int, label: str) -> Measured | None:
    """Measure a waveform (n,) float32; None where it is shorter than ten frames or silent."""
    size, step = round(LOOK_S * sample_rate), round(LOOK_STEP_S * sample_rate)
    peak = float(np.abs(waveform).max(initial=0))
    if len(waveform) < size + 9 * step or peak == 0:
        return None

    power = spectrum(waveform, size, step)  # (n_frames, n_bins)
    hertz = np.arange(power.shape[1]) * sample_rate / size
    level_db = _decibels(power.sum(axis=1) / size)
    background = np.percentile(power, BACKGROUND_SHARE, axis=0)
    is_active = find_active(power, hertz)

    above = np.maximum(power[is_active] - background, 0).sum(axis=0)  # (n_bins,)
    above[hertz < SHOWN_LOW_HZ / 2] = 0
    if not above.any():  # a texture: nothing stands out of it
        above = np.where(hertz < CUT_LOW_HZ, 0, power.sum(axis=0))
    share = np.cumsum(above) / max(above.sum(), 1e-30)

    return Measured(
        label=label,
        seconds=len(waveform) / sample_rate,
        peak_db=float(_decibels(peak**2)),
        loudness_db=float(_decibels(float(np.mean(waveform.astype(np.float64) ** 2)))),
        clipped=is_clipped(waveform, peak),
        silent_share=float(np.mean(level_db < SILENT_DB)),
        used_hz=highest_used(power.mean(axis=0), hertz),
        low_hz=float(hertz[np.searchsorted(share, 0.01)]),
        high_hz=float(hertz[min(int(np.searchsorted(share, 0.99)), len(hertz) - 1)]),
        active_share=float(is_active.mean()),
        calls_s=np.array(run_lengths(is_active)) * LOOK_STEP_S,
        bands=_in_bands(above, hertz),
    )


def is_clipped(waveform: np.ndarray, peak: float) -> bool:
    """Say whether the tops of a waveform (n,) are flat: a tone has tops, too, but round ones."""
    at_top = np.abs(waveform) >= AT_PEAK * peak
    is_flat = at_top[1:] & at_top[:-1] & (np.abs(np.diff(waveform)) <= FLAT_TOP * peak)
    return bool(is_flat.mean() > CLIPPED_SHARE)


def spectrum(waveform: np.ndarray, size: int, step: int) -> np.ndarray:
    """Power of frames of `size` samples, `step` apart: (n_frames, 1 + size // 2) float32.

    A sine of amplitude 1 has a power of about size / 4 in the bins around it.
    """
    frames = np.lib.stride_tricks.sliding_window_view(waveform, size)[::step]
    window = np.hanning(size).astype(np.float32)
    found = scipy.fft.rfft(frames * window, axis=1)
    return (found.real**2 + found.imag**2) / np.float32((window**2).sum())


def find_active(power: np.ndarray, hertz: np.ndarray) -> np.ndarray:
    """Say of each frame whether a band of it stands out of its background.

    Args:
        power: (n_frames, n_bins).
        hertz: (n_bins,) rising.

    Returns:
        (n_frames,) bool; shorter gaps are filled, then shorter runs left out.
    """
    edges = _edges(hertz)
    bands = np.add.reduceat(power, edges[:-1], axis=1)  # (n_frames, n_bands)
    levels = _decibels(bands)
    excess = levels - np.percentile(levels, BACKGROUND_SHARE, axis=0)
    is_loud = levels > levels.max() - USED_DB
    is_active = ((excess > STANDS_OUT_DB) & is_loud).any(axis=1)

    is_active = ~_without_short(~is_active, round(LONGEST_GAP_S / LOOK_STEP_S), keep_ends=True)
    return _without_short(is_active, round(SHORTEST_CALL_S / LOOK_STEP_S))


def _edges(hertz: np.ndarray) -> np.ndarray:
    """First bins of the bands that calls are looked for in, and the end of the last: rising."""
    wanted = np.geomspace(CUT_LOW_HZ, hertz[-1], CUT_BANDS + 1)
    edges = [int(np.searchsorted(hertz, wanted[0]))]
    for place in np.searchsorted(hertz, wanted[1:]):
        if place - edges[-1] >= CUT_BINS:
            edges.append(int(place))
    return np.array(edges)


def _without_short(flags: np.ndarray, least: int, *, keep_ends: bool = False) -> np.ndarray:
    """Clear runs of True that are shorter than `least`; those at the ends may stay."""
    kept = flags.copy()
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    for start, stop in edges.reshape(-1, 2):
        is_end = start == 0 or stop == len(flags)
        if stop - start < least and not (keep_ends and is_end):
            kept[start:stop] = False
    return kept


def run_lengths(flags: np.ndarray) -> list[int]:
    """Lengths of the runs of True that begin and end inside (n,) flags."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    runs = edges.reshape(-1, 2)
    return [int(stop - start) for start, stop in runs if start > 0 and stop < len(flags)]


def highest_used(mean_power: np.ndarray, hertz: np.ndarray) -> float:
    """The highest frequency that lies less than USED_DB under the loudest one, Hz."""
    levels = _decibels(mean_power)
    smooth = np.convolve(levels, np.ones(5) / 5, mode="valid")  # (n_bins - 4,)
    return float(hertz[np.flatnonzero(smooth > levels.max() - USED_DB)[-1] + 2])


def shown_edges(sample_rate: float) -> np.ndarray:
    """Edges of the picture's bands: (SHOWN_BANDS + 1,) Hz, the same steps of pitch apart."""
    return np.geomspace(SHOWN_LOW_HZ, sample_rate / 2, SHOWN_BANDS + 1)


def _in_bands(energy: np.ndarray, hertz: np.ndarray) -> np.ndarray:
    bands, _ = np.histogram(hertz, shown_edges(2 * hertz[-1]), weights=energy)
    return bands / max(bands.sum(), 1e-30)


def _decibels(power: np.ndarray | float) -> np.ndarray:
    return 10 * np.log10(np.maximum(power, 1e-20))


def pool_calls(found: Sequence[Measured]) -> np.ndarray:
    """Lengths of the calls of all recordings, (n,) seconds."""
    return np.concatenate([np.zeros(0), *(one.calls_s for one in found)])
