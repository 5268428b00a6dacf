"""What more recordings would bring, from scores at fewer of them."""

from typing import NamedTuple

import numpy as np
import pandas as pd

N_MORE = 10  # recordings a species
EXPONENTS = np.arange(0.05, 2.01, 0.05)


class Curve(NamedTuple):
    """A power law of learning: score = limit - scale * recordings ** -exponent, both at least 0.

    It is the shape that scores of many tasks follow (Hestness and others 2017, arXiv 1712.00409).
    """

    limit: float
    scale: float
    exponent: float

    def at(self, recordings: np.ndarray | float) -> np.ndarray:
        """Score at so many recordings a species."""
        return self.limit - self.scale * np.asarray(recordings, np.float64) ** -self.exponent


def fit_curve(recordings: np.ndarray, scores: np.ndarray) -> Curve:
    """Fit the law by least squares: a search over exponents, and a line for each.

    The limit is at most 1. Scores that fall give a flat curve at their mean.

    Args:
        recordings: (n,) a species, above 0.
        scores: (n,) in [0, 1].
    """
    best, least = Curve(float(np.mean(scores)), 0.0, 1.0), float(np.var(scores) * len(scores))
    for exponent in EXPONENTS:
        x = -(recordings.astype(np.float64) ** -exponent)
        scale, limit = np.polyfit(x, scores, 1) if np.ptp(x) > 0 else (0.0, np.mean(scores))
        if limit > 1:  # through a limit of 1
            limit, scale = 1.0, float((x * (scores - 1)).sum() / (x * x).sum())
        if scale < 0:
            continue
        off = float(((limit + scale * x - scores) ** 2).sum())
        if off < least - 1e-12:
            best, least = Curve(float(limit), float(scale), float(exponent)), off
    return best


def summarise(fits: pd.DataFrame) -> tuple[pd.DataFrame, Curve]:
    """Average repeats and folds, and add what the law says of more recordings.

    Args:
        fits: a row a fit: most, recordings, macro_ap.

    Returns:
        recordings, macro_ap, low and high (of the fits), n_fits, and is_predicted: the last row is
        at N_MORE recordings a species above all of them, where low and high are NaN. And the law.
    """
    groups = fits.groupby("most")
    table = groups.agg(
        recordings=("recordings", "mean"),
        macro_ap=("macro_ap", "mean"),
        low=("macro_ap", "min"),
        high=("macro_ap", "max"),
        n_fits=("macro_ap", "size"),
    ).sort_values("recordings", ignore_index=True)
    curve = fit_curve(table["recordings"].to_numpy(), table["macro_ap"].to_numpy())

    # The law gives the gain; the last score is where it starts.
    last = table.iloc[-1]
    gain = float(curve.at(last["recordings"] + N_MORE) - curve.at(last["recordings"]))
    more = {
        "recordings": last["recordings"] + N_MORE,
        "macro_ap": min(1.0, last["macro_ap"] + gain),
        "low": np.nan,
        "high": np.nan,
        "n_fits": 0,
    }
    table = pd.concat([table, pd.DataFrame([more])], ignore_index=True)
    table["is_predicted"] = table["n_fits"] == 0
    return table, curve
