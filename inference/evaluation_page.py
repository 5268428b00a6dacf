"""The page of an evaluation: species in a table, their curves, what is confused, what to hear.

One HTML file that loads nothing, made of the parts of predict.py's report: its frame, page.js, its
spectrograms and sounds.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from configs import Config
from files import write_file
from inference.evaluated_clips import Shown
from inference.out_of_fold import OutOfFold
from inference.report import Json, fill_page, frequency_ticks
from inference.selection import Names

MAX_CURVES = 100_000  # points of all curves together
CURVE_POINTS_EACH = (10, 80)  # the least and the most of one curve
MAX_CONFUSIONS = 300
N_WORST, N_BEST = 12, 6
FRAME_WORDS = {
    "@TITLE@": "Evaluation",
    "@LISTED@": "Species",
    "@FILTER@": "Filter by species",
    "@ORDERS@": '<option value="worst">worst first</option>'
    '<option value="positives">most recordings</option><option value="name">by name</option>',
}


def choose_rows(suspicious: pd.DataFrame) -> tuple[list[int], list[int]]:
    """Choose what to see and hear: the rows of the most and of the least suspicious labels.

    Args:
        suspicious: of doctor.find_suspicious, whose index are rows of the scores.
    """
    rows = [int(row) for row in suspicious.index]
    worst = rows[:N_WORST]
    return worst, [row for row in reversed(rows) if row not in worst][:N_BEST]


def write_page(
    path: Path,
    oof: OutOfFold,
    tables: Mapping[str, pd.DataFrame],
    names: Names,
    facts: Mapping[str, str],
    clips: Mapping[int, Shown],
    config: Config,
) -> None:
    """Write the page.

    Args:
        path: the HTML file.
        oof: scores and labels.
        tables: `overall`, `species` and `doctor` of the evaluation.
        names: scientific and common names by label.
        facts: what the head of the page says, name and value.
        clips: pictures, sounds and curves by row of `oof`.
        config: whose front end the spectrograms have.
    """
    place = {name: number for number, name in enumerate(oof.class_names)}
    worst, best = choose_rows(tables["doctor"])
    numbers = {row: number for number, row in enumerate(clips)}

    def items(rows: Sequence[int]) -> list[Json]:
        found = tables["doctor"].loc[list(rows)]
        return [
            {
                "name": _name(row),
                "label": place[row.label],
                "label_score": float(row.label_score),
                "seems": place[row.seems_to_be],
                "seems_score": float(row.seems_to_be_score),
                "media": numbers.get(row.Index),
                "curve": clips[row.Index].curve if row.Index in clips else [],
            }
            for row in found.itertuples()
        ]

    both = [(label, *names.get(label, (label, label))) for label in oof.class_names]
    data = {
        "facts": dict(facts),
        "unit": "recording" if oof.starts_s is None else "window",
        "species": [{"label": one, "scientific": two, "common": three} for one, two, three in both],
        "overall": _records(tables["overall"]),
        "rows": [
            _species_row(row, place, number, oof)
            for number, row in enumerate(tables["species"].to_dict("records"))
        ],
        "confusions": list_confusions(oof),
        "worst": items(worst),
        "best": items(best),
        "media": [clip.medium for clip in clips.values()],
        "ticks": frequency_ticks(config) if clips else [],
    }
    write_file(path, fill_page(data, ("evaluation.js",), FRAME_WORDS))


def _name(row: Any) -> str:
    return f"{row.filename} at {row.start_s:g} s" if hasattr(row, "start_s") else row.filename


def _number(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 5)


def _records(table: pd.DataFrame) -> list[Json]:
    """Rows as JSON: what is not a number is null."""
    return [
        {name: _number(value) if isinstance(value, float) else value for name, value in row.items()}
        for row in table.to_dict("records")
    ]


def _species_row(
    row: Mapping[str, Any], place: Mapping[str, int], number: int, oof: OutOfFold
) -> Json:
    n_points = int(np.clip(MAX_CURVES // len(place), *CURVE_POINTS_EACH))
    return {
        "number": number,
        "positives": row["n_positive"],
        "ap": _number(row["average_precision"]),
        "ap_low": _number(row["average_precision_low"]),
        "ap_high": _number(row["average_precision_high"]),
        "auc": _number(row["roc_auc"]),
        "f1": _number(row["best_f1"]),
        "threshold": _number(row["best_f1_threshold"]),
        "taken_for": place[row["taken_for"]] if row["n_taken_for"] else None,
        "n_taken_for": row["n_taken_for"],
        "curve": precision_recall(oof.labels[:, number], oof.scores[:, number], n_points),
    }


def precision_recall(
    labels: np.ndarray, scores: np.ndarray, n_points: int
) -> list[tuple[float, float, float]]:
    """Points (recall, precision, score) of one species, by rising recall.

    Args:
        labels: (n,) of 0 and 1; without a positive there is no point.
        scores: (n,); rows of equal score are taken together.
        n_points: the most of them, at evenly spaced recalls, each with the best precision there.
    """
    if not labels.any():
        return []
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)
    n_right = np.cumsum(labels[order], dtype=np.int64)[ends]
    recall, precision = n_right / labels.sum(), n_right / (ends + 1)
    step = np.minimum((recall * n_points).astype(int), n_points - 1)
    points = []
    for one in np.unique(step):
        rows = np.flatnonzero(step == one)
        best = rows[precision[rows] == precision[rows].max()][-1]
        values = (recall[best], precision[best], scores[order][ends[best]])
        found, right, score = map(float, values)
        points.append((round(found, 4), round(right, 4), round(score, 5)))
    return points


def list_confusions(oof: OutOfFold) -> list[Json]:
    """List which species are taken for which others, the most frequent first.

    A recording is taken for the species that scores highest in it, where that is none of its own.
    """
    best = oof.scores.argmax(axis=1)
    wrong = oof.labels[np.arange(len(best)), best] == 0
    n_of = oof.labels.sum(axis=0, dtype=np.int64)
    counts: dict[tuple[int, int], int] = {}
    for row in np.flatnonzero(wrong):
        for species in np.flatnonzero(oof.labels[row]):
            pair = (int(species), int(best[row]))
            counts[pair] = counts.get(pair, 0) + 1
    ranked = sorted(counts.items(), key=lambda one: (-one[1], one[0]))[:MAX_CONFUSIONS]
    return [
        {"species": one, "other": other, "n": n, "share": round(n / int(n_of[one]), 4)}
        for (one, other), n in ranked
    ]
