"""Sheets of images with words above each: what the model sees, for people to look at."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from catalog.frame_targets import of_clips
from files import write_file

SHEET_COLUMNS = 3
NAMED_FROM = 0.1  # targets below are not written under an image


def draw_contact_sheet(dataset: Any, n_images: int, save_path: Path) -> Path:
    """Draw items of rows spread over the table, low frequencies at the bottom, and save a PNG.

    Args:
        dataset: a WaveformDataset.
        n_images: how many items to draw.
        save_path: where the PNG goes.
    """
    images, titles = [], []
    for position in range(n_images):
        item = dataset[1, position * len(dataset) // n_images]
        images.append(item["image"][0].numpy())
        targets = of_clips(item["targets"][None])[0]
        titles.append(describe_targets(targets.numpy(), dataset.class_names))
    return draw_images(images, dataset.config.period, save_path, titles=titles)


def draw_images(
    images: Sequence[np.ndarray],
    period_s: float,
    save_path: Path,
    *,
    titles: Sequence[str] = (),
    captions: Sequence[str] = (),
) -> Path:
    """Draw log-mel images with words at each, low frequencies at the bottom, and save a PNG.

    Args:
        images: (T, F) float each, 0 to 1.
        period_s: length of a clip, in seconds.
        save_path: where the PNG goes.
        titles: a line above each image, or none at all.
        captions: lines below each image, or none at all.
    """
    from matplotlib.figure import Figure

    columns = min(SHEET_COLUMNS, len(images))
    rows = -(-len(images) // columns)
    n_lines = max((caption.count("\n") + 1 for caption in captions), default=0)
    size = (4.2 * columns, (2.9 + 0.15 * n_lines) * rows)  # inches
    figure = Figure(figsize=size, layout="constrained")

    for position, image in enumerate(images):
        axes = figure.add_subplot(rows, columns, position + 1, ylabel="mel band")
        extent = (0.0, period_s, 0, image.shape[1])
        axes.imshow(image.T, origin="lower", aspect="auto", cmap="magma", extent=extent)
        axes.set_xlabel("seconds")
        if titles:
            axes.set_title(titles[position], fontsize=8, loc="left")
        if captions:
            axes.set_xlabel("seconds\n" + captions[position], fontsize=8, loc="left")

    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=120)
    write_file(save_path, content.getvalue())
    return save_path


def describe_targets(targets: np.ndarray, class_names: Sequence[str]) -> str:
    """Name the birds of a target vector with their targets, the highest first."""
    order = np.argsort(-targets, kind="stable")
    heard = [number for number in order if targets[number] >= NAMED_FROM]
    named = [f"{class_names[number]} {targets[number]:.3g}" for number in heard]
    return ",  ".join(named) or "no bird"
