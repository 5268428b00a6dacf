"""Reading tables as text, from whatever program wrote them."""

import io
import logging
import warnings
from pathlib import Path
from typing import Any

import pandas as pd

from configs import UserError

logger = logging.getLogger("birdclef.tables")

SHOWN = 5  # rows that a message names
AS_TEXT: dict[str, Any] = {  # for pandas.read_csv: no cell is guessed to be a number or missing
    "dtype": str,
    "keep_default_na": False,
    "na_filter": False,
}


def read_metadata(path: Path) -> pd.DataFrame:
    """Read a metadata table as text: labels such as `22961` and `NA` stay what they are.

    Args:
        path: comma-separated, with a header, UTF-8. Other lines are read as Windows-1252, with a
            warning.

    Returns:
        (n_rows, n_columns) str, empty cells "", no blank rows; the index counts as a spreadsheet
        does (header 1).

    Raises:
        UserError: no such file, not a table, or no rows.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        hint = (
            "BirdCLEF's is train_metadata.csv, from 2025 on train.csv; name it with --metadata-path"
        )
        raise UserError(f"metadata_path={path}: {error.strerror} ({hint})") from None
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise UserError(f"{path}: is UTF-16; save it as CSV in UTF-8")

    try:
        with warnings.catch_warnings():
            # rows with more cells than the header
            warnings.simplefilter("error", pd.errors.ParserWarning)
            utf8 = io.BytesIO(_as_utf8(raw, path))
            table = pd.read_csv(utf8, index_col=False, skip_blank_lines=False, **AS_TEXT)
    except (ValueError, pd.errors.ParserWarning) as error:  # pandas' own errors are ValueErrors
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: not a comma-separated table with a header: {reason}") from None

    table.index = pd.RangeIndex(2, len(table) + 2, name="row")
    table = table[(table != "").any(axis=1)]
    if table.empty:
        raise UserError(f"{path}: no rows below the header")
    table.attrs["source"] = str(path)
    return table


def _as_utf8(raw: bytes, path: Path) -> bytes:
    lines = raw.split(b"\n")
    foreign = [
        number
        for number, line in enumerate(lines)
        if line.decode("utf-8", "ignore").encode() != line
    ]
    for number in foreign:
        lines[number] = lines[number].decode("cp1252", "replace").encode()

    if foreign:
        shown = ", ".join(str(number + 1) for number in foreign[:SHOWN])
        logger.warning(
            "%s: %d lines are not UTF-8, read as Windows-1252: line %s", path, len(foreign), shown
        )
    return b"\n".join(lines)


def refuse(cells: pd.Series, problem: str, remedy: str) -> None:
    """Raise if there are cells, and name the first: `row 5 '../x', row 9 '/y' and 3 more`."""
    if cells.empty:
        return

    shown = ", ".join(f"row {row} {cell[:60]!r}" for row, cell in cells.iloc[:SHOWN].items())
    more = f" and {len(cells) - SHOWN} more" if len(cells) > SHOWN else ""
    raise UserError(f"metadata: {cells.name} {problem}: {shown}{more}; {remedy}")
