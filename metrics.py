"""Scores for reports: probabilities and hard labels, as numpy arrays, to numbers.

The losses of training stand in losses/named.py and can be had from here, too. Nothing here knows
the settings of a run.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from losses.named import LOSSES as LOSSES
from losses.named import BCEFocal2WayLoss as BCEFocal2WayLoss
from losses.named import BCEFocalLoss as BCEFocalLoss
from losses.named import Criterion as Criterion
from losses.named import get_loss as get_loss

# Rows of ones of each padded cmAP; BirdCLEF 2023 used 5.
PADDED_SCORES = {"cmap_pad_1": 1, "cmap_pad_3": 3, "cmap_pad_5": 5}

# Integers as wide as a float; see _sorted_keys.
_KEY_DTYPES = {np.dtype(np.float32): np.uint32, np.dtype(np.float64): np.uint64}


# Scores -------------------------------------------------------------------------------------------


def padded_cmap(labels: np.ndarray, scores: np.ndarray, padding_factor: int = 5) -> float:
    """Compute class-wise mean average precision with padding, the metric of BirdCLEF 2023.

    Rows of ones are added to both arrays; then the average precision of the classes is averaged, as
    scikit-learn's `average_precision_score(average="macro")` does (equal to 1e-12). A class without
    positives gets about 1, so report it beside its floor (`padded_cmap_floor`). Score a whole fold
    at once: the mean over batches is another number.

    Args:
        labels: (N, C), exactly 0 or 1 of any dtype.
        scores: (N, C), probabilities in [0, 1].
        padding_factor: rows of ones, >= 1.

    Returns:
        A number in (0, 1].

    Raises:
        ValueError: soft labels, logits or NaN (the message names row and column), shapes that
            differ or are empty, or a padding_factor below 1.
    """
    if padding_factor < 1:
        raise ValueError(
            f"padding_factor must be at least 1, got {padding_factor}; see macro_average_precision"
        )
    classes = _sorted_keys(labels, scores)
    return _mean([_average_precision(keys, padding_factor) for keys in classes])


def macro_average_precision(labels: np.ndarray, scores: np.ndarray) -> float:
    """Average the average precision, without padding, over the classes with positives.

    Takes and refuses the same labels and scores (N, C) as padded_cmap. Returns a number in (0, 1],
    or nan if no class has a positive.
    """
    return _mean([_average_precision(keys, 0) for keys in _sorted_keys(labels, scores)])


def macro_roc_auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Average the area under the ROC curve over the classes with positives and negatives.

    Takes and refuses the same labels and scores (N, C) as padded_cmap. Returns a number in [0, 1],
    0.5 by chance; nan if there is no such class.
    """
    return _mean([_roc_auc(keys) for keys in _sorted_keys(labels, scores)])


def padded_cmap_floor(
    n_positives_per_class: np.ndarray, n_rows: int, padding_factor: int = 5
) -> float:
    """Compute the expected padded cmAP of random scores without ties, all below 1.

    The padding rows come first, each at precision 1. Each of the N places after them holds one of
    the n positives of a class with probability n / N. If place r does, the places before it hold
    (r - 1) (n - 1) / (N - 1) positives on average, so the expected precision there is

        p(r) = (P + 1 + (r - 1) (n - 1) / (N - 1)) / (P + r).

    By linearity of expectation, E[AP] = (P + n / N * sum of p(r) over r = 1..N) / (P + n), exactly.
    That is about P / (P + n) for rare classes, and 1 for a class without positives.

    Args:
        n_positives_per_class: (C,) whole numbers in 0..n_rows.
        n_rows: N >= 1.
        padding_factor: P >= 0. With 0 it is the floor of macro_average_precision, over the classes
            with positives.

    Returns:
        The mean over the classes, in (0, 1]; nan if there are none.

    Raises:
        ValueError: counts outside 0..n_rows, no class, or numbers out of range.
    """
    n_positives = np.asarray(n_positives_per_class, dtype=np.float64)
    if n_rows < 1 or padding_factor < 0:
        raise ValueError(f"n_rows={n_rows} must be >= 1, padding_factor={padding_factor} >= 0")
    if n_positives.ndim != 1 or n_positives.size == 0:
        raise ValueError(f"a count for each class is needed, got shape {n_positives.shape}")
    is_whole = n_positives == np.floor(n_positives)
    if not (is_whole & (n_positives >= 0) & (n_positives <= n_rows)).all():
        raise ValueError(f"counts of positives are whole numbers in 0..{n_rows}, got {n_positives}")

    if padding_factor == 0:
        n_positives = n_positives[n_positives > 0]
    if n_positives.size == 0:
        return math.nan

    places = np.arange(1, n_rows + 1)
    for_itself = ((padding_factor + 1) / (padding_factor + places)).sum()
    for_others = ((places - 1) / (padding_factor + places)).sum() / max(n_rows - 1, 1)
    expected = n_positives / n_rows * (for_itself + (n_positives - 1) * for_others)  # (C,)
    return float(((padding_factor + expected) / (padding_factor + n_positives)).mean())


