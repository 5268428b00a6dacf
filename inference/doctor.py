"""Recordings whose label the out-of-fold scores contradict: wrong labels, birds that nobody named.

The idea is that of confident learning (Northcutt, Jiang and Chuang 2021, doi:10.1613/jair.1.12125):
what a score says depends on the scores that its species has where it sings, and where it does not.
How strongly it says so is a log-likelihood ratio (Neyman and Pearson 1933), with logits that are
normal in both cases and spread alike, which is a linear discriminant (Fisher 1936) a species.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from inference.calibration import logits
from inference.out_of_fold import OutOfFold

PRIOR = 4.0  # recordings that the usual distance of the two means counts as, in each species
LEAST_VARIANCE = 1e-3  # of logits
BLOCK_ROWS = 1024  # that are looked at together, so that memory does not grow with recordings


def find_suspicious(oof: OutOfFold) -> pd.DataFrame:
    """List recordings by how strongly their scores speak against their label.

    Args:
        oof: scores of recordings by a model that was not trained on them.

    Returns:
        A row a recording (or window, with its start_s) with a label, the most suspicious first:
        filename, label, its score, seems_to_be (the other species with the most evidence), its
        score, and suspicion: the evidence for that species less that for the label. Evidence is in
        nats; above 0 a score is more like those of recordings with the species.
        `is_contradicted` says that there is evidence for the other species and against the label.
        The index is the row of `oof`.
    """
    labelled = np.flatnonzero(oof.labels.any(axis=1))
    usual = Usual.of(oof)
    blocks = [labelled[first : first + BLOCK_ROWS] for first in range(0, len(labelled), BLOCK_ROWS)]
    found = [_compare(oof.take(rows), usual) for rows in blocks]
    columns = [np.concatenate(column) for column in zip(*found, strict=True)] or [labelled] * 4
    label, seems, own, other = columns

    table = pd.DataFrame(
        {
            "filename": oof.filenames[labelled],
            "label": [oof.class_names[number] for number in label],
            "label_score": oof.scores[labelled, label],
            "seems_to_be": [oof.class_names[number] for number in seems],
            "seems_to_be_score": oof.scores[labelled, seems],
            "suspicion": other - own,
            "is_contradicted": (other > 0) & (own < 0),
        },
        index=labelled,
    )
    if oof.starts_s is not None:
        table.insert(1, "start_s", oof.starts_s[labelled])
    return table.sort_values("suspicion", ascending=False, kind="stable")


def _compare(oof: OutOfFold, usual: "Usual") -> tuple[np.ndarray, ...]:
    """Find of each row its best label and its best other species, and the evidence of both."""
    evidence = usual.evidence(oof)  # (n, n_classes)
    is_own = oof.labels == 1
    own, other = np.where(is_own, evidence, -np.inf), np.where(is_own, -np.inf, evidence)
    return own.argmax(axis=1), other.argmax(axis=1), own.max(axis=1), other.max(axis=1)


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


class Usual(NamedTuple):
    """The logits that are usual for each species, each field (n_classes,) float64.

    Attributes:
        n: recordings with the species.
        total: the sum of their logits.
        absent: mean logit of recordings without it.
        gap: by which the mean of those with a species lies above it, in the mean of all species.
        variance: of the logits around the two means.
    """

    n: np.ndarray
    total: np.ndarray
    absent: np.ndarray
    gap: np.ndarray
    variance: np.ndarray

    @classmethod
    def of(cls, oof: OutOfFold) -> "Usual":
        """Measure all recordings."""
        n_rows, n_classes = oof.scores.shape
        sums = np.zeros((4, n_classes))  # n, total with, total of all, total of squares
        for first in range(0, n_rows, BLOCK_ROWS):
            z = logits(oof.scores[first : first + BLOCK_ROWS])
            has = oof.labels[first : first + BLOCK_ROWS] == 1
            sums += [has.sum(axis=0), (z * has).sum(axis=0), z.sum(axis=0), (z**2).sum(axis=0)]

        n, total, of_all, squares = sums
        n_without = np.maximum(n_rows - n, 1)
        present, absent = total / np.maximum(n, 1), (of_all - total) / n_without
        gap = (present - absent)[n > 0].mean() if n.any() else 0.0
        variance = (squares - n * present**2 - n_without * absent**2) / max(n_rows, 1)
        variance = np.maximum(variance, LEAST_VARIANCE)
        return cls(n, total, absent, np.full(n_classes, gap), variance)

    def evidence(self, oof: OutOfFold) -> np.ndarray:
        """Weigh what each score says: (n, n_classes) log-likelihood ratios.

        A label does not speak for itself: the mean of its species is that of its other recordings.
        Where there are few, or none, the gap to recordings without it is drawn to the usual one.
        """
        z = logits(oof.scores)
        n, total = self.n - oof.labels, self.total - z * oof.labels  # (n, n_classes)
        present = (total + PRIOR * (self.absent + self.gap)) / (n + PRIOR)
        middle = (present + self.absent) / 2
        return (present - self.absent) / self.variance * (z - middle)
