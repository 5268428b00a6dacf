"""What is found in a recording: windows, events, and the arithmetic on their scores.

Times are seconds from the start of a recording, scores lie in [0, 1), and a species is the number
of its class.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from configs import BELOW_ONE

AVERAGES = ("probability", "logit", "rank")
HIGHEST = np.float32(BELOW_ONE)
DETECTED = 0.5  # lowest score of a detection, where none is given


class Event(NamedTuple):
    """A species heard from `start_s` to `end_s`, and its score.

    The score of an event is that of its highest frame, the score of a window its own.
    """

    start_s: float
    end_s: float
    species: int
    score: float


@dataclass(frozen=True)
class Recording:
    """What is known of one recording.

    Attributes:
        name: path below the folder that was scored, with slashes.
        status: ok; silent (no window has a signal); truncated (scored up to there); non_finite
            (many samples are not finite and count as 0); empty or unreadable (no windows);
            unfinished (a part, which the next part goes on from).
        reason: what is wrong with it, or was mended, if anything.
        seconds: length of what was decoded.
        starts_s: (n,) float64, start of each window.
        scores: (models, n, C) float32 in PartialResults, (n, C) in Results.
        events: found in its timeline, by start; in a part, those that ended in it.
        silent: (n,) bool, windows without any signal, which score 0; left out, none is.
    """

    name: str
    status: str
    reason: str
    seconds: float
    starts_s: np.ndarray
    scores: np.ndarray
    events: tuple[Event, ...] = ()
    silent: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))

    def __post_init__(self) -> None:
        if not len(self.silent):
            object.__setattr__(self, "silent", np.zeros(len(self.starts_s), bool))

    @property
    def n_silent(self) -> int:
        """Number of windows without any signal."""
        return int(self.silent.sum())


def average_models(
    scores: np.ndarray, how: str, weights: Sequence[float] | None = None
) -> np.ndarray:
    """Average the probabilities of several models.

    Args:
        scores: (models, ..., C).
        how: "logit" averages logits, anything else the probabilities themselves.
        weights: of the models; None weighs them alike.

    Returns:
        (..., C) float32, below 1.
    """
    if how == "logit":
        clipped = np.clip(scores.astype(np.float64), 1e-7, 1 - 1e-7)
        mean = 1 / (1 + np.exp(-_mean(np.log(clipped / (1 - clipped)), weights)))
    else:
        mean = _mean(scores, weights)

    return np.clip(np.asarray(mean, np.float32), 0, HIGHEST)


def _mean(values: np.ndarray, weights: Sequence[float] | None) -> np.ndarray:
    """Average over the first axis in float64."""
    if weights is None:
        return np.asarray(np.mean(values, axis=0, dtype=np.float64))
    return np.asarray(np.average(values.astype(np.float64), axis=0, weights=weights))


def average_ranks(scores: np.ndarray, weights: Sequence[float] | None = None) -> np.ndarray:
    """Rank each window among all n windows, class by class, and average the ranks over models.

    Args:
        scores: (models, n, C).
        weights: of the models; None weighs them alike.

    Returns:
        (n, C) float32. A rank is rank / (n + 1), above 0 and below 1; ties share their mean rank.
    """
    from scipy.stats import rankdata

    ranks = [rankdata(one, axis=0) / (scores.shape[1] + 1) for one in scores]
    return np.asarray(_mean(np.stack(ranks), weights), np.float32)
