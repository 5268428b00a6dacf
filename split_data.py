"""Join the metadata with the prepared recordings and deal them into folds.

`python split_data.py` reads the metadata and finds the .npy files that prepare_audios.py left. It
writes train.csv (a row per recording: the metadata, its labels, its .npy, its fold) and a report of
the folds.
"""

import json
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from audio.recording import array_name
from catalog.annotated import describe_annotated, read_annotated, write_spans
from catalog.filenames import list_files, refuse_links
from catalog.fingerprint import find_same_sound
from catalog.fold_report import fold_report, format_report
from catalog.folds import assign_folds, group_rows
from catalog.identity import content_ids, recording_names
from catalog.labels import add_labels
from catalog.metadata import read_archive, tidy_archive
from catalog.sources import note_sources
from catalog.tables import read_table
from configs import Config, UserError, configure_logger, load_config, next_command, run_main
from files import csv_text, original_cell, write_file

logger = logging.getLogger("birdclef.split_data")


def split(metadata: pd.DataFrame, config: Config) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Merge metadata with the prepared recordings and deal them into folds.

    Args:
        metadata: text, as read_table returns it; it is not changed.
        config: of which the settings of tables and folds, train_np_dir (holds `<filename>.npy` for
            each filename) and train_audio_dir (where it exists, links out of it are refused) are
            used.

    Returns:
        The rows that have a prepared recording, in their order, with `labels`, `len_labels`,
        `filepath` (POSIX, relative to train_np_dir) and `kfold` (0..n_folds-1); and fold_report
        with what was left out.

    Raises:
        UserError: see tidy_archive, add_labels; nothing prepared; links out of a folder; fewer
            groups than folds.
    """
    reasons = read_reasons(config.report_path)
    rows, notes = tidy_archive(metadata, config, list_recordings(config, reasons))
    table, malformed = add_labels(rows)
    table["filepath"] = table["filename"].map(array_name)
    prepared, is_prepared = find_prepared(table, config)
    absent, table = table.loc[~is_prepared, "filename"], table[is_prepared].copy()

    identities = identify(table, config)
    groups = group_recordings(table, identities, config)
    table["kfold"] = assign_folds(
        table["primary_label"], groups, n_folds=config.n_folds, seed=config.seed
    )
    leftovers = {
        "settings": {
            "n_folds": config.n_folds,
            "seed": config.seed,
            "fold_group": config.fold_group,
        },
        "rows_without_npy": [
            {"row": row, "filename": name, **reasons.get(name, {})} for row, name in absent.items()
        ],
        "npy_without_row": sorted(set(prepared) - set(table["filepath"])),
        "malformed_secondary_labels": [
            {"row": row, "cell": cell[:200]} for row, cell in malformed.items()
        ],
    }
    return table, fold_report(table, identities, config.fold_group) | leftovers | notes


def split_annotated(config: Config) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Deal recordings whose labels have a time into folds, and keep the times beside train.csv.

    Args:
        config: of which annotations and the settings of folds are used.

    Returns:
        As of `split`, with the length of each recording in seconds.

    Raises:
        UserError: see read_annotated; fewer groups of recordings than folds.
    """
    table, spans = read_annotated(config)
    identities = identify(table, config)
    groups = group_recordings(table, identities, config)
    table["kfold"] = assign_folds(
        table["primary_label"], groups, n_folds=config.n_folds, seed=config.seed
    )
    write_spans(spans, config)
    report = fold_report(table, identities, config.fold_group)
    return table, report | describe_annotated(table, spans)


def list_recordings(config: Config, reasons: dict[str, dict[str, str]]) -> list[str]:
    """List what prepare_audios.py has seen: prepared recordings, and those in its report."""
    prepared, _ = list_files(config.train_np_dir, ".npy")
    of_reasons = {array_name(name) for name in reasons}
    others = {name.removesuffix(".npy") for name in prepared if name not in of_reasons}
    return sorted(others | reasons.keys())


