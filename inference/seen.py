"""Scores where training has been and where it has not: one site, author or recorder at a time."""

import numpy as np
import pandas as pd

SEEN, UNSEEN, NO_VALUE = "seen", "unseen", "unknown"


def seen_in_training(
    values: np.ndarray, folds: np.ndarray, held_back: np.ndarray, own: np.ndarray
) -> np.ndarray:
    """Say of each scored recording whether its fold was trained on others of the same value.

    Args:
        values: (m,) str, a column of the table that was trained on, such as the site.
        folds: (m,) int, the fold that each of its rows is held back in.
        held_back: (n,) int, the fold of each scored recording.
        own: (n,) str, its value.

    Returns:
        (n,) str: SEEN, UNSEEN, or NO_VALUE where the recording has no value.
    """
    pairs = pd.DataFrame({"value": values, "fold": folds}).drop_duplicates()
    n_folds = pairs.groupby("value").size()
    is_in = set(zip(pairs["value"], pairs["fold"], strict=True))

    found = []
    for value, fold in zip(own, held_back.tolist(), strict=True):
        n_others = int(n_folds.get(value, 0)) - ((value, fold) in is_in)
        found.append(SEEN if n_others > 0 else UNSEEN)
    return np.where(own == "", NO_VALUE, np.array(found, dtype=object)).astype(str)
