"""What a recording's labels ask of the network: a number for each class."""

import logging
from collections.abc import Sequence

import numpy as np
import pandas as pd

from catalog.labels import split_labels
from configs import UserError

logger = logging.getLogger("birdclef.dataset")

# Targets of absent, background and primary birds.
SMOOTH_TARGETS = (0.0025, 0.3, 0.995)
HARD_TARGETS = (0.0, 0.3, 1.0)


class Targets:
    """The labels of all rows as class numbers, and the targets that follow from them.

    It holds three arrays and no Python object a row, so the loader's workers share its memory.

    Args:
        df: rows of train.csv (primary_label, labels).
        class_names: species in the order of the target columns.

    Raises:
        UserError: a primary label is not among the classes.
    """

    def __init__(self, df: pd.DataFrame, class_names: Sequence[str]) -> None:
        self.n_classes = len(class_names)
        number = {name: position for position, name in enumerate(class_names)}
        self.primary = _encode_primary(df["primary_label"].astype(str), number)  # (n,) int32

        # The background birds of all rows one after the other, and where each row's begin.
        self.background, self.starts = _encode_background(df["labels"], number, self.primary)

    def of(self, rows: Sequence[int], *, smooth: bool) -> np.ndarray:
        """Make the targets (n_classes,) float32 of rows heard together; primary wins."""
        absent, background, primary = SMOOTH_TARGETS if smooth else HARD_TARGETS
        targets = np.full(self.n_classes, absent, np.float32)
        for row in rows:
            targets[self.background[self.starts[row] : self.starts[row + 1]]] = background

        targets[self.primary[list(rows)]] = primary
        return targets


def _encode_primary(labels: pd.Series, number: dict[str, int]) -> np.ndarray:
    unknown = sorted(set(labels) - number.keys())
    if unknown:
        raise UserError(
            f"primary_label {', '.join(unknown[:5])} is not among the {len(number)} classes"
        )
    return labels.map(number).to_numpy(np.int32)


def _encode_background(
    cells: pd.Series, number: dict[str, int], primary: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the class numbers of all rows (m,) int32, and where each row's begin, (n + 1,)."""
    texts = cells.fillna("").astype(str).reset_index(drop=True)
    lists = texts.map(lambda cell: split_labels(cell, number))
    labels = lists.explode().dropna()

    codes = labels.map(number)
    outside = labels[codes.isna()]
    if len(outside):
        logger.info(
            "%d background labels of %d species outside the classes are ignored",
            len(outside),
            outside.nunique(),
        )

    known = codes.dropna().astype(np.int32)
    known = known[known.to_numpy() != primary[known.index.to_numpy()]]
    starts = np.searchsorted(known.index.to_numpy(), np.arange(len(cells) + 1))
    return known.to_numpy(), starts.astype(np.int64)
