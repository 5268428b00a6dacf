"""What the winner leaves: its thresholds, one folder to predict with, and how_to_predict.md."""

import os
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from configs import Config, UserError
from files import csv_text, write_file
from inference.evaluation import find_thresholds
from inference.model_files import fold_folders, newest_best
from inference.out_of_fold import OutOfFold
from planning.contest import Entry

FEWEST = 5  # held-back recordings of a species with a threshold of its own
ANY_PRECISION = 0.9  # find_thresholds wants one; the threshold of the best F1 is taken


def write_thresholds(path: Path, oof: OutOfFold) -> int:
    """Write a threshold for each species: its own of the best F1, or that of all together.

    One held-back recording says where that one scored and no more, so species with fewer than
    FEWEST share the threshold of the best F1 over all scores.

    The column's name tells predict.py that it is of scores as the network gives them, to be
    calibrated where they are.

    Returns:
        How many species have their own.
    """
    shared, _ = find_thresholds(oof.labels.ravel(), oof.scores.ravel(), ANY_PRECISION)
    counts = oof.labels.sum(axis=0, dtype=np.int64)
    rows = []
    for number, species in enumerate(oof.class_names):
        best = shared
        if counts[number] >= FEWEST:
            best, _ = find_thresholds(oof.labels[:, number], oof.scores[:, number], ANY_PRECISION)
        if best.score == best.score:  # not NaN
            rows.append((species, f"{best.score:.6g}"))
    write_file(path, csv_text([("species", "best_f1_threshold"), *rows]))
    return int((counts >= FEWEST).sum())


def gather_models(target: Path, folders: Sequence[Path]) -> Path:
    """Put the best checkpoints of several experiments into one, whose folds predict.py averages.

    Args:
        target: folder to make anew; of one experiment nothing is made.
        folders: of experiments.

    Returns:
        The folder to predict with.

    Raises:
        UserError: a fold without a checkpoint.
    """
    if len(folders) == 1:
        return folders[0]
    if target.exists():
        shutil.rmtree(target)
    folds = [fold for folder in folders for fold in fold_folders(folder)]
    for number, fold in enumerate(folds):
        best = newest_best(fold)
        if best is None:
            raise UserError(f"{fold}: no checkpoint of a best epoch")
        place = target / f"fold_{number}" / best.name
        place.parent.mkdir(parents=True)
        try:
            os.link(best, place)
        except OSError:  # another disk, or one without links
            shutil.copy2(best, place)
    return target


def predict_command(model: Path, thresholds: Path) -> str:
    """The command that predicts with a model and its thresholds."""
    words = ["python", "predict.py", str(model), "my/recordings", "--output", "found.csv"]
    words += ["--format", "long", "raven", "--threshold", str(thresholds)]
    return shlex.join(words)


def how_to_predict(
    entries: Sequence[Entry],
    winner: Entry,
    folders: Mapping[str, Path],
    command: str,
    config: Config,
    n_own: int,
) -> str:
    """Write the page: the command, and why this one won.

    Args:
        entries: all that were compared, the best first.
        winner: one of them.
        folders: of the candidates, by name.
        command: that predicts with the winner.
        config: of the planned candidate.
        n_own: species with a threshold of their own.
    """
    n_recordings, n_classes = winner.oof.scores.shape
    n_heard = int(winner.oof.labels.any(axis=0).sum())
    places = ", ".join(str(folders[name]) for name in winner.members)
    lines = [
        "# How to predict", "",
        "```bash", command, "```", "",
        f"The winner is **{winner.name}**: {places}.",
        f"Compared on {n_recordings} held-back recordings, which hold {n_heard} of {n_classes} "
        f"species, of fold {', '.join(map(str, config.folds))}, by macro average precision. "
        "Intervals hold 95 % of the draws of a bootstrap of recordings; differences are paired, to "
        "the best single one.",
        "", "| candidate | macro AP | interval | difference | interval | chance that it is noise |",
        "| --- | --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    lines += [_row(one) for one in entries]
    lines += ["", *_remarks(entries, winner, n_own)]
    return "\n".join(lines) + "\n"


def _row(one: Entry) -> str:
    score, low, high = one.score
    gap = one.difference
    if gap["experiment"] == gap["against"]:
        cells = ["", "", ""]
    else:
        bounds = f"{gap['low']:+.4f} to {gap['high']:+.4f}"
        cells = [f"{gap['difference']:+.4f}", bounds, f"{gap['p_noise']:.2f}"]
    return f"| {one.name} | {score:.4f} | {low:.4f} to {high:.4f} | {' | '.join(cells)} |"


def _remarks(entries: Sequence[Entry], winner: Entry, n_own: int) -> list[str]:
    """Say what the numbers do not show."""
    singles = [one for one in entries if len(one.members) == 1 and one is not winner]
    even = [one.name for one in singles if one.difference["high"] >= 0]
    lines = []
    if even:
        lines.append(f"Not told apart from the best single one: {', '.join(even)}.")
    if any(not low <= score <= high for score, low, high in (one.score for one in entries)):
        lines.append(
            "Where few recordings hold a species, a draw scores above the recordings themselves: "
            "one that is drawn twice is found twice. That is why an interval lies above its score "
            "here. Both sides of a difference have it."
        )
    lines.append(
        "A pair wins only where it is better in the whole interval, for it takes twice as long. "
        f"The thresholds are those of the best F1 on the same recordings. {n_own} species have one "
        f"of their own; those that fewer than {FEWEST} recordings hold share that of all species "
        "together. They are a little too good for these recordings; new places need a look at "
        "`--threshold`."
    )
    return lines
