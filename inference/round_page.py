"""The page of a round of self-training: which species gained clips, from where, how sure.

One file without anything from elsewhere; it is read in any browser.
"""

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pandas as pd

N_LISTED = 40  # rows of a long list
SURE_STEPS = np.linspace(0, 1, 11)  # edges of the histogram of scores
STYLE = """
:root { --page: #fafaf7; --ink: #1c2420; --quiet: #59645d; --line: #e0e3dc; --bar: #0b6b4b; }
@media (prefers-color-scheme: dark) {
  :root { --page: #111513; --ink: #e5ebe7; --quiet: #9ba8a0; --line: #2b342f; --bar: #63d3a4; }
}
html { font: 14px/1.45 system-ui, sans-serif; background: var(--page); color: var(--ink); }
body { max-width: 62rem; margin: 1.5rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
p { max-width: 46rem; } .quiet { color: var(--quiet); }
div { overflow-x: auto; }
table { border-collapse: collapse; }
th, td { text-align: left; padding: .2rem .9rem .2rem 0; border-bottom: 1px solid var(--line); }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
i { display: inline-block; height: .7rem; background: var(--bar); }
"""


@dataclass(frozen=True)
class RoundScore:
    """What the models of a round reach on the held-back part.

    Attributes:
        number: 0 for the models before the first round.
        models: their folder.
        macro_ap, low, high: the score and its 95 % interval.
        gain, gain_low, gain_high: above the round before, in the same draws of recordings; NaN for
            round 0.
    """

    number: int
    models: str
    macro_ap: float
    low: float
    high: float
    gain: float = float("nan")
    gain_low: float = float("nan")
    gain_high: float = float("nan")


def render(
    table: pd.DataFrame,
    before: pd.DataFrame | None,
    scores: Sequence[RoundScore],
    models: Sequence[str],
) -> str:
    """Write the page.

    Args:
        table: the windows of this round, as `catalog.pseudo_labels.read_rows` gives them.
        before: those of the round before; None in the first.
        scores: of all rounds so far.
        models: what labelled the windows, by number.
    """
    number = scores[-1].number
    parts = [
        f"<h1>Round {number} of self-training</h1>",
        f"<p>{_facts(table)}</p>",
        "<h2>Scores on the held-back part</h2>",
        _table(["!round", "models", "!macro AP", "95 % interval", "!gain", "95 % interval"],
               map(_score_row, scores)),
        "<h2>Species</h2>",
        '<p class="quiet">Windows in which the species is the surest label; how many recordings '
        "they are from, and how many of them the recording with most of them gives.</p>",
        _table(["species", "!windows", "!change", "!recordings", "!most from one",
                "!median score", "scores 0 to 1"], species_rows(table, before)),
        "<h2>Places</h2>",
        _table(["folder", "!recordings", "!windows", "!without a bird"], place_rows(table)),
        "<h2>What changed sides</h2>",
        _changes(table, before),
        "<h2>Which model made which label</h2>",
        _table(["model", "!labels it was surest of"], model_rows(table, models)),
    ]  # fmt: skip
    head = f'<meta charset="utf-8"><title>Round {number}</title><style>{STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>' + "\n".join(
        [*parts, "</body></html>\n"]
    )


# The numbers --------------------------------------------------------------------------------------


def lead_of(table: pd.DataFrame) -> pd.Series:
    """Return the surest label of each window, "" for one without a bird."""
    return table["labels"].map(lambda labels: labels[0] if labels else "")


def species_rows(table: pd.DataFrame, before: pd.DataFrame | None) -> list[list[Any]]:
    """Count the windows of each species: a row each, the most gained first."""
    led = table.assign(lead=lead_of(table))
    led = led[led["lead"] != ""]
    earlier = lead_of(before).value_counts() if before is not None else pd.Series(dtype=int)
    names = sorted(set(led["lead"]) | set(earlier.index) - {""})
    rows = []
    for name in names:
        own = led[led["lead"] == name]
        scores = np.array([row[0] for row in own["scores"]])
        of_each = own["filename"].value_counts()
        change = f"{len(own) - int(earlier.get(name, 0)):+d}" if before is not None else ""
        rows.append([
            name, len(own), change, len(of_each), int(of_each.max()) if len(own) else 0,
            f"{np.median(scores):.2f}" if len(own) else "", _Histogram(scores),
        ])  # fmt: skip
    return sorted(rows, key=lambda row: (-row[1], row[0]))


