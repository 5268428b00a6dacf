"""Sheets that a fold leaves for people to look at: its training images, and its worst clips."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from catalog.frame_targets import of_clips
from configs import UserError
from dataset import WaveformDataset
from images.contact_sheet import describe_targets, draw_images
from training import processes
from training.batches import collate
from training.fold import Fold

logger = logging.getLogger("birdclef.train")

N_TRAINING_IMAGES = 9
LONGEST_NAME = 44  # characters of a recording's name under its image
LOWEST_SCORE = 1e-7  # a score of 0 would make a loss infinite


class Worst(NamedTuple):
    """Clips of validation with the highest loss, the highest first.

    Attributes:
        rows: (n,) of the scored recordings or windows.
        losses: (n,) nats.
    """

    rows: np.ndarray
    losses: np.ndarray


def begin_logs(fold: Fold) -> None:
    """Open the loggers of `--log`, and show them what the fold trains on."""
    fold.logs.begin(fold.config, fold.progress.history)
    if not fold.logs.open or fold.progress.epoch:
        return

    path = fold.dir / "training_images.png"
    if _drawn(path, lambda: draw_training_images(fold, N_TRAINING_IMAGES, path)):
        fold.logs.picture("training images", path)


def leave_worst_clips(fold: Fold) -> None:
    """Draw the validation clips with the highest loss, as `worst_clips.png` in the fold's folder.

    What it shows is in valid_predictions.npz, the scores of the best epoch. Nothing random is
    drawn. A sheet that is there, and no older than the scores, stays.
    """
    n_clips = fold.config.worst_clips
    scores_path, path = fold.dir / "valid_predictions.npz", fold.dir / "worst_clips.png"
    if not n_clips or not processes.is_first() or not scores_path.exists():
        return
    is_there = path.exists() and path.stat().st_mtime >= scores_path.stat().st_mtime
    if is_there or _drawn(
        path, lambda: draw_worst_clips(fold.valid_set, scores_path, n_clips, path)
    ):
        fold.logs.picture("worst clips", path)


def _drawn(path: Path, draw: Callable[[], None]) -> bool:
    """Draw a sheet and say whether that could be done; a full disk costs the sheet, no more."""
    try:
        draw()
    except (OSError, UserError) as error:
        logger.warning("%s: not drawn: %s", path, error)
        return False
    logger.info("wrote %s", path)
    return True


def draw_training_images(fold: Fold, n_images: int, save_path: Path) -> None:
    """Draw items of the first epoch as the model gets them, with their targets."""
    dataset = fold.train_set
    indices = [position * len(dataset) // n_images for position in range(n_images)]
    batch = collate([dataset[1, index] for index in indices])
    with torch.inference_mode():
        images, targets = fold.to_device(batch)  # (n, channels, T, F), (n, C)

    pictures = list(images[:, 0].cpu().numpy())
    rows = of_clips(targets).cpu().numpy()
    titles = [describe_targets(row, dataset.class_names) for row in rows]
    draw_images(pictures, fold.config.period, save_path, titles=titles)


def draw_worst_clips(
    dataset: WaveformDataset, scores_path: Path, n_clips: int, save_path: Path
) -> None:
    """Draw clips with their recording, window, labels, surest species and loss.

    Args:
        dataset: of validation.
        scores_path: valid_predictions.npz of its rows.
        n_clips: how many to draw at most.
        save_path: where the PNG goes.
    """
    with np.load(scores_path, allow_pickle=False) as file:
        scores, names = file["scores"], file["class_names"].tolist()
    targets = np.stack([dataset.targets_of([row]) for row in range(len(scores))])
    worst = find_worst(scores, targets[:, : len(names)], n_clips)

    images, captions = [], []
    for row, loss in zip(worst.rows.tolist(), worst.losses, strict=True):
        images.append(dataset[0, dataset.first_item(row)]["image"][0].numpy())
        captions.append(describe(dataset, row, scores[row], targets[row], names, loss))
    draw_images(images, dataset.config.period, save_path, captions=captions)


def find_worst(scores: np.ndarray, targets: np.ndarray, n_clips: int) -> Worst:
    """Find the clips whose scores contradict their labels most.

    The loss is the binary cross-entropy, summed over species; a bird in the background, with a
    target between 0 and 1, counts neither way.

    Args:
        scores: (N, C), 0 to 1.
        targets: (N, C), 0 to 1.
        n_clips: how many to find at most.
    """
    sure = np.clip(scores.astype(np.float64), LOWEST_SCORE, 1 - LOWEST_SCORE)
    terms = np.where(targets == 1, -np.log(sure), 0) + np.where(targets == 0, -np.log1p(-sure), 0)
    losses = terms.sum(axis=1)  # (N,)
    rows = np.argsort(-losses, kind="stable")[:n_clips]
    return Worst(rows, losses[rows])


def describe(
    dataset: WaveformDataset,
    row: int,
    scores: np.ndarray,
    targets: np.ndarray,
    names: Sequence[str],
    loss: float,
) -> str:
    """Say in three lines what a clip is, what it should be, and what it was taken for."""
    config, starts_s = dataset.config, dataset.starts_s
    start = 0.0 if starts_s is None else float(starts_s[row])
    window = f"{start:g} to {start + config.period:g} s"
    name = dataset.filename(row)
    if len(name) > LONGEST_NAME:
        name = "..." + name[3 - LONGEST_NAME :]

    birds = [f"{one} {scores[k]:.2f}" for k, one in enumerate(names) if targets[k] == 1]
    behind = [one for k, one in enumerate(names) if 0 < targets[k] < 1]
    label = ", ".join(birds) or "no bird"
    label += f" (behind it {', '.join(behind)})" if behind else ""
    top = int(np.argmax(scores))
    return (
        f"{name}, {window}\nlabel {label}\nsurest {names[top]} {scores[top]:.2f}, loss {loss:.2f}"
    )
