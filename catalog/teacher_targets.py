"""The teacher's vector of each training clip: what a network is taught beside the labels.

A clip takes the vectors of the seconds that it covers, as `Vectors.of_clip` averages them, scaled
to length 1: a teacher says a direction. Where several clips are heard together, theirs are averaged
as the clips are mixed. A clip that has none, and a mix with such a clip, has a row of NaN.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from catalog.vectors import Vectors, mean_within
from configs import UserError

LEAST_LENGTH = 1e-6  # of a vector that has a direction


class Span(NamedTuple):
    """Which seconds of the recording of a row a clip covers."""

    start_s: float
    end_s: float


class TeacherTargets:
    """The vectors of the rows of a table, in a few arrays that a loader's workers share.

    Args:
        vectors: of recordings.
        df: rows of train.csv (filepath), or windows of recordings, with start_s.
        path: of the file, for messages.

    Raises:
        UserError: none of the rows has a vector.
    """

    def __init__(self, vectors: Vectors, df: pd.DataFrame, path: Path | None = None) -> None:
        names = [name.removesuffix(".npy") for name in df["filepath"]]
        self.size = vectors.size
        self._vectors, self._middle_s = vectors.vector, vectors.middle_s
        self._rows = vectors.rows_of(names)  # (n_rows, 2)
        if not self.n_known:
            raise UserError(
                f"{path}: no vectors of any of the {len(df)} recordings to train on, the first: "
                f"{names[0]}; run embed.py on the prepared recordings"
            )
        self._starts_s = np.zeros(len(df))
        if "start_s" in df:
            self._starts_s = df["start_s"].to_numpy(np.float64)

    @property
    def n_known(self) -> int:
        """How many rows have vectors."""
        return int((self._rows[:, 1] > self._rows[:, 0]).sum())

    def of(self, rows: Sequence[int], spans: Sequence[Span], share: float = math.nan) -> np.ndarray:
        """Make the vector (n,) float32 of clips heard together, of length 1 if it is of one clip.

        Args:
            rows: of the table; a number beyond it is a background or window, which has none.
            spans: seconds of each.
            share: of the first of two clips in MixUp; NaN weighs all alike.
        """
        each = [self._of_clip(row, span) for row, span in zip(rows, spans, strict=True)]
        if math.isnan(share):
            return np.stack(each).mean(axis=0, dtype=np.float64).astype(np.float32)
        own, other = each
        return (share * own + (1 - share) * other).astype(np.float32)

    def _of_clip(self, row: int, span: Span) -> np.ndarray:
        unknown = np.full(self.size, np.nan, np.float32)
        if row >= len(self._rows):
            return unknown
        first, end = self._rows[row]
        if first == end:
            return unknown

        at = float(self._starts_s[row])
        own = slice(int(first), int(end))
        mean = mean_within(
            self._middle_s[own], self._vectors[own], at + span.start_s, at + span.end_s
        )
        length = float(np.linalg.norm(mean))
        return mean / np.float32(length) if length > LEAST_LENGTH else unknown
