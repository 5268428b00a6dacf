"""The files that detections are written to: BirdCLEF submissions, tables, and labels for Raven, Audacity and BirdNET.

All are written beside and renamed, recording by recording, so that memory does not grow with their
number.
"""

import contextlib
import csv
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TextIO

import numpy as np

from configs import UserError
from inference.detections import Event, Recording, writing

logger = logging.getLogger("birdclef.formats")

TEXT: dict[str, Any] = {
    "encoding": "utf-8",
    "errors": "surrogateescape",
    "newline": "",
}  # any file name passes
LONG_COLUMNS = ("file", "start_s", "end_s", "species", "score")
RAVEN_COLUMNS = (
    *(
        "Selection",
        "View",
        "Channel",
        "Begin Time (s)",
        "End Time (s)",
        "Low Freq (Hz)",
        "High Freq (Hz)",
    ),
    *("Begin Path", "File Offset (s)", "Species Code", "Common Name", "Confidence"),
)
BIRDNET_COLUMNS = ("Start (s)", "End (s)", "Scientific name", "Common name", "Confidence", "File")
# Names of the columns of a taxonomy: eBird's own, and BirdCLEF's of 2025 and 2026.
TAXONOMY_COLUMNS = (
    ("species_code", "sci_name", "primary_com_name"),
    ("primary_label", "scientific_name", "common_name"),
)
SITE = re.compile(r"(?P<id>[^_]+_[^_]+)_\d{8}")  # BirdCLEF 2021: <audio_id>_<site>_<date>

Results = Iterable[Recording]  # with scores (n, C)


# What is written, and how it is named -------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    """A sample_submission.csv: its format, its species in order, and its row ids."""

    path: Path
    form: str
    species: list[str]
    row_ids: list[str]


@dataclass(frozen=True)
class Selection:
    """What of the results is written, and how it is named.

    Attributes:
        class_names: label of each class.
        period: seconds in a window.
        folder: where the recordings lie, for those formats that name whole paths.
        fmin: Hz, lower edge of what the model hears.
        fmax: Hz, upper edge.
        threshold: lowest score that is a detection; None takes the format's.
        top_k: the most detections of one window; None has no limit.
        wanted: (C,) bool, classes to write; the others score 0 in submissions.
        names: label to (scientific, common) name.
        sample: what a submission has to look like.
        events: write events rather than windows, in the formats that list detections.
    """

    class_names: list[str]
    period: float
    folder: Path
    fmin: float
    fmax: float
    threshold: float | None = None
    top_k: int | None = None
    wanted: np.ndarray | None = None
    names: dict[str, tuple[str, str]] = field(default_factory=dict)
    sample: Sample | None = None
    events: bool = False

    def name(self, species: int) -> tuple[str, str]:
        """Scientific and common name; the label where there is none."""
        label = self.class_names[species]
        return self.names.get(label, (label, label))

    def found(self, recording: Recording, threshold: float) -> Iterator[Event]:
        """List detections by start, those of one window by falling score."""
        wanted = np.ones(len(self.class_names), bool) if self.wanted is None else self.wanted
        if self.events:
            yield from (event for event in recording.events if wanted[event.species])
            return
        for start_s, scores in zip(recording.starts_s.tolist(), recording.scores, strict=True):
            species = np.flatnonzero(wanted & (scores >= threshold))
            species = species[np.argsort(-scores[species], kind="stable")][: self.top_k]
            end_s = min(start_s + self.period, recording.seconds)
            yield from (Event(start_s, end_s, int(one), float(scores[one])) for one in species)


def read_sample(path: Path) -> Sample:
    """Read a sample_submission.csv; its header tells the year's format.

    Raises:
        UserError: it cannot be read, or is no sample submission.
    """
    try:
        with open(path, **TEXT) as file:
            header, *rows = [row for row in csv.reader(file) if row]
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as a sample submission: {error}") from None
    if header[0].lstrip("\ufeff") != "row_id" or len(header) < 2:
        raise UserError(
            f"{path}: no sample submission: its header begins {', '.join(header[:3])}, not row_id"
        )
    row_ids = [row[0] for row in rows]
    if header[1:] == ["birds"]:
        return Sample(path, "submission-2021", [], row_ids)
    if header[1:] == ["target"]:
        species = [parts[-2] for row_id in row_ids if len(parts := row_id.split("_")) > 2]
        return Sample(path, "submission-2022", list(dict.fromkeys(species)), row_ids)
    return Sample(path, "submission-2023", header[1:], row_ids)


