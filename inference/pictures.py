"""Pictures of an evaluation, as PNG for papers."""

from pathlib import Path

import numpy as np
import pandas as pd

from catalog.tables import SHOWN


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
