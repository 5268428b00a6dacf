"""The formats that predict.py writes: submissions, tables, labels for Raven, Audacity and BirdNET.

Each is written recording by recording, so that memory does not grow with their number.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from configs import UserError
from files import replacing
from inference.detections import DETECTED, Event, Recording
from inference.places import when_and_where
from inference.selection import MORE_COLUMNS, Selection
from inference.submissions import write_submission
from inference.text_files import (
    LABELS,
    named_after,
    path_cell,
    replacing_text,
    write_rows,
    write_table,
)

LISTS = ("long", "raven", "audacity", "birdnet", "parquet")  # of detections
WITH_NAMES = ("raven", "audacity", "birdnet")  # of species, beside or in place of labels
LONG_COLUMNS = ("file", "start_s", "end_s", "species", "score")
BIRDNET_COLUMNS = ("Start (s)", "End (s)", "Scientific name", "Common name", "Confidence", "File")
RAVEN_COLUMNS = (
    "Selection",
    "View",
    "Channel",
    "Begin Time (s)",
    "End Time (s)",
    "Low Freq (Hz)",
    "High Freq (Hz)",
    "Begin Path",
    "File Offset (s)",
    "Species Code",
    "Common Name",
    "Confidence",
)
BAD_COLUMNS = ("filename", "status", "reason")

Results = Iterable[Recording]  # with scores (n, C)


# Detections ---------------------------------------------------------------------------------------


def _found(
    results: Results, selection: Selection, threshold: float
) -> Iterator[tuple[Recording, Event]]:
    for recording in results:
        for one in selection.found(recording, threshold):
            yield recording, one


def _write_long(
    path: Path, results: Results, selection: Selection, form: str, threshold: float
) -> int:
    rows = (
        [
            recording.name,
            *_times(one),
            selection.class_names[one.species],
            np.float32(one.score),
            *more,
        ]
        for recording in results
        for one, more in _with_columns(recording, selection, threshold)
    )
    return write_table(path, [*LONG_COLUMNS, *more_columns(selection)], rows)


def more_columns(selection: Selection) -> list[str]:
    """Name the columns that the long table has beside its own."""
    return [name for kind in selection.columns for name in MORE_COLUMNS[kind]]


def _with_columns(
    recording: Recording, selection: Selection, threshold: float
) -> Iterator[tuple[Event, list[str]]]:
    """Give a recording's detections, each with its cells of `more_columns`."""
    made = None
    if "when" in selection.columns:
        path = selection.folder / recording.name
        made = when_and_where(recording.name, path, selection.zone)
    any_bird = selection.any_bird(recording.scores) if "any" in selection.columns else None
    for one in selection.found(recording, threshold):
        cells: list[str] = []
        for kind in selection.columns:
            if kind == "names":
                cells += selection.name(one.species)
            elif any_bird is not None and kind == "any":
                window = np.searchsorted(recording.starts_s, one.start_s, side="right") - 1
                cells.append(str(any_bird[max(0, int(window))]))
            elif made is not None:
                cells += [made.site, *made.at(one.start_s)]
        yield one, cells


def _write_birdnet(
    path: Path, results: Results, selection: Selection, form: str, threshold: float
) -> int:
    rows = (
        [
            *_times(one),
            *selection.name(one.species),
            np.float32(one.score),
            path_cell(selection.folder, recording.name),
        ]
        for recording, one in _found(results, selection, threshold)
    )
    return write_table(path, BIRDNET_COLUMNS, rows)


def _write_raven(
    path: Path, results: Results, selection: Selection, form: str, threshold: float
) -> int:
    with replacing_text(path) as file:
        write_rows(file, [RAVEN_COLUMNS], delimiter="\t")
        return write_rows(file, _raven_rows(results, selection, threshold), delimiter="\t")


def _raven_rows(results: Results, selection: Selection, threshold: float) -> Iterator[list[Any]]:
    """Make one table for all recordings.

    As Raven wants it, times go on from one recording to the next; the offset begins anew in each.
    """
    number, before_s = 0, 0.0
    for recording in results:
        for one in selection.found(recording, threshold):
            number += 1
            yield [
                number,
                "Spectrogram 1",
                1,
                f"{before_s + one.start_s:.6f}",
                f"{before_s + one.end_s:.6f}",
                f"{selection.fmin:g}",
                f"{selection.fmax:g}",
                path_cell(selection.folder, recording.name),
                f"{one.start_s:.6f}",
                selection.class_names[one.species],
                selection.name(one.species)[1],
                np.float32(one.score),
            ]
        before_s += recording.seconds


