"""The report of the folds: what each holds, what crosses them, what was left out."""

from typing import Any

import numpy as np
import pandas as pd

from catalog.folds import group_rows
from catalog.labels import NO_BIRD
from configs import SHOWN

TITLES = ["fold", "recordings", "classes", "without training data", "without validation data"]

LEFTOVERS = {  # of the report, as people read them
    "copies": "recordings in several files, each kept in one fold",
    "uneven_classes": "classes uneven because groups stay together",
    "rows_without_npy": "metadata rows without a prepared recording, left out",
    "npy_without_row": "prepared recordings without a metadata row, left out",
    "malformed_secondary_labels": "malformed secondary_labels, read as none",
    "repeated_rows": "repeated rows, kept once",
    "other_folders": "rows with another label than the folder of their recording",
    "non_species": "recordings whose label is no species, left out",
    "other_labels": "copies of one recording that have different labels",
}
USUAL_KEYS = ("id", "content", "sound", "author")
ALWAYS_SHOWN = tuple(LEFTOVERS)[:6]


def fold_report(
    table: pd.DataFrame, identities: pd.DataFrame, fold_group: str | None = None
) -> dict[str, Any]:
    """Count what each fold holds and what is in several folds.

    Args:
        table: with primary_label, filename, kfold and perhaps author and the column fold_group.
        identities: of each row `key` and `rule` (see recording_names), and the numbers `content`
            and `sound`, the same for files of the same bytes and for recordings that sound alike.
        fold_group: a column.

    Returns:
        Plain types: `folds`; `leakage`, the ids, contents, sounds (by a filename) and authors in
        several folds; `copies`, the filenames of recordings in several files; `joined`, how many
        files were found to belong to another, by the rule; `other_labels`, the copies that have
        different labels; `uneven_classes`, whose counts differ by more than one.
    """
    is_negative = table["primary_label"] == NO_BIRD
    by_class = table[~is_negative].groupby(["primary_label", "kfold"]).size()
    sizes = table["kfold"].value_counts().sort_index()
    counts = by_class.unstack(fill_value=0).reindex(columns=sizes.index, fill_value=0)
    keys = {
        "id": identities["key"],
        "content": _first_of(table["filename"], identities["content"]),
        "sound": _first_of(table["filename"], identities["sound"]),
    }
    copies = group_rows(identities["content"].to_numpy(), identities["sound"].to_numpy())
    groups = group_rows(pd.factorize(identities["key"])[0], copies)
    for name in ("author", *([fold_group] if fold_group else [])):
        if name in table:
            keys[name] = table[name].fillna("")

    return {
        "recordings": len(table),
        "classes": len(counts),
        "negatives": int(is_negative.sum()),
        "folds": [_describe_fold(fold, int(sizes[fold]), counts) for fold in sizes.index],
        "leakage": {name: _crossing(table["kfold"], values) for name, values in keys.items()},
        "copies": _groups_of_several(table["filename"], groups),
        "joined": _count_joined(identities),
        "other_labels": [
            names
            for names in _groups_of_several(table["filename"], copies)
            if table.loc[table["filename"].isin(names), "primary_label"].nunique() > 1
        ],
        "uneven_classes": list(counts.index[counts.max(axis=1) - counts.min(axis=1) > 1]),
    }


def _first_of(filenames: pd.Series, numbers: pd.Series) -> pd.Series:
    return filenames.groupby(numbers.to_numpy()).transform("first")


def _groups_of_several(filenames: pd.Series, groups: np.ndarray) -> list[list[str]]:
    several = pd.Series(groups).duplicated(keep=False).to_numpy()
    return [list(names) for _, names in filenames[several].groupby(groups[several])]


def _count_joined(identities: pd.DataFrame) -> dict[str, int]:
    """Count the files that share a recording with another, by what tells so."""
    by_name = identities["key"].duplicated(keep=False)
    counts = identities.loc[by_name, "rule"].value_counts().sort_index().to_dict()
    for name, title in (("content", "equal to the byte"), ("sound", "same sound")):
        counts[title] = int(identities[name].duplicated(keep=False).sum())
    counts["same sound"] -= counts["equal to the byte"]
    return {rule: count for rule, count in counts.items() if count > 0}


def _describe_fold(fold: int, size: int, counts: pd.DataFrame) -> dict[str, Any]:
    """Describe a fold of `size` recordings; counts are (n_classes, n_folds)."""
    column = counts[fold]
    return {
        "fold": int(fold),
        "recordings": size,
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
        f"{len(found['in_several_folds'])} of {found['distinct']} {_plural(name)}"
        for name, found in report["leakage"].items()
    ]
    lines = [
        _count_recordings(report),
        pd.DataFrame(folds, columns=TITLES).to_string(index=False),
        f"in several folds: {', '.join(crossing)}",
    ]
    if "hours" in report:
        lines.insert(1, _describe_annotated(report))
    if report["joined"]:
        joined = ", ".join(f"{count} ({rule})" for rule, count in report["joined"].items())
        lines.append(f"files that are one recording with another file: {joined}")
    found = {
        key: title
        for key, title in LEFTOVERS.items()
        if key in report and (report[key] or key in ALWAYS_SHOWN)
    }
    lines += [_describe_leftovers(title, report[key]) for key, title in found.items()]
    return "\n".join(lines)


def _plural(name: str) -> str:
    """Name the values of a column: "authors"; those of one called fold are not our folds."""
    return f"{name}s" if name in USUAL_KEYS else f"values of {name}"


def _describe_annotated(report: dict[str, Any]) -> str:
    seconds = report["seconds_by_label"]
    sung = ", ".join(f"{label} {length:g} s" for label, length in seconds.items())
    return f"{report['hours']:g} h with {report['timed_labels']} labels that have a time: {sung}"


def _count_recordings(report: dict[str, Any]) -> str:
    line = f"{report['recordings']} recordings of {report['classes']} classes"
    return f"{line}, {report['negatives']} without a bird" if report["negatives"] else line


def _count(cell: Any) -> Any:
    return len(cell) if isinstance(cell, list) else cell


def _describe_leftovers(title: str, items: list[Any]) -> str:
    line = f"{title}: {len(items)}"
    if not items:
        return line

    shown = "; ".join(_flat(item) for item in items[:SHOWN])
    return f"{line} ({shown}; ...)" if len(items) > SHOWN else f"{line} ({shown})"


def _flat(item: Any) -> str:
    """Write a finding on a line: what it says of a row of the metadata, or names."""
    if isinstance(item, dict):
        row, *others = item.items()
        return ", ".join([" ".join(map(str, row)), *(str(value) for _, value in others)])
    return " = ".join(map(str, item)) if isinstance(item, list) else repr(item)
