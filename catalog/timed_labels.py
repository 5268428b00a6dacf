"""Which labels count in a window of a recording whose labels have a time."""

import numpy as np
import pandas as pd

from audio.windows import LEAST_REST

WINDOW_COLUMNS = ("filename", "start_s", "number", "labels", "spans")


def window_starts(seconds: float, period: float, stride: float) -> np.ndarray:
    """Return the starts of the windows of a recording, in seconds: (n,) float64.

    The first window starts at 0, however short the recording. Others follow every `stride` seconds
    as long as at least a tenth of them lies in the recording, as in predict.py.
    """
    last = max(0.0, seconds - LEAST_REST * period)
    return np.arange(1 + int((last + 1e-9) // stride)) * stride


def list_windows(
    spans: pd.DataFrame,
    seconds: dict[str, float],
    *,
    period: float,
    stride: float,
    min_overlap: float,
) -> pd.DataFrame:
    """List the windows of annotated recordings with their labels.

    A label counts where its overlap with the window is at least `min_overlap` of the shorter of the
    two: a short call in a window counts, and the last tenth of a long song does not. One without a
    length, a point, counts in the windows that it lies in.

    Args:
        spans: as read_annotations returns them.
        seconds: length of each annotated recording.
        period: seconds in a window.
        stride: seconds from one window to the next.
        min_overlap: share from which a label counts.

    Returns:
        A row a window: filename, start_s, its number, labels, a tuple of the labels in it, the one
        that sings longest first, empty where nothing sings; and spans, a list of (label, begin_s,
        end_s) within the window, of all that reaches into it.
    """
    rows = []
    for filename, own in spans.groupby("filename", sort=True):
        starts = window_starts(seconds[str(filename)], period, stride)  # (n_windows,)
        own = own[own["label"] != ""]
        begin, end = own["start_s"].to_numpy(float), own["end_s"].to_numpy(float)  # (n_spans,)
        names = own["label"].to_numpy()
        for number, start_s in enumerate(starts):
            counts, overlap_s = count_in_window(begin, end, start_s, period, min_overlap)
            labels = _longest_first(names[counts], overlap_s[counts])
            reach = overlap_s > 0
            first_s = np.maximum(begin[reach] - start_s, 0.0).tolist()
            last_s = np.minimum(end[reach] - start_s, period).tolist()
            inside = list(zip(names[reach], first_s, last_s, strict=True))
            rows.append((filename, start_s, number, labels, inside))
    return pd.DataFrame(rows, columns=list(WINDOW_COLUMNS))


def count_in_window(
    begin: np.ndarray, end: np.ndarray, start_s: float, period: float, min_overlap: float
) -> tuple[np.ndarray, np.ndarray]:
    """Say which labels count in a window, by the rule of `list_windows`.

    Args:
        begin: (n,) seconds, where each label begins.
        end: (n,) seconds, where it ends.
        start_s: where the window starts.
        period: seconds in it.
        min_overlap: share from which a label counts.

    Returns:
        (n,) bool, and (n,) seconds that each label shares with the window, negative for those
        outside.
    """
    overlap_s = np.minimum(end, start_s + period) - np.maximum(begin, start_s)
    shorter_s = np.minimum(end - begin, period)
    is_point = (begin == end) & (begin >= start_s) & (begin < start_s + period)
    return is_point | (overlap_s > 0) & (overlap_s >= min_overlap * shorter_s), overlap_s


def _longest_first(labels: np.ndarray, seconds: np.ndarray) -> tuple[str, ...]:
    """Order the different labels by how long each sings."""
    total: dict[str, float] = {}
    for label, length in zip(labels, seconds, strict=True):
        total[label] = total.get(label, 0.0) + length
    return tuple(sorted(total, key=lambda label: (-total[label], label)))
