"""The out-of-fold scores that training leaves in an experiment's folders."""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from configs import UserError
from inference.model_files import FOLD

FILE = "valid_predictions.npz"
ARRAYS = ("scores", "labels", "class_names", "filenames")


@dataclass(frozen=True)
class OutOfFold:
    """Recordings scored by the model of the fold that held them back.

    Attributes:
        scores: (n, n_classes) float32 in [0, 1).
        labels: (n, n_classes) uint8, 1 for primary birds.
        filenames: (n,) str.
        folds: (n,) int, the fold that each recording was held back in.
        class_names: (n_classes,) species.
        starts_s: (n,) seconds, where rows are windows of recordings; None: they are recordings.
    """

    scores: np.ndarray
    labels: np.ndarray
    filenames: np.ndarray
    folds: np.ndarray
    class_names: tuple[str, ...]
    starts_s: np.ndarray | None = None

    def take(self, rows: np.ndarray) -> "OutOfFold":
        """Take some rows: their numbers (m,), or (n,) bool."""
        starts_s = None if self.starts_s is None else self.starts_s[rows]
        return OutOfFold(
            self.scores[rows],
            self.labels[rows],
            self.filenames[rows],
            self.folds[rows],
            self.class_names,
            starts_s,
        )


def read_out_of_fold(path: Path) -> OutOfFold:
    """Read the scores of an experiment's folds, or of one fold.

    Args:
        path: `models/Exp_47` or `models/Exp_47/fold_0`.

    Raises:
        UserError: no such folder, no scores in it, damaged ones, or folds with other classes.
    """
    folders = _fold_folders(path)
    found = [_read(folder) for folder in folders]
    class_names = found[0]["class_names"]
    for folder, content in zip(folders, found, strict=True):
        if not np.array_equal(content["class_names"], class_names):
            raise UserError(
                f"{folder / FILE}: other classes than {folders[0] / FILE}; "
                "the folds are not of one experiment"
            )

    numbers = [int(FOLD.fullmatch(folder.name)[1]) for folder in folders]  # type: ignore[index]
    are_windows = all("starts_s" in content for content in found)
    return OutOfFold(
        scores=np.concatenate([content["scores"] for content in found]),
        labels=np.concatenate([content["labels"] for content in found]),
        filenames=np.concatenate([content["filenames"] for content in found]),
        folds=np.repeat(numbers, [len(content["scores"]) for content in found]),
        class_names=tuple(str(name) for name in class_names),
        starts_s=np.concatenate([one["starts_s"] for one in found]) if are_windows else None,
    )


def _fold_folders(path: Path) -> list[Path]:
    if not path.is_dir():
        raise UserError(f"{path}: no such folder; name an experiment's, such as models/Exp_47")

    candidates = [path, *path.iterdir()]
    folders = [one for one in candidates if FOLD.fullmatch(one.name) and (one / FILE).is_file()]
    if not folders:
        raise UserError(f"{path}: no {FILE} in it or in its fold_<number>; train a fold first")
    return sorted(folders, key=lambda folder: int(FOLD.fullmatch(folder.name)[1]))  # type: ignore[index]


def _read(folder: Path) -> dict[str, np.ndarray]:
    """Read the arrays of a file; starts_s is among them where rows are windows."""
    path = folder / FILE
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as content:
            parts = {name: content[name] for name in ARRAYS}
            if "starts_s" in content:
                parts["starts_s"] = content["starts_s"]
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None

    scores, labels, class_names, filenames = (parts[name] for name in ARRAYS)
    if scores.shape != labels.shape or scores.shape != (len(filenames), len(class_names)):
        raise UserError(f"{path}: scores {scores.shape} and labels {labels.shape} do not fit")
    return parts
