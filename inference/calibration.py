"""Scores that mean something: of all that score 0.8, eight in ten are right.

Training with focal loss and smoothed targets ranks well and says 0.2 where it is sure. A line
through the logits mends that and keeps the order: p' = sigmoid(slope logit(p) + offset), with both
numbers free (Platt 1999) or the slope alone (temperature scaling; Guo et al. 2017, arXiv
1706.04599). They are fitted on out-of-fold scores, and judged on recordings that the fit has not
seen.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from configs import UserError
from files import write_file
from inference.detections import HIGHEST
from inference.out_of_fold import OutOfFold

if TYPE_CHECKING:
    import pandas as pd  # predict.py, which applies a calibration, does without

METHODS = ("platt", "temperature")
N_PARTS = 5  # that recordings are split into; each is judged by the fit of the others
N_BINS = 15  # of a reliability curve, equally wide
LIMIT = 16.0  # logits beyond it count as it; float32 below 1 reaches 16.6
LOGIT_STEP = 0.01  # of a logit, in which scores are counted for the fit
N_NEWTON = 50
DECIMALS = 6  # of slope and offset in the file
N_CHANCE = 200  # draws of labels, for the error that chance makes
MANY_PAIRS = 100_000  # of which no labels need to be drawn


@dataclass(frozen=True)
class Calibration:
    """A line through the logits of scores.

    Attributes:
        slope: what logits are multiplied by, above 0; its inverse is the temperature.
        offset: what is added then.
        method: one of METHODS.
    """

    slope: float = 1.0
    offset: float = 0.0
    method: str = METHODS[0]

    def apply(self, scores: np.ndarray) -> np.ndarray:
        """Calibrate scores in [0, 1), any shape: float32 below 1; 0 stays 0, and order stays."""
        odds = 1 / (1 + np.exp(-(self.slope * logits(scores) + self.offset)))
        return np.where(scores > 0, np.minimum(odds.astype(np.float32), HIGHEST), np.float32(0))

    def undo(self, scores: np.ndarray) -> np.ndarray:
        """Turn calibrated scores, any shape, back into what they were: float32 below 1.

        What lies so near 0 or 1 that float32 made it one score stays one.
        """
        return Calibration(1 / self.slope, -self.offset / self.slope).apply(scores)


def logits(scores: np.ndarray) -> np.ndarray:
    """Logits in float64; those of 0 and of what float32 cannot tell from 1 are +- LIMIT."""
    p = np.asarray(scores, np.float64)
    with np.errstate(divide="ignore"):
        return np.clip(np.log(p) - np.log1p(-np.minimum(p, 1.0)), -LIMIT, LIMIT)


# Fitting ------------------------------------------------------------------------------------------


class Counts(NamedTuple):
    """Pairs of recording and species counted by logit, each (n_steps,): right, wrong, mean logit.

    They are all that a fit needs, so memory does not grow with the pairs.
    """

    right: np.ndarray
    wrong: np.ndarray
    total: np.ndarray  # of the logits

    def __add__(self, other: tuple[Any, ...]) -> "Counts":
        """Add the counts of other recordings."""
        return Counts(*(one + two for one, two in zip(self, other, strict=True)))


def count(labels: np.ndarray, scores: np.ndarray) -> Counts:
    """Count pairs by logit.

    Args:
        labels: (n, C) of 0 and 1.
        scores: (n, C) in [0, 1).
    """
    n_steps = 1 + round(2 * LIMIT / LOGIT_STEP)
    counts = Counts(*(np.zeros(n_steps) for _ in Counts._fields))
    for number in range(labels.shape[1]):  # a class at a time bounds memory
        z, is_right = logits(scores[:, number]), labels[:, number] == 1
        place = np.rint((z + LIMIT) / LOGIT_STEP).astype(int)
        right = np.bincount(place[is_right], minlength=n_steps)
        counts += (
            right,
            np.bincount(place, minlength=n_steps) - right,
            np.bincount(place, weights=z, minlength=n_steps),
        )
    return counts


def fit(counts: Counts, method: str) -> Calibration:
    """Fit a line by the least log loss, with Newton's steps halved until they help.

    Where right and wrong pairs lie apart, Platt's targets (n + 1) / (n + 2) and 1 / (n + 2) keep
    the numbers finite. Elsewhere they would only flatten the line: with the 39 right pairs of the
    demo by so much that the error of all pairs rises from 0.027 to 0.037.

    Args:
        counts: of `count`; without a right or a wrong pair nothing is fitted.
        method: one of METHODS.
    """
    n_right, n_wrong = counts.right.sum(), counts.wrong.sum()
    if not n_right or not n_wrong:
        return Calibration(method=method)

    used = (counts.right + counts.wrong) > 0
    right, wrong = counts.right[used], counts.wrong[used]
    n = right + wrong
    high, low = 1.0, 0.0
    if np.flatnonzero(right)[0] >= np.flatnonzero(wrong)[-1]:
        high, low = (n_right + 1) / (n_right + 2), 1 / (n_wrong + 2)
    target = (right * high + wrong * low) / n  # (k,)
    design = np.stack([counts.total[used] / n, np.ones(len(n))], axis=1)  # (k, 2)
    free = slice(None) if method == "platt" else slice(1)
    design = design[:, free]

    def loss(line: np.ndarray) -> float:
        z = design @ line
        return float((n * (np.logaddexp(0, z) - target * z)).sum())

    line = np.array([1.0, 0.0])[free]
    for _ in range(N_NEWTON):
        p = 1 / (1 + np.exp(-design @ line))
        gradient = design.T @ (n * (p - target))
        curvature = (design * (n * p * (1 - p))[:, None]).T @ design
        step = np.linalg.solve(curvature + 1e-9 * np.eye(len(line)), gradient)
        line, moved = _descend(loss, line, step)
        if moved < 1e-10:
            break
    return _tidy(line, method)


def _descend(
    loss: Callable[[np.ndarray], float], line: np.ndarray, step: np.ndarray
) -> tuple[np.ndarray, float]:
    """Take the step, or half of it and so on, if the loss falls: the line, and how far it moved."""
    before = loss(line)
    for _ in range(30):
        if loss(line - step) <= before:
            return line - step, float(np.abs(step).max())
        step = step / 2
    return line, 0.0


def _tidy(line: np.ndarray, method: str) -> Calibration:
    """Round; a slope of 0 or less would turn the order round, and means that nothing was learnt."""
    slope = round(float(line[0]), DECIMALS)
    if slope <= 0:
        return Calibration(method=method)
    offset = round(float(line[1]), DECIMALS) if len(line) > 1 else 0.0
    return Calibration(slope, offset, method)


# Judging ------------------------------------------------------------------------------------------


def out_of_sample(oof: OutOfFold, method: str, seed: int) -> np.ndarray:
    """Calibrate each recording by a fit on the others: (n, C) float32.

    Recordings are split into N_PARTS at random (fewer where there are fewer recordings).
    """
    recordings = np.unique(oof.filenames, return_inverse=True)[1]
    n_parts = min(N_PARTS, recordings.max() + 1)
    order = np.random.default_rng(seed).permutation(recordings.max() + 1)
    part = (order % n_parts)[recordings]

    counts = [count(oof.labels[part == k], oof.scores[part == k]) for k in range(n_parts)]
    calibrated = np.empty(oof.scores.shape, np.float32)
    for k in range(n_parts):
        others = [one for number, one in enumerate(counts) if number != k]
        if not others:  # a single recording
            return oof.scores.astype(np.float32)
        fitted = fit(sum(others[1:], start=others[0]), method)
        calibrated[part == k] = fitted.apply(oof.scores[part == k])
    return calibrated


class Reliability(NamedTuple):
    """A reliability curve, each (N_BINS,): pairs in a bin, their mean score, and share right."""

    n: np.ndarray
    score: np.ndarray
    right: np.ndarray

    @property
    def expected_error(self) -> float:
        """Mean distance of score and share right, weighted by the pairs of each bin."""
        filled = self.n > 0
        gap = np.abs(self.score - self.right)[filled]
        return float((self.n[filled] * gap).sum() / max(self.n.sum(), 1))


def reliability(labels: np.ndarray, scores: np.ndarray) -> Reliability:
    """Draw the curve of scores and labels of any equal shape; empty bins are NaN."""
    flat, truth = scores.reshape(-1).astype(np.float64), labels.reshape(-1)
    place = np.minimum((flat * N_BINS).astype(int), N_BINS - 1)
    n = np.bincount(place, minlength=N_BINS)
    with np.errstate(invalid="ignore"):
        return Reliability(
            n,
            np.bincount(place, weights=flat, minlength=N_BINS) / n,
            np.bincount(place, weights=truth, minlength=N_BINS) / n,
        )


def highest(oof: OutOfFold, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Take each row's highest score, and whether it is right: (n,) and (n,)."""
    best = oof.scores.argmax(axis=1)
    rows = np.arange(len(best))
    return oof.labels[rows, best], scores[rows, best]


