"""Rows that say of some species that they are absent, and of the others nothing.

A verdict "no" is about one species. The targets of the others are masked (NaN), so that nothing is
learnt from them; a zero would teach that no other bird sings in a clip that nobody asked about.
"""

from collections.abc import Mapping, Sequence

import numpy as np

REFUTED_COLUMN = "refuted"  # of windows: species that are known to be absent; empty: all others are


class Refuted:
    """The refuted species of all rows, in arrays alone, so that a loader's workers share memory.

    Args:
        lists: labels of each row; a row without any knows all its species.
        number: target column of each label; labels outside it are left out.
    """

    def __init__(self, lists: Sequence[Sequence[str]], number: Mapping[str, int]) -> None:
        known = [[number[label] for label in row if label in number] for row in lists]
        self.is_partial = np.array([len(row) > 0 for row in lists], bool)  # (n_rows,)
        self.starts = np.cumsum([0, *map(len, known)])  # (n_rows + 1,), where each row's begin
        self.classes = np.array([one for row in known for one in row], np.int32)

    def says_little(self, row: int) -> bool:
        """Say whether a row is about some species alone; one beyond the rows is not."""
        return row < len(self.is_partial) and bool(self.is_partial[row])

    def unknown(self, row: int, n_classes: int) -> np.ndarray:
        """Say of which classes a row says nothing: (n_classes,) bool."""
        if not self.says_little(row):
            return np.zeros(n_classes, bool)
        unknown = np.ones(n_classes, bool)
        unknown[self.classes[self.starts[row] : self.starts[row + 1]]] = False
        return unknown
