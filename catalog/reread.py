"""Labels that plain pandas changed while it read train.csv, taken from the file again."""

import logging
from pathlib import Path

import pandas as pd

from catalog.labels import NO_BIRD, number_repair
from catalog.tables import read_table
from configs import UserError
from files import original_cell

logger = logging.getLogger("birdclef.reread")

REREAD_COLUMNS = ("primary_label", "secondary_labels", "labels", "filename", "filepath")


def as_written(df: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Give a table of split_data.py its text back, where pandas made numbers or gaps of it.

    `pd.read_csv("train.csv")` reads the label `007` as 7, `22961` as a number and `NA` as missing.
    Such columns are taken from the file, by `filepath`. Where there is no such file, numbers are
    spelled as the folder of their recording is; gaps stay.

    Args:
        df: train.csv as anybody read it, maybe some of its rows; it is not changed.
        path: where the file is.

    Raises:
        UserError: labels have changed, and the file has other rows.
    """
    is_negative = df["primary_label"].astype(str) == NO_BIRD
    changed = _changed(df["primary_label"]) | (_changed(df["labels"]) & ~is_negative)
    if not changed.any():
        return df
    if not path.exists():
        return _spelled_as_folders(df)

    written = read_table(path).map(original_cell)
    if "filepath" not in written or not df["filepath"].isin(written["filepath"]).all():
        raise UserError(
            f"row {changed.to_numpy().argmax() + 2}: primary_label or labels is a number or "
            f"missing, not text, and {path} has other rows; read the table with "
            "dataset.read_train_table"
        )
    written = written.drop_duplicates("filepath").set_index("filepath")
    texts = {
        name: df["filepath"].map(written[name]).astype(str)
        for name in REREAD_COLUMNS
        if name in df and name in written
    }
    logger.info(
        "%d labels that were read as numbers or gaps are taken from %s", changed.sum(), path
    )
    return df.assign(**texts)


def _changed(cells: pd.Series) -> pd.Series:
    return cells.map(lambda cell: not isinstance(cell, str)).astype(bool)


def _spelled_as_folders(df: pd.DataFrame) -> pd.DataFrame:
    labels = df["primary_label"]
    texts = labels.map(str).where(labels.notna(), None)
    folders = set(df["filepath"].astype(str).str.split("/").str[0])
    repair = number_repair(texts.dropna().unique(), folders)
    spelled = texts.map(repair, na_action="ignore")
    labels_cell = df["labels"].where(df["labels"].map(lambda cell: isinstance(cell, str)), spelled)
    return df.assign(primary_label=spelled, labels=labels_cell)
