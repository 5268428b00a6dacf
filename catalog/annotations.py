"""Labels with a time: who sings from when to when, from the tables that labs have.

Raven selection tables, Audacity labels, BirdNET's tables, CSVs with a start, an end and a label,
one-hot tables of clips and BirdCLEF's labelled soundscapes all become spans: a recording, a start
and an end in seconds, a label. Windows of a recording get the labels of their own time. What a
person said of detections (see catalog/reviews.py) becomes spans with a verdict.
"""

import logging
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from catalog.annotation_columns import Columns, plain_name
from catalog.labels import is_no_bird, parse_labels, split_labels, tidy_label
from catalog.recording_names import RecordingNames
from catalog.reviews import REVIEW_COLUMNS, judge, read_verdict, without_undecided
from catalog.tables import read_table, read_text
from configs import UserError
from files import original_cell

logger = logging.getLogger("birdclef.annotations")

TABLE_SUFFIXES = (".txt", ".csv", ".tsv")

# day_0.Table.1.selections.txt, day_0.BirdNET.results.csv, day_0.wav.txt: a table of day_0
TABLE_ENDINGS = re.compile(
    r"(\.table\.\d+)?([._-]?(selections?|labels?|annotations?|results?))*$"
    r"|(\.birdnet)(\.\w+)*$",
    re.IGNORECASE,
)


class Span(NamedTuple):
    """A label from `start_s` to `end_s` of a recording; `where` names its file and row.

    `verdict` and `refuted` are those of catalog/reviews.py, "" in labels of other kinds.
    """

    filename: str
    start_s: float
    end_s: float
    label: str
    where: str
    verdict: str = ""
    refuted: str = ""


# Reading ------------------------------------------------------------------------------------------


def read_annotations(
    path: Path, recordings: Sequence[str], *, flag: str = "annotations="
) -> pd.DataFrame:
    """Read labels with times from a table, or from a folder of tables.

    A table names its recordings in a column, or is itself named after one (`day_0.txt`,
    `day_0.selections.txt` and `day_0.BirdNET.results.csv` belong to `day_0.wav`). A folder may hold
    both kinds, and may have the recordings' folders: `north/day_0.txt` is of `north/day_0.wav`.

    Args:
        path: a table, or a folder that is searched with its subfolders.
        recordings: names of the recordings, paths below the audio folder.
        flag: what messages put before the path.

    Returns:
        filename (one of `recordings`), start_s, end_s (seconds) and label, a row a span, sorted by
        recording and time. A recording that is annotated and empty has one row, its label "". Where
        a table has verdicts, verdict and refuted follow (see catalog/reviews.py), and recordings of
        which nothing was decided are left out.

    Raises:
        UserError: no table; a row without a usable time, with a recording that is not there or that
            fits two; the message names the file and the row.
    """
    tables = _find_tables(path, flag)
    folders = {table: _folder_below(path, table) for table in tables}
    names = RecordingNames(recordings, folders.values())
    spans: list[Span] = []
    unsure: list[Path] = []
    for table, folder in folders.items():
        spans += _read_spans(table, folder, names, unsure, is_alone=len(tables) == 1)
    if unsure:
        logger.warning(
            "%s%s: %d tables have a column of confidence (%s); each row is taken as a label, "
            "however unsure: delete those that you do not trust",
            flag, path, len(unsure), unsure[0],
        )  # fmt: skip
    if not spans:
        strangers = "; ".join(f"{where}: {text!r}" for text, where in names.strangers.items())
        hint = f" ({strangers[:200]})" if strangers else ""
        raise UserError(f"{flag}{path}: no labels with times for any of the recordings{hint}")

    _log_strangers(names, f"{flag}{path}")
    frame = pd.DataFrame(spans, columns=Span._fields).drop(columns="where")
    frame["label"] = frame["label"].map(tidy_label)
    if not frame["verdict"].any():
        frame = frame.drop(columns=list(REVIEW_COLUMNS))
    else:
        frame = without_undecided(frame)
        if frame.empty:
            raise UserError(f"{flag}{path}: no row has a verdict or a label yet")
    frame = frame.drop_duplicates().sort_values(["filename", "start_s", "end_s", "label"])
    return frame.reset_index(drop=True)


def _find_tables(path: Path, flag: str) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f"{flag}{path}: no such file or folder")

    found = [file for file in path.rglob("*") if file.suffix.lower() in TABLE_SUFFIXES]
    tables = sorted(file for file in found if file.is_file() and file.name[0] != ".")
    if not tables:
        endings = ", ".join(f"*{suffix}" for suffix in TABLE_SUFFIXES)
        raise UserError(f"{flag}{path}: no tables ({endings}) in this folder")
    return tables


def _folder_below(path: Path, table: Path) -> str:
    """Name the folder of a table below that of all, "" for that folder itself."""
    folder = table.parent.relative_to(path).as_posix() if path.is_dir() else "."
    return "" if folder == "." else folder


