"""What is done to a recording's scores after its models are averaged, each on demand."""

import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from configs import UserError
from files import original_cell
from inference.calibration import Calibration
from inference.detections import HIGHEST
from inference.places import when_and_where
from inference.text_files import read_records

GAUSSIAN_SIGMA = 1.0  # windows, if none is given
LEAST_WEIGHT = 0.01  # of a neighbour in a Gaussian; those further away are left out


@dataclass(frozen=True)
class Adjustment:
    """Changes of scores, in the order in which they are made.

    Attributes:
        powers: (C,), to which each class's scores are raised; None leaves them.
        neighbours: weights of the windows 1, 2, ... places away in a mean with the window itself,
            whose weight is 1; empty leaves scores as they are.
        lean: how far each window moves to the recording's maximum of its class, from 0 to 1.
        calibration: a line through the logits, applied before all else; None leaves them.
        site_shifts: (C,) by site, added to the logits of its recordings next.
    """

    powers: np.ndarray | None = None
    neighbours: tuple[float, ...] = ()
    lean: float = 0.0
    calibration: Calibration | None = None
    site_shifts: Mapping[str, np.ndarray] | None = None

    def apply(self, scores: np.ndarray, name: str = "") -> np.ndarray:
        """Adjust the scores (n, C) of a recording's windows in order: (n, C) float32 below 1.

        Args:
            scores: of the windows.
            name: of the recording, from which its site is known.
        """
        if self.calibration is not None:
            scores = self.calibration.apply(scores)
        if self.site_shifts is not None:
            shift = self.site_shifts.get(when_and_where(name, None, None).site)
            scores = scores if shift is None else shift_logits(scores, shift)
        if self.powers is not None:
            scores = scores ** self.powers.astype(np.float32)
        if any(self.neighbours):
            scores = smooth(scores, self.neighbours)
        if self.lean and len(scores):
            scores = scores + np.float32(self.lean) * (scores.max(axis=0) - scores)
        return np.minimum(scores, HIGHEST)


def shift_logits(scores: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Add to the logits of scores (n, C) a shift (C,): (n, C) float32; 0 stays 0."""
    odds = scores.astype(np.float64) / np.maximum(1 - scores.astype(np.float64), 1e-12)
    odds *= np.exp(shift)
    return np.minimum((odds / (1 + odds)).astype(np.float32), HIGHEST)


def smooth(scores: np.ndarray, weights: Sequence[float]) -> np.ndarray:
    """Average each window with its neighbours on both sides, as far as there are any.

    Args:
        scores: (n, C), windows in order.
        weights: of the windows 1, 2, ... places away; the window itself has weight 1.

    Returns:
        (n, C) float32, below 1.
    """
    total, weighed = scores.astype(np.float64), np.ones((len(scores), 1))
    for places, weight in enumerate(weights, 1):
        later, earlier = slice(places, None), slice(None, -places)
        for here, other in ((later, earlier), (earlier, later)):
            total[here] += weight * scores[other]
            weighed[here] += weight

    return np.minimum((total / weighed).astype(np.float32), HIGHEST)


def read_neighbours(words: Sequence[str]) -> tuple[float, ...]:
    """Read --smooth: weights of the neighbours, or `gaussian` with its sigma in windows.

    Raises:
        UserError: something else.
    """
    try:
        if words and words[0] == "gaussian":
            (sigma,) = [float(word) for word in words[1:]] or [GAUSSIAN_SIGMA]
            return gaussian_weights(sigma)
        weights = tuple(float(word) for word in words)
    except ValueError:
        weights = (math.nan,)
    if not all(0 <= weight <= 1 for weight in weights):
        raise UserError(
            f"--smooth {' '.join(words)}: give weights from 0 to 1, or gaussian and its sigma"
        )
    return weights


def gaussian_weights(sigma: float) -> tuple[float, ...]:
    """Return exp(-d^2 / (2 sigma^2)) for the neighbours d = 1, 2, ... places away, down to 0.01."""
    if not 0 < sigma < math.inf:
        raise ValueError(f"a Gaussian needs a sigma above 0, not {sigma:g}")
    n_places = math.floor(sigma * math.sqrt(-2 * math.log(LEAST_WEIGHT)))
    return tuple(math.exp(-(places**2) / (2 * sigma**2)) for places in range(1, n_places + 1))


def read_by_species(
    text: str, columns: Sequence[str], class_names: Sequence[str], default: float
) -> np.ndarray:
    """Read a number for each class: one for all, or a CSV's column.

    Args:
        text: a number, or the path of a CSV with the column `species`.
        columns: names of the CSV's column with numbers, the first that is there counts.
        class_names: C labels.
        default: for classes that the CSV does not name, or leaves empty.

    Returns:
        (C,) float64.

    Raises:
        UserError: neither a number nor such a CSV.
    """
    try:
        return np.full(len(class_names), float(text))
    except ValueError:
        pass

    rows, header = read_records(Path(text), f"{text}: neither a number nor a CSV that can be read")
    column = next((name for name in columns if name in header), None)
    if "species" not in header or column is None:
        wanted = " or ".join(columns)
        raise UserError(f"{text}: needs the columns species and {wanted}; has {', '.join(header)}")

    found: dict[str, str] = {}
    for row in rows:
        name = unicodedata.normalize("NFC", original_cell(row["species"]).strip())
        number = row[column].strip().replace(",", ".")
        if found.setdefault(name, number) != number:
            raise UserError(f"{text}: {name} has two numbers, {found[name]} and {number}")
    if not found.keys() & set(class_names):
        raise UserError(f"{text}: none of its {len(rows)} species is a class of the model")
    try:
        numbers = [float(found.get(name) or "nan") for name in class_names]
    except ValueError as error:
        raise UserError(f"{text}: column {column}: {error}") from None
    return np.where(np.isnan(numbers), default, numbers)
