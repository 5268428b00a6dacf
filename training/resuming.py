"""A fold goes on from its newest checkpoint as if it had never stopped."""

import hashlib
import json
import logging
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd

import checkpoint as ckpt
from configs import Config, capture_rng, versions
from training import changes, folder, late_steps, processes
from training.background import snapshot
from training.best_checkpoints import prune_checkpoints
from training.fold import Fold, Progress

logger = logging.getLogger("birdclef.train")

SPLIT_COLUMNS = ("filepath", "primary_label", "labels")  # what identifies a row of a split
SAVED_PARTS = ("model", "optimizer", "scheduler", "scaler")
PROGRESS = tuple(field.name for field in fields(Progress) if field.name != "train_loss")
# Added in a later version; older checkpoints lack them and take these defaults
LATER_PROGRESS: dict[str, Any] = {
    "micro_batch": 0, "probe": {}, "average": {}, "n_averaged": 0, "is_averaged": False,
}  # fmt: skip


def split_digest(
    train_part: pd.DataFrame, valid_part: pd.DataFrame, pseudo_labels: Path | None = None
) -> str:
    """Identify the recordings and labels that a fold is trained and validated on.

    Args:
        train_part: rows of train.csv.
        valid_part: rows of train.csv.
        pseudo_labels: the table of pseudo-labelled windows, if there is one.
    """
    digest = hashlib.sha256()
    for part in (train_part, valid_part):
        rows = sorted(zip(*(part[name] for name in SPLIT_COLUMNS), strict=True))
        digest.update(json.dumps(rows).encode())
    if pseudo_labels is not None:
        digest.update(pseudo_labels.read_bytes())
    return digest.hexdigest()


def find_checkpoint(
    config: Config, class_names: list[str], split: str
) -> tuple[Path, dict[str, Any]] | None:
    """Read the newest sound checkpoint of the fold's folder; None where there is none at all.

    Args:
        config: settings of the run, with the fold's folder as `train_dir`.
        class_names: of the run.
        split: the `split_digest` of the run.

    Raises:
        CheckpointError: it was made with other classes, another network, other audio settings or
            another split.
    """
    path = ckpt.get_initial_checkpoint(config)
    if path is None:
        return None

    state = ckpt.read_checkpoint(path)
    changes.check_same_setup(state, path, config, class_names)
    if fault := changes.other_split(state, split):
        raise ckpt.CheckpointError(f"{path} {fault}; {changes.REMEDY}")
    return path, state


def begin(fold: Fold, found: tuple[Path, dict[str, Any]] | None) -> None:
    """Start a fold, or resume it from the checkpoint that was found; keep a record of its settings.

    Raises:
        CheckpointError: the checkpoint does not fit the run, or lacks a part.
    """
    n_processes = processes.world_size()
    logger.info(
        "fold %d: %d recordings to train, %d to validate, %d species, on %s, %s",
        fold.number,
        fold.train_set.n_rows,
        0 if fold.config.refit else fold.valid_set.n_rows,
        len(fold.class_names),
        fold.device,
        "1 process" if n_processes == 1 else f"{n_processes} processes",
    )
    done_epochs = None
    if found is not None:
        resume(fold, *found)
        done_epochs = fold.progress.epoch

    processes.from_first(
        lambda: folder.write_settings(
            fold.dir, fold.config, fold.class_names, done_epochs=done_epochs
        )
    )


def state_of(fold: Fold) -> dict[str, Any]:
    """Collect all that a resume needs, in tensors and plain types."""
    parts, progress = fold.parts, fold.progress
    return {
        **{name: getattr(parts, name).state_dict() for name in SAVED_PARTS},
        **{name: getattr(progress, name) for name in PROGRESS},
        "ema": parts.averaged.state_dict() if parts.averaged else None,
        "train_loss": progress.train_loss.state_dict(),
        "rng": capture_rng(),
        "fold": fold.number,
        "class_names": fold.class_names,
        "split": fold.split,
        "config": fold.config.to_dict(),
        "versions": versions(),
    }


def resume(fold: Fold, path: Path, state: dict[str, Any]) -> None:
    """Go on from a checkpoint, and leave the folder as an unbroken run would have it at this point.

    Args:
        fold: its parts and progress take the checkpoint's state.
        path: of the checkpoint.
        state: what `find_checkpoint` read from it.

    Raises:
        CheckpointError: it does not fit the run, or lacks a part.
    """
    config, parts, progress = fold.config, fold.parts, fold.progress
    ckpt.load_checkpoint(
        parts.model,
        parts.optimizer,
        state,
        scheduler=parts.scheduler,
        scaler=parts.scaler if parts.scaler.is_enabled() else None,
        ema=parts.ema.module if parts.ema else None,
    )
    earlier_lr = state["config"].get("lr", config.lr)
    if earlier_lr != config.lr:
        changes.scale_rates(parts.optimizer, parts.scheduler, config.lr / earlier_lr)

    needed = [name for name in (*PROGRESS, "train_loss") if name not in LATER_PROGRESS]
    missing = [name for name in needed if name not in state]
    if missing:
        raise ckpt.CheckpointError(f"{path}: no {', '.join(missing)} in it")

    for name in PROGRESS:
        setattr(progress, name, state.get(name, LATER_PROGRESS.get(name)))
    progress.train_loss.load_state_dict(state["train_loss"])

    if processes.is_first():
        if (
            path.name != ckpt.LAST_NAME
        ):  # stopped between an epoch's two files, or last.pth is damaged
            save(fold)
        prune_checkpoints(fold.dir, config.keep_checkpoints)
        folder.write_history(fold.dir, progress.history)

    logger.info(
        "fold %d: going on from %s, epoch %d, batch %d",
        fold.number,
        path,
        progress.epoch + 1,
        progress.batch,
    )


def save(fold: Fold) -> None:
    """Write `last.pth`, in the first process; all steps are read before."""
    late_steps.read(fold)
    if processes.is_first():
        with fold.watch.part("checkpoint"):
            fold.writer.wait()
            ckpt.save_checkpoint(fold.dir / ckpt.LAST_NAME, state_of(fold))


def save_beside(fold: Fold) -> None:
    """Do the same while training goes on.

    Raises:
        Whatever the files before it have failed with.
    """
    late_steps.read(fold)
    if processes.is_first():
        with fold.watch.part("checkpoint"):
            state = snapshot(state_of(fold))
            fold.writer.start(lambda: ckpt.save_checkpoint(fold.dir / ckpt.LAST_NAME, state))


class SaveTimer:
    """Says when a checkpoint within an epoch is due, by optimizer steps or by the clock."""

    def __init__(self, config: Config) -> None:
        self.every_steps = config.checkpoint_every_steps
        self.every_s = config.checkpoint_every_minutes * 60
        self.restart()

    def restart(self) -> None:
        """Count the time from now on."""
        self.saved_at = time.monotonic()

    def is_due(self, step: int) -> bool:
        """Say whether to save after this optimizer step."""
        by_steps = self.every_steps > 0 and step % self.every_steps == 0
        by_time = self.every_s > 0 and time.monotonic() - self.saved_at > self.every_s
        return by_steps or by_time
