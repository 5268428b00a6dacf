"""The report of the folds: what each holds, what crosses them, what was left out."""

from typing import Any

import numpy as np
import pandas as pd

from catalog.folds import group_rows
from catalog.identity import recording_ids
from catalog.tables import SHOWN

TITLES = ["fold", "recordings", "classes", "without training data", "without validation data"]

LEFTOVERS = {  # of the report, as people read them
    "copies": "recordings there more than once, each kept in one fold",
    "uneven_classes": "classes uneven because groups stay together",
    "rows_without_npy": "metadata rows without a prepared recording, left out",
    "npy_without_row": "prepared recordings without a metadata row, left out",
    "malformed_secondary_labels": "malformed secondary_labels, read as none",
    "repeated_rows": "repeated rows, kept once",
    "other_folders": "rows with another label than the folder of their recording",
    "non_species": "recordings whose label is no species, left out",
}
ALWAYS_SHOWN = tuple(LEFTOVERS)[:6]


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
    by_class = table.groupby(["primary_label", "kfold"]).size()
    counts = by_class.unstack(fill_value=0)  # (n_classes, n_folds)
    keys = {
        "id": recording_ids(table["filename"]),
        "content": table["filename"].groupby(contents).transform("first"),
    }
    groups = group_rows(pd.factorize(keys["id"])[0], contents)
    several = pd.Series(groups).duplicated(keep=False).to_numpy()
    for name in ("author", *([fold_group] if fold_group else [])):
        if name in table:
            keys[name] = table[name].fillna("")

    return {
        "recordings": len(table),
        "classes": len(counts),
        "folds": [_describe_fold(fold, column, counts) for fold, column in counts.items()],
        "leakage": {name: _crossing(table["kfold"], values) for name, values in keys.items()},
        "copies": [list(names) for _, names in table["filename"][several].groupby(groups[several])],
        "uneven_classes": list(counts.index[counts.max(axis=1) - counts.min(axis=1) > 1]),
    }


def _describe_fold(fold: Any, column: pd.Series, counts: pd.DataFrame) -> dict[str, Any]:
    return {
        "fold": fold,
        "recordings": int(column.sum()),
        "classes": int((column > 0).sum()),
        "classes_without_training_data": list(counts.index[column == counts.sum(axis=1)]),
        "classes_without_validation_data": list(counts.index[column == 0]),
    }


def _crossing(folds: pd.Series, values: pd.Series) -> dict[str, Any]:
    """Count the values that are not empty, and name those with rows in several folds."""
    in_folds = folds.groupby(values[values != ""]).nunique()
    return {
        "distinct": len(in_folds),
        "in_several_folds": list(in_folds.index[in_folds > 1]),
    }


def format_report(report: dict[str, Any]) -> str:
    """Lay out the report of split for people: a table of the folds, then a line per finding."""
    folds = [[_count(cell) for cell in fold.values()] for fold in report["folds"]]
    crossing = [
        f"{len(found['in_several_folds'])} of {found['distinct']} {name}s"
        for name, found in report["leakage"].items()
    ]
    lines = [
        f"{report['recordings']} recordings of {report['classes']} classes",
        pd.DataFrame(folds, columns=TITLES).to_string(index=False),
        f"in several folds: {', '.join(crossing)}",
    ]
    if "hours" in report:
        lines.insert(1, _describe_annotated(report))
    found = {
        key: title
        for key, title in LEFTOVERS.items()
        if key in report and (report[key] or key in ALWAYS_SHOWN)
    }
    lines += [_describe_leftovers(title, report[key]) for key, title in found.items()]
    return "\n".join(lines)


def _describe_annotated(report: dict[str, Any]) -> str:
    seconds = report["seconds_by_label"]
    sung = ", ".join(f"{label} {length:g} s" for label, length in seconds.items())
    return f"{report['hours']:g} h with {report['timed_labels']} labels that have a time: {sung}"


def _count(cell: Any) -> Any:
    return len(cell) if isinstance(cell, list) else cell


def _describe_leftovers(title: str, items: list[Any]) -> str:
    line = f"{title}: {len(items)}"
    if not items:
        return line

    shown = "; ".join(repr(_flat(item)) for item in items[:SHOWN])
    return f"{line} ({shown}; ...)" if len(items) > SHOWN else f"{line} ({shown})"


def _flat(item: Any) -> Any:
    return ", ".join(map(str, item.values())) if isinstance(item, dict) else item
