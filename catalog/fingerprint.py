"""Which recordings sound the same: copies at another gain or rate, or in another format.

A recording's fingerprint is a coarse picture of the loudest moments of its first seconds, as
independent of gain as a spectrogram in dB without its mean is. Recordings with nearly the same
picture are then compared sample by sample: two copies of one sound agree in phase at nearly all
frequencies, two songs of one bird at hardly any.

Chromaprint, the well-kept library for this, was tried on paper alone: it is made for music, hears
nothing above 3.5 kHz, where most birds sing, and needs a program that pip does not install.
"""

import itertools
from collections.abc import Iterator, Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.fft
from tqdm import tqdm

from audio.prepared import open_recording

LISTEN_S = 10.0  # seconds from a recording's start that are compared
WORKING_RATE = 16_000  # Hz, at least; recordings are averaged down towards it
LOW_HZ, HIGH_HZ = 500.0, 7000.0  # below is wind; above, lossy formats leave little
BLOCK_S = 0.01  # of the loudness curve
LOUD_BLOCKS = 20  # summed into one value of it
APART_BLOCKS = 50  # between two loudest moments
N_MOMENTS = 3
HALF_S = 0.75  # seconds of a picture before and after its moment
FRAME_S = 0.064  # of a spectrum in it; two are averaged
N_BANDS = 16
FLOOR = 1e-6  # of the loudest band: what is fainter counts alike

SIMILAR = 0.88  # correlation from which two pictures are worth a closer look; most copies have 0.95
N_NEAREST = 8  # pictures that are looked at closely for each, at most
PAIRS_EACH = 0.5  # pairs that are looked at closely, for each recording; the likest come first
LEAST_PAIRS = 500  # as many are looked at in any archive
BUCKET = 2000  # pictures compared with one another, about
SHIFT_S = 0.15  # furthest that two pictures of one moment are off
ALIGN_S = 0.25  # seconds before and after a moment by which two pictures are aligned
PHASE_FRAME_S = 0.032  # frames whose phases are compared
ALIKE = 0.65  # correlation of loudness; of copies it is more, of other songs 0.69 in the median
STEADY = 0.5  # standard deviation of log power below which a sound is called steady
SAME = 0.25  # mean phase agreement of copies; different sounds reach 0.17, copies begin at 0.3
READERS = 2  # threads that read recordings; where all is in memory, more hold one another up


class Fingerprint(NamedTuple):
    """The loudest moments of a recording, and a picture of each.

    Attributes:
        moments: (n,) samples at the working rate, n <= N_MOMENTS.
        pictures: (n, n_values) float16, mean 0 and length 1 each.
    """

    moments: list[int]
    pictures: np.ndarray


def find_same_sound(paths: Sequence[str | Path], sample_rate: int) -> np.ndarray:
    """Number recordings by what is heard: (n,) int, equal for two that are one sound.

    Args:
        paths: prepared recordings, all at one sample rate.
        sample_rate: in Hz.
    """
    with ThreadPool(READERS) as pool:
        jobs = pool.imap(lambda path: _fingerprint_file(path, sample_rate), paths, chunksize=16)
        bar = tqdm(jobs, "listening for copies", len(paths), leave=False, disable=None)
        prints = list(bar)

    likest = sorted(_look_alike(prints), reverse=True)
    groups = np.arange(len(paths))
    n_left = max(LEAST_PAIRS, round(PAIRS_EACH * len(paths)))
    for _, one, other in likest:
        if groups[one] == groups[other]:
            continue
        if _is_same(paths, prints, one, other, sample_rate):
            groups[groups == groups[other]] = groups[one]
        n_left -= 1
        if n_left == 0:
            break
    return np.unique(groups, return_inverse=True)[1]


def _fingerprint_file(path: str | Path, sample_rate: int) -> Fingerprint:
    """A file that cannot be read has no fingerprint; training checks all files and names it."""
    try:
        return fingerprint(*listen(path, sample_rate))
    except (OSError, ValueError):
        return Fingerprint([], np.zeros((0, 0), np.float16))


