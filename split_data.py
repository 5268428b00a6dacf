"""Join the metadata with the prepared recordings and deal them into folds.

`python split_data.py` reads the metadata and finds the .npy files that prepare_audios.py left. It
writes train.csv (a row per recording: the metadata, its labels, its .npy, its fold) and a report of
the folds.
"""

import ast
import hashlib
import io
import json
import logging
import os
import re
import unicodedata
import warnings
from collections.abc import Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from catalog.folds import assign_folds, group_rows, recording_ids
from configs import Config, UserError, configure_logger, load_config, next_command, run_main

logger = logging.getLogger("birdclef.split_data")

NEEDED_COLUMNS = ["primary_label", "filename"]
MAX_CELL = (
    10_000  # characters of a secondary_labels cell that are parsed; 264 eBird codes take 3,000
)
SHOWN = 5  # rows that a message names
READERS = 8  # threads that compare files: they wait for the disk more than they compute
AS_TEXT: dict[str, Any] = {
    "dtype": str,
    "keep_default_na": False,
    "na_filter": False,
}  # for pandas.read_csv

# A spreadsheet runs a cell as a formula by its first character (OWASP, CSV injection); numbers are
# none.
FORMULA = re.compile(r"^'*[=+\-@\t]")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
BAD_LABEL = re.compile(r"^$|^'*[=+\-@]|[\s\x00-\x1f\x7f\ud800-\udfff]")
BAD_PATH = re.compile(r"^'*[=+\-@]|^/|^[A-Za-z]:|[\\\x00-\x1f\x7f]|(?:^|/)\.{0,2}(?:/|$)")

