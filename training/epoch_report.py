"""What the log and timing.csv say of an epoch: its scores, its speed, and what limited it."""

import logging
import time

from training import forecast, processes
from training.epoch_files import add_timing
from training.fold import Fold
from training.stopwatch import WAITING, describe_parts, find_limit

logger = logging.getLogger("birdclef.train")


def log_best(fold: Fold) -> None:
    """Log the epoch that a fold is judged by."""
    progress = fold.progress
    logger.info(
        "fold %d: best epoch %d, validation loss %.5f",
        fold.number,
        progress.best_epoch,
        progress.best_loss,
    )


class EpochClock:
    """Times one epoch of a fold, from here to `report`.

    Args:
        fold: about to train what is left of an epoch; its stopwatch starts from zero.
    """

    def __init__(self, fold: Fold) -> None:
        fold.watch.restart()
        fold.clock.begin_epoch(fold.progress.batch)
        self.batches_before = fold.progress.batch  # done before this process began
        self.started = self.trained = time.perf_counter()

    def end_training(self, fold: Fold) -> None:
        """Note that training ends here and validation begins."""
        self.trained = time.perf_counter()
        fold.clock.begin_validation()

    def report(self, fold: Fold) -> None:
        """Log a line for the epoch that has ended, and add one to timing.csv."""
        fold.clock.end_epoch()
        if not processes.is_first():
            return

        train_s, valid_s = self.trained - self.started, time.perf_counter() - self.trained
        seconds = fold.watch.seconds()
        sampler = fold.train_sampler
        n_clips = max(0, sampler.n_items - self.batches_before * sampler.batch_size)
        timing = {
            "epoch": fold.progress.epoch,
            "train_s": round(train_s, 2),
            "valid_s": round(valid_s, 2),
            "clips_per_s": round(n_clips / train_s, 2),
            "waiting_share": round(seconds[WAITING] / train_s, 4),
        }
        _log_epoch(fold, timing)
        forecast.look(fold)
        add_timing(fold, timing)

        if fold.config.profile:
            limit = find_limit(
                seconds,
                num_workers=fold.config.num_workers,
                on_cpu=fold.device.type == "cpu",
            )
            parts = describe_parts(seconds)
            logger.info("where epoch %d went:\n%s\n%s", fold.progress.epoch, parts, limit)


def _log_epoch(fold: Fold, timing: dict[str, float]) -> None:
    row, progress, left = fold.progress.history[-1], fold.progress, forecast.time_left(fold)
    if fold.config.refit:
        told = "refit epoch %3d of %d  train %.5f  lr %.2e  %.0f s, left: %s"
        epoch, loss, lr, seconds = row["epoch"], row["train_loss"], row["lr"], timing["train_s"]
        logger.info(told, epoch, fold.n_epochs, loss, lr, seconds, forecast.clock(left.fold))
        return
    is_best = progress.best_epoch == progress.epoch
    logger.info(
        "fold %d epoch %3d  train %.5f  valid %.5f  cmap_pad_5 %.4f (floor %.4f)  macro AP %.4f  "
        "AUROC %.4f  lr %.2e  %.0f s, %.1f clips/s, %.0f %% waiting for data, "
        "left: fold %s, all %s%s",
        fold.number,
        row["epoch"],
        row["train_loss"],
        row["valid_loss"],
        row["cmap_pad_5"],
        row["cmap_pad_5_floor"],
        row["macro_ap"],
        row["macro_roc_auc"],
        row["lr"],
        timing["train_s"] + timing["valid_s"],
        timing["clips_per_s"],
        100 * timing["waiting_share"],
        forecast.clock(left.fold),
        forecast.clock(left.run),
        "  *" if is_best else "",
    )
