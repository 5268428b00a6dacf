"""train.csv: how it is read and checked, its classes, and the rows that a fold validates on."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from audio.prepared import open_recording
from catalog.labels import NO_BIRD, split_labels
from catalog.reread import as_written
from configs import Config, UserError

logger = logging.getLogger("birdclef.dataset")

TRAIN_COLUMNS = ("primary_label", "labels", "filepath", "kfold")
TEXT_COLUMNS = (
    "primary_label",
    "secondary_labels",
    "labels",
    "filename",
    "filepath",
    "author",
    "type",
)
DEBUG_ROWS = 64  # of each part of a fold, with --debug
DEBUG_EPOCHS = 2


def read_train_table(path: Path) -> pd.DataFrame:
    """Read train.csv with every label as text, so that `NA` and `22961` stay what they are.

    Raises:
        UserError: the file is missing or is not CSV.
    """
    types = dict.fromkeys(TEXT_COLUMNS, str)
    try:
        return pd.read_csv(path, dtype=types, keep_default_na=False, low_memory=False)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run split_data.py first") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as CSV: {error}") from None


def check_table(df: pd.DataFrame, source: str = "train.csv") -> pd.DataFrame:
    """Check what training needs; return a copy with text labels and integer folds.

    Raises:
        UserError: a needed column is missing, a label is empty, or a fold is not a whole number.
    """
    missing = [name for name in TRAIN_COLUMNS if name not in df.columns]
    if missing:
        found = ", ".join(map(str, df.columns))
        raise UserError(
            f"{source}: no column {', '.join(missing)} (it has {found}); run split_data.py first"
        )

    df = as_written(df.reset_index(drop=True), Path(source))
    empty = df["primary_label"].isna() | (df["primary_label"].astype(str) == "")
    if empty.any():
        raise UserError(
            f"{source}: row {_file_row(empty)}: primary_label is empty; if the species is called "
            "NA, read the table with keep_default_na=False (dataset.read_train_table does)"
        )

    folds = pd.to_numeric(df["kfold"], errors="coerce")
    bad = folds.isna() | (folds % 1 != 0)
    if bad.any():
        value = df.loc[bad, "kfold"].iloc[0]
        raise UserError(
            f"{source}: row {_file_row(bad)}: kfold {value!r} is not a whole number; "
            "run split_data.py again"
        )

    return df.assign(
        primary_label=df["primary_label"].astype(str),
        labels=df["labels"].fillna("").astype(str),
        filepath=df["filepath"].astype(str),
        kfold=folds.astype(np.int64),
    )


def _file_row(is_bad: pd.Series) -> int:
    """Return the line of the file that the first bad row stands in."""
    return int(is_bad.to_numpy().argmax()) + 2


def load_class_names(df: pd.DataFrame) -> list[str]:
    """List the species sorted, so that a class keeps its column from run to run.

    NO_BIRD, the label of recordings without a bird, is no species.
    """
    labels = set(df["primary_label"].astype(str))
    if "start_s" in df:  # in a window all labels are primary
        known = labels.copy()
        labels.update(*(split_labels(cell, known) for cell in df["labels"].unique()))
    return sorted(labels - {NO_BIRD})


def check_prepared(df: pd.DataFrame, train_np_dir: Path) -> None:
    """Check by header and size that every prepared recording is present and whole.

    Raises:
        UserError: some are missing or damaged; the message counts them and names the first.
    """
    faults = []
    for filepath in df["filepath"]:
        path = train_np_dir / filepath
        try:
            open_recording(path)
        except FileNotFoundError:
            faults.append(f"{path} is missing")
        except (OSError, ValueError) as error:
            faults.append(f"{path} is damaged: {error}")

    if faults:
        raise UserError(
            f"{len(faults)} of {len(df)} prepared recordings cannot be used; {faults[0]}; "
            "run prepare_audios.py, then split_data.py"
        )


def split_fold(
    df: pd.DataFrame, fold: int, rare_birds: list[str], *, empty_windows: float = 0.5
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Divide the table into the training part and the validation part of a fold.

    Rare birds, and every species whose recordings would all be held back, stay in the training
    part: the model cannot be scored on a species that it never heard. A table of windows, with a
    column start_s, is divided by recordings alone (see `choose_windows`).

    Returns:
        Copies of the rows (training, validation), in the order of df.

    Raises:
        UserError: one of the parts would be empty.
    """
    held_back = df["kfold"] == fold
    if "start_s" in df:
        return choose_windows(df[~held_back], df[held_back], empty_windows, seed=fold)

    seen = set(df.loc[~held_back, "primary_label"])
    rare = df["primary_label"].isin(rare_birds) | ~df["primary_label"].isin(seen)

    moved = held_back & rare
    if moved.any():
        logger.info(
            "fold %d: %d recordings of %d rare species are trained on and not validated",
            fold,
            moved.sum(),
            df.loc[moved, "primary_label"].nunique(),
        )

    valid = held_back & ~rare
    if not valid.any() and moved.any() and not df["primary_label"].isin(rare_birds).any():
        raise UserError(
            f"fold {fold}: there is nothing to validate on: each of its species has one recording, "
            "or pieces of one recording, which is trained on; add recordings of the same species, "
            "or validate on others by a smaller --n-folds of split_data.py"
        )
    if not valid.any() or valid.all():
        raise UserError(
            f"fold {fold} has {int(valid.sum())} of {len(df)} recordings to validate on; "
            "split the data again"
        )
    return df[~valid].copy(), df[valid].copy()


def choose_windows(
    train: pd.DataFrame, valid: pd.DataFrame, empty_windows: float, *, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Choose the windows of annotated recordings that a fold trains on and validates on.

    Windows overlap by half. Training takes all that have a label, and of the empty ones a random
    choice, so many that they are at most `empty_windows` of all. Validation takes every other
    window, those with an even number: each second once.

    Raises:
        UserError: one of the parts would be empty.
    """
    valid = valid[valid["number"] % 2 == 0]
    is_empty = (train["primary_label"] == NO_BIRD).to_numpy()
    n_labelled, n_empty = int((~is_empty).sum()), int(is_empty.sum())
    if not n_labelled or valid.empty:
        raise UserError(
            f"{n_labelled} labelled windows to train on and {len(valid)} windows to validate on; "
            "annotate more recordings, or take fewer folds (--n-folds) and split again"
        )

    n_kept = min(n_empty, round(n_labelled * empty_windows / (1 - empty_windows)))
    chosen = np.random.default_rng(seed).choice(np.flatnonzero(is_empty), n_kept, replace=False)
    kept = ~is_empty
    kept[chosen] = True
    logger.info(
        "%d windows with a label and %d of %d without one are trained on",
        n_labelled, n_kept, n_empty,
    )  # fmt: skip
    return train[kept].copy(), valid.copy()


def shrink(df: pd.DataFrame, fold: int, config: Config) -> tuple[pd.DataFrame, Config]:
    """Keep a few recordings of each part of the fold, and two epochs, to try the whole path."""
    held_back = df["kfold"] == fold
    parts = [df[~held_back].head(DEBUG_ROWS), df[held_back].head(DEBUG_ROWS)]
    return pd.concat(parts).sort_index(), replace(config, epochs=min(DEBUG_EPOCHS, config.epochs))
