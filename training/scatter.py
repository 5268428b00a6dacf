"""Whitening by the scatter within recordings: what noise and distance change counts for less.

Clips of one recording, as it is and over backgrounds, differ in all but their species. A linear
head that weighs a feature the less, the more a recording's clips differ in it, holds on other
recordings, too. Speech recognises speakers so: within-class covariance normalisation, Hatch,
Kajarekar and Stolcke, Interspeech 2006.
"""

import numpy as np

from catalog.targets import NONE

NOT_WHITENED = 1.0  # shrinkage under which nothing is whitened


def scatter_within(features: np.ndarray, recordings: np.ndarray) -> np.ndarray | None:
    """Average the covariance (n, n) float64 of the clips of a recording over recordings.

    Args:
        features: (N, n).
        recordings: (N,) which one each clip is of; NONE does not count.

    Returns:
        None where no recording has two clips that differ.
    """
    counts = recordings != NONE
    features = features[counts]
    _, number, n_clips = np.unique(recordings[counts], return_inverse=True, return_counts=True)
    freedom = len(features) - len(n_clips)
    if not freedom:
        return None

    means = np.zeros((len(n_clips), features.shape[1]))
    np.add.at(means, number, features)
    means /= n_clips[:, None]
    apart = features - means[number].astype(features.dtype)
    scatter = (apart.T @ apart).astype(np.float64) / freedom
    return scatter if scatter.trace() > 0 else None


def whiten(features: np.ndarray, recordings: np.ndarray, shrinkage: float) -> np.ndarray | None:
    """Make the matrix (n, n) float32 that whitens features (N, n): features @ matrix.

    The scatter within recordings, drawn towards a multiple of the unit matrix by `shrinkage`
    (0: not at all), becomes the unit matrix; then all is scaled so that the sum of the features'
    variances stays, and the strength of a regularisation means the same.

    Returns:
        None where there is nothing to whiten by, or `shrinkage` is NOT_WHITENED.
    """
    scatter = None if shrinkage == NOT_WHITENED else scatter_within(features, recordings)
    if scatter is None:
        return None

    n_features = len(scatter)
    spread = scatter.trace() / n_features
    shrunk = (1 - shrinkage) * scatter + shrinkage * spread * np.eye(n_features)
    least = spread * 1e-6  # a feature in which no clip differs, with a shrinkage of 0
    root = np.linalg.cholesky(shrunk + least * np.eye(n_features))
    matrix = np.linalg.inv(root).T.astype(np.float32)
    variance = (features @ matrix).var(axis=0, dtype=np.float64).sum()
    return matrix * np.float32(np.sqrt(features.var(axis=0, dtype=np.float64).sum() / variance))
