"""File names: what a table may call a recording, and what lies below a folder."""

import os
import re
from pathlib import Path

import pandas as pd

from catalog.tables import refuse
from configs import UserError

NEEDED_COLUMNS = ["primary_label", "filename"]
BAD_PATH = re.compile(r"^'*[=+\-@]|^/|^[A-Za-z]:|[\\\x00-\x1f\x7f]|(?:^|/)\.{0,2}(?:/|$)")


def check_metadata(metadata: pd.DataFrame, fold_group: str | None = None) -> pd.DataFrame:
    """Refuse what cannot be used or is not safe; keep one of rows that are the same in every cell.

    Args:
        metadata: text, with primary_label and filename (`<label>/<id>.ogg`); the index names its
            rows in messages.
        fold_group: another column it must have.

    Raises:
        UserError: a needed column is missing or not text; a filename that is absolute, has `..`,
            backslashes or control characters, or starts as a formula; different rows for one
            filename.
    """
    wanted = [*NEEDED_COLUMNS, *([fold_group] if fold_group else [])]
    if missing := [name for name in wanted if name not in metadata.columns]:
        source = metadata.attrs.get("source", "metadata")
        there = ", ".join(map(repr, metadata.columns))
        raise UserError(
            f"{source}: no column {' or '.join(map(repr, missing))}; the columns are {there}"
        )
    for name in NEEDED_COLUMNS:
        if not pd.api.types.is_string_dtype(metadata[name]) or metadata[name].hasnans:
            raise UserError(
                f"metadata: {name} is not all text; read the table with "
                "catalog.tables.read_metadata"
            )

    names = metadata["filename"]
    refuse(
        names[names.str.contains(BAD_PATH)],
        "is not a plain path in the audio folder",
        "write it like a/XC1.ogg",
    )
    metadata = metadata.drop_duplicates()
    names = metadata["filename"]
    twins = names[names.str.casefold().duplicated(keep=False)]  # on some disks they are one file
    refuse(twins, "stands in several rows, perhaps in other case", "keep one row per recording")
    return metadata


def list_files(folder: Path, suffix: str = "") -> tuple[list[str], list[str]]:
    """List the files below a folder, and the links that lead out of it.

    Both are sorted POSIX paths relative to the folder; none where there is no such folder. Links to
    folders are not followed.
    """
    root = os.path.realpath(folder)
    paths = [
        os.path.join(top, name) for top, folders, names in os.walk(root) for name in folders + names
    ]
    files = [path for path in paths if path.endswith(suffix) and os.path.isfile(path)]
    links = [path for path in paths if os.path.islink(path) and not _leads_inside(path, root)]
    return _relative(files, root), _relative(links, root)


def _leads_inside(path: str, root: str) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(root)


def _relative(paths: list[str], root: str) -> list[str]:
    return sorted(path[len(root) + 1 :].replace(os.sep, "/") for path in paths)


def refuse_links(paths: pd.Series, links: list[str], folder: Path) -> None:
    """Refuse rows whose file is a link out of the folder, or lies behind one."""
    behind = paths.isin(links) | paths.str.startswith(tuple(f"{link}/" for link in links))
    refuse(paths[behind], f"is a link out of {folder}", "put the file itself there")
