"""The files that an epoch leaves, written while the next one trains."""

from collections.abc import Mapping
from typing import Any

import checkpoint as ckpt
from metrics import MetricMeter
from training import folder, resuming
from training.background import snapshot
from training.best_checkpoints import save_best
from training.fold import Fold


def history_row(fold: Fold, valid_loss: float, scores: Mapping[str, float]) -> dict[str, float]:
    """Make the row of the history for an epoch that ends, before the schedule is stepped.

    Args:
        fold: with the losses of its training; the row of averaged weights has none.
        valid_loss: of validation; NaN in a refit.
        scores: of the metric; none in a refit.
    """
    parts, progress = fold.parts, fold.progress
    return {
        "epoch": progress.epoch + 1,
        "step": progress.step,
        "lr": float(parts.optimizer.param_groups[0]["lr"]),
        **({"train_loss": progress.train_loss.avg} if parts.average is None else {}),
        "valid_loss": valid_loss,
        **scores,
        "skipped_steps": progress.skipped_steps,
        **progress.probe,
    }


def leave_files(fold: Fold, meter: MetricMeter, *, is_best: bool) -> None:
    """Write the epoch's checkpoint and the history; for the best also predictions and its own.

    They come in the order in which a kill between any two does no harm: until `last.pth` is there,
    a resumed run repeats the epoch, and it writes the history anew from the checkpoint.

    Args:
        fold: its epoch has ended; in the process that writes.
        meter: scores and labels of the validation part.
        is_best: the epoch is the best so far.

    Raises:
        Whatever the files of the epoch before have failed with.
    """

    def write() -> None:
        if is_best:
            folder.write_scores(fold, meter)
            save_best(fold.dir, state, keep=fold.config.keep_checkpoints)
        ckpt.save_checkpoint(fold.dir / ckpt.LAST_NAME, state)
        folder.write_history(fold.dir, state["history"])

    with fold.watch.part("checkpoint"):
        state = snapshot(resuming.state_of(fold))
        fold.writer.start(write)
        if fold.logs.open:  # they are told what stands in history.csv, and nothing else
            fold.writer.wait()
            fold.logs.rows(fold.progress.history)


def add_timing(fold: Fold, timing: dict[str, Any]) -> None:
    """Add an epoch's line to timing.csv, after its files."""
    fold.writer.add(lambda: folder.append_timing(fold.dir, timing))
