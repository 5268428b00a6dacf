"""Labels: what a cell of a table says, and how a recording's labels are joined in one cell."""

import ast
import re
import unicodedata
import warnings

import numpy as np
import pandas as pd

from catalog.tables import refuse

MAX_CELL = 10_000  # characters of a list that are parsed; 264 eBird codes take 3,000
BAD_LABEL = re.compile(r"^$|^'*[=+\-@]|[\s\x00-\x1f\x7f\ud800-\udfff]")


def parse_secondary_labels(cell: str) -> tuple[str, ...] | None:
    r"""Parse the text of a Python list: `['a', 'b']` is ("a", "b"); an empty cell or list is ().

    Numbers in the list become text. Nothing in the cell is ever run (`ast.literal_eval`).

    Returns:
        The labels, or None for a malformed cell: not a list of names, or over MAX_CELL characters.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the parser's, on escapes such as '\d'
            names = ast.literal_eval(cell or "[]") if len(cell) <= MAX_CELL else None
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
    if not isinstance(names, list | tuple) or not all(type(name) in (str, int) for name in names):
        return None
    return tuple(str(name) for name in names if name != "")


def add_labels(metadata: pd.DataFrame) -> tuple[pd.DataFrame, pd.Series]:
    """Add `labels` (primary, then secondary ones, joined by spaces, none twice) and `len_labels`.

    Args:
        metadata: as check_metadata returns it; without a column secondary_labels there are none.

    Returns:
        The table with both columns, and the malformed secondary_labels cells by row (they count as
        none).

    Raises:
        UserError: a label that is empty, has white space or starts as a formula; labels that differ
            only in case.
    """
    cells = metadata.get("secondary_labels", pd.Series("", index=metadata.index)).fillna("")
    codes, distinct = pd.factorize(cells)
    parsed = [parse_secondary_labels(cell) for cell in distinct]
    malformed = cells[np.array([names is None for names in parsed], dtype=bool)[codes]]

    rows = zip(metadata["primary_label"], codes, strict=True)
    names = [tuple(dict.fromkeys((primary, *(parsed[code] or ())))) for primary, code in rows]
    _check_labels(names, metadata.index)
    labels = [" ".join(row) for row in names]
    return metadata.assign(labels=labels, len_labels=[len(row) for row in names]), malformed


def _check_labels(names: list[tuple[str, ...]], index: pd.Index) -> None:
    # pyarrow's strings cannot hold what is no UTF-8
    with pd.option_context("mode.string_storage", "python"):
        rows = pd.Series(names, index=index, name="label").explode()
        each = rows.drop_duplicates()  # with its first row
    bad = each[each.str.contains(BAD_LABEL)]
    refuse(
        bad,
        "is empty, starts with = + - @ or has white space (labels are joined by spaces)",
        "rename it",
    )

    folded = each.map(lambda name: unicodedata.normalize("NFC", name).casefold())
    twins = each[folded.duplicated(keep=False).to_numpy()]
    refuse(
        twins, "differs from another only in case, one folder on some disks", "spell it in one way"
    )