def find_prepared(table: pd.DataFrame, config: Config) -> tuple[list[str], pd.Series]:
    """List the prepared recordings, and say of each row whether it has one.

    Raises:
        UserError: no row has one; a row's file is a link out of its folder.
    """
    source = table.attrs.get("source", "metadata")
    prepared, links = list_files(config.train_np_dir, ".npy")
    refuse_links(table["filepath"], links, config.train_np_dir, source)
    if not config.follow_links:
        _, links = list_files(config.train_audio_dir)
        refuse_links(table["filename"], links, config.train_audio_dir, source)

    is_prepared = table["filepath"].isin(prepared)
    if not is_prepared.any():
        first = config.train_np_dir / table["filepath"].iloc[0]
        raise UserError(
            f"no prepared recordings: {first} does not exist, nor any other ({len(prepared)} .npy "
            "seen); run prepare_audios.py first"
        )
    return prepared, is_prepared


def identify(table: pd.DataFrame, config: Config) -> pd.DataFrame:
    """Say which rows are one recording: by their names, their bytes and their sound."""
    paths = [config.train_np_dir / path for path in table["filepath"]]
    identities = recording_names(table["filename"])
    identities["content"] = content_ids(paths)
    identities["sound"] = identities["content"]
    if config.find_copies:
        identities["sound"] = find_same_sound(paths, config.sample_rate)
    return identities


def group_recordings(table: pd.DataFrame, identities: pd.DataFrame, config: Config) -> np.ndarray:
    """Number the groups of rows that must stay in one fold: (n_rows,) int.

    Raises:
        UserError: fewer groups than folds.
    """
    keys = [pd.factorize(identities["key"])[0], *identities[["content", "sound"]].to_numpy().T]
    groups = group_rows(*keys)
    if config.fold_group:
        values = table[config.fold_group].fillna("").str.strip()
        wanted = group_rows(groups, pd.factorize(values.where(values != "", None))[0])
        if wanted.max() == groups.max():
            logger.warning("fold_group=%s joins no recordings: no effect", config.fold_group)
        groups = wanted

    n_groups = groups.max() + 1
    if n_groups < config.n_folds:
        raise UserError(
            f"n_folds={config.n_folds} is more than the {n_groups} independent groups of recordings"
        )
    return groups


def read_reasons(report_path: Path) -> dict[str, dict[str, str]]:
    """Look up what prepare_audios.py said of each file, if it did."""
    try:
        report = read_table(report_path)[["filename", "status", "reason"]]
    except (UserError, KeyError):
        return {}
    report["filename"] = report["filename"].map(original_cell)
    return report.drop_duplicates("filename").set_index("filename").to_dict("index")


def main() -> None:
    """Read the metadata, deal the folds, write train.csv and the report."""
    config = load_config(
        description="Join the metadata with the prepared recordings and deal them into folds.",
        script="split_data",
    )
    configure_logger(config)
    if os.path.realpath(config.metadata_path) == os.path.realpath(config.train_dataframe_path):
        raise UserError(
            f"train_dataframe_path={config.train_dataframe_path} is the metadata itself; name "
            "another file"
        )

    if config.annotations is None:
        recordings = list_recordings(config, read_reasons(config.report_path))
        table, report = split(read_archive(config, recordings), config)
    else:
        table, report = split_annotated(config)
    text = csv_text([table.columns, *table.itertuples(index=False)])
    write_file(config.train_dataframe_path, text)
    report["made_from"] = note_sources(config, text)
    write_file(config.fold_report_path, json.dumps(report, indent=1) + "\n")

    print(format_report(report))
    print(f"wrote {config.train_dataframe_path} and {config.fold_report_path}")
    print(f"next: {next_command('probe.py')} (a first model in minutes)")
    print(f"then: {next_command('train.py')}")


if __name__ == "__main__":
    run_main(main)
