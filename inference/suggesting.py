"""Which clips to label next: those that the model is least sure of, unlike each other.

The unsureness of a clip is the entropy of its scores, a yes and a no for each species (Settles
2009, Active Learning Literature Survey, 2.1; summed as for independent labels). Ten times as many
of the least sure as are wanted become candidates. Of these each next one lies farthest from all
taken before, in what the network makes of a clip before its head, so that fifty clips are not fifty
of one cricket: farthest-first traversal (Gonzalez 1985), as in Sener and Savarese 2018 (arXiv
1708.00489) and, for sounds, Zhao, Heittola and Virtanen 2020 (arXiv 2002.05033).
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from audio.decoder_pool import DECODER_DIED
from inference.detections import Event, Recording
from inference.listing import TABLE_COLUMNS
from inference.selection import Selection
from inference.text_files import write_table

logger = logging.getLogger("birdclef.suggesting")

POOL = 10  # candidates for each clip that is wanted
Embed = Callable[[Sequence[np.ndarray]], np.ndarray]  # clips (n,) to (B, d)
Read = Callable[[Path, Event], np.ndarray]  # a clip (n,) at the model's rate


class Suggestion(NamedTuple):
    """A clip to label: its recording, when, and its likeliest species with the score."""

    name: str
    event: Event


# Choosing -----------------------------------------------------------------------------------------


def unsureness(scores: np.ndarray) -> np.ndarray:
    """Sum the binary entropies of scores (n, C) in [0, 1] over species: (n,) float64, nats."""
    p = np.clip(scores.astype(np.float64), 1e-12, 1 - 1e-12)
    return -(p * np.log(p) + (1 - p) * np.log1p(-p)).sum(axis=1)


def farthest_first(features: np.ndarray, n_wanted: int) -> list[int]:
    """Take the first clip, then each time the one that is farthest from all taken before.

    Args:
        features: (m, d); each number is standardised, and each clip brought to length 1, so that a
            loud clip is not far away for its loudness.
        n_wanted: clips; all are taken where there are fewer.

    Returns:
        Places in `features`, in the order in which they were taken.
    """
    if not len(features):
        return []
    centred = features - features.mean(axis=0)
    points = centred / (features.std(axis=0) + 1e-6)
    points /= np.linalg.norm(points, axis=1, keepdims=True) + 1e-12

    taken = [0]
    distance = np.full(len(points), np.inf)
    while len(taken) < min(n_wanted, len(points)):
        distance = np.minimum(distance, np.linalg.norm(points - points[taken[-1]], axis=1))
        distance[taken] = -1
        taken.append(int(distance.argmax()))
    return taken


def find_candidates(
    results: Iterable[Recording], selection: Selection, n_wanted: int
) -> list[Suggestion]:
    """Find the POOL * n_wanted least sure windows, the least sure first.

    Windows without signal, and those that overlap a less sure one, are left out.

    Args:
        results: recordings with scores (n, C); gone through once.
        selection: the species that count, and the length of a window.
        n_wanted: clips that are wanted.
    """
    counts = np.ones(len(selection.class_names), bool)
    if selection.wanted is not None:
        counts = selection.wanted
    numbers = np.flatnonzero(counts)

    kept: list[tuple[float, Suggestion]] = []
    for recording in results:
        if recording.reason.startswith(DECODER_DIED) or not len(recording.scores):
            continue
        scores = recording.scores[:, numbers]
        unsure = np.where(recording.silent, -1.0, unsureness(scores))  # (n,)
        for window in _apart(recording.starts_s, unsure, selection.period):
            best = int(scores[window].argmax())
            start_s = float(recording.starts_s[window])
            end_s = min(start_s + selection.period, recording.seconds)
            event = Event(start_s, end_s, int(numbers[best]), float(scores[window, best]))
            kept.append((float(unsure[window]), Suggestion(recording.name, event)))
        kept.sort(key=lambda one: -one[0])
        del kept[POOL * n_wanted :]
    return [one[1] for one in kept]


def _apart(starts_s: np.ndarray, unsure: np.ndarray, period: float) -> list[int]:
    """Choose windows with a signal, the least sure first, that do not overlap each other."""
    taken: list[int] = []
    is_free = unsure >= 0
    for window in np.argsort(-unsure, kind="stable").tolist():
        if is_free[window]:
            taken.append(window)
            is_free &= np.abs(starts_s - starts_s[window]) >= period - 1e-6
    return taken


def choose_clips(
    candidates: Sequence[Suggestion], n_wanted: int, folder: Path, read: Read, embed: Embed
) -> list[Suggestion]:
    """Choose clips that are unlike each other, in the order in which to label them.

    Args:
        candidates: the least sure first.
        n_wanted: the most that are chosen.
        folder: where the recordings lie.
        read: reads a clip; what it cannot read (RuntimeError, OSError, ValueError) is left out.
        embed: says what the network makes of clips.
    """
    from tqdm import tqdm

    features, found = [], []
    for one in tqdm(candidates, desc="suggest", unit="clip", leave=False, disable=None):
        try:
            waveform = read(folder / one.name, one.event)
        except (RuntimeError, OSError, ValueError) as error:
            logger.warning("%s: no clip from %g s: %s", one.name, one.event.start_s, error)
            continue
        features.append(embed([waveform])[0])
        found.append(one)
    if not found:
        return []
    return [found[place] for place in farthest_first(np.stack(features), n_wanted)]


# Writing ------------------------------------------------------------------------------------------


def write_suggestions(path: Path, chosen: Sequence[Suggestion], selection: Selection) -> int:
    """Write a table to fill in, which `--annotations` reads; return its rows.

    A person fills label, or verdict: yes, no, other (with a label) or unsure. Rows without either
    say nothing.
    """
    rows = []
    for name, event in chosen:
        cells = {
            "filename": name,
            "start_s": event.start_s,
            "end_s": event.end_s,
            "detected": selection.class_names[event.species],
            "score": np.float32(event.score),
        }
        rows.append([cells.get(column, "") for column in TABLE_COLUMNS])
    return write_table(path, TABLE_COLUMNS, rows)