def check_sample(
    sample: Sample, class_names: Sequence[str], forms: Sequence[str], *, fill_missing: bool
) -> None:
    """Refuse a sample of another format, or with species that are no classes, unless they may score 0.

    Raises:
        UserError: such a format, or such species by name.
    """
    for form in forms:
        if form.startswith("submission") and _layout(form) != sample.form:
            raise UserError(f"{sample.path} has the form of {sample.form}, not of {form}")
    if missing := [name for name in sample.species if name not in set(class_names)]:
        what = f"{len(missing)} of its {len(sample.species)} species are no classes of the model ({_some(missing)})"
        if not fill_missing:
            raise UserError(f"{sample.path}: {what}; --fill-missing gives them a score of 0")
        logger.warning("%s: %s; they score 0", sample.path, what)
    if sample.species and (
        unused := [name for name in class_names if name not in set(sample.species)]
    ):
        logger.info(
            "%s has no column for %d of the classes (%s)", sample.path, len(unused), _some(unused)
        )


def read_taxonomy(path: Path) -> dict[str, tuple[str, str]]:
    """Read (scientific, common) names by label from eBird's taxonomy or BirdCLEF's.

    Raises:
        UserError: it cannot be read or lacks the columns.
    """
    try:
        with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
            table = csv.DictReader(file)
            columns = {
                name.strip().lower().replace(" ", "_"): name for name in table.fieldnames or []
            }
            found = [names for names in TAXONOMY_COLUMNS if columns.keys() >= set(names)]
            if not found:
                raise UserError(
                    f"{path}: no taxonomy: it has the columns {', '.join(columns)}, not "
                    f"{' or '.join(', '.join(names) for names in TAXONOMY_COLUMNS)}"
                )
            label, scientific, common = (columns[name] for name in found[0])
            return {row[label]: (row[scientific], row[common]) for row in table}
    except (OSError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read as a taxonomy: {error}") from None


def read_species(
    path: Path, class_names: Sequence[str], names: dict[str, tuple[str, str]]
) -> np.ndarray:
    """Read a list of species, one a line: which of the classes are in it, (C,) bool.

    A line is a label, a scientific or a common name, or both as BirdNET lists them (`Turdus
    merula_Common Blackbird`); names need a taxonomy. Lines that begin with # are comments; species
    that are no classes are counted in the log.

    Raises:
        UserError: it cannot be read, or none of its lines is a class.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a list of species: {error}") from None
    listed = {line for line in lines if line and not line.startswith("#")}
    known = [
        {label, *names.get(label, ()), "_".join(names.get(label, ()))} for label in class_names
    ]
    wanted = np.array([bool(one & listed) for one in known])
    if not wanted.any():
        hint = "" if names else "; give a --taxonomy if it holds names rather than labels"
        raise UserError(f"{path}: none of its {len(listed)} lines is a class of the model{hint}")
    if strangers := sorted(listed - set().union(*known)):
        logger.warning(
            "%s: %d species are no classes of the model (%s)",
            path,
            len(strangers),
            _some(strangers),
        )
    return wanted


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


# Submissions --------------------------------------------------------------------------------------


def row_id(form: str, name: str, second: float, label: str = "") -> str:
    """Name a row as BirdCLEF did that year.

    Args:
        form: submission-2021 and so on.
        name: of the recording.
        second: the end of the window.
        label: the species, for 2022.
    """
    stem = PurePosixPath(name).stem
    if form == "submission-2021" and (match := SITE.fullmatch(stem)):
        stem = match["id"]
    return "_".join(
        [
            stem,
            *([label] if form == "submission-2022" else []),
            str(round(second, 6)).removesuffix(".0"),
        ]
    )


def check_row_ids(form: str, names: Sequence[str]) -> None:
    """Refuse two recordings that a submission could not tell apart (UserError)."""
    seen: dict[str, str] = {}
    for name in names if form.startswith("submission") else ():
        if (other := seen.setdefault(row_id(form, name, 0), name)) != name:
            raise UserError(
                f"{other} and {name} would have the same row_id in a {form}; give one folder at a time"
            )


def _submission_rows(
    results: Results, selection: Selection, form: str, threshold: float
) -> Iterator[list[str]]:
    """Rows of all windows, the row_id first."""
    labels = _submission_species(selection)
    number = {label: n for n, label in enumerate(selection.class_names)}
    columns = np.array([number.get(label, -1) for label in labels])
    for recording in results:
        scores = recording.scores * (True if selection.wanted is None else selection.wanted)
        scores = np.pad(scores, ((0, 0), (0, 1)))[:, columns].astype(
            np.float32
        )  # (n, columns), 0 where unknown
        for start_s, row in zip(recording.starts_s.tolist(), scores, strict=True):
            second = round(start_s + selection.period, 6)
            if form == "submission-2022":
                for label, score in zip(labels, row, strict=True):
                    yield [
                        row_id(form, recording.name, second, label),
                        str(bool(score >= threshold)),
                    ]
            elif form == "submission-2021":
                birds = " ".join(labels[n] for n in np.flatnonzero(row >= threshold))
                yield [row_id(form, recording.name, second), birds or "nocall"]
            else:
                yield [
                    row_id(form, recording.name, second),
                    *map(str, row),
                ]  # a float32's shortest exact form


def _submission_species(selection: Selection) -> list[str]:
    return (
        selection.sample.species
        if selection.sample and selection.sample.species
        else selection.class_names
    )


def _layout(form: str) -> str:
    """The year whose form a submission has; since 2023 it is the same."""
    return form if form in ("submission-2021", "submission-2022") else "submission-2023"


def _as_in_sample(
    rows: Iterator[list[str]], sample: Sample | None, blank: list[str]
) -> Iterator[list[str]]:
    """The rows in the sample's order if it is of these recordings, else as they are."""
    if sample is None:
        yield from rows
        return
    found = {row[0]: row for row in rows}
    wanted = sample.row_ids
    if not found.keys() & set(wanted):
        logger.warning(
            "%s is not of these recordings; the rows are theirs, in their order", sample.path
        )
        wanted = list(found)
    if missing := [name for name in wanted if name not in found]:
        logger.warning("%s: %d of its rows have no window (%s); they get %s",
                       sample.path, len(missing), _some(missing), blank[0])  # fmt: skip
    if extra := found.keys() - set(wanted):
        logger.info(
            "%s: %d windows have no row in it (%s)", sample.path, len(extra), _some(sorted(extra))
        )
    yield from (found.get(name) or [name, *blank] for name in wanted)


def _write_submission(
    path: Path, results: Results, selection: Selection, form: str, threshold: float
) -> int:
    header, blank = {
        "submission-2021": (["birds"], ["nocall"]),
        "submission-2022": (["target"], ["False"]),
    }.get(form) or (species := _submission_species(selection), ["0.0"] * len(species))
    rows = _submission_rows(results, selection, form, threshold)
    with replacing(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["row_id", *header])
        return _write_counted(writer, _as_in_sample(rows, selection.sample, blank))


# Detections ---------------------------------------------------------------------------------------


def _write_long(
    path: Path, results: Results, selection: Selection, form: str, threshold: float
) -> int:
    rows = (
        [recording.name, *_times(one), selection.class_names[one.species], _score(one)]
        for recording in results
        for one in selection.found(recording, threshold)
    )
    return _write_table(path, LONG_COLUMNS, rows)


def _write_birdnet(
    path: Path, results: Results, selection: Selection, form: str, threshold: float
) -> int:
    rows = (
        [
            *_times(one),
            *selection.name(one.species),
            _score(one),
            str(selection.folder / recording.name),
        ]
        for recording in results
        for one in selection.found(recording, threshold)
    )
    return _write_table(path, BIRDNET_COLUMNS, rows)


def _write_raven(
    path: Path, results: Results, selection: Selection, form: str, threshold: float
) -> int:
    """One table for all recordings: times go on from one to the next, the offset begins anew in each."""
    with replacing(path) as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(RAVEN_COLUMNS)
        number, before_s = 0, 0.0
        for recording in results:
            for number, one in enumerate(selection.found(recording, threshold), number + 1):  # noqa: B020
                times = [f"{before_s + one.start_s:.6f}", f"{before_s + one.end_s:.6f}"]
                row = [
                    number,
                    "Spectrogram 1",
                    1,
                    *times,
                    f"{selection.fmin:g}",
                    f"{selection.fmax:g}",
                ]
                row += [str(selection.folder / recording.name), f"{one.start_s:.6f}"]
                writer.writerow(
                    [
                        *row,
                        selection.class_names[one.species],
                        selection.name(one.species)[1],
                        _score(one),
                    ]
                )
            before_s += recording.seconds
    return number


def _write_audacity(
    path: Path, results: Results, selection: Selection, form: str, threshold: float
) -> int:
    """A folder with a label file for each recording; a label is the common name and the score."""
    n_labels = 0
    for recording in results:
        rows = (
            [
                f"{one.start_s:.6f}",
                f"{one.end_s:.6f}",
                f"{' '.join(selection.name(one.species)[1].split())} {one.score:.3f}",
            ]
            for one in selection.found(recording, threshold)
        )
        with replacing(path / f"{recording.name}.txt") as file:
            n_labels += _write_counted(
                csv.writer(
                    file,
                    delimiter="\t",
                    lineterminator="\n",
                    quotechar=None,
                    quoting=csv.QUOTE_NONE,
                ),
                rows,
            )
    return n_labels


def _write_parquet(
    path: Path, results: Results, selection: Selection, form: str, threshold: float
) -> int:
    """The columns of the long table; a row group for each recording."""
    check_parquet()
    import pyarrow
    import pyarrow.parquet

    kinds = (
        pyarrow.string(),
        pyarrow.float64(),
        pyarrow.float64(),
        pyarrow.string(),
        pyarrow.float32(),
    )
    schema = pyarrow.schema(list(zip(LONG_COLUMNS, kinds, strict=True)))
    n_rows = 0
    with replacing(path) as file, pyarrow.parquet.ParquetWriter(file.buffer, schema) as writer:
        for recording in results:
            found = list(selection.found(recording, threshold))
            columns = [
                [recording.name.encode(errors="replace").decode()] * len(found),
                [one.start_s for one in found],
                [one.end_s for one in found],
                [selection.class_names[one.species] for one in found],
                np.array([one.score for one in found], np.float32),
            ]
            writer.write_table(pyarrow.table(columns, schema=schema))
            n_rows += len(found)
    return n_rows


def write_bad_files(path: Path, results: Results) -> int:
    """Write filename, status and reason of each recording that is not ok; return how many there are."""
    rows = ([one.name, one.status, one.reason] for one in results if one.status != "ok")
    return _write_table(path, ["filename", "status", "reason"], rows)


def check_parquet() -> None:
    """Refuse Parquet where pyarrow is missing (UserError)."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise UserError("--format parquet needs pyarrow; python -m pip install pyarrow") from None


def _times(event: Event) -> list[str]:
    return [str(round(event.start_s, 6)), str(round(event.end_s, 6))]


def _score(event: Event) -> str:
    return str(np.float32(event.score))


def _write_table(path: Path, columns: Sequence[str], rows: Iterable[list[str]]) -> int:
    with replacing(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        return _write_counted(writer, rows)


def _write_counted(writer: Any, rows: Iterable[list[str]]) -> int:
    n_rows = 0
    for row in rows:
        writer.writerow(row)
        n_rows += 1
    return n_rows


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[TextIO]:
    """Open a file beside `path` that takes its place when the block is done, and vanishes if it fails (UserError)."""
    part = path.with_name(path.name + ".part")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(part, "w", **TEXT) as file:
                yield file
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)


# The table of formats -----------------------------------------------------------------------------


class Format(NamedTuple):
    """How a format is written, its file's suffix, and the threshold it takes if none is given."""

    write: Callable[[Path, Results, Selection, str, float], int]
    suffix: str
    threshold: float


FORMATS = {
    **{f"submission-{year}": Format(_write_submission, ".csv", 0.5) for year in range(2021, 2027)},
    "long": Format(_write_long, ".csv", 0.0),
    "raven": Format(_write_raven, ".txt", 0.5),
    "audacity": Format(_write_audacity, "", 0.5),
    "birdnet": Format(_write_birdnet, ".csv", 0.5),
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
        UserError: the disk refuses.
    """
    chosen = FORMATS[form]
    threshold = chosen.threshold if selection.threshold is None else selection.threshold
    return chosen.write(path, results, selection, form, threshold)
