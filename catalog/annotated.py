"""Recordings whose labels have a time: a row each in train.csv, and windows of them to train on.

split_data.py writes the labels' times beside train.csv. Training cuts the recordings into windows
of its own `period`, each with the labels of its time. Windows overlap by half, so that training
meets a song at several places of a clip; validation takes every other one.
"""

import logging
import re
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from audio.recording import array_name
from catalog.annotations import read_annotations
from catalog.frame_targets import SPANS_COLUMN, is_grid, repeat_spans
from catalog.labels import BAD_LABEL, NO_BIRD, join_labels
from catalog.refuted import REFUTED_COLUMN
from catalog.report import WITH_AUDIO, read_report
from catalog.reviews import (
    REVIEW_COLUMNS,
    count_verdicts,
    list_reviewed_windows,
    reviewed_recordings,
)
from catalog.tables import read_table
from catalog.timed_labels import list_windows
from configs import Config, UserError
from files import csv_text, original_cell, write_file

logger = logging.getLogger("birdclef.annotated")

LENGTH_COLUMN = "annotated_seconds"  # of train.csv; tables of other recordings do not have it
OVERLAP = 2  # windows that a second lies in
DAY = re.compile(r"(?<!\d)((?:19|20)\d{2})[-_]?(0[1-9]|1[0-2])[-_]?([0-2]\d|3[01])(?!\d)")


# When recordings are split ------------------------------------------------------------------------


def read_annotated(config: Config) -> tuple[pd.DataFrame, pd.DataFrame]:
    """List the annotated recordings that are prepared, and the times of their labels.

    Args:
        config: of which annotations and the prepared recordings are used.

    Returns:
        A row a recording: filename, primary_label (the label that sings longest, or NO_BIRD),
        labels (all), len_labels, filepath, annotated_seconds, site (the recording's folder) and day
        (the date in its name); and a row a span: filename, start_s, end_s, label.

    Raises:
        UserError: no annotations, or nothing prepared.
    """
    assert config.annotations is not None
    seconds = prepared_seconds(config)
    spans = read_annotations(config.annotations, sorted(seconds))
    check_spans(spans, seconds)
    names = sorted(set(spans["filename"]))
    if left_out := sorted(seconds.keys() - set(names)):
        logger.warning(
            "%d prepared recordings have no annotations and are left out: %s",
            len(left_out), ", ".join(left_out[:5]),
        )  # fmt: skip

    sung = spans[spans["label"] != ""]
    total = (sung["end_s"] - sung["start_s"]).groupby([sung["filename"], sung["label"]]).sum()
    by_recording = {name: part.droplevel(0) for name, part in total.groupby(level=0)}
    labels = [_longest_first(by_recording.get(name)) for name in names]
    table = pd.DataFrame({"filename": names})
    table = table.assign(
        primary_label=[own[0] if own else NO_BIRD for own in labels],
        labels=join_labels(labels),
        len_labels=[len(own) for own in labels],
        filepath=[array_name(name) for name in names],
        **{LENGTH_COLUMN: [seconds[name] for name in names]},
        site=[site_of(name) for name in names],
        day=[day_of(name) for name in names],
    )
    return table, spans


def _longest_first(seconds: pd.Series | None) -> tuple[str, ...]:
    if seconds is None:
        return ()
    return tuple(seconds.sort_index().sort_values(ascending=False, kind="stable").index)


def prepared_seconds(config: Config) -> dict[str, float]:
    """Return the length of each prepared recording, by its name.

    Raises:
        UserError: nothing is prepared.
    """
    report = read_report(config.report_path)
    report = report[report["status"].isin(WITH_AUDIO)]
    if report.empty:
        raise UserError(
            f"no prepared recordings in {config.report_path}; run prepare_audios.py with the same "
            "--annotations first"
        )
    return dict(zip(report["filename"], report["seconds"], strict=True))