LEFTOVERS = {  # of the report, as people read them
    "copies": "recordings there more than once, each kept in one fold",
    "uneven_classes": "classes uneven because groups stay together",
    "rows_without_npy": "metadata rows without a prepared recording, left out",
    "npy_without_row": "prepared recordings without a metadata row, left out",
    "malformed_secondary_labels": "malformed secondary_labels, read as none",
    "repeated_rows": "repeated rows, kept once",
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
            warnings.simplefilter(
                "error", pd.errors.ParserWarning
            )  # rows with more cells than the header
            utf8 = io.BytesIO(_as_utf8(raw, path))
            table = pd.read_csv(utf8, index_col=False, skip_blank_lines=False, **AS_TEXT)
    except (ValueError, pd.errors.ParserWarning) as error:  # pandas' own errors are ValueErrors
        raise UserError(
            f"{path}: not a comma-separated table with a header: {' '.join(str(error).split())}"
        ) from None
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
    if missing := [
        name for name in (*NEEDED_COLUMNS, fold_group) if name and name not in metadata.columns
    ]:
        source, there = (
            metadata.attrs.get("source", "metadata"),
            ", ".join(map(repr, metadata.columns)),
        )
        raise UserError(
            f"{source}: no column {' or '.join(map(repr, missing))}; the columns are {there}"
        )
    for name in NEEDED_COLUMNS:
        if not pd.api.types.is_string_dtype(metadata[name]) or metadata[name].hasnans:
            raise UserError(
                f"metadata: {name} is not all text; read the table with split_data.read_metadata"
            )
    names = metadata["filename"]
    _refuse(
        names[names.str.contains(BAD_PATH)],
        "is not a plain path in the audio folder",
        "write it like a/XC1.ogg",
    )
    metadata = metadata.drop_duplicates()
    names = metadata["filename"]
    twins = names[names.str.casefold().duplicated(keep=False)]  # on some disks they are one file
    _refuse(twins, "stands in several rows, perhaps in other case", "keep one row per recording")
    return metadata


def _refuse(cells: pd.Series, problem: str, remedy: str) -> None:
    """Raise, naming the first rows and their cells: `row 5 '../x', row 9 '/y' and 3 more`."""
    if len(cells):
        shown = ", ".join(f"row {row} {cell[:60]!r}" for row, cell in cells.iloc[:SHOWN].items())
        more = f" and {len(cells) - SHOWN} more" if len(cells) > SHOWN else ""
        raise UserError(f"metadata: {cells.name} {problem}: {shown}{more}; {remedy}")


def parse_secondary_labels(cell: str) -> tuple[str, ...] | None:
    r"""Parse the text of a Python list: `['a', 'b']` is ("a", "b"); an empty cell, `[]` and `['']` are ().

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
    with pd.option_context(
        "mode.string_storage", "python"
    ):  # pyarrow's strings cannot hold what is no UTF-8
        each = (
            pd.Series(names, index=metadata.index, name="label").explode().drop_duplicates()
        )  # with its first row
    bad = each[each.str.contains(BAD_LABEL)]
    _refuse(
        bad,
        "is empty, starts with = + - @ or has white space (labels are joined by spaces)",
        "rename it",
    )
    folded = each.map(lambda name: unicodedata.normalize("NFC", name).casefold())
    twins = each[folded.duplicated(keep=False).to_numpy()]
    _refuse(
        twins, "differs from another only in case, one folder on some disks", "spell it in one way"
    )
    return metadata.assign(
        labels=[" ".join(row) for row in names], len_labels=[len(row) for row in names]
    ), malformed


def list_files(folder: Path, suffix: str = "") -> tuple[list[str], list[str]]:
    """List the files below a folder, links to folders not followed, and the links that lead out of it.

    Both are sorted POSIX paths relative to the folder; none where there is no such folder.
    """
    root = os.path.realpath(folder)
    paths = [
        os.path.join(top, name) for top, folders, names in os.walk(root) for name in folders + names
    ]
    files = [path for path in paths if path.endswith(suffix) and os.path.isfile(path)]
    links = [
        path
        for path in paths
        if os.path.islink(path) and not Path(os.path.realpath(path)).is_relative_to(root)
    ]
    files, links = (
        sorted(path[len(root) + 1 :].replace(os.sep, "/") for path in found)
        for found in (files, links)
    )
    return files, links


def _refuse_links(paths: pd.Series, links: list[str], folder: Path) -> None:
    behind = paths.isin(links) | paths.str.startswith(tuple(f"{link}/" for link in links))
    _refuse(paths[behind], f"is a link out of {folder}", "put the file itself there")


def content_ids(paths: Sequence[str | Path]) -> np.ndarray:
    """Number files by their content: (n_files,) int, equal for two files where every byte is.

    Size and a block from the middle tell most apart; the others are read whole. UserError where
    that is impossible.
    """
    ids = np.zeros(len(paths), dtype=np.int64)
    with ThreadPool(READERS) as pool:
        for digest in (_quick_digest, _whole_digest):
            shared = np.flatnonzero(pd.Series(ids).duplicated(keep=False))
            values = pool.imap(digest, [paths[int(i)] for i in shared], chunksize=64)
            try:
                found = list(
                    tqdm(values, "looking for copies", len(shared), leave=False, disable=None)
                )
            except OSError as error:
                raise UserError(f"{error.filename}: cannot be read: {error.strerror}") from None
            ids[shared] = ids.max(initial=0) + 1 + pd.factorize(np.array(found, dtype=object))[0]
    return pd.factorize(ids)[0]


def _quick_digest(path: str | Path) -> bytes:
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(size // 2)
        return hashlib.blake2b(b"%d %s" % (size, file.read(4096))).digest()


def _whole_digest(path: str | Path) -> bytes:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "blake2b").digest()


def split(metadata: pd.DataFrame, config: Config) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Merge metadata with the prepared recordings and deal them into folds.

    Args:
        metadata: text, as read_metadata returns it; it is not changed.
        config: of which n_folds, seed, fold_group, train_np_dir (holds `<filename>.npy` for each
            filename) and train_audio_dir (where it exists, links out of it are refused) are used.

    Returns:
        The rows that have a prepared recording, in their order, with `labels`, `len_labels`,
        `filepath` (POSIX, relative to train_np_dir) and `kfold` (0..n_folds-1); and fold_report
        with what was left out.

    Raises:
        UserError: see check_metadata, add_labels; nothing prepared; links out of a folder; fewer
            groups than folds.
    """
    np_dir, n_folds, fold_group = config.train_np_dir, config.n_folds, config.fold_group
    table, malformed = add_labels(checked := check_metadata(metadata, fold_group))
    table["filepath"] = table["filename"] + ".npy"
    prepared, links = list_files(np_dir, ".npy")
    _refuse_links(table["filepath"], links, np_dir)
    _refuse_links(table["filename"], list_files(config.train_audio_dir)[1], config.train_audio_dir)
    there = table["filepath"].isin(prepared)
    if not there.any():
        seen = f"{np_dir / table['filepath'].iloc[0]} does not exist, nor any other ({len(prepared)} .npy seen)"
        raise UserError(f"no prepared recordings: {seen}; run prepare_audios.py first")
    absent, table = table.loc[~there, "filename"], table[there].copy()

    contents = content_ids([f"{np_dir}/{path}" for path in table["filepath"]])
    keys = [pd.factorize(recording_ids(table["filename"]))[0], contents]
    if fold_group:
        values = table[fold_group].fillna("").str.strip()
        keys.append(pd.factorize(values.where(values != "", None))[0])
    groups = group_rows(*keys)
    if groups.max() + 1 < n_folds:
        raise UserError(
            f"n_folds={n_folds} is more than the {groups.max() + 1} independent groups of recordings"
        )
    table["kfold"] = assign_folds(table["primary_label"], groups, n_folds=n_folds, seed=config.seed)
    reasons = _reasons(config.report_path)
    return table, fold_report(table, contents, fold_group) | {
        "settings": {"n_folds": n_folds, "seed": config.seed, "fold_group": fold_group},
        "rows_without_npy": [
            {"row": row, "filename": name, **reasons.get(name, {})} for row, name in absent.items()
        ],
        "npy_without_row": sorted(set(prepared) - set(table["filepath"])),
        "malformed_secondary_labels": [
            {"row": row, "cell": cell[:200]} for row, cell in malformed.items()
        ],
        "repeated_rows": list(metadata.index.difference(checked.index)),
    }


def _reasons(report_path: Path) -> dict[str, dict[str, str]]:
    """Look up what prepare_audios.py said of each file, if it did."""
    try:
        report = pd.read_csv(report_path, **AS_TEXT)[
            ["filename", "status", "reason"]
        ].drop_duplicates("filename")
    except (OSError, ValueError, KeyError):
        return {}
    return report.set_index("filename").to_dict("index")


def fold_report(
    table: pd.DataFrame, contents: np.ndarray, fold_group: str | None = None
) -> dict[str, Any]:
    """Count what each fold holds and what is in several folds.

    Args:
        table: with primary_label, filename, kfold and perhaps author and the column fold_group.
        contents: (n_rows,) int, the same for files of the same content.
        fold_group: a column.

    Returns:
        Plain types: `folds`; `leakage`, the ids, contents (by a filename) and authors in several
        folds; `copies`, the filenames of recordings there more than once; `uneven_classes`, whose
        counts differ by more than one.
    """
    counts = (
        table.groupby(["primary_label", "kfold"]).size().unstack(fill_value=0)
    )  # (n_classes, n_folds)
    folds = [
        {
            "fold": fold,
            "recordings": int(column.sum()),
            "classes": int((column > 0).sum()),
            "classes_without_training_data": list(counts.index[column == counts.sum(axis=1)]),
            "classes_without_validation_data": list(counts.index[column == 0]),
        }
        for fold, column in counts.items()
    ]
    keys = {
        "id": recording_ids(table["filename"]),
        "content": table["filename"].groupby(contents).transform("first"),
    }
    groups = group_rows(pd.factorize(keys["id"])[0], contents)
    several = pd.Series(groups).duplicated(keep=False).to_numpy()
    keys |= {
        name: table[name].fillna("") for name in ("author", fold_group or "author") if name in table
    }
    leakage = {}
    for name, values in keys.items():
        in_folds = table["kfold"].groupby(values[values != ""]).nunique()
        leakage[name] = {
            "distinct": len(in_folds),
            "in_several_folds": list(in_folds.index[in_folds > 1]),
        }
    return {
        "recordings": len(table),
        "classes": len(counts),
        "folds": folds,
        "leakage": leakage,
        "copies": [list(names) for _, names in table["filename"][several].groupby(groups[several])],
        "uneven_classes": list(counts.index[counts.max(axis=1) - counts.min(axis=1) > 1]),
    }


def format_report(report: dict[str, Any]) -> str:
    """Lay out the report of split for people: a table of the folds, then a line for each finding."""
    folds = [
        [len(cell) if isinstance(cell, list) else cell for cell in fold.values()]
        for fold in report["folds"]
    ]
    columns = ["fold", "recordings", "classes", "without training data", "without validation data"]
    crossing = [
        f"{len(of['in_several_folds'])} of {of['distinct']} {name}s"
        for name, of in report["leakage"].items()
    ]
    lines = [
        f"{report['recordings']} recordings of {report['classes']} classes",
        pd.DataFrame(folds, columns=columns).to_string(index=False),
        f"in several folds: {', '.join(crossing)}",
    ]
    for key, title in LEFTOVERS.items():
        items = [
            ", ".join(map(str, item.values())) if isinstance(item, dict) else item
            for item in report[key]
        ]
        shown = "; ".join(repr(item) for item in items[:SHOWN]) + (
            "; ..." if len(items) > SHOWN else ""
        )
        lines.append(f"{title}: {len(items)}" + (f" ({shown})" if items else ""))
    return "\n".join(lines)


def spreadsheet_safe(cells: pd.Series) -> pd.Series:
    r"""Put an apostrophe before text that a spreadsheet would run as a formula: `=cmd` becomes `'=cmd`.

    Numbers stay. Such text that has apostrophes already gets one more, so that taking one from
    every cell that matches `^'+[=+\-@\t]` gives the original back. Carriage returns become line
    feeds: they would end the row.
    """
    cells = cells.fillna("")
    odd = cells[cells.str.contains(rf"{FORMULA.pattern}|\r", regex=True)].str.replace(
        r"\r\n?", "\n", regex=True
    )
    risky = odd.str.match(FORMULA) & ~odd.str.fullmatch(NUMBER)
    cells.loc[odd.index] = odd.where(~risky, "'" + odd)
    return cells


def _write(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text, encoding="utf-8", newline="")
        part.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from None


# What the table was made from ---------------------------------------------------------------------


def note_sources(config: Config, table: str) -> dict[str, str]:
    """Note what a table (its text) was made from and how, for check_sources; the path is relative to the report."""
    return {
        "metadata": os.path.relpath(config.metadata_path, config.fold_report_path.parent).replace(
            os.sep, "/"
        ),
        "metadata_sha256": _sha256(config.metadata_path),
        "table_sha256": hashlib.sha256(table.encode()).hexdigest(),
        "command": next_command("split_data.py"),
    }


def check_sources(config: Config) -> None:
    """Refuse a table whose metadata have changed since it was made: its labels and folds may be out of date.

    There is nothing to compare where the report beside the table is missing or of an older version,
    where the table is another by now, and where the metadata are not there, as on a machine that
    has only what training needs.

    Raises:
        UserError: they have changed.
    """
    try:
        made_from = json.loads(config.fold_report_path.read_bytes())["made_from"]
        metadata = config.fold_report_path.parent / made_from["metadata"]
        is_the_table = _sha256(config.train_dataframe_path) == made_from["table_sha256"]
        has_changed = (
            is_the_table
            and metadata.is_file()
            and _sha256(metadata) != made_from["metadata_sha256"]
        )
        command = str(made_from["command"])
    except (OSError, ValueError, KeyError, TypeError):
        return
    if has_changed:
        raise UserError(
            f"{metadata} has changed since {config.train_dataframe_path} was made from it; run {command} again, or "
            f"delete {config.fold_report_path} to train on it as it is"
        )


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main() -> None:
    """Read the metadata, deal the folds, write train.csv and the report."""
    config = load_config(
        description="Join the metadata with the prepared recordings and deal them into folds."
    )
    configure_logger(config)
    if os.path.realpath(config.metadata_path) == os.path.realpath(config.train_dataframe_path):
        raise UserError(
            f"train_dataframe_path={config.train_dataframe_path} is the metadata itself; name another file"
        )
    table, report = split(read_metadata(config.metadata_path), config)
    text = table.select_dtypes(exclude="number").columns
    table[text] = table[text].apply(spreadsheet_safe)
    csv_text = table.to_csv(index=False, lineterminator="\n")
    _write(config.train_dataframe_path, csv_text)
    report["made_from"] = note_sources(config, csv_text)
    _write(config.fold_report_path, json.dumps(report, indent=1) + "\n")
    print(format_report(report))
    print(
        f"wrote {config.train_dataframe_path} and {config.fold_report_path}\nnext: {next_command('train.py')}"
    )


if __name__ == "__main__":
    run_main(main)
