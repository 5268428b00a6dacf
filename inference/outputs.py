"""What a run writes: settled and checked before anything is scored, written at the end."""

import argparse
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from configs import UserError
from files import CannotWriteError, write_file
from inference import activity, formats, selection, submissions
from inference.adjusting import Adjustment, read_by_species, read_neighbours
from inference.calibration import Calibration
from inference.detections import DETECTED
from inference.evaluated import (
    UNKNOWN,
    find_evaluation,
    is_from_evaluation,
    read_thresholds,
    settle_calibration,
)
from inference.places import read_zone
from inference.results import Results
from inference.score_notes import write_note
from inference.selection import Selection
from inference.site_prior import read_site_shifts
from inference.text_files import read_header
from inference.timeline import EventRule
from inference.windows import Models, Plan

logger = logging.getLogger("birdclef.outputs")

WITHOUT_SCORES = {"submission-2021", "submission-2022"}  # they say yes or no


@dataclass(frozen=True)
class Outputs:
    """The files of a run, and what goes into them.

    Attributes:
        paths: file of each format.
        bad_path: the list of recordings that are not ok.
        partial_path: what the run has scored so far.
        selection: what of the results is written.
        adjustment: what is done to scores before.
    """

    paths: dict[str, Path]
    bad_path: Path
    partial_path: Path
    selection: Selection
    adjustment: Adjustment


def plan_outputs(flags: argparse.Namespace, models: Models, names: Sequence[str]) -> Outputs:
    """Read the files that say what is written, and refuse what could not be written in the end.

    Args:
        flags: of the command line.
        models: what scores.
        names: of the recordings.

    Raises:
        UserError: files or flags that do not fit the model or each other.
    """
    sample = None
    if flags.sample_submission is not None:
        sample = submissions.read_sample(flags.sample_submission)
    forms = flags.format or [_default_format(flags.output, sample)]

    if sample is not None:
        fill_missing = flags.fill_missing
        submissions.check_sample(sample, models.class_names, forms, fill_missing=fill_missing)
    if "parquet" in forms:
        formats.check_parquet()
    warn_of_idle_flags(flags, forms)
    warn_of_gaps(flags.stride, models.config.period)
    for folder in (flags.frames, flags.activity):
        if folder is not None:
            make_folder(folder)

    evaluation = find_evaluation(flags.model, flags.evaluation)
    adjustment = read_adjustment(flags, models.class_names)
    calibration = settle_calibration(flags, evaluation, models.class_names)
    thresholds = read_threshold(flags.threshold, evaluation, models.class_names, calibration)

    output: Path = flags.output
    return Outputs(
        paths=place_outputs(output, forms),
        bad_path=output.with_name(f"{output.stem}.bad_files.csv"),
        partial_path=output.with_name(f"{output.name}.partial"),
        selection=read_selection(flags, models, names, sample, thresholds),
        adjustment=replace(adjustment, calibration=calibration),
    )


def read_adjustment(flags: argparse.Namespace, class_names: Sequence[str]) -> Adjustment:
    """Settle what is done to scores (UserError: weights or powers that do not fit)."""
    powers = None
    if flags.power is not None:
        powers = read_by_species(flags.power, ["power"], class_names, 1.0)
        if not (powers > 0).all():
            raise UserError(f"--power {flags.power}: powers must be above 0")
    shifts = None
    if flags.site_prior is not None:
        shifts = read_site_shifts(flags.site_prior, class_names, flags.site_weight)
    return Adjustment(powers, read_neighbours(flags.smooth), flags.lean, site_shifts=shifts)


def read_threshold(
    text: str | None,
    evaluation: Path | None,
    class_names: Sequence[str],
    calibration: Calibration | None,
) -> np.ndarray | None:
    """Settle the lowest score of a detection of each species, (C,) float64; None: the format's.

    Thresholds that evaluate.py wrote are of scores as they are, so they are calibrated with them.
    """
    if text is None:
        return None
    if is_from_evaluation(text):
        return read_thresholds(text, evaluation, class_names, calibration)

    columns = ["threshold", "best_f1_threshold"]
    found = read_by_species(text, columns, class_names, np.nan)
    is_known = ~np.isnan(found)
    if not ((found[is_known] >= 0) & (found[is_known] <= 1)).all():
        raise UserError(f"--threshold {text}: thresholds lie between 0 and 1")
    path = Path(text)
    if calibration is not None and path.is_file() and columns[0] not in read_header(path):
        found[is_known] = calibration.apply(found[is_known].astype(np.float32))
    return np.where(is_known, found, UNKNOWN)


