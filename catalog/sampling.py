"""Which recordings an epoch shows, and how often: a function of (seed, epoch) alone."""

import logging

import numpy as np
import pandas as pd

from configs import UserError

logger = logging.getLogger("birdclef.dataset")

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

    Raises:
        UserError: a rating that is no number.
    """
    if sampling == "rows" and not by_rating:
        return None

    _, species, counts = np.unique(primary, return_inverse=True, return_counts=True)
    weights = np.ones(len(primary))
    if by_rating and ratings is None:
        logger.warning("rating_weights has no effect: the table has no column rating")
    elif by_rating:
        stars = read_stars(ratings)
        weights = np.where(stars > 0, stars, UNRATED) / BEST

    of_species = np.bincount(species, weights)
    wanted = {"rows": counts, "square_root": np.sqrt(counts), "balanced": np.ones(len(counts))}
    return weights * (wanted[sampling] / of_species)[species]


def read_stars(ratings: pd.Series) -> np.ndarray:
    """Read stars (n,) float64, NaN where there are none (UserError: a rating is no number)."""
    texts = ratings.fillna("").astype(str).str.strip().str.replace(",", ".")
    stars = pd.to_numeric(texts, errors="coerce").to_numpy(np.float64)
    strange = texts[np.isnan(stars) & ~texts.str.casefold().isin(["", "nan"]).to_numpy()]
    if len(strange):
        raise UserError(
            f"rating_weights: {len(strange)} ratings are no numbers, such as {strange.iloc[0]!r}; "
            "write stars from 0.5 to 5 (xeno-canto's A to E are 5 to 1), or leave cells empty"
        )
    return stars


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
