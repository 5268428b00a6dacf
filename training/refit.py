"""Train once more on all folds' rows, without validation, for as long as the folds found best."""

import logging
import math
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd

import checkpoint as ckpt
from catalog.train_table import choose_windows, split_fold
from configs import Config, UserError
from metrics import MetricMeter
from scheduler import step_after_epoch
from training import processes, resuming
from training.averaging import average_weights, collect_weights
from training.best_checkpoints import prune_checkpoints
from training.epoch_files import history_row, leave_files
from training.epoch_report import EpochClock
from training.fold import Fold, rank
from training.folder import read_histories
from training.sheets import begin_logs

logger = logging.getLogger("birdclef.train")

REFIT_FOLDER = "refit"  # in the experiment's


def refit_folder(config: Config) -> Path:
    """Folder of the refit, beside those of the folds."""
    return config.exp_dir / REFIT_FOLDER


def refit_plan(config: Config) -> tuple[Config, int | None]:
    """Settle how many epochs to train, and take out of a refit what needs a validation.

    Returns:
        Settings of its own folder, without early stopping and choice of a best epoch, and the
        number of epochs. For the training of a fold the settings as they are, and None.

    Raises:
        UserError: no fold has a history, or --max-hours is given.
    """
    if not config.refit:
        return config, None
    n_epochs = processes.from_first(lambda: refit_epochs(config))
    plan = replace(config, train_dir=refit_folder(config), early_stopping=None, monitor="last")
    return plan, n_epochs


def refit_epochs(config: Config) -> int:
    """Find the median of the folds' best epochs, rounded up.

    A fold whose best row is the average of its last epochs counts with all of them.

    Args:
        config: settings of the folds; `monitor` says which epoch is best.

    Raises:
        UserError: no fold has a history, or --max-hours is given.
    """
    if config.max_hours is not None:
        raise UserError("--refit trains one model to its end; leave out --max-hours")
    histories = read_histories(config.exp_dir)
    if not histories:
        raise UserError(
            f"--refit: {config.exp_dir}/fold_*/history.csv: no fold is trained, and a refit takes "
            "as many epochs as the folds found best; run the same command without --refit first"
        )

    best = {}
    for number, history in histories.items():
        row = min(history, key=lambda row: rank(row, config.monitor))
        best[number] = min(int(row["epoch"]), config.epochs)
    n_epochs = math.ceil(statistics.median(best.values()))
    told = ", ".join(f"fold {number} at {epoch}" for number, epoch in best.items())
    logger.info("refit: %d epochs on all folds; best were %s", n_epochs, told)
    return n_epochs


def split_rows(
    table: pd.DataFrame, number: int, config: Config
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Divide the table into what is trained on and what is validated on; a refit trains on all."""
    if not config.refit:
        return split_fold(table, number, config.rare_birds, empty_windows=config.empty_windows)

    if "start_s" in table:  # windows: those with a label, and some without
        table, _ = choose_windows(table, table, config.empty_windows, seed=0)
    return table.copy(), table.iloc[:0].copy()


def refit(fold: Fold, train_one_epoch: Callable[[Fold], None]) -> None:
    """Train to the end and write the model, which predict.py and export.py take.

    It is the loop of train.py without a validation: an epoch's row has no scores, none is the best,
    and a schedule that watches the loss watches that of training.

    Args:
        fold: built for all rows, at its start or where an earlier run left it.
        train_one_epoch: of train.py.
    """
    with fold.writer.finishing():
        begin_logs(fold)
        while not fold.progress.is_complete(fold.n_epochs, patience=None):
            times = EpochClock(fold)
            train_one_epoch(fold)
            times.end_training(fold)
            end_epoch(fold)
            times.report(fold)
        average_weights(fold)
    save_refit(fold)


def end_epoch(fold: Fold) -> None:
    """Step the schedule, add the history row, and write the epoch's files."""
    progress = fold.progress
    row = history_row(fold, math.nan, {})
    collect_weights(fold)
    name, loss = fold.config.scheduler_name, progress.train_loss.avg
    step_after_epoch(name, fold.parts.scheduler, loss)

    progress.end_epoch(row, "last")
    if processes.is_first():
        leave_files(fold, MetricMeter(), is_best=False)


def save_refit(fold: Fold) -> None:
    """Write the finished model in place of an earlier one."""
    if processes.is_first():
        name = f"Exp_{fold.config.exp_id}_refit_epoch_{fold.n_epochs}.pth"
        ckpt.save_checkpoint(fold.dir / name, resuming.state_of(fold))
        prune_checkpoints(fold.dir, keep=1)
        logger.info("refit: wrote %s", fold.dir / name)
