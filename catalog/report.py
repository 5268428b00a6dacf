"""prepare_report.csv: what became of each recording, written as it happens."""

import csv
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import files

if TYPE_CHECKING:
    import pandas as pd

Row = dict[str, Any]

GOOD = ("ok", "skipped")  # every other status counts as bad
WITH_AUDIO = ("ok", "skipped", "truncated")  # these have an array
COLUMNS = (
    *("filename", "status", "seconds", "native_rate", "channels", "peak", "reason", "crc32"),
    "made_from",
)
LATER_COLUMNS = {"crc32"}  # which older reports do not have
NUMBERS = ["seconds", "native_rate", "channels", "peak"]


def read_report(path: Path) -> "pd.DataFrame":
    """Read a report: (n, 9), sorted by filename, numbers as such and the rest text."""
    import pandas as pd

    rows = read_rows(path)
    # pyarrow's strings cannot hold names that are no UTF-8
    with pd.option_context("mode.string_storage", "python"):
        named = [rows[name] | {"filename": name} for name in sorted(rows)]
        table = pd.DataFrame(named, columns=list(COLUMNS))
    table[NUMBERS] = table[NUMBERS].apply(pd.to_numeric, errors="coerce")
    return table.astype({"native_rate": "Int64", "channels": "Int64"})


def read_rows(path: Path) -> dict[str, Row]:
    """Read rows by filename, all cells text; of two rows the later counts, and no unfinished one.

    Without a report there are none.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return {}
    return {files.original_cell(row["filename"]): row for row in _whole_rows(text)}


def _whole_rows(text: str) -> Iterator[Row]:
    for row in csv.DictReader(io.StringIO(text, newline="")):
        row = dict.fromkeys(LATER_COLUMNS, "") | row
        if set(row) == set(COLUMNS) and None not in row.values():
            yield row


def write_rows(path: Path, rows: dict[str, Row]) -> None:
    """Write a report anew, sorted by filename."""
    header = files.csv_text([COLUMNS])
    files.write_file(path, (header + _text(sorted(rows.items()))).encode(errors="surrogateescape"))


def append_row(path: Path, name: str, row: Row) -> None:
    """Add a row at once, in case the run is killed."""
    files.append_rows(path, [_cells(name, row)], COLUMNS)


def _text(rows: Iterable[tuple[str, Row]]) -> str:
    return files.csv_text(_cells(name, row) for name, row in rows)


def _cells(name: str, row: Row) -> list[Any]:
    cells = [row.get(column, "") for column in COLUMNS[1:]]
    return [name, *("" if cell is None else cell for cell in cells)]
