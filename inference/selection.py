"""What of the results is written, and what the species are called."""

import logging
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import tzinfo
from pathlib import Path

import numpy as np

from configs import Config, UserError, some
from inference.detections import HIGHEST, Event, Recording
from inference.text_files import read_records

logger = logging.getLogger("birdclef.selection")

MORE_COLUMNS = {
    "names": ("scientific_name", "common_name"),
    "when": ("site", "date", "time"),
    "any": ("any_bird",),
}

Names = dict[str, tuple[str, str]]  # label to (scientific, common) name

# Columns of a taxonomy (label, scientific, common name): eBird's, and BirdCLEF's since 2025.
TAXONOMY_COLUMNS = (
    ("species_code", "sci_name", "primary_com_name"),
    ("primary_label", "scientific_name", "common_name"),
)


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
        folder: where the recordings lie, for formats that name whole paths.
        fmin: Hz, lower edge of what the model hears.
        fmax: Hz, upper edge.
        recordings: names of all recordings, which a submission must tell apart.
        threshold: lowest score of a detection of any class; None takes the format's.
        thresholds: (C,), lowest scores by class; None takes `threshold` for all.
        top_k: the most detections of one window; None sets no limit.
        wanted: (C,) bool, classes to write; the others score 0 in submissions. None takes all.
        names: scientific and common names by label.
        sample: what a submission has to look like.
        events: write events rather than windows, in the formats that list detections.
        columns: of MORE_COLUMNS, which more the long table has.
        zone: of the recorders' clocks, where files do not say another; None is not known.
        leaves_no_bird: the scores of the classes leave the chance that there is no bird.
    """

    class_names: list[str]
    period: float
    folder: Path
    fmin: float
    fmax: float
    recordings: tuple[str, ...] = ()
    threshold: float | None = None
    thresholds: np.ndarray | None = None
    top_k: int | None = None
    wanted: np.ndarray | None = None
    names: Names = field(default_factory=dict)
    sample: Sample | None = None
    events: bool = False
    columns: tuple[str, ...] = ()
    zone: tzinfo | None = None
    leaves_no_bird: bool = False

    def any_bird(self, scores: np.ndarray) -> np.ndarray:
        """Say how likely any bird sings in each window.

        Args:
            scores: (n, C).

        Returns:
            (n,) float32: what a class for no bird leaves, where the scores of all classes and of
            that one sum to 1; else the highest score.
        """
        if self.leaves_no_bird:
            return np.minimum(scores.sum(axis=1, dtype=np.float64), HIGHEST).astype(np.float32)
        return scores.max(axis=1, initial=0).astype(np.float32)

    def name(self, species: int) -> tuple[str, str]:
        """Return the scientific and the common name of a class; its label where there is none."""
        label = self.class_names[species]
        return self.names.get(label, (label, label))

    def lowest(self, threshold: float) -> np.ndarray:
        """Return the lowest score of a detection of each class, (C,) float32 as the scores."""
        if self.thresholds is None:
            return np.full(len(self.class_names), threshold, np.float32)
        return np.maximum(self.thresholds, threshold).astype(np.float32)

    def found(self, recording: Recording, threshold: float) -> Iterator[Event]:
        """List detections by start, those of one window by falling score."""
        wanted = self.wanted
        if wanted is None:
            wanted = np.ones(len(self.class_names), bool)
        lowest = self.lowest(threshold)
        if self.events:
            for event in recording.events:
                if wanted[event.species] and np.float32(event.score) >= lowest[event.species]:
                    yield event
            return

        for start_s, scores in zip(recording.starts_s.tolist(), recording.scores, strict=True):
            species = np.flatnonzero(wanted & (scores >= lowest))
            species = species[np.argsort(-scores[species], kind="stable")][: self.top_k]
            end_s = min(start_s + self.period, recording.seconds)
            yield from (Event(start_s, end_s, int(one), float(scores[one])) for one in species)


def read_taxonomy(path: Path) -> Names:
    """Read names by label from eBird's taxonomy or BirdCLEF's.

    Raises:
        UserError: it cannot be read or lacks the columns.
    """
    rows, header = read_records(path, f"{path}: cannot be read as a taxonomy")
    if (columns := find_name_columns(header)) is not None:
        label, scientific, common = columns
        return {row[label]: (row[scientific], row[common]) for row in rows}

    known = " or ".join(", ".join(names) for names in TAXONOMY_COLUMNS)
    there = ", ".join(map(_plain, header))
    raise UserError(f"{path}: no taxonomy: it has the columns {there}, not {known}")


def read_metadata_names(config: Config) -> Names:
    """Read names from the metadata that a model was trained on; none where it is not at hand."""
    try:
        return read_taxonomy(config.metadata_path)
    except UserError:
        return {}


def find_name_columns(header: Iterable[str]) -> list[str] | None:
    """Find the columns of label, scientific and common name in a header; None: not all are there.

    They are known in any case and with spaces, too.
    """
    columns = {_plain(name): name for name in header}
    for wanted in TAXONOMY_COLUMNS:
        if columns.keys() >= set(wanted):
            return [columns[name] for name in wanted]
    return None


def _plain(name: str) -> str:
    return name.strip().lower().replace(" ", "_")


def read_species(path: Path, class_names: Sequence[str], names: Names) -> np.ndarray:
    """Read a list of species, one a line: which of the classes are in it, (C,) bool.

    A line is a label, a scientific or a common name, or both names as BirdNET lists them (`Turdus
    merula_Common Blackbird`); names need a taxonomy. Lines that begin with # are comments. Species
    that are no classes are counted in the log.

    Raises:
        UserError: it cannot be read, or none of its lines is a class.
    """
    try:
        text = unicodedata.normalize("NFC", path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a list of species: {error}") from None

    lines = [line.strip() for line in text.splitlines()]
    listed = {line for line in lines if line and not line.startswith("#")}
    known = []
    for label in class_names:
        both = names.get(label, ())
        known.append({label, *both, "_".join(both)})
    wanted = np.array([bool(one & listed) for one in known])

    if not wanted.any():
        hint = "" if names else "; give a --taxonomy if it holds names rather than labels"
        raise UserError(f"{path}: none of its {len(listed)} lines is a class of the model{hint}")
    if strangers := sorted(listed - set().union(*known)):
        message = "%s: %d species are no classes of the model (%s)"
        logger.warning(message, path, len(strangers), some(strangers))
    return wanted
