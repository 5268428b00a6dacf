"""Which recordings an epoch shows, and how often: a function of (seed, epoch) alone."""

import numpy as np
import pandas as pd

UNRATED = 3.0  # stars that a recording without a rating counts as
BEST = 5.0


def row_weights(
    primary: np.ndarray, ratings: pd.Series | None, *, sampling: str, by_rating: bool
) -> np.ndarray | None:
    """Weigh the rows of a table for sampling.

    Args:
        primary: class number of each row (n,); recordings without a bird share one.
        ratings: stars from 0.5 to 5 of each row, 0 or empty where nobody rated it; None: no column.
        sampling: "rows", "square_root" or "balanced": a species comes in proportion to its rows,
            to their square root, or as often as any other.
        by_rating: weigh the rows of a species by their ratings.

    Returns:
        (n,) float64, or None where all rows weigh the same.
    """
    if sampling == "rows" and not by_rating:
        return None

    _, species, counts = np.unique(primary, return_inverse=True, return_counts=True)
    weights = np.ones(len(primary))
    if by_rating and ratings is not None:
        stars = pd.to_numeric(ratings, errors="coerce").to_numpy(np.float64)
        weights = np.where(stars > 0, stars, UNRATED) / BEST

    of_species = np.bincount(species, weights)
    wanted = {"rows": counts, "square_root": np.sqrt(counts), "balanced": np.ones(len(counts))}
    return weights * (wanted[sampling] / of_species)[species]


def rows_of_epoch(
    n_rows: int, n_clips: int, weights: np.ndarray | None, rng: np.random.Generator
) -> np.ndarray:
    """Choose the rows that an epoch's clips are cut from: (n_clips,) int64.

    Each row comes as often as its weight says, rounded up or down at random; without weights the
    rows come in turn.
    """
    if weights is None:
        return np.arange(n_clips) % n_rows

    # Evenly spaced marks on the rows laid end to end, in random order, each as long as its weight.
    order = rng.permutation(n_rows)
    ends = np.cumsum(weights[order])
    marks = (np.arange(n_clips) + rng.random()) * (ends[-1] / n_clips)
    return order[np.minimum(np.searchsorted(ends, marks, side="right"), n_rows - 1)]
