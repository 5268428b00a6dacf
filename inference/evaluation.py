"""How good scores are: species by species and overall, each with its interval.

Intervals hold 95 % of the scores that other recordings of the same kind would give: they come from
a bootstrap over recordings, not over windows.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from inference.bootstrap import ClassScores, interval, macro, score_classes
from inference.out_of_fold import OutOfFold
from metrics import padded_cmap_floor

PADDING = 5  # rows of ones that the padded cmAP adds


class Threshold(NamedTuple):
    """A score from which a species counts as found, and how well that does."""

    score: float
    precision: float
    recall: float
    f1: float


NO_THRESHOLD = Threshold(float("nan"), float("nan"), float("nan"), float("nan"))


def overall_table(oof: OutOfFold, weights: np.ndarray) -> pd.DataFrame:
    """Score all classes together.

    Args:
        oof: scores and labels.
        weights: (n_draws, n) of the bootstrap.

    Returns:
        A row a metric: metric, score, low, high, and the floor of those that have one.
    """
    ones = np.ones((1, len(oof.scores)), np.uint16)
    plain = score_classes(oof.labels, oof.scores, ones)
    drawn = score_classes(oof.labels, oof.scores, weights)
    rows = [
        ("macro_ap", macro(plain.average_precision), macro(drawn.average_precision), np.nan),
        ("macro_roc_auc", macro(plain.roc_auc), macro(drawn.roc_auc), np.nan),
        ("cmap_pad_5", _padded(oof, ones), _padded(oof, weights), _floor(oof)),
        ("top_1", top_share(oof, ones, 1), top_share(oof, weights, 1), np.nan),
        ("top_5", top_share(oof, ones, 5), top_share(oof, weights, 5), np.nan),
    ]
    return pd.DataFrame([_row(*row) for row in rows])


def _row(metric: str, score: np.ndarray, draws: np.ndarray, floor: float) -> dict[str, object]:
    low, high = interval(draws)
    return {
        "metric": metric,
        "score": float(score[0]),
        "low": float(low),
        "high": float(high),
        "floor": floor,
    }


def _padded(oof: OutOfFold, weights: np.ndarray) -> np.ndarray:
    """Padded cmAP in every draw: (n_draws,)."""
    n_classes = len(oof.class_names)
    labels = np.concatenate([oof.labels, np.ones((PADDING, n_classes), oof.labels.dtype)])
    scores = np.concatenate([oof.scores, np.ones((PADDING, n_classes), oof.scores.dtype)])
    padding = np.ones((len(weights), PADDING), weights.dtype)
    drawn = score_classes(labels, scores, np.concatenate([weights, padding], axis=1))
    return drawn.average_precision.mean(axis=1)


def _floor(oof: OutOfFold) -> float:
    return padded_cmap_floor(oof.labels.sum(axis=0), len(oof.labels), PADDING)


def top_share(oof: OutOfFold, weights: np.ndarray, n_best: int) -> np.ndarray:
    """Share of recordings with a label whose label is among the best scores: (n_draws,).

    Of equal scores the first class counts as the better one.
    """
    best = np.argsort(-oof.scores, axis=1, kind="stable")[:, :n_best]
    hit = np.take_along_axis(oof.labels, best, axis=1).any(axis=1)
    counted = oof.labels.any(axis=1)
    total = weights @ counted.astype(np.float64)
    with np.errstate(invalid="ignore"):
        return (weights @ (hit & counted).astype(np.float64)) / total


def species_table(oof: OutOfFold, weights: np.ndarray, precision: float) -> pd.DataFrame:
    """Score each species.

    Args:
        oof: scores and labels.
        weights: (n_draws, n) of the bootstrap.
        precision: the precision that the second threshold is to reach.

    Returns:
        A row a species: n_positive, average_precision and roc_auc with their intervals, the
        threshold of the best F1 and what it reaches, the lowest threshold of that precision and its
        recall, and the species that its recordings are most often taken for.
    """
    plain = score_classes(oof.labels, oof.scores, np.ones((1, len(oof.scores)), np.uint16))
    drawn = score_classes(oof.labels, oof.scores, weights)
    taken_for = most_taken_for(oof)
    rows = []
    for number, species in enumerate(oof.class_names):
        labels, scores = oof.labels[:, number], oof.scores[:, number]
        best, precise = find_thresholds(labels, scores, precision)
        rows.append(
            {
                "species": species,
                "n_positive": int(labels.sum()),
                **_intervals(plain, drawn, number),
                "best_f1": best.f1,
                "best_f1_threshold": best.score,
                "best_f1_precision": best.precision,
                "best_f1_recall": best.recall,
                f"threshold_precision_{precision:g}": precise.score,
                f"recall_precision_{precision:g}": precise.recall,
                "taken_for": taken_for[number][0],
                "n_taken_for": taken_for[number][1],
            }
        )
    return pd.DataFrame(rows)


def _intervals(plain: ClassScores, drawn: ClassScores, number: int) -> dict[str, float]:
    found: dict[str, float] = {}
    for name in ClassScores._fields:
        low, high = interval(getattr(drawn, name)[:, number])
        found[name] = float(getattr(plain, name)[0, number])
        found[f"{name}_low"], found[f"{name}_high"] = float(low), float(high)
    return found


def find_thresholds(
    labels: np.ndarray, scores: np.ndarray, precision: float
) -> tuple[Threshold, Threshold]:
    """Find the thresholds of one species: of the best F1, and the lowest of a wanted precision.

    Args:
        labels: (n,) of 0 and 1.
        scores: (n,); a recording counts as found from its threshold on.
        precision: wanted.

    Returns:
        Both; NaN without a positive, or where no threshold reaches the precision.
    """
    if not labels.any():
        return NO_THRESHOLD, NO_THRESHOLD

    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)
    n_right = np.cumsum(labels[order], dtype=np.int64)[ends]
    precisions, recalls = n_right / (ends + 1), n_right / labels.sum()
    f1 = 2 * n_right / (ends + 1 + labels.sum())

    def at(place: int) -> Threshold:
        values = (scores[order][ends[place]], precisions[place], recalls[place], f1[place])
        return Threshold(*map(float, values))

    reached = np.flatnonzero(precisions >= precision)
    return at(int(f1.argmax())), at(int(reached[-1])) if len(reached) else NO_THRESHOLD


def most_taken_for(oof: OutOfFold) -> list[tuple[str, int]]:
    """Of each species: which other one most of its misjudged recordings score highest, how many."""
    best = oof.scores.argmax(axis=1)
    found = []
    for number in range(len(oof.class_names)):
        wrong = best[(oof.labels[:, number] == 1) & (oof.labels[np.arange(len(best)), best] == 0)]
        counts = np.bincount(wrong, minlength=len(oof.class_names))
        other = int(counts.argmax())
        found.append((oof.class_names[other], int(counts[other])) if len(wrong) else ("", 0))
    return found


def group_table(
    oof: OutOfFold, groups: pd.Series, weights: np.ndarray, *, column: str
) -> pd.DataFrame:
    """Score the recordings of each value of a column by themselves.

    Args:
        oof: scores and labels.
        groups: (n,) the value of each recording.
        weights: (n_draws, n) of the bootstrap.
        column: its name.

    Returns:
        A row a value: column, value, n_recordings, top_1 and macro_roc_auc with their intervals.
    """
    rows = []
    for value, rows_of in groups.groupby(groups.to_numpy()).indices.items():
        table = overall_table(oof.take(rows_of), weights[:, rows_of]).set_index("metric")
        row = {"column": column, "value": value, "n_recordings": len(rows_of)}
        for metric in ("top_1", "macro_roc_auc"):
            found = table.loc[metric]
            row |= {
                metric: found["score"],
                f"{metric}_low": found["low"],
                f"{metric}_high": found["high"],
            }
        rows.append(row)
    return pd.DataFrame(rows)
