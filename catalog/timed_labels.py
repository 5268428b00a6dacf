"""Which labels count in a window of a recording whose labels have a time."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from audio.windows import LEAST_REST


class TimedLabels:
    """The spans of several recordings as arrays: which classes sing in a window of one.

    Args:
        spans: as read_annotations returns them.
        recordings: (n,) names, the order of which numbers them; without spans they are empty.
        class_names: (n_classes,); spans of other labels are left out.
    """

    def __init__(
        self, spans: pd.DataFrame, recordings: Sequence[str], class_names: Sequence[str]
    ) -> None:
        number = {name: position for position, name in enumerate(class_names)}
        order = {name: position for position, name in enumerate(recordings)}
        known = spans[spans["label"].isin(number) & spans["filename"].isin(order)]
        recording = known["filename"].map(order).to_numpy(np.int64)
        sorting = np.argsort(recording, kind="stable")
        self._start_s = known["start_s"].to_numpy(np.float64)[sorting]
        self._end_s = known["end_s"].to_numpy(np.float64)[sorting]
        self._class = known["label"].map(number).to_numpy(np.int64)[sorting]
        self._first = np.searchsorted(recording[sorting], np.arange(len(recordings) + 1))

    def classes_in(
        self, recording: int, start_s: float, end_s: float, min_overlap: float
    ) -> np.ndarray:
        """List the classes that count in a window: (n,) int64, sorted, each once.

        A label counts where its overlap with the window is at least `min_overlap` of the shorter of
        the two, so a short call in a window counts and the last tenth of a long one does not.
        """
        own = slice(self._first[recording], self._first[recording + 1])
        overlap_s = np.minimum(self._end_s[own], end_s) - np.maximum(self._start_s[own], start_s)
        shorter_s = np.minimum(self._end_s[own] - self._start_s[own], end_s - start_s)
        counts = (overlap_s > 0) & (overlap_s >= min_overlap * shorter_s)
        return np.unique(self._class[own][counts])


def window_starts(seconds: float, period: float) -> np.ndarray:
    """Return the starts of the windows of a recording, in seconds: (n,) float64.

    Windows follow each other from the start; a rest of at least a tenth of a window makes one more,
    as in predict.py. A recording shorter than that has one window.
    """
    whole = int(seconds // period)
    has_rest = seconds - whole * period >= LEAST_REST * period
    return np.arange(max(1, whole + has_rest)) * period


def list_windows(
    spans: pd.DataFrame, seconds: dict[str, float], *, period: float, min_overlap: float
) -> pd.DataFrame:
    """List the windows of annotated recordings with their labels.

    Args:
        spans: as read_annotations returns them.
        seconds: length of each annotated recording.
        period: seconds in a window.
        min_overlap: see TimedLabels.classes_in.

    Returns:
        A row a window: filename, start_s, and labels, a tuple of the labels in it, the one that
        sings longest first; empty where nothing sings.
    """
    rows = []
    for filename, own in spans.groupby("filename", sort=True):
        starts = window_starts(seconds[str(filename)], period)  # (n_windows,)
        own = own[own["label"] != ""]
        begin, end = own["start_s"].to_numpy(float), own["end_s"].to_numpy(float)  # (n_spans,)
        overlap = np.minimum(end, starts[:, None] + period) - np.maximum(begin, starts[:, None])
        counts = (overlap > 0) & (overlap >= min_overlap * np.minimum(end - begin, period))
        for window, start_s in enumerate(starts):
            sung = pd.Series(overlap[window], own["label"].to_numpy())[counts[window]]
            longest_first = sung.groupby(level=0).sum().sort_values(ascending=False, kind="stable")
            rows.append((filename, start_s, tuple(longest_first.index)))
    return pd.DataFrame(rows, columns=["filename", "start_s", "labels"])