def listen(
    path: str | Path, sample_rate: int, first: int = 0, last: int | None = None
) -> tuple[np.ndarray, int]:
    """Read the start of a prepared recording: (n,) float32 and its rate, WORKING_RATE or above.

    Args:
        path: the recording.
        sample_rate: in Hz.
        first: where to begin, in samples at the rate that is returned.
        last: where to end, in the same; None reads on.
    """
    factor = _averaged(sample_rate)
    recording = open_recording(Path(path))[: round(LISTEN_S * sample_rate)]
    recording = recording[first * factor : None if last is None else last * factor]
    n_samples = len(recording) // factor
    waveform = np.zeros(n_samples, np.float32)
    for offset in range(factor):  # far faster than a sum over the last axis of (n_samples, factor)
        waveform += recording[offset : n_samples * factor : factor]
    return waveform, sample_rate // factor


def _averaged(sample_rate: int) -> int:
    """Say how many samples are averaged to one at the working rate."""
    return max(1, sample_rate // WORKING_RATE)


# Pictures of loud moments -------------------------------------------------------------------------


def fingerprint(waveform: np.ndarray, rate: int) -> Fingerprint:
    """Take pictures of the loudest moments of a waveform (n,); silence has none."""
    moments = find_moments(waveform, rate)
    if not moments:
        return Fingerprint([], np.zeros((0, 0), np.float16))

    size = round(FRAME_S * rate)
    n_frames = 2 * int(HALF_S / FRAME_S)
    starts = [moment - round(HALF_S * rate) for moment in moments]
    cuts = np.stack([cut(waveform, start, n_frames * size) for start in starts])
    frames = cuts.reshape(len(moments), n_frames, size) * np.hanning(size).astype(np.float32)
    spectrum = scipy.fft.rfft(frames, axis=2)  # (n, n_frames, 1 + size // 2)

    edges = np.geomspace(LOW_HZ, min(HIGH_HZ, 0.45 * rate), N_BANDS + 1)
    bins = np.round(edges * size / rate).astype(int)
    chosen = spectrum[:, :, bins[0] : bins[-1]]
    power = chosen.real**2 + chosen.imag**2
    bands = np.add.reduceat(power, bins[:-1] - bins[0], axis=2)  # (n, n_frames, N_BANDS)
    bands = bands[:, ::2] + bands[:, 1::2]
    pictures = bands.reshape(len(moments), -1)

    pictures = np.log(pictures + FLOOR * pictures.max(axis=1, keepdims=True) + 1e-30)
    pictures -= pictures.mean(axis=1, keepdims=True)
    length = np.linalg.norm(pictures, axis=1, keepdims=True)
    is_flat = length[:, 0] < 1e-3
    kept = [moment for moment, flat in zip(moments, is_flat, strict=True) if not flat]
    return Fingerprint(kept, (pictures / np.maximum(length, 1e-9))[~is_flat].astype(np.float16))


def find_moments(waveform: np.ndarray, rate: int) -> list[int]:
    """Find the loudest moments, in samples; rumble counts little, for differences are summed."""
    size = round(BLOCK_S * rate)
    n_blocks = (len(waveform) - 1) // size
    if n_blocks <= LOUD_BLOCKS:
        return []

    change = np.diff(waveform[: n_blocks * size + 1]).reshape(n_blocks, size)
    power = np.einsum("ij,ij->i", change, change)  # (n_blocks,)
    summed = np.concatenate([[0.0], np.cumsum(power, dtype=np.float64)])
    loudness = summed[LOUD_BLOCKS:] - summed[:-LOUD_BLOCKS]
    moments = []
    for _ in range(N_MOMENTS):
        block = int(loudness.argmax())
        if loudness[block] <= 0:
            break
        moments.append((block + LOUD_BLOCKS // 2) * size)
        loudness[max(0, block - APART_BLOCKS) : block + APART_BLOCKS + 1] = -1
    return moments


def cut(waveform: np.ndarray, start: int, n_samples: int) -> np.ndarray:
    """Cut (n_samples,) out of a waveform, zeros where it ends."""
    piece = np.zeros(n_samples, np.float32)
    first, last = max(0, start), min(len(waveform), start + n_samples)
    if last > first:
        piece[first - start : last - start] = waveform[first:last]
    return piece


# Pairs --------------------------------------------------------------------------------------------


def _look_alike(prints: Sequence[Fingerprint]) -> list[tuple[float, int, int]]:
    """List pairs of recordings with a picture that looks alike, each once: (likeness, two rows)."""
    has_picture = [number for number, found in enumerate(prints) if found.moments]
    if not has_picture:
        return []
    owners = np.repeat(has_picture, [len(prints[number].moments) for number in has_picture])
    pictures = np.concatenate([prints[number].pictures for number in has_picture])

    found_pairs: dict[tuple[int, int], float] = {}
    for bucket in _buckets(pictures):
        part = pictures[bucket].astype(np.float32)
        for start in range(0, len(bucket), BUCKET):
            rows = bucket[start : start + BUCKET]
            likeness = part[start : start + BUCKET] @ part.T  # (n_rows, n_bucket)
            likeness[owners[rows][:, None] == owners[bucket]] = 0
            for row, others in _best(likeness):
                for column in others:
                    one, other = int(owners[rows[row]]), int(owners[bucket[column]])
                    pair = (min(one, other), max(one, other))
                    like = float(likeness[row, column])
                    found_pairs[pair] = max(like, found_pairs.get(pair, 0.0))
    return [(like, *pair) for pair, like in found_pairs.items()]


def _buckets(pictures: np.ndarray) -> list[np.ndarray]:
    """Part pictures into buckets of like ones, so that not all are compared with all."""
    n_buckets = len(pictures) // BUCKET
    if n_buckets < 4:
        return [np.arange(len(pictures))]

    examples = pictures[:: len(pictures) // n_buckets].astype(np.float32)
    nearest = np.concatenate(
        [
            (pictures[start : start + BUCKET].astype(np.float32) @ examples.T).argmax(axis=1)
            for start in range(0, len(pictures), BUCKET)
        ]
    )
    return [np.flatnonzero(nearest == number) for number in range(len(examples))]


def _best(likeness: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each row that has like columns, with the best of them."""
    rows, columns = np.nonzero(likeness > SIMILAR)
    for row, found in itertools.groupby(range(len(rows)), key=lambda at: rows[at]):
        others = columns[list(found)]
        order = np.argsort(-likeness[row, others], kind="stable")
        yield int(row), others[order[:N_NEAREST]]


def _is_same(
    paths: Sequence[str | Path], prints: Sequence[Fingerprint], one: int, other: int, rate: int
) -> bool:
    """Compare two recordings around their loudest moments, and at the same time of both."""
    likeness = prints[one].pictures.astype(np.float32) @ prints[other].pictures.T.astype(np.float32)
    best, match = np.unravel_index(likeness.argmax(), likeness.shape)
    moment, other_moment = prints[one].moments[best], prints[other].moments[match]
    rate_ = rate // _averaged(rate)
    tries = [other_moment]
    if abs(moment - other_moment) > SHIFT_S / 2 * rate_:
        tries.append(moment)
    side = _around(paths[one], moment, rate)
    for at in tries:
        sounds = (*side, *_around(paths[other], at, rate), rate_)
        if rises_alike(*sounds) >= ALIKE and agreement(*sounds) >= SAME:
            return True
    return False


def _around(path: str | Path, moment: int, sample_rate: int) -> tuple[np.ndarray, int]:
    """Read as much around a moment as `agreement` looks at, and say where the moment is in it."""
    half = round((HALF_S + SHIFT_S) * sample_rate / _averaged(sample_rate)) + 1
    first = max(0, moment - half)
    return listen(path, sample_rate, first, moment + half)[0], moment - first


def rises_alike(
    one: np.ndarray, moment: int, other: np.ndarray, other_moment: int, rate: int
) -> float:
    """Correlate how loudness goes around a moment of each of two sounds, at the best shift.

    It costs a part of `agreement`, and half of the different songs with like pictures differ in it.
    Of a steady sound, such as rain, the curve is chance and tells nothing: the answer is 1.
    """
    size, margin = round(BLOCK_S * rate), round(SHIFT_S / BLOCK_S)
    half = size * round(HALF_S / BLOCK_S)
    curves = []
    for waveform, at in ((one, moment), (other, other_moment)):
        change = np.diff(cut(waveform, at - half, 2 * half + 1)).reshape(-1, size)
        curves.append(np.log(np.einsum("ij,ij->i", change, change) + 1e-12))  # (n_blocks,)

    inner = curves[0][margin:-margin]
    if inner.std() < STEADY:
        return 1.0
    shifted = np.lib.stride_tricks.sliding_window_view(curves[1], len(inner))  # (shifts, n)
    inner = inner - inner.mean()
    shifted = shifted - shifted.mean(axis=1, keepdims=True)
    length = np.linalg.norm(inner) * np.linalg.norm(shifted, axis=1)
    return float((shifted @ inner / np.maximum(length, 1e-9)).max())


def agreement(
    one: np.ndarray, moment: int, other: np.ndarray, other_moment: int, rate: int
) -> float:
    """Measure how well two sounds agree in phase around a moment of each, from 0 to 1.

    They are aligned by their cross-correlation, whitened (PHAT; Knapp and Carter, 1976). Then the
    difference of their phases is averaged as a unit vector over frames, and the vectors' lengths
    over frequencies: 1 where it is the same in all frames, near 0 for unrelated sounds.
    """
    half = round(HALF_S * rate)
    high_hz = min(HIGH_HZ, 0.45 * rate)
    shift = other_moment - moment + _find_shift(one, moment, other, other_moment, rate)
    first = cut(one, moment - half, 2 * half)
    second = cut(other, moment - half + shift, 2 * half)

    size = round(PHASE_FRAME_S * rate)
    n_frames = 2 * half // size
    window = np.hanning(size).astype(np.float32)
    frames = [side[: n_frames * size].reshape(n_frames, size) * window for side in (first, second)]
    spectra = [scipy.fft.rfft(side, axis=1) for side in frames]  # (n_frames, 1 + size // 2)
    low, high = round(LOW_HZ * size / rate), round(high_hz * size / rate)
    product = (spectra[0] * np.conj(spectra[1]))[:, low:high]
    directions = product / (np.abs(product) + 1e-20)
    return float(np.abs(directions.mean(axis=0)).mean())


def _find_shift(
    one: np.ndarray, moment: int, other: np.ndarray, other_moment: int, rate: int
) -> int:
    """Find by how many samples the second sound comes later, seen from the two moments."""
    half, margin = round(ALIGN_S * rate), round(SHIFT_S * rate)
    first = cut(one, moment - half, 2 * half)
    second = cut(other, other_moment - half - margin, 2 * (half + margin))

    # What wraps around at this length lies beyond the lags that are looked at.
    n_samples = scipy.fft.next_fast_len(len(second), real=True)
    cross = scipy.fft.rfft(second, n_samples) * np.conj(scipy.fft.rfft(first, n_samples))
    low = round(LOW_HZ * n_samples / rate)
    high = round(min(HIGH_HZ, 0.45 * rate) * n_samples / rate)
    cross[:low] = cross[high:] = 0
    lags = scipy.fft.irfft(cross / (np.abs(cross) + 1e-20), n_samples)[: 2 * margin + 1]
    return int(lags.argmax()) - margin
