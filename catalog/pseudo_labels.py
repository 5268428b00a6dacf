"""Windows of soundscapes that models have labelled: their table, and what it asks of the network.

pseudo_label.py writes the table, a row a window. Its arrays lie below the table's folder, prepared
as annotated recordings are: whole, and mapped into memory when a clip is cut.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from catalog.annotated import check_spans, list_all_windows
from catalog.identity import BY_NUMBER, BY_TIME, content_ids, recording_names
from catalog.labels import join_labels, split_labels
from catalog.refuted import REFUTED_COLUMN, Refuted
from catalog.tables import read_table
from configs import Config, UserError
from files import csv_text, original_cell, write_file

PSEUDO_COLUMNS = (
    "filename",  # of the soundscape
    "filepath",  # of its array, below the table's folder
    "start_s",
    "end_s",
    "labels",  # of the window, the surest first; none where the models found nothing
    "scores",  # of each label
    "made_by",  # of each label, the number of the model that was surest of it
    "weight",  # how often the window is drawn, against others
)


@dataclass(frozen=True)
class PseudoLabels:
    """The windows of a table, in arrays alone, so that a loader's workers share their memory.

    Attributes:
        paths: (n,) bytes, the array of each window.
        starts_s, ends_s: (n,) float64.
        weights: (n,) float64; 0 for a window without labels.
        classes: (m,) int32, the labels of all windows one after the other.
        scores: (m,) float32, of each label.
        offsets: (n + 1,) int64, where each window's labels begin.
        refuted: windows that say of some species that they are absent, and of the others nothing.
    """

    paths: np.ndarray
    starts_s: np.ndarray
    ends_s: np.ndarray
    weights: np.ndarray
    classes: np.ndarray
    scores: np.ndarray
    offsets: np.ndarray
    refuted: Refuted = field(default_factory=lambda: Refuted([], {}))
    _ends: dict[float, np.ndarray] = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def is_empty(self) -> np.ndarray:
        """Say of each window whether it has no bird: (n,) bool."""
        has_no_label = np.diff(self.offsets) == 0
        is_partial = self.refuted.is_partial
        return has_no_label & ~is_partial if len(is_partial) else has_no_label

    def scores_of(self, window: int, n_classes: int) -> np.ndarray:
        """Return the scores (n_classes,) float32 of a window; 0 where it has no label."""
        of_window = slice(self.offsets[window], self.offsets[window + 1])
        scores = np.zeros(n_classes, np.float32)
        scores[self.classes[of_window]] = self.scores[of_window]
        return scores

    def chances(self, share_empty: float) -> np.ndarray:
        """Say how likely each window is drawn: (n,) float64, a sum of 1.

        Args:
            share_empty: chance of one without labels, all alike; those with labels come by weight.
        """
        is_empty, total = self.is_empty, self.weights.sum()
        share_empty = share_empty if total else 1.0
        share_empty = share_empty if is_empty.any() else 0.0
        of_labels = self.weights / (total or 1.0)
        return (1 - share_empty) * of_labels + share_empty * is_empty / max(1, is_empty.sum())

    def draw(self, rng: np.random.Generator, share_empty: float) -> int:
        """Draw a window by its chance."""
        if share_empty not in self._ends:  # once, and not for each clip of an epoch
            chances = self.chances(share_empty)
            self._ends[share_empty] = np.cumsum(chances)[: np.flatnonzero(chances)[-1] + 1]
        ends = self._ends[share_empty]
        window = np.searchsorted(ends, rng.random() * ends[-1], side="right")
        return int(min(window, len(ends) - 1))


# The table ----------------------------------------------------------------------------------------


def write_pseudo_labels(path: Path, table: pd.DataFrame) -> None:
    """Write a table of PSEUDO_COLUMNS, of which labels, scores and made_by are tuples.

    A column `refuted`, tuples of labels, is written, too, if it is there.
    """
    columns = [*PSEUDO_COLUMNS, *({REFUTED_COLUMN} & set(table))]
    rows = table.assign(
        labels=join_labels(list(table["labels"])),
        scores=[" ".join(f"{score:.4f}" for score in row) for row in table["scores"]],
        made_by=[" ".join(map(str, row)) for row in table["made_by"]],
        weight=[f"{weight:.4f}" for weight in table["weight"]],
    )
    if REFUTED_COLUMN in table:
        rows[REFUTED_COLUMN] = ["".join(f"{one};" for one in row) for row in table[REFUTED_COLUMN]]
    write_file(path, csv_text([columns, *rows[columns].itertuples(index=False)]))


def read_rows(path: Path) -> pd.DataFrame:
    """Read what `write_pseudo_labels` wrote.

    Raises:
        UserError: it is missing, is no such table, or a row of it cannot be used.
    """
    table = read_table(path, may_be_empty=True)
    if missing := [name for name in PSEUDO_COLUMNS if name not in table]:
        raise UserError(f"{path}: no column {missing[0]}; pseudo_label.py writes such tables")

    read = table.assign(
        filename=table["filename"].map(original_cell),
        filepath=table["filepath"].map(original_cell),
        labels=[
            _labels_of(original_cell(cell), scores)
            for cell, scores in zip(table["labels"], table["scores"], strict=True)
        ],
    )
    if REFUTED_COLUMN in table:
        cells = table[REFUTED_COLUMN].map(original_cell)
        read[REFUTED_COLUMN] = [tuple(split_labels(cell)) for cell in cells]
    try:
        read["scores"] = [tuple(map(float, cell.split())) for cell in table["scores"]]
        read["made_by"] = [tuple(map(int, cell.split())) for cell in table["made_by"]]
        read = read.astype({"start_s": float, "end_s": float, "weight": float})
    except ValueError as error:
        raise UserError(f"{path}: {error}; write the table again with pseudo_label.py") from None

    _check_rows(read, path)
    return read


def _labels_of(cell: str, scores: str) -> tuple[str, ...]:
    """Read the labels of a window; one with one score may have spaces."""
    is_one = len(scores.split()) == 1 and ";" not in cell
    return (cell,) if is_one else tuple(split_labels(cell))


def _check_rows(table: pd.DataFrame, path: Path) -> None:
    n_labels, n_scores = table["labels"].map(len), table["scores"].map(len)
    in_range = [all(0 <= score <= 1 for score in row) for row in table["scores"]]
    faults = {
        "labels and scores differ in number": n_labels != n_scores,
        "a score is not between 0 and 1": ~np.array(in_range, bool),
        "it ends before it starts": ~(table["end_s"] > table["start_s"]),
        "its weight is negative": ~(table["weight"] >= 0),
    }
    for what, is_bad in faults.items():
        if np.any(is_bad):
            raise UserError(f"{path}: row {int(np.argmax(is_bad)) + 2}: {what}")


def read_pseudo_labels(path: Path, class_names: Sequence[str]) -> PseudoLabels:
    """Read a table for training.

    Args:
        path: of the table.
        class_names: of the network; every label has to be one of them.

    Raises:
        UserError: see read_rows; no window; a label is no class.
    """
    table = read_rows(path)
    if table.empty:
        raise UserError(f"{path}: no windows; lower --keep-above of pseudo_label.py")

    number = {name: position for position, name in enumerate(class_names)}
    refuted = Refuted(table.get(REFUTED_COLUMN, [()] * len(table)), number)
    is_empty = (table["labels"].map(len).to_numpy() == 0) & ~refuted.is_partial
    if not (is_empty | (table["weight"] > 0)).any():
        raise UserError(f"{path}: the weight of every window is 0")

    labels = [label for row in table["labels"] for label in row]
    if strangers := sorted(set(labels) - number.keys()):
        raise UserError(
            f"{path}: {strangers[0]!r} is none of the {len(number)} classes that are trained on; "
            "label with models of the same classes, or leave its rows out"
        )

    folder = path.parent
    return PseudoLabels(
        paths=np.array([str(folder / name).encode() for name in table["filepath"]]),
        starts_s=table["start_s"].to_numpy(np.float64),
        ends_s=table["end_s"].to_numpy(np.float64),
        weights=np.where(is_empty, 0.0, table["weight"].to_numpy(np.float64)),
        classes=np.array([number[label] for label in labels], np.int32),
        scores=np.array([score for row in table["scores"] for score in row], np.float32),
        offsets=np.concatenate([[0], np.cumsum(table["labels"].map(len))]).astype(np.int64),
        refuted=refuted,
    )


def windows_of_labels(
    spans: pd.DataFrame, seconds: dict[str, float], config: Config
) -> pd.DataFrame:
    """Make the rows of labels that people have given, so that they are trained on as windows.

    Args:
        spans: labels with times or verdicts, as read_annotations returns them.
        seconds: length of each recording.
        config: of which period, label_overlap and unlabelled are used.

    Returns:
        A row a window, of PSEUDO_COLUMNS without filepath; a label scores 1. `refuted` names the
        species of which alone a window without labels says that they are absent.
    """
    check_spans(spans, seconds)
    windows = list_all_windows(spans, seconds, config)
    if REFUTED_COLUMN not in windows:
        windows[REFUTED_COLUMN] = [()] * len(windows)
    ends_s = windows["start_s"] + config.period
    return pd.DataFrame(
        {
            "filename": windows["filename"],
            "start_s": windows["start_s"].round(6),
            "end_s": np.minimum(ends_s, windows["filename"].map(seconds)).round(6),
            "labels": windows["labels"],
            "scores": [(1.0,) * len(labels) for labels in windows["labels"]],
            "made_by": [()] * len(windows),
            "weight": 1.0,
            REFUTED_COLUMN: windows[REFUTED_COLUMN],
        }
    )


# Apart from what is labelled ----------------------------------------------------------------------


def refuse_labelled(
    soundscapes: dict[str, Path],
    labelled: dict[str, Path],
    *,
    where: str,
    same_sound: object = None,
) -> None:
    """Refuse soundscapes that are labelled recordings: a model would be scored on what it learnt.

    They are told by what their names say (an archive's number, a recorder's time), by their bytes,
    and with `same_sound` by what is heard.

    Args:
        soundscapes: prepared files by name.
        labelled: prepared files by name.
        where: what the labelled ones stand in, for the message.
        same_sound: a function of paths that numbers them, equal for two of one sound.

    Raises:
        UserError: there is one; the message names it and the recording that it is.
    """
    names, paths = [*soundscapes, *labelled], [*soundscapes.values(), *labelled.values()]
    told = recording_names(pd.Series(names))
    by_place = ~told["rule"].isin([BY_NUMBER, BY_TIME])  # a path says nothing in another folder
    told.loc[by_place, "key"] = [f"/{row}" for row in range(int(by_place.sum()))]
    keys = [pd.factorize(told["key"])[0], content_ids(paths)]
    if callable(same_sound):
        keys.append(np.asarray(same_sound(paths)))

    n_soundscapes = len(soundscapes)
    for key, how in zip(keys, ("by its name", "byte by byte", "by its sound"), strict=False):
        owner = {number: name for number, name in zip(key[n_soundscapes:], labelled, strict=True)}
        for number, name in zip(key[:n_soundscapes], soundscapes, strict=True):
            if number in owner:
                raise UserError(
                    f"{name} is {owner[number]} of {where}, {how}: labelled recordings are scored "
                    "and must not be pseudo-labelled; take it out of the folder"
                )
