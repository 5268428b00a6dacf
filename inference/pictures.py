"""Pictures of an evaluation, as PNG for papers."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from configs import SHOWN
from inference.calibration import Reliability
from inference.learning_curve import Curve


def draw_species(folder: Path, species: pd.DataFrame, overall: pd.DataFrame) -> None:
    """Draw average precision by species, and against their numbers of recordings.

    Args:
        folder: gets species.png and recordings.png.
        species: of evaluation.species_table.
        overall: of evaluation.overall_table.
    """
    from matplotlib.figure import Figure

    scored = species.dropna(subset=["average_precision"]).sort_values("average_precision")
    figure = Figure(figsize=(7, max(2.5, 0.18 * len(scored) + 1)), layout="constrained")
    axes = figure.add_subplot(xlabel="average precision, with 95 % interval", xlim=(0, 1))
    places = np.arange(len(scored))
    spread = scored[["average_precision_low", "average_precision_high"]].to_numpy()
    axes.hlines(places, spread[:, 0], spread[:, 1], color="tab:blue", alpha=0.4, linewidth=3)
    axes.plot(scored["average_precision"], places, "o", color="tab:blue", markersize=4)
    axes.set_yticks(places, scored["species"], fontsize=7)
    axes.set_ylim(-1, len(scored))
    axes.axvline(overall.set_index("metric").loc["macro_ap", "score"], color="grey", linestyle=":")
    figure.savefig(folder / "species.png", dpi=120)

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot(
        xlabel="recordings held back", ylabel="average precision", xscale="log", ylim=(0, 1.02)
    )
    axes.plot(scored["n_positive"], scored["average_precision"], "o", alpha=0.6)
    for row in scored.head(SHOWN).itertuples():
        axes.annotate(row.species, (row.n_positive, row.average_precision), fontsize=7)
    figure.savefig(folder / "recordings.png", dpi=120)


def draw_reliability(folder: Path, curves: Mapping[tuple[str, str], Reliability]) -> None:
    """Draw the share that is right against the score, before and after calibration.

    Args:
        folder: gets reliability.png.
        curves: of calibration.curves; those after it are of recordings held back from its fit.
    """
    from matplotlib.figure import Figure

    titles = {"pairs": "each recording and species", "highest": "each recording's highest score"}
    figure = Figure(figsize=(8, 4), layout="constrained")
    for place, (which, title) in enumerate(titles.items(), 1):
        axes = figure.add_subplot(1, 2, place, xlabel="score", title=title, xlim=(0, 1))
        axes.set(ylim=(0, 1), aspect="equal", ylabel="share that is right")
        axes.plot([0, 1], [0, 1], color="grey", linestyle=":")
        for when, colour in (("before", "tab:orange"), ("after", "tab:blue")):
            curve = curves[which, when]
            filled = curve.n > 0
            label = f"{when} calibration, error {curve.expected_error:.3f}"
            points = curve.score[filled], curve.right[filled]
            axes.plot(*points, "o-", color=colour, markersize=4, label=label)
        axes.legend(loc="upper left", fontsize=8)
    figure.savefig(folder / "reliability.png", dpi=120)


def draw_learning_curve(folder: Path, table: pd.DataFrame, curve: Curve) -> None:
    """Draw the scores of the probe against recordings a species, and where the law leads.

    Args:
        folder: gets learning_curve.png.
        table: of learning_curve.summarise.
        curve: the law that was fitted.
    """
    from matplotlib.figure import Figure

    measured, predicted = table[~table["is_predicted"]], table[table["is_predicted"]]
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot(
        xlabel="recordings a species", ylabel="macro AP of the probe", xscale="log", ylim=(0, 1.02)
    )
    x = measured["recordings"]
    axes.fill_between(x, measured["low"], measured["high"], color="tab:blue", alpha=0.2)
    axes.plot(x, measured["macro_ap"], "o-", color="tab:blue", label="measured, least to most")
    grid = np.geomspace(x.min(), predicted["recordings"].max(), 100)
    axes.plot(grid, curve.at(grid), ":", color="grey", label="power law")
    axes.plot(
        predicted["recordings"], predicted["macro_ap"], "D", color="tab:orange", label="ten more"
    )
    axes.legend(loc="lower right", fontsize=8)
    figure.savefig(folder / "learning_curve.png", dpi=120)
