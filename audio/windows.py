"""Which windows a recording is cut into, and which of them hold a signal.

Validation and prediction cut recordings alike.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np

LEAST_REST = 0.1  # of a window: a shorter rest at the end of a recording makes no window
LEAST_MOVE = 2**-15  # of full scale, one step of 16 bits: a signal moves by this much or more
EDGE_S = 0.01  # at both ends of a clip, where a resampler rings although nothing is heard


def window_starts(has: Callable[[int], bool], n_samples: int, stride: int) -> Iterator[int]:
    """Give the samples at which the windows of a recording start.

    The first window starts at 0, however short the recording. Others follow every `stride` samples
    as long as they add at least a tenth of a window: a shorter rest, repeated until it fills a
    window, would sound like nothing that a model was trained on. The last window may reach beyond
    the end.

    Args:
        has: says whether the recording has a sample at a position.
        n_samples: in a window.
        stride: samples from one window to the next.
    """
    start, reached = 0, 0
    least = 1  # sample of the recording
    while has(max(start, reached) + least - 1):
        yield start
        reached, start = start + n_samples, start + stride
        least = math.ceil(LEAST_REST * n_samples)


def has_signal(samples: np.ndarray, sample_rate: int) -> bool:
    """Say whether anything is heard in samples (n,) float32, n >= 1: not of zeros or a constant."""
    edge = round(EDGE_S * sample_rate)
    inner = samples[edge:-edge] if 0 < 10 * edge < len(samples) else samples
    return float(inner.max()) - float(inner.min()) >= LEAST_MOVE