def check_spans(spans: pd.DataFrame, seconds: dict[str, float]) -> None:
    """Refuse labels that cannot be the names of classes, and times that are of something else.

    Args:
        spans: as read_annotations returns them.
        seconds: length of each recording.

    Raises:
        UserError: a label that is a formula or the like, two that differ in case alone, or a
            recording behind whose end all its labels lie.
    """
    _refuse_bad_labels(spans["label"])
    _refuse_other_case(spans["label"])
    sung = spans[spans["label"] != ""]
    is_behind = sung["start_s"] >= sung["filename"].map(seconds)
    for name, behind in is_behind.groupby(sung["filename"]):
        if behind.all():
            first_s = sung.loc[behind.index, "start_s"].min()
            raise UserError(
                f"annotations: {name} is {seconds[str(name)]:.1f} s long, and its first label "
                f"begins at {first_s:g} s; write times from the recording's begin, not times of "
                "day or over several files, or take its labels out if it was cut short"
            )
    if n_behind := int(is_behind.sum()):
        example = sung[is_behind].iloc[0]
        logger.warning(
            "%d labels lie behind the end of their recording and are left out: %s of %s at %g s",
            n_behind, example["label"], example["filename"], example["start_s"],
        )  # fmt: skip


def _refuse_other_case(labels: pd.Series) -> None:
    spelled: dict[str, str] = {}
    for label in sorted(set(labels)):
        other = spelled.setdefault(label.casefold(), label)
        if other != label:
            raise UserError(
                f"annotations: the labels {other!r} and {label!r} differ only in case; spell them "
                "in one way"
            )


def _refuse_bad_labels(labels: pd.Series) -> None:
    bad = sorted({label for label in labels if label and BAD_LABEL.search(label)})
    if bad:
        raise UserError(
            f"annotations: label {bad[0]!r} begins like a formula, or has a semicolon or a control "
            f"character in it ({len(bad)} such labels); rename it in the tables"
        )


def site_of(filename: str) -> str:
    """Name the folder that a recording lies in, "" for none: most recorders have one each."""
    folder = PurePosixPath(filename).parent.as_posix()
    return "" if folder == "." else folder


def day_of(filename: str) -> str:
    """Return the date in a file's name as YYYY-MM-DD, "" if there is none."""
    match = DAY.search(Path(filename).name)
    return "-".join(match.groups()) if match else ""


def describe_annotated(table: pd.DataFrame, spans: pd.DataFrame) -> dict[str, Any]:
    """Count hours, and labels and the seconds of each species, for the fold report."""
    sung = spans[spans["label"] != ""]
    lengths = (sung["end_s"] - sung["start_s"]).groupby(sung["label"]).sum()
    described: dict[str, Any] = {
        "hours": round(float(table[LENGTH_COLUMN].sum()) / 3600, 3),
        "timed_labels": len(sung),
        "seconds_by_label": {label: round(float(length), 1) for label, length in lengths.items()},
    }
    if "verdict" in spans:
        described["reviewed"] = count_verdicts(spans)
    return described


def spans_path(config: Config) -> Path:
    """Name the file of the labels' times, beside train.csv."""
    table = config.train_dataframe_path
    return table.with_name(f"{table.stem}_annotations.csv")


def write_spans(spans: pd.DataFrame, config: Config) -> None:
    """Write the times of labels, a row a span."""
    rows = spans.itertuples(index=False)
    write_file(spans_path(config), csv_text([spans.columns, *rows]))


# When they are trained on -------------------------------------------------------------------------


