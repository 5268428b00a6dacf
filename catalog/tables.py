"""The one reader of tables: text from whatever program wrote them.

No cell is guessed to be a number, a date or missing: `007`, `NA` and `22961` stay what they are.
"""

import csv
import io
import itertools
import logging
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from configs import SHOWN, UserError, some

logger = logging.getLogger("birdclef.tables")

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
BYTE_ORDER_MARKS = {  # UTF-32's begins as UTF-16's does, so it comes first
    b"\xff\xfe\x00\x00": "utf-32",
    b"\x00\x00\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
    b"\xef\xbb\xbf": "utf-8-sig",
}
OTHER_FORMATS = {  # by how a file begins
    b"PK\x03\x04": "a spreadsheet file (.xlsx, .ods)",
    b"\xd0\xcf\x11\xe0": "an old Excel file (.xls)",
    b"PAR1": "a Parquet file",
    b"SQLite format 3": "a database",
    b"\x1f\x8b": "compressed",
    b"%PDF": "a PDF",
    b"<!DOCTYPE": "a web page",
    b"<html": "a web page",
    **dict.fromkeys((b'{"', b"[{", b"{\n", b"[\n"), "JSON"),
}
MAX_CELL_LENGTH = 1 << 20  # characters; an unclosed quote makes one cell of the rest of the file


def read_table(path: Path, *, may_be_empty: bool = False) -> pd.DataFrame:
    """Read a table of text with a header.

    Columns may be separated by commas, semicolons, tabs or vertical bars. UTF-8, UTF-16 and UTF-32
    are read, with and without a byte order mark; lines that are not UTF-8 are read as Windows-1252,
    with a warning.

    Args:
        path: the table.
        may_be_empty: accept a header without rows.

    Returns:
        (n_rows, n_columns) str: empty cells are "", blank rows and columns without a name or a cell
        are left out. The index counts rows as a spreadsheet does (the header is 1), and
        `attrs["source"]` is the path.

    Raises:
        UserError: no such file, not a table, no rows, or a row with more cells than the header.
    """
    text = read_text(path)
    rows, first_row = _read_rows(text, path)
    header, rows = _fit_columns(rows[0], rows[1:], path, first_row)

    index = pd.RangeIndex(first_row + 1, first_row + 1 + len(rows), name="row")
    table = pd.DataFrame(rows, columns=header, index=index, dtype=str)
    table = table[np.array([not _is_blank(row) for row in rows], dtype=bool)]
    if table.empty and not may_be_empty:
        raise UserError(f"{path}: no rows below the header")
    table.attrs["source"] = str(path)
    return table


# Text ---------------------------------------------------------------------------------------------


def read_text(path: Path) -> str:
    """Read a file of text in any of the encodings of `read_table`.

    Raises:
        UserError: it cannot be read, or is damaged UTF-16 or UTF-32.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    return _decode(raw, path)


def _decode(raw: bytes, path: Path) -> str:
    for start, what in OTHER_FORMATS.items():
        if raw.startswith(start):
            raise UserError(f"{path}: is {what}; save it as CSV in UTF-8")

    encoding = next((name for mark, name in BYTE_ORDER_MARKS.items() if raw.startswith(mark)), "")
    encoding = encoding or _utf16_without_mark(raw)
    if encoding and encoding != "utf-8-sig":
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: is damaged {encoding.upper()}: {error.reason}") from None
    return _decode_lines(raw.removeprefix(b"\xef\xbb\xbf"), path)


def _utf16_without_mark(raw: bytes) -> str:
    """Name the encoding of text in which every other byte is 0, else ""."""
    start = raw[:200]
    if len(start) < 20 or len(start) % 2:
        return ""
    if not any(start[::2]):
        return "utf-16-be"
    return "" if any(start[1::2]) else "utf-16-le"


def _decode_lines(raw: bytes, path: Path) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        pass

    lines, foreign = [], []
    for number, line in enumerate(raw.split(b"\n"), 1):
        try:
            lines.append(line.decode())
        except UnicodeDecodeError:
            lines.append(line.decode("cp1252", "replace"))
            foreign.append(str(number))
    logger.warning(
        "%s: %d lines are not UTF-8, read as Windows-1252: line %s",
        path,
        len(foreign),
        some(foreign),
    )
    return "\n".join(lines)


# Rows and columns ---------------------------------------------------------------------------------


def _read_rows(text: str, path: Path) -> tuple[list[list[str]], int]:
    """Return the rows from the header on, and the header's row number."""
    first_row = 1
    declared = re.match(r"sep=(.)\r?\n", text)  # Excel's own first line
    if declared:
        text, first_row = text[declared.end() :], 2

    delimiter = declared[1] if declared else find_delimiter(text)
    if delimiter != ",":
        logger.info("%s: columns are separated by %s", path, DELIMITERS.get(delimiter, delimiter))
    try:
        rows = list(_parse(text, delimiter))
    except csv.Error as error:
        raise UserError(f"{path}: not a table of text: {error}") from None

    n_blank = sum(1 for _ in itertools.takewhile(_is_above_the_header, rows))
    if n_blank == len(rows):
        raise UserError(f"{path}: not a table of text: it is empty")
    return rows[n_blank:], first_row + n_blank


