"""Labels: what a cell of a table says, and how a recording's labels stand in one cell.

A recording without any bird has the label `nocall` (BirdCLEF's word) and no labels: it is a
negative, and `nocall` is never a class.
"""

import logging
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Collection, Container, Iterable, Sequence

import pandas as pd

from catalog.label_lists import AmbiguousError, MalformedError
from catalog.label_lists import parse_labels as parse_labels
from catalog.tables import refuse

logger = logging.getLogger("birdclef.labels")

NO_BIRD = "nocall"  # primary_label of a negative; its labels are ""

# Words for "no bird", as folders and tables have them; compared without case, spaces, - and _.
NO_BIRD_WORDS = frozenset([
    "nocall", "nobird", "nobirds", "nospecies", "nosignal", "nothing", "none", "negative",
    "negatives", "background", "backgroundnoise", "noise", "ambient", "ambience", "silence",
    "silent", "empty", "absent", "absence", "false",
])  # fmt: skip
# Words for "not sorted" or "thrown away".
UNSORTED_WORDS = frozenset([
    "trash", "bin", "deleted", "delete", "rejected", "reject", "discarded", "discard", "bad",
    "broken", "corrupt", "junk", "garbage", "unsorted", "unlabeled", "unlabelled", "unknown",
    "todo", "tmp", "temp",
])  # fmt: skip

BAD_LABEL = re.compile(r"^$|^'*[=+\-@]|[;\x00-\x1f\x7f\ud800-\udfff]")
FLOAT = re.compile(r"\d+\.0+")
WHOLE_NUMBER = re.compile(r"(\d+)(?:\.0+)?")
SPACE = re.compile(r"[\s\u200b\ufeff]+")


# One cell for several labels ----------------------------------------------------------------------


def join_labels(rows: Sequence[Sequence[str]]) -> list[str]:
    """Write the labels of each row into one cell.

    They are joined by spaces, as BirdCLEF does; by `;` in every row as soon as one label of the
    table has a space ("Great tit;Wren"). `split_labels` gives them back.
    """
    separator = choose_separator(label for labels in rows for label in labels)
    return [separator.join(labels) for labels in rows]


def choose_separator(labels: Iterable[str]) -> str:
    """Choose what separates labels in one cell: a space, or `;` if one of them has a space."""
    return ";" if any(SPACE.search(label) for label in labels) else " "


def split_labels(cell: str, known: Container[str] = ()) -> list[str]:
    """Read a cell that `join_labels` wrote.

    Args:
        cell: labels joined by `;` or by spaces; "" has none.
        known: labels of the table. A cell that is one of them is that label, spaces and all.
    """
    if ";" in cell:
        return [label for label in cell.split(";") if label]
    if cell in known:
        return [cell]
    return cell.split()


def is_no_bird(label: str) -> bool:
    """Say whether a label or a folder's name means a recording without a bird."""
    return _word(label) in NO_BIRD_WORDS


def is_unsorted(label: str) -> bool:
    """Say whether a folder's name means recordings that nobody has sorted, or threw away."""
    return _word(label) in UNSORTED_WORDS or label.startswith(("_", "."))


def _word(label: str) -> str:
    return re.sub(r"[\W_]+", "", label).casefold()


# A table's labels ---------------------------------------------------------------------------------


def tidy_label(label: str) -> str:
    """Drop spaces around a label and doubled ones in it; accents take their composed form (NFC)."""
    return SPACE.sub(" ", unicodedata.normalize("NFC", label)).strip()


def number_repair(labels: Iterable[str], known: Collection[str]) -> Callable[[str], str]:
    """Return a function that gives numbers their spelling back.

    A spreadsheet writes 7 for 007, and pandas 22961.0 for 22961 where one cell of the column is
    empty. A number is repaired if a known label or folder is that number, or if all numbers among
    the labels end in `.0`.

    Args:
        labels: of the whole column.
        known: right spellings.
    """
    numbers = {label for label in labels if WHOLE_NUMBER.fullmatch(label)}
    all_floats = all(FLOAT.fullmatch(label) for label in numbers)
    spelled: dict[int, set[str]] = defaultdict(set)
    for name in known:
        if name.isdecimal():
            spelled[int(name)].add(name)

    def repair(label: str) -> str:
        match = WHOLE_NUMBER.fullmatch(label)
        if label in known or not match:
            return label
        found = spelled[int(match[1])]
        if len(found) == 1:
            return min(found)
        return match[1] if all_floats else label

    return repair


