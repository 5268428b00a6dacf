"""Weights of an ensemble: what is picked, and what it is worth."""

from dataclasses import replace

import numpy as np
import pytest

from inference.blending import choose_blend, mean_ap, mix, pick
from tests.made_up_scores import made_up


def noisy(oof, rng, noise):
    """The same recordings scored by a model with errors of its own."""
    scores = np.clip(0.5 * oof.labels + noise * rng.random(oof.scores.shape), 0, 0.99)
    return replace(oof, scores=scores.astype(np.float32))


def test_models_with_errors_of_their_own_share_the_weight_and_a_useless_one_has_none(rng):
    oof = made_up(rng, n=600)
    good = [noisy(oof, rng, 0.9), noisy(oof, rng, 0.9)]
    useless = replace(oof, scores=rng.random(oof.scores.shape).astype("f4"))
    blend = choose_blend([*good, useless], 200, seed=8)
    assert blend.weights.sum() == pytest.approx(1) and min(blend.weights[:2]) > 0.2
    assert blend.low > 0 and blend.low < blend.gain < blend.high
    together = mean_ap(oof.labels, mix([one.scores for one in good], np.array([0.5, 0.5])))
    assert blend.score == pytest.approx(together, abs=0.03)


def test_what_has_no_gain_is_not_flattered(rng):
    """Twelve models that guess: the best of them on its own recordings beats the mean by luck."""
    flattered, told = [], []
    for _ in range(10):
        oof = made_up(rng, n=60)
        guesses = [
            replace(oof, scores=rng.random(oof.scores.shape).astype("f4")) for _ in range(12)
        ]
        blend = choose_blend(guesses, 20, seed=1)
        inside = mix([one.scores for one in guesses], blend.weights)
        flattered.append(mean_ap(oof.labels, inside))
        told.append(blend.score)
    assert np.mean(told) == pytest.approx(0.36, abs=0.05)  # of chance: a third, and a little
    assert np.mean(flattered) > np.mean(told) + 0.1


def test_one_fold_is_halved(rng):
    oof = made_up(rng, n=120)
    single = [replace(noisy(oof, rng, 0.9), folds=np.zeros(120, int)) for _ in range(2)]
    assert 0 < choose_blend(single, 20, seed=8).score <= 1


def test_the_first_pick_is_the_best_alone():
    labels = np.eye(3, dtype=np.uint8)[np.arange(30) % 3]
    right, wrong = labels * 0.9, np.roll(labels, 1, axis=1) * 0.9
    assert pick([wrong, right], labels).tolist() == [0, 1]
    assert mix([right, wrong], np.array([0.75, 0.25])).max() == pytest.approx(0.675)