def _default_format(output: Path, sample: selection.Sample | None) -> str:
    if sample is not None:
        return sample.form
    return "parquet" if output.suffix == ".parquet" else "submission-2023"


def read_selection(
    flags: argparse.Namespace,
    models: Models,
    recordings: Sequence[str],
    sample: selection.Sample | None,
    thresholds: np.ndarray | None,
) -> Selection:
    """Settle what of the results is written (UserError: a list or taxonomy that does not fit)."""
    names = {}
    if flags.taxonomy is not None:
        names = selection.read_taxonomy(flags.taxonomy)
        if not names.keys() & set(models.class_names):
            message = "%s has no effect: it names none of the model's %d classes"
            logger.warning(message, flags.taxonomy, len(models.class_names))
    elif "names" in flags.columns:
        names = selection.read_metadata_names(models.config)
        if not names.keys() & set(models.class_names):
            message = "--columns names has no effect: neither --taxonomy nor %s gives names"
            logger.warning(message, models.config.metadata_path)
    wanted = None
    if flags.species is not None:
        wanted = selection.read_species(flags.species, models.class_names, names)

    place: Path = flags.recordings
    return Selection(
        class_names=models.class_names,
        period=models.config.period,
        folder=place if place.is_dir() else place.parent,
        fmin=models.config.fmin,
        fmax=models.config.fmax,
        recordings=tuple(recordings),
        threshold=None if thresholds is None else float(thresholds.min()),
        thresholds=thresholds,
        top_k=flags.top_k,
        wanted=wanted,
        names=names,
        sample=sample,
        events=flags.events,
        columns=tuple(flags.columns),
        zone=read_zone(flags.time_zone),
        leaves_no_bird=models.config.no_bird_class and models.config.has_softmax_scores,
    )


def warn_of_idle_flags(flags: argparse.Namespace, forms: Sequence[str]) -> None:
    """Say which flags change nothing in what is written."""
    lists = set(forms) & set(formats.LISTS)
    decides = lists or set(forms) & WITHOUT_SCORES
    names = set(forms) & set(formats.WITH_NAMES) or flags.report or flags.species
    names = names or "names" in flags.columns
    events_only = "without --events"

    idle = {
        "--taxonomy": (flags.taxonomy and not names, "these formats have labels alone"),
        "--sample-submission": (
            flags.sample_submission and not set(forms) - set(formats.LISTS),
            "no submission is written",
        ),
        "--fill-missing": (
            flags.fill_missing and not flags.sample_submission,
            "without --sample-submission",
        ),
        "--threshold": (
            flags.threshold is not None and not (decides or flags.report or flags.events),
            "these formats have the scores of all windows",
        ),
        "--columns": (flags.columns and not set(forms) & {"long", "parquet"}, "no long table"),
        "--time-zone": (
            flags.time_zone and not ("when" in flags.columns or flags.activity or flags.report),
            "without --columns when, --activity or --report",
        ),
        "--top-k": (flags.top_k and not (lists or flags.report), "no detections are listed"),
        "--events": (flags.events and not lists, "no detections are listed"),
        "--review-clips": (flags.review_clips is not None and not flags.report, "without --report"),
        "--event-low": (flags.event_low is not None and not flags.events, events_only),
        "--event-min": (flags.event_min and not flags.events, events_only),
    }
    for name, (is_idle, why) in idle.items():
        if is_idle:
            logger.warning("%s has no effect: %s", name, why)


def warn_of_gaps(stride_s: float | None, period_s: float) -> None:
    """Say it where windows are further apart than they are long."""
    if stride_s is not None and stride_s > period_s:
        message = "--stride %g: windows are %g s long, so %.0f %% of each recording is not scored"
        logger.warning(message, stride_s, period_s, 100 * (1 - period_s / stride_s))