def chance_error(scores: np.ndarray, seed: int) -> float:
    """Return the expected error that right scores would have by chance, at this number of them.

    Labels are drawn with the scores as their probabilities. Of few pairs, a bin's share that is
    right is far from its mean score even if nothing is wrong.

    Args:
        scores: of any shape, in [0, 1).
        seed: of the draws.
    """
    flat = scores.reshape(-1).astype(np.float64)
    place = np.minimum((flat * N_BINS).astype(int), N_BINS - 1)
    if flat.size > MANY_PAIRS:  # the mean distance of a normal variable from its mean
        variances = np.bincount(place, weights=flat * (1 - flat), minlength=N_BINS)
        return float(np.sqrt(2 * variances / np.pi).sum() / flat.size)

    wanted = np.bincount(place, weights=flat, minlength=N_BINS)
    rng, errors = np.random.default_rng(seed), []
    for _ in range(N_CHANCE):
        right = np.bincount(place, weights=rng.random(flat.size) < flat, minlength=N_BINS)
        errors.append(np.abs(wanted - right).sum() / max(flat.size, 1))
    return float(np.mean(errors))


def curves(
    oof: OutOfFold, calibrated: np.ndarray, given: np.ndarray | None = None
) -> dict[tuple[str, str], Reliability]:
    """Draw the curves of `pairs` (recording and species) and of each row's `highest` score.

    Most pairs are rightly near 0, which hides what happens above; the second shows it.

    Args:
        oof: scores and labels.
        calibrated: (n, C), of `out_of_sample`.
        given: (n, C), the scores before it; None: those of `oof`.

    Returns:
        By (which, when), the second "before" or "after".
    """
    found = {}
    before = oof.scores if given is None else given
    for when, scores in (("before", before), ("after", calibrated)):
        found["pairs", when] = reliability(oof.labels, scores)
        found["highest", when] = reliability(*highest(oof, scores))
    return found


