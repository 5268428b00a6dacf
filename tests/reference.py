"""Slow, obvious versions, written from the definitions. They share no code with what they check."""

import itertools
import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np


def slow_average_precision(labels: Sequence[int], scores: Sequence[float]) -> Fraction:
    """Sum over thresholds of (rise in recall) times precision; tied rows pass together."""
    n_positives = sum(map(int, labels))
    result, recall_before = Fraction(0), Fraction(0)
    for threshold in sorted(set(scores), reverse=True):
        found = [label for label, score in zip(labels, scores, strict=True) if score >= threshold]
        hits = sum(map(int, found))
        recall = Fraction(hits, n_positives)
        result += (recall - recall_before) * Fraction(hits, len(found))
        recall_before = recall
    return result


def slow_padded_cmap(labels: np.ndarray, scores: np.ndarray, padding_factor: int) -> Fraction:
    """Rows of ones below both arrays, average precision of each column, their mean."""
    columns = range(labels.shape[1])
    return sum(
        slow_average_precision(
            [*labels[:, column].tolist(), *[1] * padding_factor],
            [*scores[:, column].tolist(), *[1.0] * padding_factor],
        )
        for column in columns
    ) / len(columns)


def slow_macro_average_precision(labels: np.ndarray, scores: np.ndarray) -> Fraction:
    """Mean over the columns with a positive."""
    columns = [column for column in range(labels.shape[1]) if labels[:, column].any()]
    values = [
        slow_average_precision(labels[:, column].tolist(), scores[:, column].tolist())
        for column in columns
    ]
    return sum(values) / len(values)


def slow_macro_roc_auc(labels: np.ndarray, scores: np.ndarray) -> Fraction:
    """Fraction of (positive, negative) pairs in the right order, ties half.

    The mean over the columns that have such pairs.
    """
    values = []
    for column in range(labels.shape[1]):
        positives = scores[labels[:, column] == 1, column].tolist()
        negatives = scores[labels[:, column] == 0, column].tolist()
        pairs = list(itertools.product(positives, negatives))
        if pairs:
            right = sum(Fraction(int(p > n)) + Fraction(int(p == n), 2) for p, n in pairs)
            values.append(right / len(pairs))
    return sum(values) / len(values)


def exhaustive_floor(n_positives: int, n_rows: int, padding_factor: int) -> Fraction:
    """Mean padded average precision over every order in which the positives can stand."""
    descending = [1.0] * padding_factor + [0.5 - row / (4 * n_rows) for row in range(n_rows)]
    values = []
    for places in itertools.combinations(range(n_rows), n_positives):
        labels = [1] * padding_factor + [int(row in places) for row in range(n_rows)]
        values.append(slow_average_precision(labels, descending))
    return sum(values) / len(values)


def slow_focal_loss(logits: np.ndarray, targets: np.ndarray, alpha: float, gamma: float) -> float:
    """Mean of the formula over all elements, in float64; for logits that do not saturate."""
    total = 0.0
    for logit, target in zip(logits.ravel().tolist(), targets.ravel().tolist(), strict=True):
        p = 1 / (1 + math.exp(-logit))
        bce = -target * math.log(p) - (1 - target) * math.log(1 - p)
        total += target * alpha * (1 - p) ** gamma * bce + (1 - target) * p**gamma * bce
    return total / logits.size


def slow_attention_pooling(
    features: np.ndarray, att: tuple[np.ndarray, np.ndarray], cla: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Attention pooling of AttBlockV2 as loops over clips, classes and segments.

    Args:
        features: (B, N, T).
        att: weight (C, N) and bias (C,) of the attention.
        cla: weight (C, N) and bias (C,) of the classifier.

    Returns:
        (B, C) weighted sums of the segments' probabilities, and of their logits.
    """
    n_clips, _, n_segments = features.shape
    n_classes = len(att[1])
    probabilities, logits = np.zeros((n_clips, n_classes)), np.zeros((n_clips, n_classes))
    for clip in range(n_clips):
        for c in range(n_classes):
            raw, segment_logits = [], []
            for segment in range(n_segments):
                feature = features[clip, :, segment].astype(np.float64)
                raw.append(math.exp(math.tanh(float(att[0][c] @ feature + att[1][c]))))
                segment_logits.append(float(cla[0][c] @ feature + cla[1][c]))
            for weight, logit in zip(raw, segment_logits, strict=True):
                probabilities[clip, c] += weight / sum(raw) / (1 + math.exp(-logit))
                logits[clip, c] += weight / sum(raw) * logit
    return probabilities, logits


def slow_linear_resize(values: np.ndarray, n_out: int) -> np.ndarray:
    """Interpolate between the centres of equal cells, flat beyond the outer ones: (n_out,)."""
    centres = (np.arange(len(values)) + 0.5) / len(values)
    return np.interp((np.arange(n_out) + 0.5) / n_out, centres, values)
