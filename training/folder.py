"""The folder of a fold: its lock and log, and the records that training leaves in it beside the checkpoints."""

import contextlib
import csv
import fcntl
import io
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from configs import Config, UserError, versions

logger = logging.getLogger("birdclef.folder")


@contextlib.contextmanager
def lock_folder(train_dir: Path) -> Iterator[None]:
    """Make the fold's folder and keep a second run out of it; the kernel drops the lock of a killed run.

    Workers that outlive a killed run by seconds do not hold it: they close their copy of the file
    when they start.

    Raises:
        UserError: another run holds it, or the folder cannot be written.
    """
    try:
        train_dir.mkdir(parents=True, exist_ok=True)
        file = (train_dir / ".lock").open("w")
    except OSError as error:
        raise UserError(f"{train_dir}: cannot be written: {error.strerror}") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{train_dir}: another run is training in this folder; choose another --exp-id"
            ) from None
        os.register_at_fork(after_in_child=file.close)
        yield


class _LogFile(logging.FileHandler):
    """A log that a full disk silences: the run's files say what went wrong, and it must not end for want of a line."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Pass over a line that could not be written."""


@contextlib.contextmanager
def log_to_file(path: Path) -> Iterator[None]:
    """Append the log lines of the block to a file as well.

    Raises:
        UserError: the file cannot be opened.
    """
    try:
        handler = _LogFile(path, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from None
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s"))
    logger = logging.getLogger("birdclef")
    if logger.level == logging.NOTSET:  # configure_logger was not called
        logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        with contextlib.suppress(OSError):
            handler.close()


def set_aside(train_dir: Path) -> None:
    """Move what an earlier run left into a subfolder `replaced_<n>`, so that a new one starts with nothing."""
    names = [path for path in train_dir.iterdir() if path.name not in (".lock", "train.log")]
    names = [path for path in names if not path.name.startswith("replaced_")]
    if not names:
        return
    number = 1 + sum(path.name.startswith("replaced_") for path in train_dir.iterdir())
    target = train_dir / f"replaced_{number}"
    target.mkdir()
    for path in names:
        path.rename(target / path.name)
    logger.info("%s: the earlier run now lies in %s", train_dir, target)


# Files --------------------------------------------------------------------------------------------


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file as a whole: readers and a crash see the old content or the new, never a part."""
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        part.unlink(missing_ok=True)
        raise UserError(
            f"{path}: cannot be written: {error.strerror}; what was there before is unchanged"
        ) from None
    put_in_place(part, path)


def put_in_place(part: Path, path: Path) -> None:
    """Rename a complete and flushed file to its name, and flush the folder too."""
    os.replace(part, path)
    folder = os.open(path.parent, os.O_RDONLY)  # the new name is on disk only when its folder is
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_settings(train_dir: Path, config: Config, class_names: list[str]) -> None:
    """Write what a run depends on: every setting, versions and commit; and the order of the classes."""
    settings = {"config": config.to_dict(), "versions": versions()}
    write_atomically(
        train_dir / "config.yaml",
        yaml.safe_dump(settings, sort_keys=False, allow_unicode=True).encode(),
    )
    names = json.dumps(class_names, ensure_ascii=False, indent=0)
    write_atomically(train_dir / "classes.json", names.encode())


def write_history(train_dir: Path, history: list[dict[str, Any]]) -> None:
    """Write a row for each complete epoch; numbers as Python prints them, which read back to the same value.

    A column that came with a later version of this code is empty in the rows before.
    """
    if not history:
        return
    text = io.StringIO()
    columns = list(dict.fromkeys(name for row in history for name in row))
    table = csv.DictWriter(text, fieldnames=columns, lineterminator="\n")
    table.writeheader()
    table.writerows(history)
    write_atomically(train_dir / "history.csv", text.getvalue().encode())


def append_timing(train_dir: Path, timing: dict[str, float]) -> None:
    """Add an epoch's line to timing.csv, which is apart from the history, since no two runs share it."""
    with (
        contextlib.suppress(OSError),
        (train_dir / "timing.csv").open("a") as file,
    ):  # a full disk costs the line
        if file.tell() == 0:
            file.write(",".join(timing) + "\n")
        file.write(",".join(f"{value:.10g}" for value in timing.values()) + "\n")


def write_predictions(
    train_dir: Path,
    scores: np.ndarray,
    labels: np.ndarray,
    filenames: list[str],
    class_names: list[str],
) -> None:
    """Write out-of-fold scores (N, C) as float32, labels (N, C) as uint8, filenames (N,) and class_names (C,)."""
    content = io.BytesIO()
    np.savez(
        content,
        scores=scores.astype(np.float32),
        labels=labels.astype(np.uint8),
        filenames=np.array(filenames),
        class_names=np.array(class_names),
    )
    write_atomically(train_dir / "valid_predictions.npz", content.getvalue())


def write_summary(config: Config) -> dict[str, Any]:
    """Write `summary.json` from the histories on disk: each fold's best epoch by validation loss, and their mean."""
    folds: dict[str, dict[str, float]] = {}
    for path in sorted(
        config.exp_dir.glob("fold_*/history.csv"), key=lambda path: int(path.parent.name[5:])
    ):
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        history = [{name: float(value) for name, value in row.items() if value} for row in rows]
        folds[path.parent.name[5:]] = min(history, key=lambda row: row["valid_loss"])
    in_all = set.intersection(*(set(best) for best in folds.values()))
    names = [name for name in next(iter(folds.values())) if name in in_all]
    names = [name for name in names if name.startswith(("valid_loss", "cmap", "macro"))]
    mean = {name: sum(best[name] for best in folds.values()) / len(folds) for name in names}
    summary = {"exp_id": config.exp_id, "folds": folds, "mean": mean}
    write_atomically(config.exp_dir / "summary.json", json.dumps(summary, indent=2).encode())
    return summary
