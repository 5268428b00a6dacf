"""A linear classifier of frozen features: logistic regression, its strength chosen by folds."""

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from catalog.targets import NONE
from training.scatter import NOT_WHITENED, whiten

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
        shrinkage: of the scatter that the features are whitened by; NOT_WHITENED: they are not.
    """

    mean: np.ndarray
    std: np.ndarray
    weight: np.ndarray
    bias: np.ndarray
    c: float
    shrinkage: float = NOT_WHITENED

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
    recordings: np.ndarray | None = None,
    shrinkages: Sequence[float] = (NOT_WHITENED,),
    no_bird: int | None = None,
) -> Regression:
    """Standardise features, whiten them and fit a logistic regression to them.

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
        recordings: (M,) which recording each clip is of, for the scatter; NONE for a clip that
            does not count in it.
        shrinkages: of that scatter, to choose from like the strengths: 0 takes it as it is, 1 does
            not whiten.
        no_bird: number of the class for no bird, whose row of a softmax is fitted to features that
            are not whitened: what whitening plays down, noise, is what tells it apart.
    """
    rows = np.arange(len(features)) if rows is None else rows
    mean = features.mean(axis=0, dtype=np.float64).astype(np.float32)
    std = features.std(axis=0, dtype=np.float64).astype(np.float32) + np.float32(LEAST_DEVIATION)
    standardised = (features - mean) / std
    turned, back = turn(standardised)

    if recordings is None:
        recordings, shrinkages = np.full(len(features), NONE), (NOT_WHITENED,)
    turned, recordings = turned[rows], recordings[rows]
    counts = groups >= 0
    shrinkage, c = choose(
        turned[counts], recordings[counts], targets[counts], groups[counts], shrinkages, strengths,
        no_bird=no_bird,
    )  # fmt: skip

    whitening = whiten(turned, recordings, shrinkage)
    how: dict[str, Any] = {"whitening": whitening, "weights": weights}
    if softmax:
        weight, bias = fit_softmax(turned, targets, n_outputs, c, no_bird=no_bird, **how)
    else:
        weight, bias = fit_each(turned, targets, n_outputs, c, **how)
    shrinkage = NOT_WHITENED if whitening is None else shrinkage
    return Regression(mean, std, (weight @ back).astype(np.float32), bias, c, shrinkage)


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


def choose(
    features: np.ndarray,
    recordings: np.ndarray,
    targets: np.ndarray,
    groups: np.ndarray,
    shrinkages: Sequence[float],
    strengths: Sequence[float],
    *,
    no_bird: int | None = None,
) -> tuple[float, float]:
    """Choose the shrinkage and the strength under which held-back groups are most likely.

    The shrinkage comes first, at the middle strength. Without a group to hold back, it is the first
    of them, and the strength the middle one.
    """
    shrinkage, c = shrinkages[0], sorted(strengths)[len(strengths) // 2]
    if len(np.unique(groups)) < 2:
        return shrinkage, c

    likelihood = partial(
        held_back_likelihood, features, recordings, targets, groups, no_bird=no_bird
    )
    if len(shrinkages) > 1:
        shrinkage = _best("shrinkage", shrinkages, [likelihood(one, [c])[0] for one in shrinkages])
    if len(strengths) > 1:
        c = _best("C", strengths, likelihood(shrinkage, strengths))
    return shrinkage, c


def held_back_likelihood(
    features: np.ndarray,
    recordings: np.ndarray,
    targets: np.ndarray,
    groups: np.ndarray,
    shrinkage: float,
    strengths: Sequence[float],
    *,
    no_bird: int | None = None,
) -> list[float]:
    """Fit to all groups but one, for each; give each strength's mean log-likelihood of that one.

    Clips of a class that the other groups lack cannot be predicted; they do not count.
    """
    n_outputs = int(targets.max()) + 1
    totals = np.zeros(len(strengths))
    for group in np.unique(groups):
        held = groups == group
        known = held & np.isin(targets, targets[~held])
        if not known.any():
            continue
        fitted = features[~held], targets[~held], n_outputs
        whitening = whiten(features[~held], recordings[~held], shrinkage)
        for number, c in enumerate(strengths):
            weight, bias = fit_softmax(*fitted, c, whitening=whitening, no_bird=no_bird, rough=True)
            log_p = log_softmax(features[known] @ weight.T + bias)
            totals[number] += log_p[np.arange(len(log_p)), targets[known]].sum()
    return list(totals / len(targets))


def _best(name: str, choices: Sequence[float], likelihoods: Sequence[float]) -> float:
    best = choices[int(np.argmax(likelihoods))]
    told = ", ".join(
        f"{choice:g}: {likelihood:.3f}"
        for choice, likelihood in zip(choices, likelihoods, strict=True)
    )
    logger.debug("%s by log-likelihood a clip: %s; taken: %g", name, told, best)
    return best


def fit_softmax(
    features: np.ndarray,
    targets: np.ndarray,
    n_outputs: int,
    c: float,
    *,
    whitening: np.ndarray | None = None,
    no_bird: int | None = None,
    rough: bool = False,
    weights: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Fit a softmax regression: weight (C, n), bias (C,) float32; NONE is left out.

    Whitened features are fitted to; the weight is that of features as they are. The row of
    `no_bird` is then fitted beside the others, to features that are not whitened.
    """
    is_known = targets != NONE
    features, targets = features[is_known], targets[is_known]
    weights = None if weights is None else weights[is_known]
    heard = np.unique(targets)
    weight = np.zeros((n_outputs, features.shape[1]), np.float32)
    bias = np.full(n_outputs, NEVER_HEARD, np.float32)
    if len(heard) == 1:
        bias[heard] = 0.0
        return weight, bias

    if whitening is not None and no_bird is not None and no_bird in heard:
        is_bird = targets != no_bird
        weight, bias = fit_softmax(
            features[is_bird], targets[is_bird], n_outputs, c, whitening=whitening, rough=rough,
            weights=None if weights is None else weights[is_bird],
        )  # fmt: skip
        of_birds = np.unique(targets[is_bird])
        logits = features @ weight[of_birds].T + bias[of_birds]
        weight[no_bird], bias[no_bird] = fit_beside(features, ~is_bird, logits, c, weights)
        return weight, bias

    seen = features if whitening is None else features @ whitening
    coefficients, intercepts = _fit(seen, targets, c, ROUGH if rough else FINE, weights)
    if whitening is not None:
        coefficients = coefficients @ whitening.T
    if len(heard) == 2:  # one row for the second class against the first
        coefficients = np.concatenate([-coefficients, coefficients]) / 2
        intercepts = np.concatenate([-intercepts, intercepts]) / 2
    weight[heard] = coefficients
    bias[heard] = intercepts
    return weight, bias


