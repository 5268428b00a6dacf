"""What an evaluation of the model says to predict.py: calibration, and each species' threshold."""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from configs import UserError
from files import original_cell
from inference.calibration import Calibration, read_calibration
from inference.model_files import FOLD
from inference.text_files import read_records

logger = logging.getLogger("birdclef.evaluated")

EVALUATION = "evaluation"
CALIBRATION, SPECIES = "calibration.yaml", "species.csv"
BEST_F1 = "best-f1"
PRECISION = "precision="
UNKNOWN = 0.5  # best-f1 of a species that the evaluation had no recording of
UNREACHED = 1.0  # a threshold that no score reaches


def find_evaluation(model: Path, given: Path | None) -> Path | None:
    """Find the folder of a model's evaluation: `given`, or evaluation/ in or above the model.

    Raises:
        UserError: there is no evaluation in `given`.
    """
    if given is not None:
        if not (given / SPECIES).is_file():
            raise UserError(f"--evaluation {given}: no {SPECIES} in it; evaluate.py writes one")
        return given

    folders = [model] if model.is_dir() else [model.parent]
    if FOLD.fullmatch(folders[0].name):
        folders.append(folders[0].parent)
    places = [folder / EVALUATION for folder in folders]
    return next((place for place in places if (place / SPECIES).is_file()), None)


def settle_calibration(
    flags: argparse.Namespace, evaluation: Path | None, class_names: Sequence[str]
) -> Calibration | None:
    """Settle by what line scores are calibrated, and say so in the log; None leaves them.

    Raises:
        UserError: a file that was named and does not fit, or flags that it does not go with.
    """
    if flags.calibration == "off":
        return None

    is_auto = flags.calibration == "auto"
    path = Path(flags.calibration)
    if is_auto:
        if evaluation is None or not (evaluation / CALIBRATION).is_file():
            return None
        path = evaluation / CALIBRATION

    if why := _unfit(flags):
        if not is_auto:
            raise UserError(f"--calibration {path}: {why}")
        logger.info("scores are not calibrated by %s: %s", path, why)
        return None
    try:
        found = read_calibration(path, list(class_names))
    except UserError as error:
        if not is_auto:
            raise
        logger.warning("%s; scores are not calibrated", error)
        return None
    message = "scores are calibrated by %s (slope %g, offset %g); --calibration off leaves them"
    logger.info(message, path, found.slope, found.offset)
    return found


def _unfit(flags: argparse.Namespace) -> str:
    """Say why these scores are not those that a calibration was fitted to; "" where they are."""
    if flags.average == "rank":
        return "ranks are no probabilities"
    if flags.events:
        return "events are found in scores as they are"
    if flags.score != "clipwise":
        return f"it was fitted to clipwise scores, not to {flags.score}"
    return ""


# Thresholds ---------------------------------------------------------------------------------------


def is_from_evaluation(text: str) -> bool:
    """Say whether a --threshold asks for the evaluation's: `best-f1`, `precision=0.9`."""
    return text == BEST_F1 or text.startswith(PRECISION)


def read_thresholds(
    text: str,
    evaluation: Path | None,
    class_names: Sequence[str],
    calibration: Calibration | None,
) -> np.ndarray:
    """Read each species' threshold from species.csv, calibrated as the scores are.

    Args:
        text: `best-f1` or `precision=0.9`.
        evaluation: its folder, None if there is none.
        class_names: C labels.
        calibration: what is done to scores.

    Returns:
        (C,) float64. A species that never reaches the precision gets 1, which no score reaches; one
        without a best F1, which no recording was held back of, gets 0.5.

    Raises:
        UserError: no evaluation, another precision than it has, or other species.
    """
    if evaluation is None:
        raise UserError(
            f"--threshold {text} needs an evaluation of the model: run evaluate.py on its folder, "
            "or name one with --evaluation DIR"
        )
    path = evaluation / SPECIES
    column = "best_f1_threshold" if text == BEST_F1 else f"threshold_precision_{_precision(text)}"
    found = _read_column(path, column, text)
    if not found.keys() & set(class_names):
        raise UserError(f"{path}: none of its {len(found)} species is a class of the model")

    raw = np.array([found.get(name, np.nan) for name in class_names])
    is_known = ~np.isnan(raw)
    if calibration is not None:
        raw[is_known] = calibration.apply(raw[is_known].astype(np.float32))
    raw[~is_known] = UNKNOWN if text == BEST_F1 else UNREACHED
    if n_unknown := int((~is_known).sum()):
        message = "--threshold %s: %d of %d species have none in %s and get %g"
        logger.info(message, text, n_unknown, len(raw), path, raw[~is_known][0])
    return raw


def _precision(text: str) -> str:
    """Write the precision of `precision=0.9` as species.csv's columns do."""
    try:
        precision = float(text.removeprefix(PRECISION))
    except ValueError:
        precision = float("nan")
    if not 0 < precision <= 1:
        raise UserError(f"--threshold {text}: a precision lies above 0 and is at most 1")
    return f"{precision:g}"


def _read_column(path: Path, column: str, text: str) -> dict[str, float]:
    rows, header = read_records(path, f"{path}: cannot be read")
    if "species" not in header or column not in header:
        wanted = text.removeprefix(PRECISION)
        raise UserError(
            f"{path}: no column {column}; run evaluate.py again"
            + (f" with --precision {wanted}" if text != BEST_F1 else "")
        )
    return {original_cell(row["species"]): float(row[column] or "nan") for row in rows}
