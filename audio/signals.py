"""Signals that mislead: miswired channels, offsets, dead stretches, odd scales; what is done about them.

Each function looks at samples and answers with what to do and a remark for the report, "" if there
is nothing to say. The limits are far from anything a sound recording has, so that whole recordings
pass unchanged.
"""

import numpy as np

HEARD = 2.0**-12  # root mean square, full scale 1, from which a channel has something to tell
CANCELLED = 0.01  # power of the average, of the loudest channel's, below which channels cancel out
OFFSET = 1 / 64  # full scale 1; smaller offsets are left alone
ZERO = 2.0**-20  # a sixteenth of a 16-bit step at half scale: resampled zeros stay below it
ZEROS_S = 1.0  # seconds of zeros that are cut out
INTEGER_PEAK = 16.0  # a float recording that is louder was written on the scale of integers
CLIPPED = 0.001  # share of samples at the very peak from which a recording is called clipped

COARSE = {  # libsndfile's subtypes of few bits
    "PCM_U8": "8 bits a sample",
    "PCM_S8": "8 bits a sample",
    "ULAW": "mu-law samples, 8 bits",
    "ALAW": "A-law samples, 8 bits",
}


def choose_channels(block: np.ndarray) -> tuple[np.ndarray, str]:
    """Decide how channels are made one: all alike, unless they cancel each other out.

    A microphone cable with two wires exchanged gives channels of opposite phase, and their average
    is silence. Then the loudest channel is used alone.

    Args:
        block: (n_frames, n_channels) float32, with something to hear in it.

    Returns:
        Weights (n_channels,) float32 that sum to 1, and a remark.
    """
    n_channels = block.shape[1]
    equal = np.full(n_channels, 1 / n_channels, np.float32)
    if n_channels == 1:
        return equal, ""

    power = np.square(block).mean(axis=0)  # (n_channels,)
    if not np.isfinite(power).all():
        return equal, ""
    loudest = int(power.argmax())
    if np.square(block @ equal).mean() >= CANCELLED * power[loudest]:
        return equal, ""

    alone = np.zeros(n_channels, np.float32)
    alone[loudest] = 1
    return alone, f"its channels cancel each other out; channel {loudest + 1} is used alone"


def has_sound(block: np.ndarray) -> bool:
    """Say whether any channel of a block (n_frames, n_channels) has something to tell."""
    moving = block - block.mean(axis=0)
    return bool((np.square(moving).mean(axis=0) > HEARD**2).any())


def find_offset(mono: np.ndarray) -> tuple[float, str]:
    """Find a constant offset in the first block of a recording.

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
    if abs(offset) < OFFSET or float(np.ptp(means)) > 0.2 * abs(offset):
        return 0.0, ""
    return offset, f"a constant offset of {offset:.3f} is taken out"


def cut_zeros(waveform: np.ndarray, sample_rate: int) -> tuple[np.ndarray, str]:
    """Cut out every run of at least a second of zeros, as dropped connections and full cards leave.

    Args:
        waveform: (n,) float32.
        sample_rate: Hz.

    Returns:
        The rest, (m,) float32, and a remark. A recording of nothing but zeros is returned whole.
    """
    step = max(1, sample_rate // 100)  # 10 ms
    n_steps = round(ZEROS_S * sample_rate) // step
    is_zero = np.abs(waveform[::step]) < ZERO
    if len(is_zero) < n_steps or not _has_run(is_zero, n_steps - 1):
        return waveform, ""

    is_zero = np.abs(waveform) < ZERO
    edges = np.flatnonzero(np.diff(is_zero, prepend=False, append=False))
    keep = np.ones(len(waveform), bool)
    for start, stop in edges.reshape(-1, 2):
        if stop - start >= ZEROS_S * sample_rate:
            keep[start:stop] = False
    if not keep.any() or keep.all():
        return waveform, ""
    seconds = (~keep).sum() / sample_rate
    return waveform[keep], f"{seconds:.1f} s of zeros are cut out"


def _has_run(flags: np.ndarray, length: int) -> bool:
    """Say whether `length` flags in a row are True."""
    edges = np.flatnonzero(np.diff(flags, prepend=False, append=False)).reshape(-1, 2)
    return bool(len(edges)) and int((edges[:, 1] - edges[:, 0]).max()) >= length


def scale_to_unity(waveform: np.ndarray, peak: float) -> tuple[np.ndarray, str]:
    """Bring floats on the scale of integers to full scale 1, as SciPy and MATLAB write them.

    Args:
        waveform: (n,) float32.
        peak: its largest absolute value.

    Returns:
        The waveform, divided by 2**15, 2**23 or 2**31 where its peak says so, and a remark.
    """
    if peak <= INTEGER_PEAK:
        return waveform, ""
    bits = next((bits for bits in (15, 23, 31) if peak <= 2.0**bits), None)
    if bits is None:
        return waveform / np.float32(peak), f"its peak of {peak:.3g} is brought to 1"
    remark = f"floats on the scale of {bits + 1}-bit integers, divided by {2**bits}"
    return waveform * np.float32(2.0**-bits), remark


def describe_quality(waveform: np.ndarray, peak: float, subtype: str) -> str:
    """Remark on few bits and on clipping, which nothing can mend; a sixteenth of the samples tells.

    Clipped samples are neighbours that stand at the very peak and do not differ.

    Args:
        waveform: (n,) float32.
        peak: its largest absolute value.
        subtype: libsndfile's name of how samples are stored.
    """
    remarks = [COARSE[subtype]] if subtype in COARSE else []
    some, next_ones = waveform[:-1:16], waveform[1::16]
    is_flat = (some == next_ones) & (np.abs(some) >= np.float32(0.999 * peak))
    share = float(is_flat.mean()) if len(some) else 0.0
    if share > CLIPPED:
        remarks.append(f"clipped: {share:.1%} of its samples stand at its peak")
    return "; ".join(remarks)
