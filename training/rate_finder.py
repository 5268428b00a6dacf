"""The learning-rate finder: a short training whose rate rises step by step, and what it shows.

Each step's rate is a fixed factor above the last; look where the loss falls fastest (Smith,
arXiv:1506.01186). Everything lies in a folder of its own, so that the experiment is as it was.
"""

import io
import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from configs import Config
from files import csv_text, write_file
from metrics import AverageMeter
from training import processes
from training.batches import batches_in_turn
from training.fold import Fold
from training.rates import begin_training
from training.stopwatch import WAITING

logger = logging.getLogger("birdclef.train")

SEARCH_FOLDER = "find_lr"  # in models_dir
FIRST_RATE, LAST_RATE, N_RATES = 1e-6, 1.0, 100
SMOOTHING_STEPS = 3.0  # deviation of the bell that smooths the losses, in steps
TOO_HIGH = 4.0  # times the lowest loss so far, at which the search ends

Batch = dict[str, torch.Tensor]


def search_settings(config: Config) -> Config:
    """Put a search in a folder of its own: the first fold, without a schedule.

    Other settings stay as they are.
    """
    if not config.find_lr:
        return config
    return replace(
        config,
        models_dir=config.models_dir / SEARCH_FOLDER,
        folds=config.folds[:1],
        scheduler_name="reduce_lr_on_plateau",
        ema_decay=None,
        resume=False,
    )


def search_rates(fold: Fold, train_step: Callable[[Fold, Batch], bool]) -> None:
    """Train with rising rates, log the rate to take, and write a table and a plot.

    Args:
        fold: newly built; what it learns is thrown away.
        train_step: of train.py; says whether the optimizer has stepped.
    """
    rates, losses = sweep(fold, train_step)
    smooth = smoothed(losses)
    found = suggest(rates, smooth)
    if not processes.is_first():
        return

    rows = [["lr", "loss", "smoothed_loss"], *zip(rates, losses, smooth, strict=True)]
    write_file(fold.dir / "learning_rates.csv", csv_text(rows))
    path = fold.dir / "learning_rates.png"
    write_file(path, draw(rates, losses, smooth, found))
    if found is None:
        logger.warning("the loss does not fall at any rate; %s shows it", path)
        return
    logger.info("the loss falls fastest at lr %.1e; %s shows it", found, path)
    print(f"next: the same command with --lr {found:.1e} and without --find-lr")


def sweep(fold: Fold, train_step: Callable[[Fold, Batch], bool]) -> tuple[np.ndarray, np.ndarray]:
    """Take N_RATES optimizer steps at rising rates, fewer where the loss leaves all bounds.

    Groups of parameters keep their rates' ratios to `lr`.

    Returns:
        Rates and the losses before each was used, (n,) float64 both.
    """
    progress, groups = fold.progress, fold.parts.optimizer.param_groups
    ratios = [group["lr"] / fold.config.lr for group in groups]
    plan = np.geomspace(FIRST_RATE, LAST_RATE, N_RATES)
    losses: list[float] = []

    set_rates(groups, ratios, plan[0])
    for batch in _endless(fold):
        if not train_step(fold, batch):
            continue

        loss = progress.train_loss.avg
        if not math.isfinite(loss):
            break
        losses.append(loss)
        progress.train_loss = AverageMeter()
        if len(losses) == N_RATES or loss > TOO_HIGH * min(losses):
            break
        set_rates(groups, ratios, plan[len(losses)])
    return plan[: len(losses)], np.array(losses)


def set_rates(groups: list[dict[str, Any]], ratios: list[float], rate: float) -> None:
    """Give each group of parameters its share of a rate."""
    for group, ratio in zip(groups, ratios, strict=True):
        group["lr"] = float(rate) * ratio


def _endless(fold: Fold) -> Iterator[Batch]:
    """Yield training batches, epoch after epoch."""
    progress = fold.progress
    while True:
        begin_training(fold.parts.model, fold.config, progress.epoch)
        fold.train_sampler.set_position(progress.epoch + 1)
        yield from batches_in_turn(fold.train_loader, fold.watch, WAITING, what="rates")
        progress.epoch, progress.batch = progress.epoch + 1, 0


def smoothed(losses: np.ndarray) -> np.ndarray:
    """Average each loss with its neighbours, (n,), weighed by a bell of SMOOTHING_STEPS."""
    places = np.arange(len(losses))
    weights = np.exp(-(((places[:, None] - places[None]) / SMOOTHING_STEPS) ** 2) / 2)  # (n, n)
    return weights @ losses / weights.sum(axis=1)


def suggest(rates: np.ndarray, smooth: np.ndarray) -> float | None:
    """Find the rate at which the loss falls fastest per factor; None where it never falls.

    Args:
        rates: (n,), rising by a fixed factor.
        smooth: (n,) losses.
    """
    if len(rates) < 3:
        return None
    slopes = np.gradient(smooth, np.log10(rates))
    steepest = int(slopes[: int(smooth.argmin()) + 1].argmin())
    return float(rates[steepest]) if slopes[steepest] < 0 else None


def draw(rates: np.ndarray, losses: np.ndarray, smooth: np.ndarray, found: float | None) -> bytes:
    """Draw the losses over their rates as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")  # inches
    axes = figure.subplots()
    axes.plot(rates, losses, ".", color="0.7", label="loss of a step")
    axes.plot(rates, smooth, color="tab:blue", label="smoothed")
    if found is not None:
        axes.axvline(found, color="tab:orange", label=f"falls fastest: lr {found:.1e}")

    axes.set_xscale("log")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("training loss")
    if len(losses):
        low, high = float(losses.min()), float(np.median(losses))
        axes.set_ylim(low - 0.1 * (high - low), high + 1.5 * (high - low) + 1e-9)
    axes.legend(loc="upper left", frameon=False)

    content = io.BytesIO()
    figure.savefig(content, dpi=150, format="png")
    return content.getvalue()
