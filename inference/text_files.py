"""Text files and tables, written beside and renamed, safe for any file name and any spreadsheet."""

import contextlib
import csv
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from configs import UserError
from files import FORMULA, original_cell, replacing, safe_cell, shorten

# surrogateescape lets file names pass that are not UTF-8.
TEXT: dict[str, Any] = {"encoding": "utf-8", "errors": "surrogateescape", "newline": ""}
LABELS: dict[str, Any] = {"delimiter": "\t", "quoting": csv.QUOTE_NONE, "quotechar": None}


@contextlib.contextmanager
def replacing_text(path: Path) -> Iterator[TextIO]:
    """Open a text file that takes the name `path` when the block ends (see files.replacing).

    Raises:
        CannotWriteError: the disk refuses; what was there before is unchanged.
    """
    with replacing(path) as file:
        text = io.TextIOWrapper(file, **TEXT)
        try:
            yield text
        finally:
            text.detach()  # flushes; replacing closes the file


def write_rows(file: TextIO, rows: Iterable[Sequence[Any]], **how: Any) -> int:
    """Write rows as CSV, text cells made safe for a spreadsheet (see files.safe_cell).

    Args:
        file: where to.
        rows: cells; numbers are written as they are.
        how: csv.writer's settings, a delimiter say.

    Returns:
        The number of rows.
    """
    writer = csv.writer(file, lineterminator="\n", **how)
    n_rows = 0
    for row in rows:
        writer.writerow([safe_cell(cell) if isinstance(cell, str) else cell for cell in row])
        n_rows += 1
    return n_rows


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> int:
    """Write a CSV table with a header; return its number of rows."""
    with replacing_text(path) as file:
        write_rows(file, [columns])
        return write_rows(file, rows)


def read_records(path: Path, failure: str) -> tuple[list[dict[str, str]], list[str]]:
    """Read a CSV that people or evaluate.py wrote: its rows by column, and the columns.

    Cells may be separated in any of the ways of catalog.tables.read_table.

    Args:
        path: the file.
        failure: what a message says before the reason.

    Raises:
        UserError: it cannot be read.
    """
    from catalog.tables import read_table  # loads pandas, which predict.py seldom needs

    try:
        table = read_table(path, may_be_empty=True)
    except UserError as error:
        raise UserError(f"{failure}: {error}") from None
    columns = list(map(str, table.columns))
    rows = [dict(zip(columns, cells, strict=True)) for cells in table.itertuples(index=False)]
    return rows, columns


def path_cell(folder: Path, name: str) -> str:
    """Write a recording's path so that it can be opened and is no formula: `./=1+1.wav`."""
    path = str(folder / name)
    return os.path.join(os.curdir, path) if FORMULA.match(path) else path


def named_after(folder: Path, name: str, suffix: str) -> Path:
    """Name a recording's own file, `<folder>/<name><suffix>`, shortened where it is too long."""
    path = folder / name
    return path.with_name(shorten(path.name) + suffix)


def read_header(path: Path) -> list[str]:
    """Read the names of a table's columns (UserError: it cannot be read)."""
    try:
        with open(path, encoding="utf-8-sig", errors="replace") as file:
            line = file.readline().rstrip("\r\n")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    delimiter = "\t" if "\t" in line else ","
    return [original_cell(cell.strip('"')) for cell in line.split(delimiter)]
