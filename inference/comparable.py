"""Experiments that may be compared: one order of recordings, one set of folds, classes, labels."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from catalog.class_names import difference
from configs import UserError
from inference.model_files import FOLD
from inference.out_of_fold import OutOfFold, read_out_of_fold

LOCAL = (
    *("exp_id", "name", "notes", "max_hours", "kaggle", "root", "train_dir", "models_dir"),
    *("device", "num_workers", "folds"),
)

# train.py stores what `auto` became of these. A probe has no use for them and leaves them at it.
SETTLED = ("train_bs", "frontend", "channels_last", "compile_model")
LEFT_OPEN = "auto"


def in_one_order(oof: OutOfFold) -> OutOfFold:
    """Sort recordings by fold and name."""
    return oof.take(np.lexsort((oof.filenames, oof.folds)))


def check_comparable(first: Path, one: OutOfFold, second: Path, other: OutOfFold) -> None:
    """Refuse experiments whose scores are not of the same recordings, folds and classes.

    Raises:
        UserError: they are not; the message says what differs.
    """
    if one.class_names != other.class_names:
        differ = difference(one.class_names, other.class_names)
        raise UserError(f"{first} and {second} have other classes: {differ}")
    if set(one.folds) != set(other.folds):
        trained = f"{sorted(set(one.folds))} and {sorted(set(other.folds))}"
        raise UserError(f"{first} and {second} have other folds trained: {trained}")
    same = len(one.filenames) == len(other.filenames) and np.array_equal(
        one.filenames, other.filenames
    )
    if not same or not np.array_equal(one.folds, other.folds):
        raise UserError(
            f"{first} and {second} held back other recordings: their tables were split apart; "
            "train both on one train.csv"
        )
    if not np.array_equal(one.labels, other.labels):
        raise UserError(f"{first} and {second} have other labels for the same recordings")


def differing_settings(experiments: Sequence[Path]) -> dict[str, list[str]]:
    """Find the settings in which experiments differ: their values, by name; "-" where unknown.

    Where `auto` was settled, what it became is compared.
    """
    configs = [read_config(path) for path in experiments]
    names = sorted({name for config in configs for name in config} - set(LOCAL))
    values = {name: [str(config.get(name, "-")) for config in configs] for name in names}
    return {name: found for name, found in values.items() if _differ(name, found)}


def _differ(name: str, values: Sequence[str]) -> bool:
    """Say whether a setting differs; one that was settled in one experiment and left open, no."""
    found = set(values)
    return len(found - {LEFT_OPEN} if name in SETTLED else found) > 1


def read_config(experiment: Path) -> dict[str, Any]:
    """Read the settings of an experiment's first fold; none where they are missing."""
    import yaml

    folders = [experiment, *sorted(experiment.iterdir())]
    for folder in folders:
        path = folder / "config.yaml"
        if FOLD.fullmatch(folder.name) and path.is_file():
            return dict((yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("config", {}))
    return {}


def read_twin(experiment: Path, oof: OutOfFold, twin: Path) -> OutOfFold:
    """Read an experiment of the same settings and another seed, its recordings in the same order.

    Raises:
        UserError: other recordings, folds, classes or labels, or another setting than the seed.
    """
    found = in_one_order(read_out_of_fold(twin))
    check_comparable(experiment, in_one_order(oof), twin, found)
    names = sorted(set(differing_settings([experiment, twin])) - {"seed"})
    if names:
        raise UserError(
            f"{experiment} and {twin} differ in more than their seed: {', '.join(names)}; "
            "compare.py compares experiments"
        )
    back = np.argsort(np.lexsort((oof.filenames, oof.folds)), kind="stable")
    return found.take(back)


def add_spread(table: pd.DataFrame, twin: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Put how far the scores of two seeds are apart beside each score.

    Args:
        table: of an experiment, a row a metric or species.
        twin: the same of one with another seed, in the same order.
        columns: the scores.

    Returns:
        The table with `<column>_seed_spread` behind each, the absolute difference.
    """
    table = table.copy()
    for name in columns:
        spread = (table[name] - twin[name]).abs()
        table.insert(table.columns.get_loc(name) + 1, f"{name}_seed_spread", spread)
    return table
