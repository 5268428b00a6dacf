"""Signals that mislead: offsets, dead stretches, odd scales, clipping; what is done about them.

Each function looks at samples and answers with what to do and a remark for the report, "" if there
is nothing to say. The limits are far from what a sound recording has, so that good recordings pass
unchanged.
"""

import numpy as np

OFFSET = (
    1 / 64
)  # full scale 1; smaller offsets are left alone, unless they are large beside the sound
SMALL_OFFSET, OF_DEVIATION = 2.0**-9, 0.25  # full scale 1; times the standard deviation

STILL = (
    2.0**-20
)  # range of values in 10 ms below which nothing moves: resampled zeros stay below it
STILL_S = 1.0  # shorter stretches are left alone

INTEGER_PEAK = 16.0  # a float recording that is louder was written on the scale of integers
INTEGER_BITS = (15, 23, 31)

CLIPPED = 0.001  # share of samples at the very peak from which a recording is called clipped
CLIPPED_PEAK = 1 / 64  # of a quieter recording a plateau is a step of its few bits

COARSE = {  # by libsndfile's name of how samples are stored
    "PCM_U8": "8 bits a sample",
    "PCM_S8": "8 bits a sample",
    "ULAW": "mu-law samples, 8 bits",
    "ALAW": "A-law samples, 8 bits",
}


def find_offset(mono: np.ndarray) -> tuple[float, str]:
    """Find a constant (DC) offset in the first block of a recording.

    It counts as one where every eighth of the block has it, so that wind or a truck is none.

    Args:
        mono: (n,) float32.

    Returns:
        The offset, 0.0 for none, and a remark.
    """
    if len(mono) < 64:
        return 0.0, ""
    means = mono[: len(mono) // 8 * 8].reshape(8, -1).mean(axis=1, dtype=np.float64)
    offset = float(means.mean())
    if abs(offset) < SMALL_OFFSET or float(np.ptp(means)) > 0.2 * abs(offset):
        return 0.0, ""
    if abs(offset) < OFFSET and abs(offset) < OF_DEVIATION * float(mono.std()):
        return 0.0, ""
    return offset, f"a constant offset of {offset:.3g} is taken out"


def cut_still(waveform: np.ndarray, sample_rate: int) -> tuple[np.ndarray, str]:
    """Cut out stretches of a second or more that hold one value, zero for the most part.

    Dropped connections, full cards and sensors that hang leave them. A clip of nothing but zeros
    would teach that silence is a bird.

    Args:
        waveform: (n,) float32.
        sample_rate: Hz.

    Returns:
        The rest, (m,) float32, and a remark. One that does not move at all is returned whole.
    """
    step = max(1, sample_rate // 100)  # 10 ms
    n_least = round(STILL_S * sample_rate / step)
    # Most waveforms are ruled out by one sample in 10 ms.
    if not len(_runs(np.abs(np.diff(waveform[::step])) < STILL, n_least - 1)):
        return waveform, ""

    frames = waveform[: len(waveform) // step * step].reshape(-1, step)
    runs = _runs(frames.max(axis=1) - frames.min(axis=1) < STILL, n_least) * step
    keep = np.ones(len(waveform), bool)
    for start, stop in runs:
        is_at_end = len(waveform) - stop < step  # the rest of a frame goes with it
        keep[start : len(waveform) if is_at_end else stop] = False

    if keep.all() or not keep.any():
        return waveform, ""
    seconds = (~keep).sum() / sample_rate
    value = float(waveform[runs[0, 0] + step // 2])
    what = "zeros" if abs(value) < STILL else f"one and the same value ({value:.3g})"
    return waveform[keep], f"{seconds:.1f} s of {what} are cut out"


def _runs(flags: np.ndarray, n_least: int) -> np.ndarray:
    """Find where at least `n_least` flags in a row are True: (n_runs, 2), first and end of each."""
    edges = np.flatnonzero(np.diff(flags, prepend=False, append=False)).reshape(-1, 2)
    return edges[edges[:, 1] - edges[:, 0] >= max(1, n_least)]


def scale_to_unity(waveform: np.ndarray, peak: float) -> tuple[np.ndarray, str]:
    """Bring floats on the scale of integers to full scale 1, as SciPy and MATLAB write them.

    Args:
        waveform: (n,) float32.
        peak: its largest absolute value.

    Returns:
        The waveform, divided by 2**15, 2**23 or 2**31 where its peak says so, and a remark.
    """
    factor, remark = factor_to_unity(peak)
    return (waveform * np.float32(factor) if remark else waveform), remark


def factor_to_unity(peak: float) -> tuple[float, str]:
    """Find what brings floats of this peak to full scale 1; 1 for most. See `scale_to_unity`."""
    if peak <= INTEGER_PEAK:
        return 1.0, ""
    bits = next((bits for bits in INTEGER_BITS if peak <= 2.0**bits), None)
    if bits is None:
        return 1 / peak, f"its peak of {peak:.3g} is brought to 1"
    remark = f"floats on the scale of {bits + 1}-bit integers, divided by {2**bits}"
    return 2.0**-bits, remark


def describe_quality(waveform: np.ndarray, peak: float, subtype: str) -> str:
    """Remark on few bits and on clipping, which nothing can mend; a sixteenth of the samples tells.

    Clipped samples are neighbours that stand at the very peak and do not differ.

    Args:
        waveform: (n,) float32, not empty.
        peak: its largest absolute value.
        subtype: libsndfile's name of how samples are stored.
    """
    remarks = [COARSE[subtype]] if subtype in COARSE else []
    size = min(len(waveform), 1024)
    some = waveform[: len(waveform) // size * size].reshape(-1, size)[:, : max(2, size // 16)]
    is_flat = (some[:, 1:] == some[:, :-1]) & (np.abs(some[:, 1:]) >= np.float32(0.999 * peak))
    share = float(is_flat.mean()) if is_flat.size else 0.0
    if share > CLIPPED and peak > CLIPPED_PEAK:
        remarks.append(f"clipped: {share:.1%} of its samples stand at its peak")
    return "; ".join(remarks)
