"""Scores read back from what predict.py wrote: long tables, submissions, Raven, Audacity, BirdNET.

Lists of detections become windows too: a window that is not listed has no score above the lowest
that was listed, and counts as 0.
"""

import re
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from catalog.annotations import parse_seconds
from catalog.labels import split_labels
from catalog.tables import read_table
from configs import UserError
from files import original_cell
from inference.formats import BIRDNET_COLUMNS, LONG_COLUMNS, RAVEN_COLUMNS
from inference.text_files import read_header

SPAN_COLUMNS = LONG_COLUMNS
TARGET_ID = re.compile(r"(.+)_([^_]+)_([0-9.]+)")  # BirdCLEF 2022: <recording>_<species>_<second>
WINDOW_S = 5.0  # seconds in the windows that events are counted in
CLOSE_S = 1e-4  # times that differ by less are one


@dataclass(frozen=True)
class Predicted:
    """What a run of predict.py said of some recordings.

    Attributes:
        spans: a row a detection: file, start_s, end_s, species and score.
        class_names: species that it could have named, as far as the file tells.
        is_complete: every window and species has a row, so what is not there was not scored.
    """

    spans: pd.DataFrame
    class_names: tuple[str, ...]
    is_complete: bool

    @property
    def recordings(self) -> list[str]:
        """Names of the recordings, sorted."""
        return sorted(self.spans["file"].unique())

    @cached_property
    def are_windows(self) -> bool:
        """Whether all spans are as long as one another, but for each recording's last."""
        length_s = self.spans["end_s"] - self.spans["start_s"]
        is_last = self.spans["start_s"] == self.spans.groupby("file")["start_s"].transform("max")
        period = self.period
        is_whole = (length_s - period).abs() < CLOSE_S
        return bool((is_whole | (is_last & (length_s < period))).all())

    @cached_property
    def period(self) -> float:
        """The usual length of a span, in seconds."""
        length_s = (self.spans["end_s"] - self.spans["start_s"]).round(4)
        return float(length_s.mode().iloc[-1])

    @cached_property
    def stride(self) -> float:
        """Seconds from one window to the next; the period where no recording has two."""
        starts = self.spans[["file", "start_s"]].drop_duplicates().sort_values(["file", "start_s"])
        steps = starts.groupby("file")["start_s"].diff().to_numpy()
        steps = steps[steps > CLOSE_S]
        return float(steps.min()) if len(steps) else self.period