def expand_windows(table: pd.DataFrame, config: Config) -> pd.DataFrame:
    """Cut annotated recordings into windows with the labels of their time.

    Args:
        table: train.csv as train_table.check_table returns it; without annotated recordings it is
            returned as it is.
        config: of which period, label_overlap, unlabelled and the place of the spans are used.

    Returns:
        A row a window, with start_s, its number in the recording, its own primary_label (the one
        that sings longest, or NO_BIRD) and labels, spans (see catalog/frame_targets.py), refuted
        where recordings were reviewed, and the other columns of its recording.

    Raises:
        UserError: the times are missing, or no window has a label.
    """
    if LENGTH_COLUMN not in table:
        return table

    spans = _read_spans(config)
    seconds = dict(zip(table["filename"], table[LENGTH_COLUMN].astype(float), strict=True))
    windows = list_all_windows(spans, seconds, config)
    if not windows["labels"].map(len).any():
        raise UserError(f"{spans_path(config)}: no label lies in a window of any recording")

    labels = list(windows["labels"])
    windows = windows.assign(
        primary_label=[own[0] if own else NO_BIRD for own in labels],
        labels=join_labels(labels),
        len_labels=[len(own) for own in labels],
        **{SPANS_COLUMN: _exact_spans(windows, spans, seconds, config)},
    )
    if REFUTED_COLUMN in windows:
        windows[REFUTED_COLUMN] = join_labels(list(windows[REFUTED_COLUMN]))
    of_recordings = table.drop(columns=["primary_label", "labels", "len_labels"], errors="ignore")
    expanded = windows.merge(of_recordings, on="filename", how="inner", validate="m:1")
    n_exact = int(expanded[SPANS_COLUMN].notna().sum()) if config.learns_frames else 0
    logger.info(
        "%d annotated recordings in %d windows; in %d of them the labels' times teach frames",
        len(table), len(expanded), n_exact,
    )  # fmt: skip
    return expanded


def list_all_windows(
    spans: pd.DataFrame, seconds: dict[str, float], config: Config
) -> pd.DataFrame:
    """List the windows of annotated recordings, then those of reviewed ones.

    Args:
        spans: as read_annotations returns them.
        seconds: length of each recording.
        config: of which period, label_overlap and unlabelled are used.

    Returns:
        As timed_labels.list_windows, and refuted (see reviews.list_reviewed_windows) where
        recordings were reviewed.
    """
    cut = {
        "period": config.period,
        "stride": config.period / OVERLAP,
        "min_overlap": config.label_overlap,
    }
    is_reviewed = spans["filename"].isin(reviewed_recordings(spans))
    windows = list_windows(spans[~is_reviewed], seconds, **cut)
    if config.unlabelled == "unknown":
        windows = windows[windows["labels"].map(len) > 0]
    if not is_reviewed.any():
        return windows
    reviewed = list_reviewed_windows(spans[is_reviewed], seconds, **cut)
    windows[REFUTED_COLUMN] = [()] * len(windows)  # all that nobody named is absent
    return pd.concat([windows, reviewed], ignore_index=True)


def _exact_spans(
    windows: pd.DataFrame, spans: pd.DataFrame, seconds: dict[str, float], config: Config
) -> list[Any]:
    """Repeat the spans of short windows as their samples are; None where times are not exact.

    They are not, either, where of some species alone is known that they are absent.
    """
    sung = spans[spans["label"] != ""]
    reviewed = reviewed_recordings(spans)  # a bird sings somewhere in a clip
    is_exact = {
        name: config.frame_labels != "auto"
        or name not in reviewed
        and not is_grid(own["start_s"].to_numpy(float), own["end_s"].to_numpy(float))
        and bool((own["start_s"] < own["end_s"]).all())  # a point does not say until when
        for name, own in sung.groupby("filename")
    }
    columns = ["filename", "start_s", "spans", *({REFUTED_COLUMN} & set(windows))]
    return [
        repeat_spans(found, min(config.period, seconds[name] - start_s), config.period)
        if is_exact.get(name, True) and not any(refuted)
        else None
        for name, start_s, found, *refuted in windows[columns].itertuples(index=False)
    ]


def _read_spans(config: Config) -> pd.DataFrame:
    path = spans_path(config)
    if not path.exists():
        raise UserError(f"{path}: no such file; run split_data.py with --annotations again")
    spans = read_table(path)
    texts = [name for name in ("filename", "label", *REVIEW_COLUMNS) if name in spans]
    return spans.assign(
        **{name: spans[name].map(original_cell) for name in texts},
        start_s=spans["start_s"].astype(float),
        end_s=spans["end_s"].astype(float),
    )
