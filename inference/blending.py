"""Weights of an ensemble, chosen on out-of-fold scores without flattering it.

The weights are found as in Caruana and others (2004): models are added one at a time, the same one
again if that helps most, and each model's share of the picks is its weight. What the blend is worth
is told by folds that had no say in its weights.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from inference.bootstrap import draw_weights, interval, macro, score_classes
from inference.out_of_fold import OutOfFold

N_PICKS = 20  # models that are added, so a weight is a multiple of 1 / 20
LEAST_GAIN = 1e-6  # of the score, for another pick


class Blend(NamedTuple):
    """Weights of experiments, and what the blend gains on recordings that did not choose them.

    Attributes:
        weights: (n_models,) summing to 1, chosen on all recordings.
        score: macro AP of the blend on held-out folds.
        gain: its difference to the best single experiment, which other folds chose too.
        low, high: 95 % interval of the gain, over recordings.
    """

    weights: np.ndarray
    score: float
    gain: float
    low: float
    high: float


def mean_ap(labels: np.ndarray, scores: np.ndarray) -> float:
    """Macro AP over the classes with a positive."""
    ones = np.ones((1, len(labels)), np.uint16)
    return float(macro(score_classes(labels, scores, ones).average_precision)[0])


def pick(scores: Sequence[np.ndarray], labels: np.ndarray) -> np.ndarray:
    """Choose weights greedily: (n_models,) float64, summing to 1.

    Args:
        scores: (n, C) of each model.
        labels: (n, C) of 0 and 1.
    """
    counts = np.zeros(len(scores), int)
    total = np.zeros(scores[0].shape, np.float64)
    best = -1.0
    for n_picked in range(N_PICKS):
        tried = [mean_ap(labels, (total + one) / (n_picked + 1)) for one in scores]
        model = int(np.argmax(tried))
        if tried[model] < best + LEAST_GAIN and n_picked:
            break
        best = tried[model]
        counts[model] += 1
        total += scores[model]
    return counts / counts.sum()


def mix(scores: Sequence[np.ndarray], weights: np.ndarray) -> np.ndarray:
    """Average scores (n, C) of each model by weights that sum to 1: (n, C) float32."""
    total = sum(
        weight * one.astype(np.float64) for weight, one in zip(weights, scores, strict=True)
    )
    return np.asarray(total, np.float32)


def choose_blend(experiments: Sequence[OutOfFold], n_draws: int, seed: int) -> Blend:
    """Choose weights, and judge them fold by fold by weights that the other folds chose.

    With a single fold, halves of its recordings at random take the place of folds.

    Args:
        experiments: scores of the same recordings in the same order.
        n_draws: draws of the bootstrap.
        seed: of the draws and the halves.
    """
    labels = experiments[0].labels
    recordings = np.unique(experiments[0].filenames, return_inverse=True)[1]
    parts = experiments[0].folds
    if len(np.unique(parts)) == 1:
        order = np.random.default_rng(seed).permutation(recordings.max() + 1)
        parts = order[recordings] % 2

    scores = [one.scores for one in experiments]
    blended = np.empty_like(scores[0])
    single = np.empty_like(scores[0])
    for part in np.unique(parts):
        inside, others = parts == part, parts != part
        weights = pick([one[others] for one in scores], labels[others])
        blended[inside] = mix([one[inside] for one in scores], weights)
        best = int(np.argmax([mean_ap(labels[others], one[others]) for one in scores]))
        single[inside] = scores[best][inside]

    drawn = draw_weights(recordings, n_draws, seed)
    draws = [
        macro(score_classes(labels, one, drawn).average_precision) for one in (blended, single)
    ]
    low, high = interval(draws[0] - draws[1])
    score = mean_ap(labels, blended)
    gain = score - mean_ap(labels, single)
    return Blend(pick(scores, labels), score, gain, float(low), float(high))