def read_predicted(path: Path) -> Predicted:
    """Read a file, or Audacity's folder, that predict.py wrote.

    Raises:
        UserError: it cannot be read, has none of predict.py's formats, or holds no detection.
    """
    if path.is_dir():
        return _listed(_read_audacity(path), path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; name a table that predict.py wrote")
    if path.suffix.lower() == ".parquet":
        return _listed(_read_parquet(path), path)

    header = read_header(path)
    if header[0] == "row_id":
        return _read_submission(path, header)
    if set(SPAN_COLUMNS) <= set(header):
        return _listed(_read_long(path), path)
    for columns in (RAVEN_COLUMNS, BIRDNET_COLUMNS):
        if set(columns) <= set(header):
            return _listed(_read_listing(path, columns), path)
    raise UserError(
        f"{path}: no table of predict.py: its columns are {', '.join(header[:6])}; write one with "
        "--format long, or name a submission"
    )


def _listed(spans: pd.DataFrame, path: Path) -> Predicted:
    """Check a list of detections and say whether it is complete."""
    if spans.empty:
        raise UserError(f"{path}: no detections in it; write them with --threshold 0")
    numbers = spans[["start_s", "end_s", "score"]].to_numpy(float)
    if not np.isfinite(numbers).all():
        row = int(np.flatnonzero(~np.isfinite(numbers).all(axis=1))[0])
        raise UserError(f"{path}: row {row + 2}: a time or a score is no number")

    names = tuple(sorted(spans["species"].unique()))
    predicted = Predicted(spans, names, is_complete=False)
    return replace(predicted, is_complete=predicted.are_windows and _has_all_rows(predicted))


def _has_all_rows(predicted: Predicted) -> bool:
    """Say whether each recording has every window from its start on, with every species.

    Of a single species that cannot be told from a list of its detections.
    """
    windows = predicted.spans[["file", "start_s"]].drop_duplicates()
    if len(predicted.class_names) == 1 or len(predicted.spans) != len(windows) * len(
        predicted.class_names
    ):
        return False
    found = windows.groupby("file")["start_s"].agg(["min", "max", "size"])
    off_s = found["max"] - (found["size"] - 1) * predicted.stride
    return bool((found["min"] == 0).all() and (off_s.abs() < predicted.stride / 2).all())


# Lists of detections ------------------------------------------------------------------------------


def _read_long(path: Path) -> pd.DataFrame:
    kinds = {"file": str, "species": str, "start_s": float, "end_s": float, "score": np.float32}
    columns, gaps = list(SPAN_COLUMNS), dict.fromkeys(("start_s", "end_s", "score"), [""])
    how = {"usecols": columns, "dtype": kinds, "keep_default_na": False, "na_values": gaps}
    try:
        spans = pd.read_csv(path, **how)[columns]
    except (ValueError, OSError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    return _unescaped(spans)


def _unescaped(spans: pd.DataFrame) -> pd.DataFrame:
    """Undo what a spreadsheet needs, once for each name."""
    for column in ("file", "species"):
        names = {name: original_cell(name) for name in spans[column].unique()}
        spans[column] = spans[column].map(names)
    return spans


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path, columns=list(SPAN_COLUMNS))
    except ImportError:
        raise UserError(f"{path} needs pyarrow; python -m pip install pyarrow") from None
    except (ValueError, OSError, KeyError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None


def _read_listing(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    """Read Raven's or BirdNET's table; Raven's times count over all files, its offset in one."""
    table = read_table(path, may_be_empty=True)
    is_raven = columns is RAVEN_COLUMNS
    start, end = ("Begin Time (s)", "End Time (s)") if is_raven else ("Start (s)", "End (s)")
    rows = []
    for row, cells in table.iterrows():
        where = f"{path}: row {row}"
        start_s, end_s = parse_seconds(cells[start], where), parse_seconds(cells[end], where)
        if is_raven:
            offset_s = parse_seconds(cells["File Offset (s)"], where)
            start_s, end_s = offset_s, offset_s + end_s - start_s
        name = cells["Begin Path" if is_raven else "File"]
        species = cells["Species Code" if is_raven else "Common name"]
        score = parse_seconds(cells["Confidence"], where)
        rows.append((original_cell(name), start_s, end_s, original_cell(species), score))
    return pd.DataFrame(rows, columns=list(SPAN_COLUMNS))


def _read_audacity(folder: Path) -> pd.DataFrame:
    """Read a folder of labels, each `start, end, name score`."""
    rows = []
    for path in sorted(folder.rglob("*.txt")):
        name = path.relative_to(folder).with_suffix("").as_posix()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            where = f"{path}: row {number}"
            cells = line.split("\t")
            if len(cells) < 3 or " " not in cells[2]:
                raise UserError(f"{where}: expected start, end, and a name with its score")
            species, _, score = cells[2].rpartition(" ")
            times = [parse_seconds(cell, where) for cell in cells[:2]]
            rows.append((name, *times, species, parse_seconds(score, where)))
    return pd.DataFrame(rows, columns=list(SPAN_COLUMNS))


# Submissions --------------------------------------------------------------------------------------


def _read_submission(path: Path, header: list[str]) -> Predicted:
    """Read a submission of BirdCLEF; those of 2021 and 2022 say yes or no, which counts 1 or 0."""
    try:
        table = pd.read_csv(path, dtype={"row_id": str}, keep_default_na=False)
    except (ValueError, OSError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    if table.empty:
        raise UserError(f"{path}: no rows below the header")

    table["row_id"] = table["row_id"].map(original_cell)
    if header[1:] == ["birds"]:
        return _read_birds(table, path)
    if header[1:] == ["target"]:
        return _read_targets(table, path)

    names = [original_cell(name) for name in table.columns[1:]]
    try:
        scores = table.iloc[:, 1:].to_numpy(np.float32)  # (n, C)
    except ValueError as error:
        raise UserError(f"{path}: a score is no number: {error}") from None
    files, ends = _split_ids(table["row_id"], path)
    spans = _as_spans(np.repeat(files, len(names)), np.repeat(ends, len(names)))
    spans["species"], spans["score"] = np.tile(names, len(table)), scores.reshape(-1)
    return Predicted(_checked(spans, path), tuple(names), is_complete=True)


def _read_birds(table: pd.DataFrame, path: Path) -> Predicted:
    found = [split_labels(text) for text in table["birds"]]
    names = sorted({name for birds in found for name in birds} - {"nocall"})
    if not names:
        raise UserError(f"{path}: names no bird")
    files, ends = _split_ids(table["row_id"], path)
    spans = _as_spans(np.repeat(files, len(names)), np.repeat(ends, len(names)))
    spans["species"] = np.tile(names, len(table))
    spans["score"] = np.array([float(name in birds) for birds in found for name in names], "f4")
    return Predicted(spans, tuple(names), is_complete=False)


def _read_targets(table: pd.DataFrame, path: Path) -> Predicted:
    matches = [TARGET_ID.fullmatch(row_id) for row_id in table["row_id"]]
    for row_id, match in zip(table["row_id"], matches, strict=True):
        if match is None:
            raise UserError(f"{path}: row_id {row_id!r} is not <recording>_<species>_<second>")
    parts = [match.groups() for match in matches if match]
    files, ends = np.array([one[0] for one in parts]), np.array([float(one[2]) for one in parts])
    spans = _as_spans(files, ends)
    spans["species"] = [one[1] for one in parts]
    spans["score"] = table["target"].astype(str).str.lower().isin(("true", "1")).astype("f4")
    return Predicted(spans, tuple(sorted(spans["species"].unique())), is_complete=True)


def _split_ids(row_ids: pd.Series, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Split `<recording>_<second>`: (n,) str and (n,) seconds, where the windows end."""
    parts = row_ids.str.rpartition("_")
    ends = pd.to_numeric(parts[2], errors="coerce").to_numpy(float)
    if np.isnan(ends).any():
        bad = row_ids[np.isnan(ends)].iloc[0]
        raise UserError(f"{path}: row_id {bad!r} does not end with _<second>")
    return parts[0].to_numpy(str), ends


def _as_spans(files: np.ndarray, ends_s: np.ndarray) -> pd.DataFrame:
    """Name windows by file, start and end; the first of a recording begins at 0."""
    period = ends_s.min()
    return pd.DataFrame({"file": files, "start_s": ends_s - period, "end_s": ends_s})


def _checked(spans: pd.DataFrame, path: Path) -> pd.DataFrame:
    if not np.isfinite(spans["score"]).all():
        bad = spans.loc[~np.isfinite(spans["score"]), "species"].iloc[0]
        raise UserError(f"{path}: column {bad!r} has a score that is no number")
    return spans
