"""Which detections a page lists for review, and the order in which they are drawn.

Every detection has a place in a random order that follows from its recording, time and species
alone, so the same ones are drawn wherever and however often a page is written. Within a stratum,
one score bin of one species, or of all species together, the first n of that order are a simple
random sample of it. That holds for what is left out of a page as well: it keeps as many of each
stratum, and counts all. From the verdicts on such a sample review.js estimates precision.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from inference.detections import Event
from inference.selection import Selection

# Of the table that a page saves, and of suggestions; catalog/reviews.py reads it.
TABLE_COLUMNS = (
    *("filename", "start_s", "end_s", "label", "verdict", "detected", "score", "note"),
)
SCORE_BINS = 20  # of scores from 0 to 1, equally wide
DRAWN_CLIPS = 200  # detections of a page that have a clip for being drawn, if no number is given
MAX_LISTED = 20_000  # detections of a page, about 40 bytes each


class Listed(NamedTuple):
    """The n detections of a page, by recording and time, or clips that were suggested.

    Attributes:
        places: (n,) int, place of each one's recording in the run.
        events: what and when.
        order: (n,) int, the random order, from 0; of suggestions their own.
        counts: (C, SCORE_BINS) int, all detections by class and score bin; None: these are
            suggestions, of which nothing can be estimated.
        depth: every stratum has its first `depth` detections here; None: all detections are.
    """

    places: np.ndarray
    events: list[Event]
    order: np.ndarray
    counts: np.ndarray | None
    depth: int | None

    def first_drawn(self, n: int) -> list[int]:
        """Name the first n detections to review: each score bin of each species in turn."""
        ranks = ranks_in(self._strata(), self.order)
        return np.lexsort((self.order, ranks))[:n].tolist()

    def _strata(self) -> np.ndarray:
        species = np.array([event.species for event in self.events], np.int64)
        return species * SCORE_BINS + score_bins([event.score for event in self.events])


class Listing:
    """Collects detections, recording by recording, and forgets those that no page would list.

    Args:
        class_names: label of each class.
        limit: the most that are listed.
    """

    def __init__(self, class_names: Sequence[str], limit: int = MAX_LISTED) -> None:
        self._class_names, self._limit = class_names, limit
        self._kept: list[tuple[float, int, Event]] = []  # place in the order, of recording, what
        self._depth: int | None = None
        self.counts = np.zeros((len(class_names), SCORE_BINS), np.int64)

    def add(self, place: int, name: str, found: Sequence[Event]) -> None:
        """Add a recording's detections.

        Args:
            place: of the recording in the run.
            name: of the recording.
            found: windows with their species and score.
        """
        bins = score_bins([event.score for event in found])
        species = np.array([event.species for event in found], np.int64)
        np.add.at(self.counts, (species, bins), 1)
        self._kept += [
            (draw(name, event, self._class_names[event.species]), place, event) for event in found
        ]
        if len(self._kept) > 4 * self._limit:
            self._prune(2 * self._limit)

    def _prune(self, limit: int) -> None:
        """Keep the first of each stratum, so many that they are at most `limit` together."""
        if len(self._kept) <= limit:
            return
        draws = np.array([one[0] for one in self._kept])
        species = np.array([one[2].species for one in self._kept])
        bins = score_bins([one[2].score for one in self._kept])
        rank = np.minimum(ranks_in(species * SCORE_BINS + bins, draws), ranks_in(bins, draws))
        self._depth = int(np.sort(rank)[limit])
        self._kept = [self._kept[n] for n in np.flatnonzero(rank < self._depth)]

    def take(self) -> Listed:
        """List what was collected."""
        self._prune(self._limit)
        self._kept.sort(key=lambda one: (one[1], one[2].start_s, -one[2].score, one[2].species))
        draws = np.array([one[0] for one in self._kept])
        order = np.empty(len(draws), np.int64)
        order[np.argsort(draws)] = np.arange(len(draws))
        places = np.array([one[1] for one in self._kept], np.int64)
        return Listed(places, [one[2] for one in self._kept], order, self.counts, self._depth)


def draw(name: str, event: Event, label: str) -> float:
    """Draw a detection's place in the random order, from 0 to 1, from what it is."""
    text = f"{name}\0{event.start_s:.3f}\0{label}"
    digest = hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=6).digest()
    return int.from_bytes(digest, "big") / 2**48


def score_bins(scores: Sequence[float]) -> np.ndarray:
    """Number the bins of scores (n,) in [0, 1): (n,) int."""
    return np.minimum(
        (np.asarray(scores, np.float64) * SCORE_BINS).astype(np.int64), SCORE_BINS - 1
    )


def ranks_in(strata: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Rank each of n items, (n,) int from 0, by its draw (n,) within its stratum (n,)."""
    order = np.lexsort((draws, strata))
    sorted_strata = strata[order]
    is_first = np.diff(sorted_strata, prepend=-1) != 0
    first = np.maximum.accumulate(np.where(is_first, np.arange(len(order)), 0))
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(len(order)) - first
    return ranks


def describe_review(
    path: Path, data: Mapping[str, Any], listed: Listed, selection: Selection
) -> dict[str, Any]:
    """Say what review.js needs: the listed detections in columns, and how to name what it saves.

    The `identity` is that of the recordings' folder, so all pages of it share their verdicts.

    Args:
        path: of the page.
        data: of the page: recordings, and the species that are found.
        listed: what is reviewed.
        selection: folder of the recordings, and names.
    """
    labels = [one["label"] for one in data["species"]]
    folder, classes = selection.folder.resolve(), selection.class_names
    text = str(folder).encode("utf-8", "surrogateescape")
    number = {label: place for place, label in enumerate(labels)}
    return {
        "identity": hashlib.sha256(text).hexdigest()[:16],
        "folder": Path(os.path.relpath(folder, path.resolve().parent)).as_posix(),
        "save_as": f"{path.stem}_review.csv",
        "columns": TABLE_COLUMNS,
        "classes": [[label, *selection.name(place)] for place, label in enumerate(classes)],
        "first_order": "listed" if listed.counts is None else "drawn",
        "n_bins": SCORE_BINS,
        "depth": listed.depth,
        "counts": _counts_of(listed, [classes.index(label) for label in labels]),
        "recording": listed.places.tolist(),
        "species": [number[classes[event.species]] for event in listed.events],
        "start": [event.start_s for event in listed.events],
        "end": [event.end_s for event in listed.events],
        "score": [event.score for event in listed.events],
        "order": listed.order.tolist(),
    }


def _counts_of(listed: Listed, species: list[int]) -> list[list[int]] | None:
    return None if listed.counts is None else listed.counts[species].tolist()
