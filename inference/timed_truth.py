"""Windows with scores meet labels with times: which species were there, window by window.

What comes out has the form of out-of-fold scores, so that all that is computed from those can be
computed of soundscapes too: a row a window, and the recording that it is from.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from catalog.annotations import read_annotations
from catalog.reviews import refuse_reviews
from catalog.timed_labels import count_in_window, window_starts
from configs import UserError, some
from inference.out_of_fold import OutOfFold
from inference.predicted import WINDOW_S, Predicted
from inference.selection import Names

logger = logging.getLogger("birdclef.timed_truth")


def meet(predicted: Predicted, labels: Path, names: Names, min_overlap: float) -> OutOfFold:
    """Give each window of labelled recordings its scores and its labels.

    Args:
        predicted: scores of windows or events. Events are counted in windows of 5 s, each with the
            highest score of those that overlap it.
        labels: a table or folder that read_annotations reads.
        names: scientific and common names by label; they may stand for labels on both sides.
        min_overlap: overlap from which a label counts in a window, of the shorter of the two.

    Returns:
        A row a window, sorted by recording and time. Recordings without labels are left out, for
        nobody says that they are empty. A labelled species that the scores never name scores 0
        where only detections were listed, and is left out where every window and species was.

    Raises:
        UserError: labels that cannot be read, that are a review of single clips, or that have no
            recording or species in common with the scores.
    """
    spans = read_annotations(labels, predicted.recordings, flag="--labels ")
    refuse_reviews(spans, f"--labels {labels}")
    alias = aliases(names)
    spans["label"] = spans["label"].map(lambda name: alias.get(name.casefold(), name))
    found = predicted.spans.assign(species=_renamed(predicted.spans["species"], alias))
    class_names = settle_classes(
        sorted({alias.get(name.casefold(), name) for name in predicted.class_names}),
        sorted(set(spans["label"]) - {""}),
        labels,
        is_complete=predicted.is_complete,
    )
    _say_left_out(predicted.recordings, spans["filename"].unique(), labels)

    parts, rows_of = [], found.groupby("file").indices
    for name, own in spans.groupby("filename", sort=True):
        of_file = found.iloc[rows_of[name]]
        starts = windows_of(predicted, of_file, float(own["end_s"].max()))
        period = predicted.period if predicted.are_windows else WINDOW_S
        _refuse_behind(own, float(starts[-1]) + period, f"--labels {labels}: {name}")
        scores = spread(of_file, starts, period, class_names, exact=predicted.are_windows)
        truth = label_windows(own, starts, period, class_names, min_overlap)
        parts.append((np.repeat(str(name), len(starts)), starts, scores, truth))
    files, starts, scores, truth = (np.concatenate(part) for part in zip(*parts, strict=True))
    return OutOfFold(scores, truth, files, np.zeros(len(files), int), class_names, starts)


def _refuse_behind(spans: pd.DataFrame, end_s: float, where: str) -> None:
    """Refuse labels of a recording that all begin behind its last window (UserError)."""
    begin = spans.loc[spans["label"] != "", "start_s"]
    if len(begin) and begin.min() >= end_s:
        raise UserError(
            f"{where} is scored up to {end_s:g} s, and its first label begins at "
            f"{begin.min():g} s; write times from the recording's begin, not times of day or "
            "over several files"
        )


def aliases(names: Names) -> dict[str, str]:
    """Map scientific and common names, and both as BirdNET joins them, to labels."""
    found: dict[str, str] = {}
    for label, (scientific, common) in names.items():
        for name in (label, scientific, common, f"{scientific}_{common}"):
            found.setdefault(name.casefold(), label)
    return found


def _renamed(species: pd.Series, alias: Mapping[str, str]) -> pd.Series:
    return species.map({name: alias.get(name.casefold(), name) for name in species.unique()})


def settle_classes(
    scored: Sequence[str], labelled: Sequence[str], labels: Path, *, is_complete: bool
) -> tuple[str, ...]:
    """Choose the species to score; refuse names that have none in common (UserError)."""
    if not set(scored) & set(labelled):
        raise UserError(
            f"--labels {labels}: none of its species ({some(labelled) or 'it names none'}) is one "
            f"of the scores' ({some(scored)}); --taxonomy FILE says which names are one species"
        )
    strangers = [name for name in labelled if name not in set(scored)]
    if strangers and is_complete:
        message = "%d labelled species are not among the scored ones and are left out (%s)"
        logger.warning(message, len(strangers), some(strangers))
        return tuple(scored)
    if strangers:
        message = "%d labelled species were never detected and score 0 (%s)"
        logger.warning(message, len(strangers), some(strangers))
    return tuple(sorted({*scored, *labelled}))


def _say_left_out(scored: Sequence[str], labelled: Iterable[str], labels: Path) -> None:
    if unlabelled := sorted(set(scored) - set(labelled)):
        message = "%d of %d recordings have no labels in %s and are left out (%s)"
        logger.warning(message, len(unlabelled), len(scored), labels, some(unlabelled))


# Windows ------------------------------------------------------------------------------------------


def windows_of(predicted: Predicted, of_file: pd.DataFrame, labelled_s: float) -> np.ndarray:
    """List the starts of a recording's windows, (n,) seconds.

    Those that were listed; where only detections were, also those between them and up to the last
    label.
    """
    if predicted.is_complete:
        return np.unique(of_file["start_s"].to_numpy(float))

    end_s = max(labelled_s, float(of_file["end_s"].max()))
    if not predicted.are_windows:
        return window_starts(end_s, WINDOW_S, WINDOW_S)
    grid = window_starts(end_s, predicted.period, predicted.stride)
    listed = np.unique(of_file["start_s"].to_numpy(float))
    is_new = np.abs(grid[:, None] - listed[None, :]).min(axis=1) > predicted.stride / 2
    return np.sort(np.concatenate([grid[is_new], listed]))


def spread(
    of_file: pd.DataFrame,
    starts: np.ndarray,
    period: float,
    class_names: Sequence[str],
    *,
    exact: bool,
) -> np.ndarray:
    """Put a recording's detections into its windows: (n, n_classes) float32, 0 where none is.

    Args:
        of_file: the detections.
        starts: (n,) seconds, sorted.
        period: seconds in a window.
        class_names: species in the order of the columns.
        exact: detections are windows; otherwise each counts in all windows that it overlaps.
    """
    place = {name: number for number, name in enumerate(class_names)}
    columns = of_file["species"].map(place).to_numpy(int)
    values = of_file["score"].to_numpy(np.float32)
    scores = np.zeros((len(starts), len(class_names)), np.float32)
    if exact:
        rows = np.searchsorted(starts, of_file["start_s"].to_numpy(float))
        np.maximum.at(scores, (rows, columns), values)
        return scores

    begin, end = of_file["start_s"].to_numpy(float), of_file["end_s"].to_numpy(float)
    for row, start_s in enumerate(starts):
        here = (begin < start_s + period) & (end > start_s)
        np.maximum.at(scores[row], columns[here], values[here])
    return scores


def label_windows(
    spans: pd.DataFrame,
    starts: np.ndarray,
    period: float,
    class_names: Sequence[str],
    min_overlap: float,
) -> np.ndarray:
    """Say which species sing in which windows: (n, n_classes) uint8."""
    place = {name: number for number, name in enumerate(class_names)}
    known = spans[spans["label"].isin(place)]
    begin, end = known["start_s"].to_numpy(float), known["end_s"].to_numpy(float)
    columns = known["label"].map(place).to_numpy(int)
    truth = np.zeros((len(starts), len(class_names)), np.uint8)
    for row, start_s in enumerate(starts):
        counts, _ = count_in_window(begin, end, start_s, period, min_overlap)
        truth[row, columns[counts]] = 1
    return truth
