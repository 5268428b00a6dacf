"""The folder of a fold: its lock, its log, and the records beside the checkpoints."""

import contextlib
import csv
import io
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from configs import Config, UserError, settings_where, versions
from files import (
    CannotWriteError,
    LockedError,
    append_rows,
    csv_text,
    locked,
    sweep_parts,
    write_file,
)
from metrics import MetricMeter
from training import processes
from training.changes import in_todays_words
from training.fold import Fold, rank

logger = logging.getLogger("birdclef.folder")

STAYS = (".lock", "train.log")  # in a fold's folder when an earlier run is set aside
LATER_SETTINGS = re.compile(r"config_from_epoch_(\d+)\.yaml")
FOLD_DIR = re.compile(r"fold_(\d+)")  # `fold_0_old` beside the folds is none of them


@contextlib.contextmanager
def opened(config: Config) -> Iterator[None]:
    """Lock the fold's folder and log into it for the block; the first process does it for all.

    An earlier run in it is set aside where the settings say --no-resume.

    Raises:
        UserError: another run holds the folder, or it cannot be written.
    """
    with contextlib.ExitStack() as stack:
        processes.from_first(lambda: _open(stack, config))
        yield


def _open(stack: contextlib.ExitStack, config: Config) -> None:
    assert config.train_dir is not None
    stack.enter_context(lock_folder(config.train_dir))
    stack.enter_context(log_to_file(config.train_dir / "train.log"))
    sweep_parts(config.train_dir)  # a killed run may leave a checkpoint half-written
    # After a restart by torchrun, the earlier run is this one.
    if not config.resume and not processes.is_restart():
        set_aside(config.train_dir)


@contextlib.contextmanager
def lock_folder(train_dir: Path) -> Iterator[None]:
    """Make the fold's folder and keep a second run out of it; a killed run leaves no lock.

    Raises:
        UserError: another run holds it, or the folder cannot be written.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(train_dir / ".lock"))
        except LockedError:
            raise UserError(
                f"{train_dir}: another run is training in this folder; choose another --exp-id"
            ) from None
        except OSError as error:
            raise UserError(f"{train_dir}: cannot be written: {error.strerror}") from None
        yield


class _LogFile(logging.FileHandler):
    """A log that a full disk silences: a run must not end for want of a line."""

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
    """Move what an earlier run left into `replaced_<n>`, so that a new one starts with nothing."""
    paths = list(train_dir.iterdir())
    replaced = [path for path in paths if path.name.startswith("replaced_")]
    earlier = [path for path in paths if path.name not in STAYS and path not in replaced]
    if not earlier:
        return

    target = train_dir / f"replaced_{len(replaced) + 1}"
    target.mkdir()
    for path in earlier:
        path.rename(target / path.name)
    logger.info("%s: the earlier run now lies in %s", train_dir, target)


# Files --------------------------------------------------------------------------------------------


def write_settings(
    train_dir: Path, config: Config, class_names: list[str], *, done_epochs: int | None
) -> None:
    """Write every setting, versions and commit, and the order of the classes.

    `config.yaml` keeps what the first epoch ran with. Where a resumed run has other settings, they
    go to `config_from_epoch_<n>.yaml`.

    Args:
        train_dir: the fold's folder.
        config: settings of this run.
        class_names: in the order of the columns.
        done_epochs: complete epochs of the run that is resumed; None for a new run.
    """
    names = json.dumps(class_names, ensure_ascii=False, indent=0)
    write_file(train_dir / "classes.json", names)

    path = train_dir / "config.yaml"
    if done_epochs is not None and path.exists():
        if _same_settings(newest_settings(train_dir), config.to_dict()):
            return
        path = train_dir / f"config_from_epoch_{done_epochs + 1}.yaml"

    settings = {"config": config.to_dict(), "versions": versions()}
    write_file(path, yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))


def newest_settings(train_dir: Path) -> dict[str, Any]:
    """Read the settings that the latest epochs ran with; none where they cannot be read."""
    found = [(LATER_SETTINGS.fullmatch(path.name), path) for path in train_dir.iterdir()]
    later = [(int(match[1]), path) for match, path in found if match]
    path = max(later)[1] if later else train_dir / "config.yaml"
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))["config"]
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError):
        return {}
    return in_todays_words(settings) if isinstance(settings, dict) else {}


def _same_settings(earlier: dict[str, Any], now: dict[str, Any]) -> bool:
    """Compare settings, without those that change no result (such as num_workers)."""
    free = settings_where(on_resume="free")
    return all(earlier.get(name, value) == value for name, value in now.items() if name not in free)


def write_history(train_dir: Path, history: list[dict[str, Any]]) -> None:
    """Write a row for each complete epoch, with numbers that read back to the same value.

    A column that came with a later version of this code is empty in the rows before.
    """
    if not history:
        return

    columns = list(dict.fromkeys(name for row in history for name in row))
    rows = [[row.get(name, "") for name in columns] for row in history]
    write_file(train_dir / "history.csv", csv_text([columns, *rows]))


def append_timing(train_dir: Path, timing: dict[str, float]) -> None:
    """Add an epoch's line to timing.csv; apart from the history, which equal runs share."""
    with contextlib.suppress(CannotWriteError):  # a full disk costs the line
        append_rows(train_dir / "timing.csv", [list(timing.values())], list(timing))