def _log_strangers(names: RecordingNames, source: str) -> None:
    if names.strangers:
        text, where = next(iter(names.strangers.items()))
        logger.warning(
            "%s: %d recordings of it are not among those here and are left out (%s: %r)",
            source,
            len(names.strangers),
            where,
            text,
        )


def _read_spans(
    path: Path, folder: str, names: RecordingNames, unsure: list[Path], *, is_alone: bool
) -> list[Span]:
    """Read one table, whatever its form; a file in a folder that is no such table gives nothing.

    One that a program has made, with its confidence, is added to `unsure`.
    """
    if _is_audacity(path):
        return _read_audacity(path, folder, names)

    try:
        table = read_table(path, may_be_empty=True)
    except UserError:
        if is_alone:
            raise
        logger.info("%s: no table, left out", path)
        return []

    columns = Columns(table)
    if columns.row_id:
        return _read_row_ids(table, columns, names, folder, path)
    if columns.start is None or (columns.end or columns.duration) is None:
        if is_alone:
            raise UserError(
                f"{path}: no columns for start and end among {_list(table.columns)}; "
                "name them start, end and label, in seconds"
            )
        logger.info("%s: no columns for start and end, left out", path)
        return []
    if columns.confidence and not columns.verdict and len(table):
        unsure.append(path)
    return _read_table_spans(table, columns, names, folder, path)


# Tables with a header -----------------------------------------------------------------------------


def _list(columns: Iterable[str]) -> str:
    return ", ".join(map(repr, columns))


def _read_table_spans(
    table: pd.DataFrame, columns: Columns, names: RecordingNames, folder: str, path: Path
) -> list[Span]:
    if columns.label is None and not columns.one_hot and len(table):
        raise UserError(
            f"{path}: no column for the label among {_list(table.columns)}; name it label"
        )

    own = None
    if columns.file is None or table.empty:
        own = names.find(_recording_of(path), str(path), folder)
    if columns.file is None and own is None:
        return []
    if table.empty:  # annotated, and nothing was found
        return [Span(own, 0.0, 0.0, "", str(path))] if own else []

    spans = []
    for row, cells in _one_view(table, columns).iterrows():
        where = f"{path}: row {row}"
        filename = own or names.find(_name_in(cells, columns), where, folder)
        if filename is None:
            continue

        if _is_without_time(cells, columns):
            spans.append(Span(filename, 0.0, 0.0, "", where))
            continue

        start_s, end_s = _times(cells, columns, where)
        for said in _said(cells, columns, where):
            spans.append(Span(filename, start_s, end_s, said[0], where, *said[1:]))
    return spans


def _said(cells: pd.Series, columns: Columns, where: str) -> Sequence[tuple[str, ...]]:
    """List what a row says: labels, or in a table of verdicts label, verdict and refuted."""
    labels = _labels(cells, columns, where)
    if columns.verdict is None:
        return [(label,) for label in labels]

    verdict = read_verdict(cells[columns.verdict], where)
    detected = cells[columns.detected].strip() if columns.detected else ""
    has_label = columns.label is not None and bool(cells[columns.label].strip())
    return judge(verdict, labels, original_cell(detected), has_label=has_label, where=where)


def _name_in(cells: pd.Series, columns: Columns) -> str:
    """Name the recording of a row, with its folder where the table has one beside it."""
    name = cells[columns.file].strip()
    folder = cells[columns.folder].strip() if columns.folder else ""
    return f"{folder}/{name}" if folder else name


def _one_view(table: pd.DataFrame, columns: Columns) -> pd.DataFrame:
    """Keep one of the rows that Raven writes for each view of a selection, one with its label."""
    if columns.view is None or columns.selection is None:
        return table
    keys = [name for name in (columns.selection, columns.file, columns.start) if name]
    if columns.label:
        has_label = table[columns.label].str.strip() != ""
        is_labelled = has_label.groupby([table[name] for name in keys]).transform("any")
        table = table[has_label | ~is_labelled]
        keys.append(columns.label)
    return table[~table.duplicated(keys)]


def _recording_of(path: Path) -> str:
    """Name the recording that a table is named after."""
    stem = path.name[: -len(path.suffix)]
    return TABLE_ENDINGS.sub("", stem) or stem


def _is_without_time(cells: pd.Series, columns: Columns) -> bool:
    """Say whether a row says no more than that nothing sings in a recording."""
    times = [columns.start, columns.end or columns.duration]
    label = cells[columns.label].strip() if columns.label else ""
    has_label = bool(label) and not is_no_bird(label)
    return not has_label and not any(cells[name].strip() for name in times)