def place_rows(table: pd.DataFrame) -> list[list[Any]]:
    """Count recordings and windows of each folder, the most windows first."""
    folder = table["filename"].map(lambda name: PurePosixPath(name).parent.as_posix())
    rows = [
        [
            "" if name == "." else name,
            own["filename"].nunique(),
            len(own),
            int((own["labels"].map(len) == 0).sum()),
        ]
        for name, own in table.groupby(folder)
    ]
    return sorted(rows, key=lambda row: (-row[2], row[0]))[:N_LISTED]


def changed_sides(table: pd.DataFrame, before: pd.DataFrame) -> pd.DataFrame:
    """List windows of both rounds whose surest label is another one now.

    Returns:
        Rows with filename, start_s, lead_before and lead.
    """
    key = ["filename", "start_s"]
    now = table[key].assign(lead=lead_of(table))
    both = now.merge(before[key].assign(lead=lead_of(before)), on=key, suffixes=("", "_before"))
    return both[both["lead"] != both["lead_before"]].reset_index(drop=True)


def model_rows(table: pd.DataFrame, models: Sequence[str]) -> list[list[Any]]:
    """Count the labels that each model was surest of."""
    made = [number for row in table["made_by"] for number in row]
    counts = np.bincount(np.array(made, int), minlength=len(models))
    return [[name, int(n)] for name, n in zip(models, counts, strict=False)]


# Writing ------------------------------------------------------------------------------------------


class _Histogram:
    """Scores (n,) in ten steps, as bars of text height."""

    def __init__(self, scores: np.ndarray) -> None:
        counts, _ = np.histogram(scores, SURE_STEPS)
        self.counts = counts.tolist()

    def __str__(self) -> str:
        most = max(*self.counts, 1)
        bars = (
            f'<i style="width:.6rem;height:{0.05 + 1.2 * n / most:.2f}rem" title="{n}"></i>'
            for n in self.counts
        )
        return " ".join(bars)


def _facts(table: pd.DataFrame) -> str:
    n_empty = int((table["labels"].map(len) == 0).sum())
    n_species = lead_of(table).replace("", np.nan).nunique()
    hours = float((table["end_s"] - table["start_s"]).sum()) / 3600
    return (
        f"{len(table)} windows ({hours:.1f} h) of {table['filename'].nunique()} recordings, "
        f"{n_empty} of them without a bird; {n_species} species."
    )


def _score_row(score: RoundScore) -> list[Any]:
    has_gain = not np.isnan(score.gain)
    gain = f"{score.gain:+.4f}" if has_gain else ""
    spread = f"{score.gain_low:+.4f} to {score.gain_high:+.4f}" if has_gain else ""
    interval = f"{score.low:.4f} to {score.high:.4f}"
    return [score.number, score.models, f"{score.macro_ap:.4f}", interval, gain, spread]


def _changes(table: pd.DataFrame, before: pd.DataFrame | None) -> str:
    if before is None:
        return "<p>This is the first round.</p>"
    found = changed_sides(table, before)
    if found.empty:
        return "<p>No window that both rounds kept has another surest label.</p>"

    pairs = found.groupby(["lead_before", "lead"]).size().sort_values(ascending=False)
    rows = [
        [one or "no bird", other or "no bird", int(n)]
        for (one, other), n in pairs.head(N_LISTED).items()
    ]
    windows = [
        [row.filename, f"{row.start_s:g} s", row.lead_before or "no bird", row.lead or "no bird"]
        for row in found.head(N_LISTED).itertuples()
    ]
    shown = f"<p>The first {len(windows)} of {len(found)} windows:</p>"
    return (
        _table(["was", "is", "!windows"], rows)
        + shown
        + _table(["recording", "from", "was", "is"], windows)
    )


def _table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Write a table; a column whose name begins with ! is one of numbers."""
    kinds = [' class="number"' if name.startswith("!") else "" for name in header]

    def line(tag: str, cells: Iterable[Any]) -> str:
        shown = (
            str(cell) if isinstance(cell, _Histogram) else html.escape(str(cell)) for cell in cells
        )
        joined = (f"<{tag}{kind}>{cell}</{tag}>" for kind, cell in zip(kinds, shown, strict=True))
        return "<tr>" + "".join(joined) + "</tr>"

    lines = [line("th", (name.lstrip("!") for name in header)), *(line("td", row) for row in rows)]
    return "<div><table>" + "\n".join(lines) + "</table></div>"