def write_scores(fold: Fold, meter: MetricMeter) -> None:
    """Write the scores and labels of a fold's validation part, as `write_predictions` does."""
    rows = fold.valid_set
    write_predictions(
        fold.dir, meter.scores, meter.labels, rows.filenames(), fold.class_names, rows.starts_s
    )


def write_predictions(
    train_dir: Path,
    scores: np.ndarray,
    labels: np.ndarray,
    filenames: list[str],
    class_names: list[str],
    starts_s: np.ndarray | None = None,
) -> None:
    """Write out-of-fold scores (N, C) float32, labels (N, C) uint8, names of rows and columns.

    Where rows are windows of recordings, starts_s (N,) float64 says where each begins, in seconds.
    """
    content = io.BytesIO()
    arrays: dict[str, Any] = {
        "scores": scores.astype(np.float32),
        "labels": labels.astype(np.uint8),
        "filenames": np.array(filenames),
        "class_names": np.array(class_names),
    }
    if starts_s is not None:
        arrays["starts_s"] = starts_s
    np.savez(content, **arrays)
    write_file(train_dir / "valid_predictions.npz", content.getvalue())


def write_summary(
    config: Config, exp_dir: Path | None = None, *, unfinished: dict[int, int] | None = None
) -> dict[str, Any]:
    """Write `summary.json` from the histories on disk.

    Args:
        config: settings.
        exp_dir: folder of the experiment; None: that of the settings.
        unfinished: complete epochs of the folds that --max-hours stopped or kept from beginning.

    Returns:
        What it holds: each fold's best epoch by `monitor`, and their mean; without an epoch yet
        both are empty.
    """
    exp_dir = exp_dir or config.exp_dir
    best_rows = {}
    for number, history in read_histories(exp_dir).items():
        best_rows[str(number)] = min(history, key=lambda row: rank(row, config.monitor))

    best_of_folds = list(best_rows.values())
    in_all = set.intersection(*map(set, best_of_folds)) if best_rows else set()
    mean = {}
    for name in best_of_folds[0] if best_rows else ():
        if name in in_all and name.startswith(("valid_loss", "cmap", "macro", "probe_")):
            mean[name] = sum(best[name] for best in best_rows.values()) / len(best_rows)

    summary: dict[str, Any] = {"exp_id": config.exp_id, "folds": best_rows, "mean": mean}
    if unfinished:
        summary["unfinished"] = {str(number): done for number, done in unfinished.items()}
    write_file(exp_dir / "summary.json", json.dumps(summary, indent=2))
    return summary


def read_histories(exp_dir: Path) -> dict[int, list[dict[str, float]]]:
    """Read the history.csv of each fold that has one, by the fold's number; none without rows."""
    histories = {}
    for number, path in sorted(_histories(exp_dir)):
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        history = [{name: float(value) for name, value in row.items() if value} for row in rows]
        if history:
            histories[number] = history
    return histories


def _histories(exp_dir: Path) -> list[tuple[int, Path]]:
    """List the folds that have a history, with their numbers."""
    found = [(FOLD_DIR.fullmatch(path.parent.name), path) for path in exp_dir.glob("*/history.csv")]
    return [(int(match[1]), path) for match, path in found if match]