def _sorted_keys(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Join score and label of each row in one integer; sort those of each class: (C, N), ascending.

    The bits of floats >= 0, read as integers, have the order of the floats. Twice that plus the
    label is a key that a plain sort puts in order, in a tenth of the time of an argsort.
    """
    labels, scores = _checked(labels, scores)

    by_class = np.array(scores.T, order="C")  # (C, N), a copy
    keys = by_class.view(_KEY_DTYPES[scores.dtype])
    keys <<= 1  # the sign bit falls off, so -0.0 is 0.0
    keys |= labels.T.astype(keys.dtype)
    keys.sort(axis=1)
    return keys


def _count_at_thresholds(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Count positives, and rows, at or above each distinct score, from the highest score down."""
    descending = keys[::-1]
    scores = descending >> 1
    last_of_tie = np.flatnonzero(np.append(scores[1:] != scores[:-1], True))
    return np.cumsum(descending & 1, dtype=np.int64)[last_of_tie], last_of_tie + 1


def _average_precision(keys: np.ndarray, padding_factor: int) -> float:
    """Sum precision times the rise in recall over the distinct scores; nan without a positive."""
    float_dtype = np.float32 if keys.dtype == np.uint32 else np.float64
    ones = np.ones(padding_factor, dtype=float_dtype)
    padding_keys = 2 * ones.view(keys.dtype) + 1  # score 1.0 and label 1: the highest
    positives, rows = _count_at_thresholds(np.concatenate([keys, padding_keys]))
    if positives[-1] == 0:
        return math.nan
    return float((np.diff(positives, prepend=0) * (positives / rows)).sum() / positives[-1])


def _roc_auc(keys: np.ndarray) -> float:
    """Compute how often a positive outscores a negative, a tie as half; nan without one of each."""
    positives, rows = _count_at_thresholds(keys)
    negatives = rows - positives
    if positives[-1] == 0 or negatives[-1] == 0:
        return math.nan

    # The negatives of a score lose to the positives above it and tie with its own. The sums are
    # doubled, so that they stay whole numbers.
    twice_above_and_tied = 2 * positives - np.diff(positives, prepend=0)
    twice_wins = (np.diff(negatives, prepend=0) * twice_above_and_tied).sum()
    return float(twice_wins / (2 * positives[-1] * negatives[-1]))


def _checked(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both as arrays (N, C), scores as floats; refuse what would quietly score wrong."""
    labels, scores = np.asarray(labels), np.asarray(scores)
    if scores.dtype not in _KEY_DTYPES:
        scores = scores.astype(np.float64)
    if labels.shape != scores.shape or labels.ndim != 2 or labels.size == 0:
        raise ValueError(
            "labels and scores must have one shape (rows, classes), with at least one of each; "
            f"got {labels.shape} and {scores.shape}"
        )

    if not (scores.min() >= 0 and scores.max() <= 1):  # a NaN makes both comparisons false
        row, column = np.argwhere(~((scores >= 0) & (scores <= 1)))[0]
        raise ValueError(
            f"scores[{row}, {column}] is {scores[row, column]:g}: scores must be probabilities in "
            "[0, 1], not logits or NaN"
        )

    if labels.dtype != bool and not (hard := (labels == 0) | (labels == 1)).all():
        row, column = np.argwhere(~hard)[0]
        raise ValueError(
            f"labels[{row}, {column}] is {labels[row, column]:g}: labels must be hard, 0 or 1; "
            "take targets >= 0.5"
        )
    return labels, scores


def _mean(values: list[float]) -> float:
    """Average the values that are not nan; nan if there are none."""
    defined = [value for value in values if not math.isnan(value)]
    return math.fsum(defined) / len(defined) if defined else math.nan


# Meters -------------------------------------------------------------------------------------------


class AverageMeter:
    """The mean over samples of a value that comes as the mean of each batch.

    Each batch counts by its samples, so a smaller last batch counts less.
    """

    def __init__(self) -> None:
        self.total = 0.0
        self.count = 0

    @property
    def avg(self) -> float:
        """The mean so far; nan before the first sample."""
        return self.total / self.count if self.count else math.nan

    def update(self, value: float, n: int = 1) -> None:
        """Add the mean of n >= 0 samples; a value that is not finite makes the mean so, too."""
        if n < 0:
            raise ValueError(f"n={n} samples: n must not be negative")
        if n > 0:
            self.total += float(value) * n
            self.count += n

    def state_dict(self) -> dict[str, float]:
        """Return plain numbers from which `load_state_dict` goes on exactly."""
        return {"total": self.total, "count": self.count}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Go on from what `state_dict` returned."""
        self.total, self.count = float(state["total"]), int(state["count"])


class MetricMeter:
    """Collects the scores of a whole epoch, and computes the metrics once.

    The mean of the batches' average precisions is another number: a batch has few positives, and
    padding fills in for the rest.
    """

    def __init__(self) -> None:
        self._scores: list[np.ndarray] = []
        self._labels: list[np.ndarray] = []

    def update(self, scores: np.ndarray | Tensor, labels: np.ndarray | Tensor) -> None:
        """Add a batch; both are copied.

        Args:
            scores: (B, C) probabilities in [0, 1], float32 or float64.
            labels: (B, C), exactly 0 or 1.

        Raises:
            ValueError: as in padded_cmap; scores in half precision, which round to 1.0 from a logit
                of 7.6 and so tie with the padding rows; or another number of classes than before.
        """
        if str(scores.dtype).removeprefix("torch.") in ("float16", "bfloat16"):
            raise ValueError(f"scores are {scores.dtype}: take the sigmoid in float32")

        checked_labels, checked_scores = _checked(_to_numpy(labels), _to_numpy(scores))
        if self._scores and self._scores[0].shape[1] != checked_scores.shape[1]:
            raise ValueError(
                f"{checked_scores.shape[1]} classes after batches of {self._scores[0].shape[1]}"
            )

        self._scores.append(checked_scores.astype(np.float32))
        self._labels.append(checked_labels.astype(np.uint8))

    @property
    def scores(self) -> np.ndarray:
        """All scores in the order they came, (N, C) float32."""
        return _stacked(self._scores)

    @property
    def labels(self) -> np.ndarray:
        """All labels in the order they came, (N, C) uint8."""
        return _stacked(self._labels)

    def compute(self) -> dict[str, float]:
        """Compute the metrics of all rows at once.

        Returns:
            `cmap_pad_1`, `_3`, `_5`, each with its `_floor`; `macro_ap` with its floor;
            `macro_roc_auc`. The unpadded ones are nan where no class has the positives, or the
            negatives, that they need.

        Raises:
            ValueError: before the first batch.
        """
        labels = self.labels
        classes = _sorted_keys(labels, self.scores)
        n_positives = labels.sum(axis=0, dtype=np.int64)

        result = {}
        for name, padding in {**PADDED_SCORES, "macro_ap": 0}.items():
            result[name] = _mean([_average_precision(keys, padding) for keys in classes])
            result[f"{name}_floor"] = padded_cmap_floor(n_positives, len(labels), padding)
        result["macro_roc_auc"] = _mean([_roc_auc(keys) for keys in classes])
        return result


def _to_numpy(values: Any) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def _stacked(batches: list[np.ndarray]) -> np.ndarray:
    if not batches:
        raise ValueError("there is nothing to score: call update first")
    return np.concatenate(batches)


def describe_scores(scores: Mapping[str, float]) -> str:
    """Write the scores of a history row on one line, with the floors that random scores reach."""
    return (
        f"loss {scores['valid_loss']:.5f}  "
        f"padded cmAP {scores['cmap_pad_5']:.4f} (floor {scores['cmap_pad_5_floor']:.4f})  "
        f"macro AP {scores['macro_ap']:.4f} (floor {scores['macro_ap_floor']:.4f})  "
        f"macro ROC-AUC {scores['macro_roc_auc']:.4f}"
    )
