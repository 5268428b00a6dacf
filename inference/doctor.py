"""Recordings whose label the out-of-fold scores contradict: wrong labels, birds that nobody named.

The rule is that of confident learning (Northcutt, Jiang and Chuang 2021, doi:10.1613/jair.1.12125):
a species is found with the confidence that is usual among its own recordings, and the recording's
own species is not.
"""

import numpy as np
import pandas as pd

from inference.out_of_fold import OutOfFold


def find_suspicious(oof: OutOfFold) -> pd.DataFrame:
    """List recordings by how strongly their scores speak against their label.

    Args:
        oof: scores of recordings by a model that was not trained on them.

    Returns:
        A row a recording (or window, with its start_s) with a label, the most suspicious first:
        filename, label, its score,
        seems_to_be, its score, and suspicion: how much more confident the model is of the other
        species than of the label, each as a ratio to the usual confidence of its species. Above 0
        the other species fits better, and `is_contradicted` says that it is as sure as usual. The
        index is the row of `oof`.
    """
    usual = usual_confidence(oof)  # (n_classes,)
    confidence = oof.scores / usual  # (n, n_classes), 1: as sure as usual
    labelled = np.flatnonzero(oof.labels.any(axis=1))
    is_own = oof.labels[labelled] == 1
    own = np.where(is_own, confidence[labelled], -np.inf)
    other = np.where(is_own, -np.inf, confidence[labelled])
    label, seems = own.argmax(axis=1), other.argmax(axis=1)
    rows = np.arange(len(labelled))

    table = pd.DataFrame(
        {
            "filename": oof.filenames[labelled],
            "label": [oof.class_names[number] for number in label],
            "label_score": oof.scores[labelled, label],
            "seems_to_be": [oof.class_names[number] for number in seems],
            "seems_to_be_score": oof.scores[labelled, seems],
            "suspicion": other[rows, seems] - own[rows, label],
            "is_contradicted": (other[rows, seems] >= 1) & (own[rows, label] < 1),
        },
        index=labelled,
    )
    if oof.starts_s is not None:
        table.insert(1, "start_s", oof.starts_s[labelled])
    order = ["is_contradicted", "suspicion"]
    return table.sort_values(order, ascending=False, kind="stable")


def note_copies(table: pd.DataFrame, oof: OutOfFold, sounds: np.ndarray) -> pd.DataFrame:
    """Note recordings that sound the same and have other labels: one of the two is wrong.

    Args:
        table: of `find_suspicious`.
        oof: the scores that it is of.
        sounds: (n,) int, equal for rows of one sound, as fingerprint.find_same_sound numbers them.

    Returns:
        The table with the column same_sound_as, names joined by `;`; those that have one come
        first, for no score is needed to doubt them.
    """
    members = pd.Series(range(len(sounds))).groupby(sounds).indices
    names = [";".join(_others(row, members[sounds[row]], oof)) for row in table.index]
    table = table.assign(same_sound_as=names)
    order = np.argsort(table["same_sound_as"] == "", kind="stable")
    return table.iloc[order]


def _others(row: int, members: np.ndarray, oof: OutOfFold) -> list[str]:
    """Name the rows of one sound whose labels are others."""
    differ = [one for one in members if not np.array_equal(oof.labels[one], oof.labels[row])]
    return sorted({str(oof.filenames[one]) for one in differ})


def usual_confidence(oof: OutOfFold) -> np.ndarray:
    """Average the scores of each species over its own recordings: (n_classes,), at least 1e-6.

    A species without a recording takes the average of the others.
    """
    n_positive = oof.labels.sum(axis=0)
    total = (oof.scores * oof.labels).sum(axis=0, dtype=np.float64)
    has_any = n_positive > 0
    found = np.full(len(n_positive), np.nan)
    found[has_any] = total[has_any] / n_positive[has_any]
    found[~has_any] = np.nanmean(found) if has_any.any() else 1.0
    return np.maximum(found, 1e-6)
