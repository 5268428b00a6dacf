"""Submissions as BirdCLEF asked for them from 2021 to 2026, and the sample that they follow."""

import csv
import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from configs import UserError, some
from files import original_cell
from inference.detections import Recording
from inference.selection import Sample, Selection
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
            lines = [row for row in csv.reader(file) if row]
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as a sample submission: {error}") from None
    if not lines:
        raise UserError(f"{path}: no sample submission: it is empty")

    header, *rows = lines
    header[0] = header[0].lstrip("\ufeff")
    if header[0] != "row_id" or len(header) < 2:
        begin = ", ".join(header[:3])
        raise UserError(f"{path}: no sample submission: its header begins {begin}, not row_id")

    row_ids = [original_cell(row[0]) for row in rows]
    for what, names in (("column", header), ("row_id", row_ids)):
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            raise UserError(f"{path}: {what} {twice[0]!r} stands in it twice; keep one")
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


def row_id(form: str, stem: str, second: float, label: str = "") -> str:
    """Name a row as BirdCLEF did that year.

    Args:
        form: submission-2021 and so on.
        stem: what stands for the recording (see row_stems).
        second: the end of the window.
        label: the species, for 2022.
    """
    labels = [label] if form == "submission-2022" else []
    return "_".join([stem, *labels, str(round(second, 6)).removesuffix(".0")])


def row_stems(form: str, names: Iterable[str]) -> dict[str, str]:
    """Choose what stands for each recording in row ids: the shortest name that no other one has.

    That is the file's name without its suffix, as in BirdCLEF (in 2021 also without its date).
    Recorders give equal names in different folders; such recordings keep their path.

    Args:
        form: submission-2021 and so on.
        names: of all recordings, paths with slashes.

    Returns:
        Stems by name, no two alike.
    """
    choices = {name: _stem_choices(form, name) for name in names}
    chosen = dict.fromkeys(choices, 0)  # place in the choices
    while True:
        stems = {name: choices[name][place] for name, place in chosen.items()}
        counts = Counter(stems.values())
        twins = [
            name
            for name, stem in stems.items()
            if counts[stem] > 1 and chosen[name] + 1 < len(choices[name])
        ]
        if not twins:
            break
        for name in twins:
            chosen[name] += 1

    if longer := [stems[name] for name, place in chosen.items() if place]:
        message = "%d recordings have the name of another one; their row ids are longer (%s)"
        logger.warning(message, len(longer), some(longer))
    return stems


def _stem_choices(form: str, name: str) -> list[str]:
    """List what may stand for a recording, from short to long; the last is the name itself."""
    path = PurePosixPath(name)
    choices = [path.stem, path.with_suffix("").as_posix(), name]
    if form == "submission-2021" and (match := SITE.fullmatch(path.stem)):
        choices.insert(0, match["id"])
    return list(dict.fromkeys(choices))


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

    lowest = np.append(selection.lowest(threshold), np.inf)[columns]  # (columns,)
    stems = row_stems(form, selection.recordings)
    separator = _separator(labels) if form == "submission-2021" else ""

    for recording in results:
        stem = stems.get(recording.name) or _stem_choices(form, recording.name)[0]
        scores = recording.scores
        if selection.wanted is not None:
            scores = scores * selection.wanted
        scores = np.pad(scores, ((0, 0), (0, 1)))[:, columns].astype(np.float32)  # (n, columns)

        for start_s, row in zip(recording.starts_s.tolist(), scores, strict=True):
            second = round(start_s + selection.period, 6)
            if form == "submission-2022":
                for label, is_found in zip(labels, row >= lowest, strict=True):
                    yield [row_id(form, stem, second, label), str(bool(is_found))]
            elif form == "submission-2021":
                birds = separator.join(labels[n] for n in np.flatnonzero(row >= lowest))
                yield [row_id(form, stem, second), birds or "nocall"]
            else:  # numpy writes a float32 in its shortest exact form
                yield [row_id(form, stem, second), *row]


def _separator(labels: Sequence[str]) -> str:
    """Choose what separates the birds of a row, as in the labels of train.csv."""
    from catalog.labels import choose_separator  # with pandas

    separator = choose_separator(labels)
    if separator != " ":
        logger.warning("labels have spaces, so a row's birds are separated by %s", separator)
    return separator


def _as_in_sample(
    rows: Iterator[list[Any]], sample: Sample | None, blank: list[str]
) -> Iterator[list[Any]]:
    """Give the sample's rows in its order, then those of all other windows.

    A competition's public sample names few or none of the hidden recordings, so it gives columns
    and order, and does not choose rows. Its rows without a window get `blank`.
    """
    if sample is None:
        yield from rows
        return

    found = {row[0]: row for row in rows}
    wanted = list(dict.fromkeys(sample.row_ids))
    if missing := [name for name in wanted if name not in found]:
        message = "%s: %d of its rows have no window (%s); they get %s"
        logger.warning(message, sample.path, len(missing), some(missing), blank[0])
    for name in wanted:
        yield found.pop(name) if name in found else [name, *blank]

    if found:
        message = "%s: %d windows have no row in it (%s); they follow its rows"
        logger.info(message, sample.path, len(found), some(list(found)))
    yield from found.values()