def fit_beside(
    features: np.ndarray,
    is_one: np.ndarray,
    others: np.ndarray,
    c: float,
    weights: np.ndarray | None = None,
) -> tuple[np.ndarray, float]:
    """Fit the row of one more class of a softmax whose other rows stand.

    It is a logistic regression of that class against all others together, with their part of the
    softmax given.

    Args:
        features: (N, n).
        is_one: (N,) which clips are of the class.
        others: (N, C) logits of the other classes.
        c: inverse strength of the regularisation.
        weights: (N,) how much each clip counts; None: all alike.

    Returns:
        weight (n,) float32 and bias.
    """
    from scipy.optimize import minimize
    from scipy.special import expit, logsumexp

    against = logsumexp(others.astype(np.float64), axis=1)
    sign = np.where(is_one, 1.0, -1.0)
    strength = c * (np.ones(len(features)) if weights is None else weights)

    def loss(row: np.ndarray) -> tuple[float, np.ndarray]:
        margin = sign * (features @ row[:-1].astype(features.dtype) + row[-1] - against)
        slope = -strength * sign * expit(-margin)
        of_weight = features.T @ slope.astype(features.dtype) + row[:-1]
        value = strength @ np.logaddexp(0, -margin) + row[:-1] @ row[:-1] / 2
        return value, np.append(of_weight, slope.sum())

    start = np.zeros(features.shape[1] + 1)
    row = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": MAX_ITERATIONS}).x
    return row[:-1].astype(np.float32), float(row[-1])


def fit_each(
    features: np.ndarray,
    targets: np.ndarray,
    n_outputs: int,
    c: float,
    *,
    whitening: np.ndarray | None = None,
    weights: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Fit a regression of each class against all others: weight (C, n), bias (C,) float32.

    Whitened features are fitted to; the weight is that of features as they are.
    """
    features = features if whitening is None else features @ whitening
    weight = np.zeros((n_outputs, features.shape[1]), np.float32)
    bias = np.full(n_outputs, NEVER_HEARD, np.float32)
    for number in np.unique(targets[targets != NONE]):
        is_class = targets == number
        if is_class.all():
            bias[number] = 0.0
            continue
        coefficients, intercepts = _fit(features, is_class, c, FINE, weights)
        weight[number], bias[number] = coefficients[0], intercepts[0]
    return (weight if whitening is None else weight @ whitening.T), bias


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
        # Few recordings of many species look like a measured quantity to scikit-learn.
        warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
        fitted = LogisticRegression(C=c, max_iter=MAX_ITERATIONS, tol=tolerance)
        fitted.fit(features, targets, weights)
    return fitted.coef_, fitted.intercept_


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Logarithms of the softmax of (N, C)."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