def _write_audacity(
    path: Path, results: Results, selection: Selection, form: str, threshold: float
) -> int:
    """Write a folder with a label file for each recording; a label is common name and score."""
    n_labels = 0
    for recording in results:
        rows = [
            [f"{one.start_s:.6f}", f"{one.end_s:.6f}", _audacity_label(one, selection)]
            for one in selection.found(recording, threshold)
        ]
        with replacing_text(named_after(path, recording.name, ".txt")) as file:
            n_labels += write_rows(file, rows, **LABELS)
    return n_labels


def _audacity_label(event: Event, selection: Selection) -> str:
    name = " ".join(selection.name(event.species)[1].split())  # without tabs and line ends
    return f"{name} {event.score:.3f}"


def _times(event: Event) -> list[float]:
    return [round(event.start_s, 6), round(event.end_s, 6)]


def _write_parquet(
    path: Path, results: Results, selection: Selection, form: str, threshold: float
) -> int:
    """Write the columns of the long table, a row group for each recording."""
    check_parquet()
    import pyarrow
    import pyarrow.parquet

    text, number = pyarrow.string(), pyarrow.float64()
    kinds = (text, number, number, text, pyarrow.float32())
    fields = list(zip(LONG_COLUMNS, kinds, strict=True))
    schema = pyarrow.schema(fields + [(name, text) for name in more_columns(selection)])

    n_rows = 0
    with replacing(path) as file, pyarrow.parquet.ParquetWriter(file, schema) as writer:
        for recording in results:
            detected = list(_with_columns(recording, selection, threshold))
            found = [one for one, _ in detected]
            columns = [
                [recording.name.encode(errors="replace").decode()] * len(found),
                [one.start_s for one in found],
                [one.end_s for one in found],
                [selection.class_names[one.species] for one in found],
                np.array([one.score for one in found], np.float32),
                *([cells[n] for _, cells in detected] for n in range(len(more_columns(selection)))),
            ]
            writer.write_table(pyarrow.table(columns, schema=schema))
            n_rows += len(found)
    return n_rows


def check_parquet() -> None:
    """Refuse Parquet where pyarrow is missing (UserError)."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise UserError("--format parquet needs pyarrow; python -m pip install pyarrow") from None


# Recordings that are not ok -----------------------------------------------------------------------


@dataclass
class Summary:
    """What became of the recordings of a run.

    Attributes:
        bad: recordings that are not ok, counted by status.
        n_scored: recordings with at least one window.
        n_windows: windows in all.
        n_silent: windows without any signal.
    """

    bad: Counter[str] = field(default_factory=Counter)
    n_scored: int = 0
    n_windows: int = 0
    n_silent: int = 0


def write_bad_files(path: Path, results: Results, unread: Mapping[str, str]) -> Summary:
    """Write name, status and reason of each recording that is not ok; sum up all of them.

    Args:
        path: the table.
        results: of the recordings that were tried.
        unread: why others were not, by name.
    """
    rows, summary = [[name, "unreadable", reason] for name, reason in unread.items()], Summary()
    summary.bad["unreadable"] += len(rows)
    for one in results:
        summary.n_scored += len(one.starts_s) > 0
        summary.n_windows += len(one.starts_s)
        summary.n_silent += one.n_silent
        if one.status != "ok":
            summary.bad[one.status] += 1
            rows.append([one.name, one.status, one.reason])

    write_table(path, BAD_COLUMNS, sorted(rows))
    summary.bad = +summary.bad  # without counts of 0
    return summary


# The table of formats -----------------------------------------------------------------------------


class Format(NamedTuple):
    """How a format is written.

    Attributes:
        write: writes it.
        suffix: of its file; Audacity's is a folder.
        threshold: lowest score of a detection if none is given.
    """

    write: Callable[[Path, Results, Selection, str, float], int]
    suffix: str
    threshold: float


FORMATS = {
    **{
        f"submission-{year}": Format(write_submission, ".csv", DETECTED)
        for year in range(2021, 2027)
    },
    "long": Format(_write_long, ".csv", 0.0),
    "raven": Format(_write_raven, ".txt", DETECTED),
    "audacity": Format(_write_audacity, "", DETECTED),
    "birdnet": Format(_write_birdnet, ".csv", DETECTED),
    "parquet": Format(_write_parquet, ".parquet", 0.0),
}


def write(path: Path, form: str, results: Results, selection: Selection) -> int:
    """Write results in one of FORMATS.

    Args:
        path: the file, or for Audacity the folder.
        form: a key of FORMATS.
        results: recordings with scores (n, C); gone through once.
        selection: what of them, and how it is named.

    Returns:
        Rows written.

    Raises:
        CannotWriteError: the disk refuses.
    """
    chosen = FORMATS[form]
    threshold = chosen.threshold if selection.threshold is None else selection.threshold
    return chosen.write(path, results, selection, form, threshold)