def _is_above_the_header(row: list[str]) -> bool:
    """Say whether a first row is blank or a remark that begins with # and a space."""
    return _has_no_text(row) or row[0].lstrip().startswith("# ")


def _is_blank(row: list[str]) -> bool:
    return not any(cell.strip() for cell in row)


def _has_no_text(row: list[str]) -> bool:
    """Say whether a row is blank, whatever its delimiter is."""
    return not any(cell.strip(" \t,;|") for cell in row)


def find_delimiter(text: str) -> str:
    """Find what separates the columns: the delimiter that cuts the header into most cells."""
    n_cells = {}
    for delimiter in DELIMITERS:
        try:
            rows = _parse(text, delimiter)
            header = next((row for row in rows if not _has_no_text(row)), [])
        except csv.Error:
            header = []
        n_cells[delimiter] = sum(1 for cell in header if cell.strip())
    return max(DELIMITERS, key=lambda delimiter: n_cells[delimiter])


def _parse(text: str, delimiter: str) -> Iterator[list[str]]:
    """Yield rows as lists of cells; a quote that is never closed is a csv.Error."""
    csv.field_size_limit(MAX_CELL_LENGTH)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise csv.Error(f"line {reader.line_num}: {error}") from None
        yield row


def _fit_columns(
    header: list[str], rows: list[list[str]], path: Path, first_row: int
) -> tuple[list[str], list[list[str]]]:
    """Give every row as many cells as the header; drop trailing columns without name and cells."""
    header = [cell.strip().strip("\ufeff") for cell in header]
    width = max(map(len, rows), default=0)
    rows = [row + [""] * (len(header) - len(row)) for row in rows]
    while header and not header[-1] and not any(_cell(row, len(header) - 1) for row in rows):
        header.pop()

    if width > len(header):
        _refuse_longer_rows(rows, len(header), path, first_row)
        rows = [row[: len(header)] for row in rows]
    return _name_columns(header, path), rows


def _cell(row: list[str], column: int) -> str:
    return row[column].strip() if column < len(row) else ""


def _refuse_longer_rows(rows: list[list[str]], n_columns: int, path: Path, first_row: int) -> None:
    for number, row in enumerate(rows, first_row + 1):
        if not _is_blank(row[n_columns:]):
            raise UserError(
                f"{path}: row {number} has {len(row)} cells, the header {n_columns}; put quotes "
                "around a cell that holds the delimiter"
            )


def _name_columns(header: list[str], path: Path) -> list[str]:
    """Name columns as pandas does: `Unnamed: 0` for one without a name, `notes.1` for a second."""
    seen: Counter[str] = Counter()
    names = []
    for position, name in enumerate(header):
        name = name or f"Unnamed: {position}"
        if seen[name]:
            logger.info("%s: a second column %r is read as '%s.%d'", path, name, name, seen[name])
        names.append(f"{name}.{seen[name]}" if seen[name] else name)
        seen[name] += 1
    return names


# Messages -----------------------------------------------------------------------------------------


def refuse(
    cells: pd.Series, problem: str, remedy: str, *, source: str, filenames: Any = None
) -> None:
    """Raise if there are cells, naming the first: `row 5 '../x', row 9 '/y' and 3 more`.

    Args:
        cells: the faulty cells; their name is the column, their index the rows.
        problem: what is wrong with them, after the column's name.
        remedy: what to do.
        source: the table's path.
        filenames: a Series with the file name of each row, where the cells are others.

    Raises:
        UserError: there are cells.
    """
    if cells.empty:
        return

    shown = []
    for row, cell in cells.iloc[:SHOWN].items():
        recording = f" ({filenames[row]})" if filenames is not None else ""
        shown.append(f"row {row} {str(cell)[:60]!r}{recording}")
    more = f" and {len(cells) - SHOWN} more" if len(cells) > SHOWN else ""
    raise UserError(f"{source}: {cells.name} {problem}: {', '.join(shown)}{more}; {remedy}")