def reliability_table(found: dict[tuple[str, str], Reliability]) -> "pd.DataFrame":
    """List the bins that are not empty: of, calibrated, low, high, n, mean_score, share_right."""
    import pandas as pd

    rows = [
        {
            "of": which,
            "calibrated": when == "after",
            "low": k / N_BINS,
            "high": (k + 1) / N_BINS,
            "n": int(curve.n[k]),
            "mean_score": curve.score[k],
            "share_right": curve.right[k],
        }
        for (which, when), curve in found.items()
        for k in np.flatnonzero(curve.n)
    ]
    return pd.DataFrame(rows)


class Verdict(NamedTuple):
    """A calibration, and what it is worth on recordings that it was not fitted to.

    Attributes:
        calibration: fitted to all recordings.
        curves: of `curves`.
        by_chance: of `pairs` and `highest`, the `chance_error` of calibrated scores.
    """

    calibration: Calibration
    curves: dict[tuple[str, str], Reliability]
    by_chance: dict[str, float]


def choose(oof: OutOfFold, method: str, seed: int, given: np.ndarray | None = None) -> Verdict:
    """Calibrate by a method, or by the better one of METHODS for "best".

    Args:
        oof: scores and labels.
        method: one of METHODS, or "best": of the least log loss on held-out recordings.
        seed: of the split.
        given: (n, C), what the curves before calibration are drawn of, where that was calibrated
            already; None: the scores of `oof`.
    """
    names = METHODS if method == "best" else (method,)
    tried = {name: out_of_sample(oof, name, seed) for name in names}
    best = min(tried, key=lambda name: log_loss(oof.labels, tried[name]))
    fitted = fit(count(oof.labels, oof.scores), best)
    after = tried[best]
    chance = {"pairs": after, "highest": highest(oof, after)[1]}
    by_chance = {which: chance_error(scores, seed) for which, scores in chance.items()}
    return Verdict(fitted, curves(oof, after, given), by_chance)


def log_loss(labels: np.ndarray, scores: np.ndarray) -> float:
    """Mean log loss of scores (n, C) against labels, in nats; a class at a time."""
    total = 0.0
    for number in range(labels.shape[1]):
        z, truth = logits(scores[:, number]), labels[:, number]
        total += float((np.logaddexp(0, z) - truth * z).sum())
    return total / max(labels.size, 1)


# The file -----------------------------------------------------------------------------------------


def write_calibration(path: Path, verdict: Verdict, oof: OutOfFold) -> None:
    """Write calibration.yaml: the line, for which species, and its expected error."""
    import yaml

    fitted = verdict.calibration
    content: dict[str, Any] = {
        "method": fitted.method,
        "slope": fitted.slope,
        "offset": fitted.offset,
        "n_recordings": len(np.unique(oof.filenames)),
        "expected_error": {
            f"{which}_{when}": round(curve.expected_error, 4)
            for (which, when), curve in verdict.curves.items()
        }
        | {f"{which}_by_chance": round(error, 4) for which, error in verdict.by_chance.items()},
        "class_names": list(oof.class_names),
    }
    write_file(path, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


def read_calibration(path: Path, class_names: list[str]) -> Calibration:
    """Read calibration.yaml for a model of these species.

    Raises:
        UserError: no such file, no calibration, or one of other species.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        found = Calibration(float(content["slope"]), float(content["offset"]), content["method"])
        names = [str(name) for name in content["class_names"]]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:100]
        raise UserError(f"{path}: no calibration of evaluate.py: {reason}") from None
    if not found.slope > 0 or not np.isfinite([found.slope, found.offset]).all():
        raise UserError(f"{path}: slope {found.slope:g} and offset {found.offset:g} are no line")
    if sorted(names) != sorted(class_names):
        raise UserError(
            f"{path}: fitted to other species than the model's; run evaluate.py on the model again"
        )
    return found
