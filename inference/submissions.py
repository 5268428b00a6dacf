"""Submissions as BirdCLEF asked for them from 2021 to 2026, and the sample that they follow."""

import csv
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from configs import UserError
from files import original_cell
from inference.detections import Recording
from inference.selection import Sample, Selection, some
from inference.text_files import TEXT, write_table

logger = logging.getLogger("birdclef.submissions")

SITE = re.compile(r"(?P<id>[^_]+_[^_]+)_\d{8}")  # BirdCLEF 2021: <audio_id>_<site>_<date>

Results = Iterable[Recording]  # with scores (n, C)


# The sample ---------------------------------------------------------------------------------------


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

    header[0] = header[0].lstrip("\ufeff")
    if header[0] != "row_id" or len(header) < 2:
        begin = ", ".join(header[:3])
        raise UserError(f"{path}: no sample submission: its header begins {begin}, not row_id")

    row_ids = [original_cell(row[0]) for row in rows]
    if header[1:] == ["birds"]:
        return Sample(path, "submission-2021", [], row_ids)
    if header[1:] == ["target"]:
        species = [parts[-2] for row_id in row_ids if len(parts := row_id.split("_")) > 2]
        return Sample(path, "submission-2022", list(dict.fromkeys(species)), row_ids)
    return Sample(path, "submission-2023", [original_cell(name) for name in header[1:]], row_ids)


def check_sample(
    sample: Sample, class_names: Sequence[str], forms: Sequence[str], *, fill_missing: bool
) -> None:
    """Refuse a sample of another format, or with species that the model does not know.

    Args:
        sample: to check.
        class_names: the model's.
        forms: formats that will be written.
        fill_missing: let unknown species score 0.

    Raises:
        UserError: such a format, or such species by name.
    """
    for form in forms:
        if form.startswith("submission") and _layout(form) != sample.form:
            raise UserError(f"{sample.path} has the form of {sample.form}, not of {form}")

    if missing := sorted(set(sample.species) - set(class_names)):
        what = f"{len(missing)} of its {len(sample.species)} species are no classes of the model"
        what += f" ({some(missing)})"
        if not fill_missing:
            raise UserError(f"{sample.path}: {what}; --fill-missing gives them a score of 0")
        logger.warning("%s: %s; they score 0", sample.path, what)

    unused = [name for name in class_names if name not in set(sample.species)]
    if sample.species and unused:
        message = "%s has no column for %d of the classes (%s)"
        logger.info(message, sample.path, len(unused), some(unused))


def _layout(form: str) -> str:
    """Name the year whose form a submission has; since 2023 it is the same."""
    return form if form in ("submission-2021", "submission-2022") else "submission-2023"


# Row ids ------------------------------------------------------------------------------------------


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
    labels = [label] if form == "submission-2022" else []
    return "_".join([stem, *labels, str(round(second, 6)).removesuffix(".0")])


def check_row_ids(form: str, names: Sequence[str]) -> None:
    """Refuse two recordings that a submission could not tell apart (UserError)."""
    seen: dict[str, str] = {}
    for name in names if form.startswith("submission") else ():
        if (other := seen.setdefault(row_id(form, name, 0), name)) != name:
            raise UserError(
                f"{other} and {name} would have the same row_id in a {form}; "
                "give one folder at a time"
            )


# Rows ---------------------------------------------------------------------------------------------


def write_submission(
    path: Path, results: Results, selection: Selection, form: str, threshold: float
) -> int:
    """Write a row a window (in 2022, a window and species); return their number."""
    labels = _species(selection)
    if form == "submission-2021":
        header, blank = ["birds"], ["nocall"]
    elif form == "submission-2022":
        header, blank = ["target"], ["False"]
    else:
        header, blank = labels, ["0.0"] * len(labels)

    rows = _rows(results, selection, form, threshold)
    rows = _as_in_sample(rows, selection.sample, blank)
    return write_table(path, ["row_id", *header], rows)


def _species(selection: Selection) -> list[str]:
    if selection.sample and selection.sample.species:
        return selection.sample.species
    return selection.class_names


def _rows(
    results: Results, selection: Selection, form: str, threshold: float
) -> Iterator[list[Any]]:
    """Make the rows of all windows, the row_id first."""
    labels = _species(selection)
    number = {label: n for n, label in enumerate(selection.class_names)}
    columns = np.array([number.get(label, -1) for label in labels])  # the last one, of zeros

    for recording in results:
        scores = recording.scores
        if selection.wanted is not None:
            scores = scores * selection.wanted
        scores = np.pad(scores, ((0, 0), (0, 1)))[:, columns].astype(np.float32)  # (n, columns)

        for start_s, row in zip(recording.starts_s.tolist(), scores, strict=True):
            second = round(start_s + selection.period, 6)
            if form == "submission-2022":
                for label, score in zip(labels, row, strict=True):
                    name = row_id(form, recording.name, second, label)
                    yield [name, str(bool(score >= threshold))]
            elif form == "submission-2021":
                birds = " ".join(labels[n] for n in np.flatnonzero(row >= threshold))
                yield [row_id(form, recording.name, second), birds or "nocall"]
            else:  # numpy writes a float32 in its shortest exact form
                yield [row_id(form, recording.name, second), *row]


def _as_in_sample(
    rows: Iterator[list[Any]], sample: Sample | None, blank: list[str]
) -> Iterator[list[Any]]:
    """Give the rows in the sample's order if it is of these recordings, else as they are."""
    if sample is None:
        yield from rows
        return

    found = {row[0]: row for row in rows}
    wanted = sample.row_ids
    if not found.keys() & set(wanted):
        message = "%s is not of these recordings; the rows are theirs, in their order"
        logger.warning(message, sample.path)
        wanted = list(found)
    if missing := [name for name in wanted if name not in found]:
        message = "%s: %d of its rows have no window (%s); they get %s"
        logger.warning(message, sample.path, len(missing), some(missing), blank[0])
    if extra := sorted(found.keys() - set(wanted)):
        message = "%s: %d windows have no row in it (%s)"
        logger.info(message, sample.path, len(extra), some(extra))
    for name in wanted:
        yield found.get(name) or [name, *blank]
