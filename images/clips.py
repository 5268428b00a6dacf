"""Waveforms of training clips: where they are cut, what lies under them, and how two are mixed.

Axes: a waveform is (n_samples,). Results are new arrays, but for `cut`; all randomness comes from
the generator that is passed in.
"""

import math

import numpy as np

import transforms
from configs import Config

FRAME = 512  # samples in a frame, by which loud and active parts are found
ACTIVE_DB = 6.0  # above the median of a recording's frames
LOOK_AT = 1024  # samples in which nearly every clip shows that it has a signal


def has_signal(waveform: np.ndarray) -> bool:
    """Say whether any two samples differ."""
    first = waveform[0]
    return bool((waveform[:LOOK_AT] != first).any() or (waveform != first).any())


def start_with_signal(
    recording: np.ndarray, n_samples: int, rng: np.random.Generator
) -> int | None:
    """Draw a start from which n_samples hold a signal; None for a recording without any."""
    changes = np.flatnonzero(recording[1:] != recording[:-1])  # sample i and the next one differ
    if not len(changes):
        return None

    change = int(changes[rng.integers(len(changes))])
    earliest = max(0, change + 2 - n_samples)
    latest = min(change, len(recording) - n_samples)
    return int(rng.integers(earliest, latest, endpoint=True))


def choose_start(
    recording: np.ndarray, n_samples: int, position: str, rng: np.random.Generator
) -> int | None:
    """Choose where to cut n_samples of a recording.

    Args:
        recording: (n,) float32 or int16.
        n_samples: length of the clip.
        position: "random"; "loudest": where the clip has the most energy; "active": at random, a
            place as likely as its clip has frames 6 dB above the recording's median.
        rng: draws the place.

    Returns:
        The first sample; None for a recording of n_samples or fewer, or where any place will do.
    """
    spare = len(recording) - n_samples
    if position == "random" or spare <= 0:
        return None

    energy = frame_energy(recording)
    if position == "active":
        energy = (energy > np.median(energy) * 10 ** (ACTIVE_DB / 10)).astype(np.float64)
    width = min(len(energy), n_samples // FRAME)
    sums = np.concatenate([[0.0], np.cumsum(energy)])
    of_windows = np.maximum(0, sums[width:] - sums[:-width])  # (n_frames - width + 1,)

    if position == "loudest":
        return min(spare, FRAME * int(of_windows.argmax()))
    if not of_windows.any():
        return None
    ends = np.cumsum(of_windows)
    frame = int(np.searchsorted(ends, rng.random() * ends[-1], side="right"))
    return min(spare, FRAME * frame + int(rng.integers(FRAME)))


def frame_energy(recording: np.ndarray) -> np.ndarray:
    """Sum the squares in each whole frame: (n // FRAME,) float64."""
    whole = recording[: len(recording) // FRAME * FRAME].astype(np.float32).reshape(-1, FRAME)
    return np.einsum("ij,ij->i", whole, whole).astype(np.float64)


def cut(recording: np.ndarray, start: int, n_samples: int) -> np.ndarray:
    """Cut n_samples from `start` on: a view, or where the recording ends before, as `cut_clip`.

    Args:
        recording: (n,) float32 or int16.
        start: first sample.
        n_samples: length of the clip.
    """
    clip = recording[start : start + n_samples]
    if len(clip) == n_samples:
        return clip
    return transforms.cut_clip(recording, n_samples, start=start)


def cut_background(background: np.ndarray, n_samples: int, rng: np.random.Generator) -> np.ndarray:
    """Cut a background at a random place and roll it in time; a short one is repeated."""
    spare = len(background) - n_samples
    start = int(rng.integers(spare, endpoint=True)) if spare > 0 else 0
    clip = np.resize(background[start : start + n_samples], n_samples)
    return np.roll(clip, int(rng.integers(n_samples)))


def add_at_snr(waveform: np.ndarray, other: np.ndarray, snr_db: float) -> np.ndarray:
    """Add another waveform whose power lies snr_db below that of the first; silence adds nothing.

    Both are float32; so is the sum.
    """
    power, other_power = (
        float(np.mean(np.square(one, dtype=np.float64))) for one in (waveform, other)
    )
    if not power or not other_power:
        return waveform.copy()
    gain = math.sqrt(power / other_power * 10 ** (-snr_db / 10))
    return waveform + np.float32(gain) * other


def blend(waveform: np.ndarray, other: np.ndarray, lam: float) -> np.ndarray:
    """MixUp of two waveforms of one peak: lam of the first and 1 - lam of the other."""
    return np.float32(lam) * waveform + np.float32(1 - lam) * other


def windows_of(lengths: np.ndarray, config: Config) -> np.ndarray:
    """Count the clips of recordings in validation: whole ones, and a rest of a second or more.

    Args:
        lengths: samples of each recording (n,).
        config: clip settings.

    Returns:
        (n,) int64, from 1 to `valid_clips`.
    """
    rest = np.maximum(0, lengths - config.sample_rate)
    n_windows = -(-rest // config.n_samples)
    return np.clip(n_windows, 1, config.valid_clips)
