"""Average precision and ROC-AUC of every class for many weightings of the rows at once.

A bootstrap draws recordings with replacement; a draw is a weight for each row, how often its
recording was drawn. Each class is sorted once, and every draw is a walk along that order.
"""

from typing import NamedTuple

import numpy as np
from numba import njit, prange

INTERVAL = (2.5, 97.5)  # percentiles of the draws between which a score lies with 95 %


class ClassScores(NamedTuple):
    """Scores of every class in every draw, each (n_draws, n_classes); NaN where a class has none.

    Average precision needs a positive in the draw, ROC-AUC a positive and a negative.
    """

    average_precision: np.ndarray
    roc_auc: np.ndarray


def draw_weights(groups: np.ndarray, n_draws: int, seed: int) -> np.ndarray:
    """Draw groups of rows with replacement, as many as there are.

    Args:
        groups: (n_rows,) int, the recording of each row.
        n_draws: draws to make.
        seed: of the draws.

    Returns:
        (n_draws, n_rows) uint16, how often each row is in each draw.
    """
    _, group = np.unique(groups, return_inverse=True)
    n_groups = group.max() + 1
    rng = np.random.default_rng(seed)
    weights = np.empty((n_draws, len(groups)), np.uint16)
    for draw in weights:
        counts = np.bincount(rng.integers(n_groups, size=n_groups), minlength=n_groups)
        draw[:] = counts[group]
    return weights


def score_classes(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> ClassScores:
    """Score every class in every draw.

    Equal to scikit-learn's average_precision_score and roc_auc_score with `sample_weight`, rows of
    equal score taken together.

    Args:
        labels: (n_rows, n_classes) of 0 and 1.
        scores: (n_rows, n_classes) float.
        weights: (n_draws, n_rows), at least 0; a single draw of ones gives the plain scores.
    """
    shape = (len(weights), labels.shape[1])
    found = ClassScores(np.full(shape, np.nan), np.full(shape, np.nan))
    weights = np.ascontiguousarray(weights, np.uint16)
    for number in range(labels.shape[1]):
        column = scores[:, number]
        order = np.argsort(-column, kind="stable")
        ends_group = np.append(np.diff(column[order]) != 0, True)
        positive = labels[order, number].astype(np.bool_)
        if positive.any():
            precision, auc = _walk(order, positive, ends_group, weights)
            found.average_precision[:, number], found.roc_auc[:, number] = precision, auc
    return found


@njit(parallel=True, cache=True)
def _walk(
    order: np.ndarray, positive: np.ndarray, ends_group: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Walk down one class from its highest score, in every draw: (n_draws,) AP and ROC-AUC."""
    n_draws, n_rows = weights.shape
    precisions = np.full(n_draws, np.nan)
    aucs = np.full(n_draws, np.nan)
    for draw in prange(n_draws):
        weight = weights[draw]
        true, false = 0.0, 0.0  # weights of the positives and negatives so far
        group_true, group_false = 0.0, 0.0  # those of the rows that share a score
        area_precision, area_roc = 0.0, 0.0
        for place in range(n_rows):
            w = weight[order[place]]
            if positive[place]:
                group_true += w
            else:
                group_false += w
            if not ends_group[place]:
                continue

            # A negative is outranked by the positives before it, and by half of those beside it.
            area_roc += group_false * (true + 0.5 * group_true)
            true += group_true
            false += group_false
            if group_true > 0:
                area_precision += group_true * true / (true + false)
            group_true, group_false = 0.0, 0.0

        if true > 0:
            precisions[draw] = area_precision / true
        if true > 0 and false > 0:
            aucs[draw] = area_roc / (true * false)
    return precisions, aucs


def interval(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the 95 % interval of draws (n_draws, ...): low and high (...), NaN without draws."""
    with np.errstate(all="ignore"):
        is_scored = ~np.isnan(draws).all(axis=0)
    low, high = np.full(draws.shape[1:], np.nan), np.full(draws.shape[1:], np.nan)
    if is_scored.any():
        bounds = np.nanpercentile(draws[:, is_scored], INTERVAL, axis=0)
        low[is_scored], high[is_scored] = bounds
    return low, high


def macro(draws: np.ndarray) -> np.ndarray:
    """Average (n_draws, n_classes) over the classes that have a score in a draw: (n_draws,)."""
    n_scored = (~np.isnan(draws)).sum(axis=1)
    total = np.nansum(draws, axis=1)
    return np.where(n_scored > 0, total / np.maximum(n_scored, 1), np.nan)
