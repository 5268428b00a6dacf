"""A linear classifier of frozen features: logistic regression, its strength chosen by folds."""

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from catalog.targets import NONE

logger = logging.getLogger("birdclef.train")

NEVER_HEARD = -20.0  # logit of a class without a clip to fit to
MAX_ITERATIONS = 1000
LEAST_DEVIATION = 1e-4
FINE, ROUGH = 1e-4, 3e-3  # largest gradient at the end; to choose a strength, rough will do


@dataclass(frozen=True)
class Regression:
    """Logits of features: weight @ ((features - mean) / std) + bias.

    Attributes:
        mean, std: (n,) float32 of the clips that it is fitted to.
        weight: (C, n) float32.
        bias: (C,) float32.
        c: inverse strength of the regularisation.
    """

    mean: np.ndarray
    std: np.ndarray
    weight: np.ndarray
    bias: np.ndarray
    c: float

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Score features (N, n): (N, C) float32."""
        standardised = (features - self.mean) / self.std
        return standardised @ self.weight.T + self.bias


def fit(
    features: np.ndarray,
    targets: np.ndarray,
    groups: np.ndarray,
    *,
    n_outputs: int,
    strengths: Sequence[float],
    softmax: bool = True,
    rows: np.ndarray | None = None,
    weights: np.ndarray | None = None,
) -> Regression:
    """Standardise features and fit a logistic regression to them.

    Args:
        features: (M, n) float32.
        targets: (N,) class numbers below n_outputs; NONE counts against every class.
        groups: (N,) fold of each clip; all clips of a recording have one. The strength is the one
            that predicts each of these folds best from the others. Clips of a group below 0 do not
            count in that choice.
        n_outputs: C.
        strengths: to choose from, inverse: small is strong.
        softmax: classes exclude each other; else each is told from all others by itself.
        rows: (N,) which features each target is of: a clip of doubtful label has a target for each
            of its classes. None: N is M, and each has one.
        weights: (N,) how much each counts; None: all alike.
    """
    rows = np.arange(len(features)) if rows is None else rows
    mean = features.mean(axis=0, dtype=np.float64).astype(np.float32)
    std = features.std(axis=0, dtype=np.float64).astype(np.float32) + np.float32(LEAST_DEVIATION)
    standardised = (features - mean) / std
    turned, back = turn(standardised)

    c = strengths[0]
    if len(strengths) > 1:
        counts = groups >= 0
        c = choose_strength(turned[rows[counts]], targets[counts], groups[counts], strengths)
    fit_weights = fit_softmax if softmax else fit_each
    weight, bias = fit_weights(turned[rows], targets, n_outputs, c, weights=weights)
    return Regression(mean, std, (weight @ back).astype(np.float32), bias, c)


def turn(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Turn features (N, n) so that min(N, n) numbers hold all that there is of them.

    A regularised regression's weights lie in the span of the clips, and turning changes no length:
    fitted to fewer numbers it is the same and faster.

    Returns:
        turned (N, k) and back (k, n) with features = turned @ back, whose rows are orthonormal.
    """
    n_clips, n_features = features.shape
    if n_clips >= n_features:
        return features, np.eye(n_features, dtype=np.float32)

    squares, vectors = np.linalg.eigh(features.astype(np.float64) @ features.T)
    is_kept = squares > squares[-1] * 1e-10
    lengths = np.sqrt(squares[is_kept])
    back = (vectors[:, is_kept] / lengths).T @ features
    turned = vectors[:, is_kept] * lengths
    return turned.astype(np.float32), back.astype(np.float32)


def choose_strength(
    features: np.ndarray, targets: np.ndarray, groups: np.ndarray, strengths: Sequence[float]
) -> float:
    """Choose the strength under which held-back groups are most likely.

    Clips of a class that the other groups lack cannot be predicted; they do not count.
    """
    folds = np.unique(groups)
    if len(folds) < 2:
        return sorted(strengths)[len(strengths) // 2]

    total = np.zeros(len(strengths))
    for fold in folds:
        held = groups == fold
        known = held & np.isin(targets, targets[~held])
        if not known.any():
            continue
        for number, c in enumerate(strengths):
            n_outputs = int(targets.max()) + 1
            weight, bias = fit_softmax(features[~held], targets[~held], n_outputs, c, rough=True)
            log_p = log_softmax(features[known] @ weight.T + bias)
            total[number] += log_p[np.arange(len(log_p)), targets[known]].sum()

    best = strengths[int(total.argmax())]
    told = ", ".join(
        f"{c:g}: {sum_ / len(targets):.3f}" for c, sum_ in zip(strengths, total, strict=True)
    )
    logger.debug("regularisation C by log-likelihood a clip: %s; taken: %g", told, best)
    return best


def fit_softmax(
    features: np.ndarray,
    targets: np.ndarray,
    n_outputs: int,
    c: float,
    *,
    rough: bool = False,
    weights: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Fit a softmax regression: weight (C, n), bias (C,) float32; NONE is left out."""
    is_known = targets != NONE
    features, targets = features[is_known], targets[is_known]
    weights = None if weights is None else weights[is_known]
    heard = np.unique(targets)
    weight = np.zeros((n_outputs, features.shape[1]), np.float32)
    bias = np.full(n_outputs, NEVER_HEARD, np.float32)
    if len(heard) == 1:
        bias[heard] = 0.0
        return weight, bias

    coefficients, intercepts = _fit(features, targets, c, ROUGH if rough else FINE, weights)
    if len(heard) == 2:  # one row for the second class against the first
        coefficients = np.concatenate([-coefficients, coefficients]) / 2
        intercepts = np.concatenate([-intercepts, intercepts]) / 2
    weight[heard] = coefficients
    bias[heard] = intercepts
    return weight, bias


def fit_each(
    features: np.ndarray,
    targets: np.ndarray,
    n_outputs: int,
    c: float,
    *,
    weights: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Fit a regression of each class against all others: weight (C, n), bias (C,) float32."""
    weight = np.zeros((n_outputs, features.shape[1]), np.float32)
    bias = np.full(n_outputs, NEVER_HEARD, np.float32)
    for number in np.unique(targets[targets != NONE]):
        is_class = targets == number
        if is_class.all():
            bias[number] = 0.0
            continue
        coefficients, intercepts = _fit(features, is_class, c, FINE, weights)
        weight[number], bias[number] = coefficients[0], intercepts[0]
    return weight, bias


def _fit(
    features: np.ndarray,
    targets: np.ndarray,
    c: float,
    tolerance: float,
    weights: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = LogisticRegression(C=c, max_iter=MAX_ITERATIONS, tol=tolerance)
        fitted.fit(features, targets, weights)
    return fitted.coef_, fitted.intercept_


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Logarithms of the softmax of (N, C)."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