def split_primary(
    table: pd.DataFrame, labels: pd.Series, source: str
) -> tuple[pd.DataFrame, pd.Series]:
    """Take the first of several labels in one cell as primary, and the others as secondary.

    Several are a list in brackets, or labels separated by `;` or `|`; a comma or a space may be
    part of a name.
    """
    several = labels[labels.str.contains(r"^\[.*\]$|[;|]")]
    if several.empty:
        return table, labels

    known = set(labels) - set(several)
    parsed = several.map(lambda cell: _try_to_parse(cell, known))
    is_list = parsed.map(lambda found: isinstance(found, tuple) and len(found) > 0)
    refuse(
        several[~is_list],
        "is no label and no list of labels",
        "separate labels by ;",
        source=source,
        filenames=table["filename"],
    )
    logger.info(
        "%s: of %d cells with a list, the first label is primary, others secondary",
        source,
        len(several),
    )
    secondary = table.get("secondary_labels", pd.Series("", index=table.index)).copy()
    for row, found in parsed.items():
        others = _try_to_parse(secondary[row], known)
        if len(found) > 1 and isinstance(others, tuple):
            secondary[row] = repr([*found[1:], *others])
    first = parsed.map(lambda found: tidy_label(found[0]))
    return table.assign(secondary_labels=secondary), first.reindex(labels.index).fillna(labels)


def add_labels(metadata: pd.DataFrame) -> tuple[pd.DataFrame, pd.Series]:
    """Add `labels` (primary, then secondary ones, none twice; see join_labels) and `len_labels`.

    Args:
        metadata: with primary_label, where NO_BIRD means none, and maybe secondary_labels.

    Returns:
        The table with both columns, and the malformed secondary_labels cells by row (they count as
        none).

    Raises:
        UserError: a label that is empty, holds `;` or starts as a formula; labels that differ only
            in case; a cell that may be read in two ways.
    """
    primary = metadata["primary_label"]
    cells = metadata.get("secondary_labels", pd.Series("", index=metadata.index)).fillna("")
    secondary, malformed = _parse_column(cells, set(primary), metadata)

    names = []
    for label, others in zip(primary, secondary, strict=True):
        several = dict.fromkeys([label, *others])
        several.pop(NO_BIRD, None)
        names.append(tuple(several))
    _check_labels(names, primary, metadata)
    labels = join_labels(names)
    return metadata.assign(labels=labels, len_labels=[len(row) for row in names]), malformed


def _parse_column(
    cells: pd.Series, primary: set[str], metadata: pd.DataFrame
) -> tuple[list[tuple[str, ...]], pd.Series]:
    """Read the cells of a column: the labels of each row, and the malformed cells by row."""
    codes, distinct = pd.factorize(cells)
    parsed = [_try_to_parse(cell, primary) for cell in distinct]
    known = primary | {label for found in parsed if isinstance(found, tuple) for label in found}
    parsed = [
        _try_to_parse(cell, known) if isinstance(found, str) else found
        for cell, found in zip(distinct, parsed, strict=True)
    ]
    faults = pd.Series([found if isinstance(found, str) else "" for found in parsed], dtype=object)
    for fault in faults[faults != ""].unique():
        refuse(
            cells[(faults == fault).to_numpy()[codes]],
            f"cannot be told apart, {fault}",
            "separate labels by ; or write ['a', 'b']",
            source=metadata.attrs.get("source", "metadata"),
            filenames=metadata.get("filename"),
        )

    found_labels = {label for found in parsed for label in found or ()}
    repair = number_repair(found_labels, primary)
    rows = [tuple(repair(tidy_label(label)) for label in found or ()) for found in parsed]
    is_malformed = pd.Series([found is None for found in parsed], dtype=bool).to_numpy()[codes]
    return [rows[code] for code in codes], cells[is_malformed]


def _try_to_parse(cell: str, known: Container[str]) -> tuple[str, ...] | str | None:
    """Return the labels of a cell; why it cannot be told apart; or None if it is malformed."""
    try:
        return parse_labels(cell, known)
    except AmbiguousError as error:
        return str(error)
    except MalformedError:
        return None


def _check_labels(names: list[tuple[str, ...]], primary: pd.Series, metadata: pd.DataFrame) -> None:
    """Refuse labels that cannot be a class's name, and pairs that one folder would hold."""
    source, index = metadata.attrs.get("source", "metadata"), metadata.index
    # pyarrow's strings cannot hold what is no UTF-8
    with pd.option_context("mode.string_storage", "python"):
        rows = pd.Series(names, index=index, name="label").explode().dropna()
        each = rows.drop_duplicates().astype(str)  # with its first row
    refuse(
        each[each.str.contains(BAD_LABEL)],
        "is empty, starts with = + - @, or holds ; or control characters",
        "rename it",
        source=source,
        filenames=metadata.get("filename"),
    )

    folded = each.map(lambda name: unicodedata.normalize("NFC", name).casefold())
    refuse(
        each[folded.duplicated(keep=False).to_numpy()],
        "differs from another only in case, one folder on some disks",
        "spell it in one way",
        source=source,
    )
