"""The rows of an archive, one per recording, with label and file: from a table or from folders."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from catalog.columns import name_columns
from catalog.filenames import check_filenames, match_filenames
from catalog.labels import (
    NO_BIRD,
    is_no_bird,
    is_unsorted,
    number_repair,
    split_primary,
    tidy_label,
)
from catalog.plain_paths import RENAME, is_plain_path
from catalog.tables import read_table, refuse
from configs import Config, UserError, some

logger = logging.getLogger("birdclef.metadata")

NEEDED_COLUMNS = ("primary_label", "filename")
FROM_FOLDERS = "names of folders"  # where rows come from when there is no table


def read_archive(config: Config, files: Sequence[str]) -> pd.DataFrame:
    """Read the metadata table; where there is none, make a row of each recording in a folder.

    Args:
        config: of which metadata_path, from_folders and train_audio_dir are used.
        files: POSIX paths of all recordings, relative to the audio folder.

    Returns:
        (n_rows, n_columns) str, as the table has them; or primary_label and filename.

    Raises:
        UserError: no table, and no folders that could stand for it; or the table cannot be read.
    """
    if config.from_folders:
        return rows_from_folders(files, config.train_audio_dir)
    if config.metadata_path.exists():
        return read_table(config.metadata_path)

    tables = _tables_nearby(config)
    if tables:
        raise UserError(
            f"metadata_path={config.metadata_path}: no such file, but {tables[0]} is there; name "
            "the table with --metadata-path, or take folders for labels with --from-folders"
        )
    if not _is_default(config.metadata_path) or not any("/" in name for name in files):
        raise UserError(
            f"metadata_path={config.metadata_path}: No such file or directory (BirdCLEF's is "
            "train_metadata.csv, from 2025 on train.csv); name the table with --metadata-path, or "
            "take folders for labels with --from-folders"
        )
    logger.info("no table at %s: folders are the labels", config.metadata_path)
    return rows_from_folders(files, config.train_audio_dir)


def _is_default(path: Path) -> bool:
    default = Config().metadata_path
    return path.parts[-len(default.parts) :] == default.parts


def _tables_nearby(config: Config) -> list[Path]:
    folders = {config.metadata_path.parent, config.train_audio_dir.parent, config.train_audio_dir}
    found = {path for folder in folders for path in folder.glob("*.csv") if path.is_file()}
    found.discard(config.train_dataframe_path)
    return sorted(found)


def rows_from_folders(files: Sequence[str], folder: Path) -> pd.DataFrame:
    """Make a row of each recording, labelled with the first folder that it lies in.

    Raises:
        UserError: no recording lies in a folder.
    """
    plain = [name for name in files if is_plain_path(name)]
    pairs = [(name.split("/")[0], name) for name in plain if "/" in name]
    if not pairs:
        raise UserError(
            f"{folder}: no recordings in folders; put those of a species into a folder of its "
            "name, or give a table with --metadata-path"
        )
    if len(plain) < len(files):
        odd = sorted(set(files).difference(plain))
        logger.warning(
            "%d recordings are left out: %s; %s", len(odd), some([*map(repr, odd)]), RENAME
        )
    if len(pairs) < len(plain):
        n_loose = len(plain) - len(pairs)
        logger.warning("%d recordings lie in no folder and are left out: no label", n_loose)
    table = pd.DataFrame(pairs, columns=["primary_label", "filename"], dtype=str)
    table.attrs["source"] = FROM_FOLDERS
    return table


def tidy_archive(
    metadata: pd.DataFrame, config: Config, files: Sequence[str]
) -> tuple[pd.DataFrame, dict[str, list[Any]]]:
    """Give rows the labels and files they mean, and refuse what cannot be told or is not safe.

    What was repaired is logged, a line for each kind of repair.

    Args:
        metadata: text, as read_archive returns it; the index names its rows in messages.
        config: of which label_column, filename_column, fold_group, non_species and train_audio_dir
            are used.
        files: POSIX paths of all recordings, relative to the audio folder.

    Returns:
        The rows with `primary_label` and `filename` (a path of `files`, or the table's own where
        there is no such file), each different row once; and notes: `repeated_rows`, `non_species`
        (rows left out), `other_folders` (rows whose folder is named after another label).

    Raises:
        UserError: a needed column is missing or no text; an unsafe file name; two rows for one
            file; two files for one row.
    """
    source = metadata.attrs.get("source", "metadata")
    table = match_archive(metadata, config, files)
    distinct = table.drop_duplicates()
    notes: dict[str, list[Any]] = {"repeated_rows": list(table.index.difference(distinct.index))}
    check_filenames(distinct["filename"], source)

    table, notes["non_species"] = _settle_non_species(distinct, config.non_species)
    notes["other_folders"] = _find_other_folders(table)
    table.attrs["source"] = source
    return table, notes


def match_archive(metadata: pd.DataFrame, config: Config, files: Sequence[str]) -> pd.DataFrame:
    """Name the needed columns, repair labels, and find the file of each row: tidy_archive's start.

    Raises:
        UserError: a needed column is missing or no text; two files for one row.
    """
    source = metadata.attrs.get("source", "metadata")
    table = name_columns(
        metadata, label_column=config.label_column, filename_column=config.filename_column
    )
    _check_columns(table, config.fold_group, source)
    table = _tidy_labels(table, files, source)
    names, repairs = match_filenames(
        table["filename"],
        table["primary_label"],
        files,
        folder=config.train_audio_dir,
        source=source,
    )
    for repair, count in sorted(repairs.items()):
        logger.info("%s: %d file names matched %s", source, count, repair)
    return table.assign(filename=names)


def _check_columns(table: pd.DataFrame, fold_group: str | None, source: str) -> None:
    if fold_group and fold_group not in table:
        there = ", ".join(map(repr, table.columns))
        raise UserError(f"{source}: no column {fold_group!r} (fold_group); the columns are {there}")
    for name in NEEDED_COLUMNS:
        if not pd.api.types.is_string_dtype(table[name]) or table[name].hasnans:
            raise UserError(
                f"{source}: {name} is not all text; read the table with catalog.tables.read_table"
            )


def _tidy_labels(table: pd.DataFrame, files: Sequence[str], source: str) -> pd.DataFrame:
    """Repair the primary labels; of several in one cell, all but the first become secondary."""
    original = table["primary_label"]
    labels = original.map(tidy_label)
    refuse(
        labels[labels == ""],
        "is empty",
        f"write the species, or {NO_BIRD} for a recording without a bird",
        source=source,
        filenames=table["filename"],
    )
    table, labels = split_primary(table, labels, source)
    folders = {name.split("/")[0] for name in files if "/" in name}
    repaired = labels.map(number_repair(labels.unique(), folders))

    if n_spaces := int((original.map(tidy_label) != original).sum()):
        logger.info("%s: spaces around or in %d labels taken away", source, n_spaces)
    if n_numbers := int((repaired != labels).sum()):
        first = (repaired != labels).to_numpy().argmax()
        logger.info(
            "%s: %d labels are numbers that a program rewrote, such as %s, read as %s",
            source, n_numbers, labels.iloc[first], repaired.iloc[first],
        )  # fmt: skip
    return table.assign(primary_label=repaired)


def _settle_non_species(table: pd.DataFrame, choice: str) -> tuple[pd.DataFrame, list[Any]]:
    """Leave out or relabel rows whose label is no species, such as Background or _trash."""
    labels = table["primary_label"]
    if choice == "classes":
        return table, []

    distinct = pd.Series(labels.unique(), dtype=object)
    no_bird = labels.isin(distinct[distinct.map(is_no_bird)])
    unsorted = labels.isin(distinct[distinct.map(is_unsorted)]) & ~no_bird
    if choice == "negatives":
        table = table.assign(primary_label=labels.where(~no_bird, NO_BIRD))
        left_out = unsorted
        if no_bird.any():
            logger.info(
                "%d recordings labelled %s are negatives: no bird in them",
                no_bird.sum(), _name(labels[no_bird]),
            )  # fmt: skip
    else:
        left_out = unsorted | no_bird
    if left_out.any():
        logger.warning(
            "%d recordings labelled %s are left out, which is no species; choose with "
            "--non-species: leave_out, negatives (train on them as recordings without a bird) or "
            "classes",
            left_out.sum(), _name(labels[left_out]),
        )  # fmt: skip
    return table[~left_out].copy(), _list_rows(table[left_out])


def _list_rows(rows: pd.DataFrame) -> list[Any]:
    cells = zip(rows.index, rows["filename"], rows["primary_label"], strict=True)
    return [{"row": row, "filename": name, "label": label} for row, name, label in cells]


def _name(labels: pd.Series) -> str:
    return some(sorted(labels.unique()))


def _find_other_folders(table: pd.DataFrame) -> list[Any]:
    """Find rows whose folder bears the name of another label: a table that was sorted wrongly."""
    labels = table["primary_label"].str.casefold()
    folders = table["filename"].str.extract(r"^([^/]+)/", expand=False).fillna("").str.casefold()
    rows = table[folders.isin(set(labels)) & (folders != labels)]
    if len(rows):
        logger.warning(
            "%d of %d rows have another label than the folder of their recording; labels are taken "
            "from the table (--from-folders takes the folders)",
            len(rows), len(table),
        )  # fmt: skip
    return _list_rows(rows)
