"""What a recording's labels ask of the network: a number for each class."""

import logging
import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from catalog.labels import NO_BIRD, split_labels
from catalog.refuted import REFUTED_COLUMN, Refuted
from configs import Config, UserError

logger = logging.getLogger("birdclef.dataset")

# Targets of absent and primary birds.
SMOOTH_TARGETS = (0.0025, 0.995)
HARD_TARGETS = (0.0, 1.0)
SECONDARY = 0.3  # target of secondary birds in validation
NONE = -1  # class number of recordings without a bird


class Targets:
    """The labels of all rows as class numbers, and the targets that follow from them.

    It holds a few arrays and no Python object a row, so the loader's workers share its memory.

    Args:
        df: rows of train.csv (primary_label, labels, and refuted where there are such rows).
        class_names: species in the order of the target columns.
        smooth: targets 0.0025 and 0.995 rather than 0 and 1.
        smoothing: share of each target that is spread over all classes; 0 leaves them.
        secondary: target of a secondary bird; NaN masks it: the loss leaves it out.
        no_bird_class: add a last column for recordings without a bird.
        masks: targets are NaN of which a row says nothing (catalog/refuted.py); otherwise absent.

    Raises:
        UserError: a primary label is not among the classes.
    """

    def __init__(
        self,
        df: pd.DataFrame,
        class_names: Sequence[str],
        *,
        smooth: bool = False,
        smoothing: float = 0.0,
        secondary: float = SECONDARY,
        no_bird_class: bool = False,
        masks: bool = False,
    ) -> None:
        self.n_columns = len(class_names) + no_bird_class
        self.no_bird_class = no_bird_class
        self.smoothing, self.secondary_target = smoothing, secondary
        self.absent_target, self.primary_target = SMOOTH_TARGETS if smooth else HARD_TARGETS

        number = {name: position for position, name in enumerate(class_names)}
        self.primary = _encode_primary(df, number)  # (n,) int32

        # The secondary birds of all rows one after the other, and where each row's begin.
        self.secondary, self.starts = _encode_secondary(df["labels"], number, self.primary)
        cells = list(df[REFUTED_COLUMN]) if masks and REFUTED_COLUMN in df else []
        self.refuted = Refuted([split_labels(cell, number) for cell in cells], number)

    def of(self, rows: Sequence[int]) -> np.ndarray:
        """Make the targets (n_columns,) float32 of rows heard together; primary wins.

        A number beyond the rows is a background: it adds no bird. What one of the rows says nothing
        about is NaN, unless another has it.
        """
        rows = [row for row in rows if row < len(self.primary)]
        targets = np.full(self.n_columns, self.absent_target, np.float32)
        n_classes = self.n_columns - self.no_bird_class
        for row in rows:
            targets[:n_classes][self.refuted.unknown(row, n_classes)] = np.nan
        for row in rows:
            targets[self.secondary[self.starts[row] : self.starts[row + 1]]] = self.secondary_target

        birds = self.primary[rows]
        birds = birds[birds != NONE]
        targets[birds] = self.primary_target
        if self.no_bird_class and not len(birds):
            is_known = not any(map(self.refuted.says_little, rows))
            targets[-1] = self.primary_target if is_known else np.nan

        return self.smoothed(targets)

    def smoothed(self, targets: np.ndarray) -> np.ndarray:
        """Spread a share of each target over all columns (..., n_columns), if that is asked for."""
        if self.smoothing:
            targets = (1 - self.smoothing) * targets + self.smoothing / self.n_columns
        return targets.astype(np.float32, copy=False)

    @property
    def has_masks(self) -> bool:
        """Whether some targets are NaN."""
        return math.isnan(self.secondary_target) or bool(self.refuted.is_partial.any())

    def is_without_bird(self, row: int) -> bool:
        """Say whether a row, or a background beyond the rows, has no bird."""
        return row >= len(self.primary) or bool(self.primary[row] == NONE)


def _encode_primary(df: pd.DataFrame, number: dict[str, int]) -> np.ndarray:
    labels = df["primary_label"].astype(str)
    unknown = sorted(set(labels) - number.keys() - {NO_BIRD})
    if unknown:
        raise UserError(
            f"primary_label {', '.join(unknown[:5])} is not among the {len(number)} classes"
        )
    return labels.map(number | {NO_BIRD: NONE}).to_numpy(np.int32)


def _encode_secondary(
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


def build_targets(
    df: pd.DataFrame, config: Config, mode: str, class_names: Sequence[str]
) -> Targets:
    """Make the targets that the settings ask for; in validation those of the metric, unmasked.

    In a window of a recording whose labels have a time, every bird is a primary one.
    """
    are_windows = "start_s" in df
    if mode == "valid":
        secondary_target = HARD_TARGETS[1] if are_windows else SECONDARY
        return Targets(
            df, class_names, secondary=secondary_target, no_bird_class=config.no_bird_class
        )

    smooth = config.label_smoothing and config.smoothing is None
    secondary = {
        "soft": config.secondary_value,
        "positive": (SMOOTH_TARGETS if smooth else HARD_TARGETS)[1],
        "masked": math.nan,
    }
    return Targets(
        df,
        class_names,
        smooth=smooth,
        smoothing=config.smoothing or 0.0,
        secondary=secondary["positive" if are_windows else config.secondary_targets],
        no_bird_class=config.no_bird_class,
        masks=True,
    )
