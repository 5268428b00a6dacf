"""Which candidate is the best: single ones and their pairs on the same held-back recordings."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from inference.bootstrap import draw_weights, interval
from inference.comparable import check_comparable, in_one_order
from inference.out_of_fold import OutOfFold
from inference.paired import all_metrics, difference_row

DECIDES = "macro_ap"


@dataclass(frozen=True)
class Entry:
    """A candidate, or two whose scores are averaged.

    Attributes:
        members: names of candidates.
        oof: their mean scores.
        score: macro AP, with the ends of its 95 % interval.
        difference: a paired difference to the best single candidate, as `difference_row` gives it.
    """

    members: tuple[str, ...]
    oof: OutOfFold
    score: tuple[float, float, float]
    difference: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Its members, joined."""
        return " + ".join(self.members)


def hold(found: Mapping[str, OutOfFold], n_draws: int, seed: int) -> tuple[list[Entry], Entry]:
    """Compare candidates and their pairs by paired bootstrap.

    The best single candidate by macro AP wins, at a tie the first. A pair wins only where its
    difference to that one is above 0 in the whole 95 % interval: it costs twice the time.

    Args:
        found: out-of-fold scores by candidate, the cheapest first.
        n_draws: of the bootstrap.
        seed: of the draws.

    Returns:
        All entries, the best first, and the winner.

    Raises:
        UserError: scores of other recordings, folds, classes or labels.
    """
    singles = {name: in_one_order(oof) for name, oof in found.items()}
    first = next(iter(singles))
    for name, oof in singles.items():
        check_comparable(Path(first), singles[first], Path(name), oof)

    members = [(name,) for name in singles] + list(itertools.combinations(singles, 2))
    scored = [average([singles[name] for name in names]) for names in members]
    weights = draw_weights(pd.factorize(scored[0].filenames)[0], n_draws, seed)
    ones = np.ones((1, weights.shape[1]), np.uint16)
    plain = [all_metrics(oof, ones) for oof in scored]
    drawn = [all_metrics(oof, weights) for oof in scored]

    best = int(np.argmax([plain[k][DECIDES][0] for k in range(len(singles))]))
    entries = []
    for k, names in enumerate(members):
        low, high = interval(drawn[k][DECIDES])
        against = difference_row(
            " + ".join(names), members[best][0], DECIDES,
            plain[k], plain[best], drawn[k], drawn[best],
        )  # fmt: skip
        score = (float(plain[k][DECIDES][0]), float(low), float(high))
        entries.append(Entry(names, scored[k], score, against))

    better = [one for one in entries if len(one.members) > 1 and one.difference["low"] > 0]
    winner = max(better, key=lambda one: one.score[0], default=entries[best])
    return sorted(entries, key=lambda one: -one.score[0]), winner


def average(found: Sequence[OutOfFold]) -> OutOfFold:
    """Average the scores of the same recordings."""
    scores = np.stack([oof.scores for oof in found]).mean(axis=0, dtype=np.float64)
    return replace(found[0], scores=np.asarray(scores, np.float32))