def place_outputs(output: Path, forms: Sequence[str]) -> dict[str, Path]:
    """Name the file of each format: `output`, or of several one beside it, `<stem>.<format>.csv`.

    Raises:
        UserError: a folder stands where a file goes, or a file where Audacity's folder goes.
    """
    paths = dict.fromkeys(forms, output)
    if len(paths) > 1:
        for form in paths:
            paths[form] = output.with_name(f"{output.stem}.{form}{formats.FORMATS[form].suffix}")

    for form, path in paths.items():
        if path.exists() and path.is_dir() != (form == "audacity"):
            kind = "folder" if path.is_dir() else "file"
            raise UserError(f"{path} is a {kind}; choose another --output")
    return paths


def make_plan(flags: argparse.Namespace, chosen: Selection) -> Plan:
    """Make the plan that the flags ask for.

    Args:
        flags: of the command line.
        chosen: what is written: the species whose frames are saved, the thresholds of events.

    Raises:
        UserError: flags that contradict each other.
    """
    if flags.average == "rank" and (flags.frames or flags.events):
        raise UserError(
            "--average rank orders whole windows; --frames and --events need probability or logit"
        )
    high = DETECTED if chosen.threshold is None else chosen.threshold
    low = high / 2 if flags.event_low is None else flags.event_low
    if low > high:
        raise UserError(f"--event-low {low:g} is above the threshold, {high:g}")
    wanted = chosen.wanted

    return Plan(
        stride_s=flags.stride,
        shifts_s=tuple(flags.shifts),
        score=flags.score,
        average=flags.average,
        frames_dir=flags.frames,
        frame_species=None if wanted is None else tuple(np.flatnonzero(wanted).tolist()),
        events=EventRule(high, low, flags.event_min) if flags.events else None,
    )


# Writing ------------------------------------------------------------------------------------------


def make_folder(path: Path) -> None:
    """Make a folder now rather than after hours of scoring (CannotWriteError)."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CannotWriteError(path, error) from None


def write_outputs(
    outputs: Outputs, results: Results, unread: Mapping[str, str]
) -> tuple[list[str], formats.Summary]:
    """Write every format and the list of recordings that are not ok.

    Args:
        outputs: what to write where.
        results: of the recordings that were tried.
        unread: why others were not, by name.

    Returns:
        Lines that say what was written, and what became of the recordings.
    """
    lines = []
    for form, path in outputs.paths.items():
        n_rows = formats.write(path, form, results, outputs.selection)
        lines.append(f"wrote {path}: {n_rows} rows, {form}")
        if form not in WITHOUT_SCORES:
            write_note(path, outputs.adjustment)

    summary = formats.write_bad_files(outputs.bad_path, results, unread)
    if summary.n_silent:
        shares = f"{summary.n_silent} of {summary.n_windows} windows"
        lines.append(f"{shares} are silent, without any signal, and score 0")
    if summary.bad:
        counts = ", ".join(f"{number} {status}" for status, number in sorted(summary.bad.items()))
        lines.append(f"wrote {outputs.bad_path}: recordings that are not ok ({counts})")
    return lines, summary


def write_activity(
    flags: argparse.Namespace, results: Results, chosen: Selection
) -> tuple[list[str], bytes | None]:
    """Write when and where species were found, where flags ask for it.

    Returns:
        Lines that say what was written, and the picture by day and hour (PNG) for the page; None
        if nobody asked, or no recording says when it was made.
    """
    if flags.activity is None and flags.report is None:
        return [], None
    threshold = DETECTED if chosen.threshold is None else chosen.threshold
    measured = activity.measure(results, chosen, threshold)
    picture = activity.draw(measured, chosen) if measured.n_timed else None
    if flags.activity is not None or picture is not None:
        activity.say_what_lacks(measured)
    if flags.activity is None:
        return [], picture

    path = flags.activity / "species_by_site.csv"
    lines = [f"wrote {path}: {activity.write_sites(path, measured, chosen)} rows"]
    if picture is not None:
        write_file(flags.activity / "activity.png", picture)
        lines.append(f"wrote {flags.activity / 'activity.png'}: detections by day and hour")
    return lines, picture
