"""The mel power of 64 frames at once, compiled by numba; mel.py calls it and says what goes in.

Half the work is the Fourier transform. Two real frames make one complex one, and each step is done
for `LANES` of those side by side, each in a lane of the processor's vectors, from the window to the
mel bands and without leaving its second-level cache. A `row` is a sample or a frequency of all of
them: LANES real parts, then LANES imaginary ones.

What follows looks as it does because the compiler must prove that what a loop over lanes writes is
not what it reads; else it does one lane at a time. So LANES and the length of a frame are constants
of the code, passes go from x to y and back again by name, and helpers are inlined. All of it is in
one file, whose date tells numba's cache on disk whether to compile again.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit

LANES = 32  # of float64, x and y of 2048 rows take 2 MB; fewer lanes leave too little work a loop
WIDTH = 2 * LANES
BLOCKS_AT_A_TIME = (
    16  # of more, samples that are a hop apart drive each other out of the first-level cache
)


def split_radices(n_fft: int) -> tuple[int, int]:
    """Split a power of two into passes: n_fft = 8 ** eights * rest, and rest is 1, 2 or 4."""
    eights = (n_fft.bit_length() - 1) // 3
    return eights, n_fft >> 3 * eights


def count_blocks(n_frames: int, n_fft: int, hop_length: int) -> int:
    """Return how many blocks of `hop_length` samples the kernel reads for whole groups."""
    n_blocks = -(-n_frames // WIDTH) * WIDTH + -(-n_fft // hop_length)
    return -(-n_blocks // BLOCKS_AT_A_TIME) * BLOCKS_AT_A_TIME


def compiled(function: Callable[..., None]) -> Callable[..., None]:
    """Compile at the first call, or take what is on disk where something can be kept there."""
    settings: dict[str, Any] = {
        "error_model": "numpy",
        "nogil": True,
    }  # nogil: threads may run beside it
    try:
        return njit(cache=True, **settings)(function)
    except (
        RuntimeError
    ):  # "no locator available": neither this folder nor the user's can be written
        return njit(**settings)(function)


inlined = njit(inline="always", error_model="numpy")


@inlined
def at(x, i):
    """Take the complex number of one lane."""
    return complex(x[i], x[i + LANES])


@inlined
def put(y, i, z):
    """Store it."""
    y[i] = z.real
    y[i + LANES] = z.imag


@inlined
def turn(z):
    """Multiply by -i."""
    return complex(z.imag, -z.real)


@inlined
def dft4(a, b, c, d):
    """Transform four numbers."""
    s, t, u, v = a + c, a - c, b + d, turn(b - d)
    return s + u, t + v, s - u, t - v


@inlined
def pass8(x, y, twiddles, n_fft):
    """Radix 8: transform rows n_fft / 8 apart, turn them, and store them side by side.

    An eighth of a turn is (1 - i) / sqrt(2), whose products are written out.
    """
    step, h = n_fft // 8 * WIDTH, x.dtype.type(0.7071067811865476)
    for row in range(n_fft // 8):
        w1, w2, w3, w4 = twiddles[row, 0], twiddles[row, 1], twiddles[row, 2], twiddles[row, 3]
        w5, w6, w7 = twiddles[row, 4], twiddles[row, 5], twiddles[row, 6]
        for lane in range(LANES):
            i, o = row * WIDTH + lane, 8 * row * WIDTH + lane
            a0, a1, a2, a3 = dft4(
                at(x, i), at(x, i + 2 * step), at(x, i + 4 * step), at(x, i + 6 * step)
            )
            b0, p, q, r = dft4(
                at(x, i + step), at(x, i + 3 * step), at(x, i + 5 * step), at(x, i + 7 * step)
            )
            b1 = complex((p.real + p.imag) * h, (p.imag - p.real) * h)
            b2 = turn(q)
            b3 = complex((r.imag - r.real) * h, -(r.real + r.imag) * h)
            put(y, o, a0 + b0)
            put(y, o + WIDTH, (a1 + b1) * w1)
            put(y, o + 2 * WIDTH, (a2 + b2) * w2)
            put(y, o + 3 * WIDTH, (a3 + b3) * w3)
            put(y, o + 4 * WIDTH, (a0 - b0) * w4)
            put(y, o + 5 * WIDTH, (a1 - b1) * w5)
            put(y, o + 6 * WIDTH, (a2 - b2) * w6)
            put(y, o + 7 * WIDTH, (a3 - b3) * w7)


@inlined
def last_pass(x, y, radix, n_fft):
    """Radix 2 or 4, with nothing left to turn."""
    step = n_fft // radix * WIDTH
    for row in range(n_fft // radix):
        for lane in range(LANES):
            i, o = row * WIDTH + lane, radix * row * WIDTH + lane
            if radix == 2:
                put(y, o, at(x, i) + at(x, i + step))
                put(y, o + WIDTH, at(x, i) - at(x, i + step))
            else:
                a, b, c, d = dft4(
                    at(x, i), at(x, i + step), at(x, i + 2 * step), at(x, i + 3 * step)
                )
                put(y, o, a)
                put(y, o + WIDTH, b)
                put(y, o + 2 * WIDTH, c)
                put(y, o + 3 * WIDTH, d)


@inlined
def turn_blocks(padded, samples, hop_length):
    """Transpose (n_blocks, hop_length), so that what frames in a row have in common is in a row."""
    n_blocks = len(padded) // hop_length
    for first in range(0, n_blocks, BLOCKS_AT_A_TIME):
        for offset in range(hop_length):
            source = padded[first * hop_length + offset :]
            target = samples[
                offset * n_blocks + first : offset * n_blocks + first + BLOCKS_AT_A_TIME
            ]
            for block in range(BLOCKS_AT_A_TIME):
                target[block] = source[block * hop_length]


@inlined
def load_frames(x, samples, hop_length, window, first, n_fft):
    """Put WIDTH windowed frames from `first` on into x, the second half as imaginary parts."""
    n_blocks = len(samples) // hop_length
    for row in range(n_fft):
        weight = window[row]
        begin = row % hop_length * n_blocks + row // hop_length + first
        source, target = samples[begin : begin + WIDTH], x[row * WIDTH : row * WIDTH + WIDTH]
        for lane in range(WIDTH):
            target[lane] = weight * source[lane]


@inlined
def sum_bands(x, mel, power, rows, starts, bands, weights, n_fft, is_magnitude):
    """Take the two real frames' powers apart, and add each frequency's to its bands, two at most.

    With Z = F + iG of two real frames, 2 F[k] = Z[k] + conj(Z[-k]) and 2i G[k] = Z[k] -
    conj(Z[-k]): the powers here are four times too high, and their roots twice, which the weights
    make good.
    """
    mel[:] = 0
    for k in range(n_fft // 2 + 1):
        p, q = rows[k] * WIDTH, rows[(n_fft - k) % n_fft] * WIDTH
        z, mirrored = x[p : p + WIDTH], x[q : q + WIDTH]
        for lane in range(LANES):
            a, b = z[lane], z[lane + LANES]
            c, d = mirrored[lane], mirrored[lane + LANES]
            power[lane] = (a + c) ** 2 + (b - d) ** 2
            power[lane + LANES] = (a - c) ** 2 + (b + d) ** 2
        if is_magnitude:
            for lane in range(WIDTH):
                power[lane] = np.sqrt(power[lane])
        for entry in range(starts[k], starts[k + 1]):
            weight, band = weights[entry], mel[bands[entry] * WIDTH : (bands[entry] + 1) * WIDTH]
            for lane in range(WIDTH):
                band[lane] += weight * power[lane]


@lru_cache
def build(n_fft: int, is_magnitude: bool = False) -> Callable[..., None]:
    """Compile the kernel for frames of `n_fft` samples, a power of two from 16 on.

    With `is_magnitude` it sums the magnitudes of the frequencies rather than their powers.

    Returns:
        A function of padded (n_blocks * hop_length,) and hop_length, the tables of mel._tables, and
        where the result goes, (n_mels, n_frames) float32.
    """
    eights, rest = split_radices(n_fft)
    n_passes = eights + (rest > 1)

    @compiled
    def kernel(padded, hop_length, window, twiddles, rows, starts, bands, weights, out):
        n_mels, n_frames = out.shape
        samples = np.empty_like(padded)
        turn_blocks(padded, samples, hop_length)
        x, y = np.empty(n_fft * WIDTH, padded.dtype), np.empty(n_fft * WIDTH, padded.dtype)
        mel, power = np.empty(n_mels * WIDTH, padded.dtype), np.empty(WIDTH, padded.dtype)
        for first in range(0, n_frames, WIDTH):
            load_frames(x, samples, hop_length, window, first, n_fft)
            for k in range(eights):
                if k % 2 == 0:
                    pass8(x, y, twiddles[k], n_fft)
                else:
                    pass8(y, x, twiddles[k], n_fft)
            if rest > 1:
                if eights % 2 == 0:
                    last_pass(x, y, rest, n_fft)
                else:
                    last_pass(y, x, rest, n_fft)
            if n_passes % 2 == 0:
                sum_bands(x, mel, power, rows, starts, bands, weights, n_fft, is_magnitude)
            else:
                sum_bands(y, mel, power, rows, starts, bands, weights, n_fft, is_magnitude)
            for band in range(n_mels):
                for lane in range(min(WIDTH, n_frames - first)):
                    out[band, first + lane] = mel[band * WIDTH + lane]

    return kernel