def _times(cells: pd.Series, columns: Columns, where: str) -> tuple[float, float]:
    start_s = _seconds_of(cells, columns.start, where)
    if columns.end is not None:
        end_s = _seconds_of(cells, columns.end, where)
    else:
        end_s = start_s + _seconds_of(cells, columns.duration, where)
    if columns.offset is not None and columns.file is not None and cells[columns.offset].strip():
        # A combined table of Raven counts its times over all files; the offset is within this one.
        offset_s = parse_seconds(cells[columns.offset], where)
        start_s, end_s = offset_s, offset_s + (end_s - start_s)
    _check_order(start_s, end_s, where)
    return start_s, end_s


def _check_order(start_s: float, end_s: float, where: str) -> None:
    if not 0 <= start_s <= end_s:
        raise UserError(
            f"{where}: starts at {start_s:g} s and ends at {end_s:g} s; correct or delete the row"
        )


def _seconds_of(cells: pd.Series, column: str | None, where: str) -> float:
    """Read the time in a column, in milliseconds where its name ends in ms."""
    assert column is not None
    seconds = parse_seconds(cells[column], where)
    return seconds / 1000 if plain_name(column).endswith(" ms") else seconds


def parse_seconds(text: str, where: str) -> float:
    """Read a time in seconds: `62.5`, `62,5`, `62.5 s`, `1:02.5`, `00:01:02.5`.

    Raises:
        UserError: it is none; the message begins with `where`.
    """
    parts = re.sub(r"\s*s(ec)?$", "", text.strip()).replace(",", ".").split(":")
    try:
        numbers = [float(part) for part in parts]
        seconds = sum(number * 60**power for power, number in enumerate(reversed(numbers)))
    except ValueError:
        seconds = float("nan")
    if not np.isfinite(seconds) or len(parts) > 3:
        raise UserError(f"{where}: {text!r} is no time; write seconds, or hours:minutes:seconds")
    return seconds


def _labels(cells: pd.Series, columns: Columns, where: str) -> list[str]:
    if columns.label is None:
        marked = [
            name for name in columns.one_hot if cells[name].strip().lower() in ("1", "1.0", "true")
        ]
        return marked or [""]

    text = cells[columns.label].strip()
    if columns.row_id:  # BirdCLEF joins codes by spaces
        found = tuple(split_labels(text))
    else:
        is_one = not re.search(r"[;|,\[\n]", text)  # "Great tit" is one label
        try:
            found = parse_labels(text, {text} if is_one else ())
        except ValueError as error:
            raise UserError(f"{where}: cannot read the labels {text[:60]!r}: {error}") from None
    birds = [label for label in found if label and not is_no_bird(label)]
    return birds or [""]


# BirdCLEF's labelled soundscapes ------------------------------------------------------------------


def _read_row_ids(
    table: pd.DataFrame, columns: Columns, names: RecordingNames, folder: str, path: Path
) -> list[Span]:
    """Read rows of 5 s windows, named `<recording>_<second of the window's end>` as in BirdCLEF."""
    assert columns.row_id is not None
    if columns.label is None and not columns.one_hot:
        raise UserError(f"{path}: no column for the labels beside {columns.row_id!r}")

    spans = []
    for row, cells in table.iterrows():
        where = f"{path}: row {row}"
        stem, _, second = cells[columns.row_id].strip().rpartition("_")
        end_s = parse_seconds(second, where)
        # 2021's ids are <recording>_<site>_<second>, and recordings are <recording>_<site>_<date>
        filename = names.find(stem, where, folder)
        if filename is not None:
            for label in _labels(cells, columns, where):
                spans.append(Span(filename, max(0.0, end_s - 5.0), end_s, label, where))
    return spans


# Audacity -----------------------------------------------------------------------------------------


def _is_audacity(path: Path) -> bool:
    """Say whether a file begins with a line of start, end and label, without a header.

    BirdNET adds a fourth column, its confidence.
    """
    first = next((line for line in read_text(path).splitlines() if line.strip()), "")
    cells = first.split("\t")
    numbers = cells[:2] + cells[3:]
    return len(cells) in (2, 3, 4) and all(
        re.fullmatch(r"\s*\d+([.,]\d+)?\s*", cell) for cell in numbers
    )


def _read_audacity(path: Path, folder: str, names: RecordingNames) -> list[Span]:
    filename = names.find(_recording_of(path), str(path), folder)
    if filename is None:
        return []

    spans = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        cells = line.split("\t")
        if not line.strip() or cells[0].startswith("\\"):  # the frequencies of the label above
            continue
        where = f"{path}: row {number}"
        if len(cells) < 2:
            raise UserError(f"{where}: expected start, end and label, separated by tabs")
        start_s, end_s = parse_seconds(cells[0], where), parse_seconds(cells[1], where)
        _check_order(start_s, end_s, where)
        label = cells[2].strip() if len(cells) > 2 else ""
        label = "" if label and is_no_bird(label) else label
        spans.append(Span(filename, start_s, end_s, label, where))
    return spans
