"""planning/contest.py: the best single one wins, a pair only where it is clearly better."""

from dataclasses import replace

import numpy as np
import pytest

from configs import UserError
from planning.contest import average, hold
from tests.made_up_scores import made_up


def noisy(oof, rng, n_wrong):
    """The same recordings, some of them scored at random."""
    scores = oof.scores.copy()
    rows = rng.choice(len(scores), n_wrong, replace=False)
    scores[rows] = 0.9 * rng.random((n_wrong, 3))
    return replace(oof, scores=scores)


def test_the_best_single_one_wins_where_the_pair_is_no_better(rng):
    base = made_up(rng, n=120)
    entries, winner = hold({"probe": base, "planned": noisy(base, rng, 60)}, 200, 8)
    assert winner.name == "probe" and len(entries) == 3
    assert [one.score[0] for one in entries] == sorted(one.score[0] for one in entries)[::-1]
    planned = next(one for one in entries if one.name == "planned")
    assert planned.difference["against"] == "probe" and planned.difference["high"] < 0
    for one in entries:
        score, low, high = one.score
        assert low <= score <= high


def test_a_tie_goes_to_the_cheaper_one(rng):
    base = made_up(rng, n=60)
    _, winner = hold({"probe": base, "planned": base}, 100, 8)
    assert winner.members == ("probe",)


def test_a_pair_wins_where_each_errs_elsewhere(rng):
    base = made_up(rng, n=240, noise=0.3)
    one, other = noisy(base, rng, 80), noisy(base, rng, 80)
    entries, winner = hold({"probe": one, "planned": other}, 300, 8)
    assert winner.name == "probe + planned"
    assert winner.difference["low"] > 0
    np.testing.assert_allclose(winner.oof.scores.mean(), average([one, other]).scores.mean())


def test_means_are_means(rng):
    one, other = made_up(rng), made_up(rng)
    expected = (one.scores.astype("f8") + other.scores) / 2
    np.testing.assert_allclose(average([one, other]).scores, expected, atol=1e-7)


def test_other_recordings_are_refused(rng):
    one, other = made_up(rng, n=60), made_up(rng, n=90)
    with pytest.raises(UserError, match="planned"):
        hold({"probe": one, "planned": other}, 100, 8)
