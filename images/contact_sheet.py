"""A sheet of training images with their targets: what the model sees, for people to look at."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from catalog.frame_targets import of_clips

SHEET_COLUMNS = 3
NAMED_FROM = 0.1  # targets below are not written under an image


def draw_contact_sheet(dataset: Any, n_images: int, save_path: Path) -> Path:
    """Draw items of rows spread over the table, low frequencies at the bottom, and save a PNG.

    Args:
        dataset: a WaveformDataset.
        n_images: how many items to draw.
        save_path: where the PNG goes.
    """
    from matplotlib.figure import Figure

    config, columns = dataset.config, min(SHEET_COLUMNS, n_images)
    rows = -(-n_images // columns)
    extent = (0.0, config.period, 0, config.image_bands)
    figure = Figure(figsize=(4.2 * columns, 2.9 * rows), layout="constrained")

    for position in range(n_images):
        item = dataset[1, position * len(dataset) // n_images]
        image = item["image"][0].numpy().T
        targets = of_clips(item["targets"][None])[0]
        title = describe_targets(targets.numpy(), dataset.class_names)

        axes = figure.add_subplot(rows, columns, position + 1, xlabel="seconds", ylabel="mel band")
        axes.imshow(image, origin="lower", aspect="auto", cmap="magma", extent=extent)
        axes.set_title(title, fontsize=8, loc="left")

    figure.savefig(save_path, dpi=120)
    return save_path


def describe_targets(targets: np.ndarray, class_names: Sequence[str]) -> str:
    """Name the birds of a target vector with their targets, the highest first."""
    order = np.argsort(-targets, kind="stable")
    heard = [number for number in order if targets[number] >= NAMED_FROM]
    named = [f"{class_names[number]} {targets[number]:.3g}" for number in heard]
    return ",  ".join(named) or "no bird"
