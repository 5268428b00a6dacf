"""From the scores of soundscapes to windows to train on: which are kept, and with which labels."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from inference.detections import Recording


@dataclass(frozen=True)
class Rules:
    """Which windows and labels are kept.

    Attributes:
        keep_above: a window is kept if its highest score is at least this.
        zero_below: labels with a lower score are left out of it.
        empty_below: a window whose highest score is below this is kept as one without a bird.
        most_of_recording: largest share of a species' windows that one recording may give; one
            window of each recording is always allowed.
    """

    keep_above: float = 0.5
    zero_below: float = 0.1
    empty_below: float = 0.0
    most_of_recording: float = 0.25


class Window(NamedTuple):
    """A window with its labels, the surest first; made_by: the model that was surest of each."""

    filename: str
    start_s: float
    end_s: float
    labels: tuple[str, ...]
    scores: tuple[float, ...]
    made_by: tuple[int, ...]
    weight: float


def label_windows(
    recordings: Iterable[tuple[Recording, np.ndarray]],
    class_names: Sequence[str],
    rules: Rules,
    period: float,
) -> pd.DataFrame:
    """Label the windows of recordings.

    Args:
        recordings: each with the scores (models, n, C) of its models, and with those (n, C) that
            count, which are averaged and perhaps adjusted.
        class_names: C labels.
        rules: what is kept.
        period: seconds in a window.

    Returns:
        A row a kept window, with the fields of Window. The weight is the sum of its scores.
    """
    windows = [
        window
        for recording, scores in recordings
        for window in _windows_of(recording, scores, class_names, rules, period)
    ]
    table = pd.DataFrame(windows, columns=Window._fields)
    return limit_recordings(table, rules)


def _windows_of(
    recording: Recording,
    scores: np.ndarray,
    class_names: Sequence[str],
    rules: Rules,
    period: float,
) -> Iterable[Window]:
    surest = recording.scores.argmax(axis=0)  # (n, C), numbers of models
    for place, start_s in enumerate(recording.starts_s.tolist()):
        row = scores[place]
        highest = float(row.max())
        is_kept, is_empty = highest >= rules.keep_above, highest < rules.empty_below
        if recording.silent[place] or not (is_kept or is_empty):
            continue

        order = np.argsort(-row, kind="stable")
        order = order[row[order] >= rules.zero_below] if is_kept else order[:0]
        found = tuple(round(float(row[number]), 4) for number in order)
        yield Window(
            filename=recording.name,
            start_s=start_s,
            end_s=round(start_s + period, 6),
            labels=tuple(class_names[number] for number in order),
            scores=found,
            made_by=tuple(int(surest[place, number]) for number in order),
            weight=round(sum(found), 4),
        )


# No recording takes a species over ----------------------------------------------------------------


def limit_recordings(table: pd.DataFrame, rules: Rules) -> pd.DataFrame:
    """Leave out windows so that no recording gives more than a share of a species' windows.

    A hum or a tone that a model takes for a species fills its recording with sure labels; without
    a limit the next model learns little else of that species. A species counts in the windows in
    which it is the surest label, or as sure as `keep_above`; of each recording those with the
    highest scores stay. Windows without a label are limited in the same way.

    Args:
        table: rows of Window.
        rules: what is kept.

    Returns:
        The rows that stay, in their order.
    """
    sure = [
        (row, table["filename"].iat[row], label, score)
        for row, (labels, scores) in enumerate(zip(table["labels"], table["scores"], strict=True))
        for place, (label, score) in enumerate(zip(labels or ("",), scores or (0.0,), strict=True))
        if place == 0 or score >= rules.keep_above
    ]
    ranked = pd.DataFrame(sure, columns=["row", "filename", "label", "score"])
    ranked = ranked.sort_values("score", ascending=False, kind="stable")
    place = ranked.groupby(["label", "filename"]).cumcount()  # 0 for the surest of its recording

    counts = ranked.groupby(["label", "filename"]).size()
    limits = {
        label: most_of_each(of_label.to_numpy(), rules.most_of_recording)
        for label, of_label in counts.groupby(level=0)
    }
    beyond = set(ranked.loc[place >= ranked["label"].map(limits), "row"])
    is_kept = np.array([row not in beyond for row in range(len(table))], bool)
    return table[is_kept].reset_index(drop=True)


def most_of_each(counts: np.ndarray, share: float) -> int:
    """Find the largest m, at least 1, for which m <= share * sum(min(counts, m)).

    Args:
        counts: windows of a species in each recording, (n_recordings,).
        share: largest share of one recording.
    """
    for most in range(int(counts.max()), 1, -1):
        if most <= share * np.minimum(counts, most).sum():
            return most
    return 1
