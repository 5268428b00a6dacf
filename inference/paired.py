"""Paired differences: experiments that scored the same recordings, compared in the same draws."""

from typing import Any

import numpy as np

from inference.bootstrap import interval, macro, score_classes
from inference.evaluation import top_share
from inference.out_of_fold import OutOfFold

METRICS = ("macro_ap", "macro_roc_auc", "top_1")
OF_SPECIES = "average_precision of "  # begins the name of one species' metric


def all_metrics(oof: OutOfFold, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Score all classes together, and each by its average precision, in every draw: (n_draws,)."""
    drawn = score_classes(oof.labels, oof.scores, weights)
    return {
        "macro_ap": macro(drawn.average_precision),
        "macro_roc_auc": macro(drawn.roc_auc),
        "top_1": top_share(oof, weights, 1),
        **{
            f"{OF_SPECIES}{name}": drawn.average_precision[:, number]
            for number, name in enumerate(oof.class_names)
        },
    }


def difference_row(
    name: str,
    against: str,
    metric: str,
    score: dict[str, np.ndarray],
    other: dict[str, np.ndarray],
    drawn: dict[str, np.ndarray],
    other_drawn: dict[str, np.ndarray],
) -> dict[str, Any]:
    """Describe a paired difference: its interval, and the chance that it is noise.

    That chance is two-sided: twice the share of draws in which the difference has the other sign
    (Efron and Tibshirani 1993, chapter 13).
    """
    draws = drawn[metric] - other_drawn[metric]
    low, high = interval(draws)
    scored = draws[~np.isnan(draws)]  # a draw may lack a species
    p_noise = np.nan
    if len(scored):
        p_noise = min(1.0, 2 * min(np.mean(scored <= 0), np.mean(scored >= 0)))
    return {
        "experiment": name,
        "against": against,
        "metric": metric,
        "difference": float(score[metric][0] - other[metric][0]),
        "low": float(low),
        "high": float(high),
        "p_noise": float(p_noise),
    }
