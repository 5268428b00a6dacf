"""Averages of models, and ranks."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.detections import average_models, average_ranks

# Averages -----------------------------------------------------------------------------------------


def test_probabilities_and_logits_are_averaged_as_worked_by_hand():
    # odds 1/9 and 9: their geometric mean is 1, which is a probability of 1/2; odds 1/4 and 1 make
    # 1/2, that is 1/3
    scores = np.array([[[0.1, 0.2]], [[0.9, 0.5]]], np.float32)
    assert average_models(scores, "probability").tolist() == pytest.approx(
        [pytest.approx([0.5, 0.35])]
    )
    assert average_models(scores, "logit").tolist() == pytest.approx([pytest.approx([0.5, 1 / 3])])


def test_one_model_keeps_its_scores_to_the_bit(rng):
    scores = rng.random((1, 50, 4), np.float32)
    assert np.array_equal(average_models(scores, "probability"), scores[0])
    np.testing.assert_allclose(average_models(scores, "logit"), scores[0], rtol=1e-6)


def test_averages_stay_below_one_even_for_the_highest_scores():
    highest = np.full((3, 2, 1), 1 - 2**-24, np.float32)
    for how in ("probability", "logit"):
        assert (average_models(highest, how) < 1).all()
    assert (average_ranks(highest) < 1).all()


@given(st.lists(st.lists(st.integers(0, 4), min_size=3, max_size=3), min_size=1, max_size=8))
def test_ranks_share_ties_and_count_to_n_plus_one(table):
    scores = np.array(table, np.float32)
    n = len(scores)
    for column in range(3):
        values = [row[column] for row in table]
        for row, value in enumerate(values):
            below, equal = sum(v < value for v in values), values.count(value)
            rank = Fraction(2 * below + equal + 1, 2) / (
                n + 1
            )  # the mean of below + 1 .. below + equal
            assert average_ranks(scores[None])[row, column] == pytest.approx(float(rank))
    both = average_ranks(
        np.stack([scores, 10 * scores])
    )  # a rank does not see how far apart scores are
    assert np.array_equal(both, average_ranks(scores[None]))
    assert (both > 0).all() and (both < 1).all()


def test_models_are_weighed():
    scores = np.array([[[0.2, 0.5]], [[0.6, 0.9]], [[0.4, 0.1]]], np.float32)  # (models, n, C)
    found = average_models(scores, "probability", (0.5, 0.25, 0.25))
    assert found[0].tolist() == pytest.approx([0.35, 0.5])
    logits = np.log(scores / (1 - scores))
    mean = 0.5 * logits[0] + 0.25 * logits[1] + 0.25 * logits[2]
    assert average_models(scores, "logit", (0.5, 0.25, 0.25)) == pytest.approx(
        1 / (1 + np.exp(-mean)), abs=1e-6
    )
    for how in ("probability", "logit"):
        alike = average_models(scores, how, (1 / 3, 1 / 3, 1 / 3))
        assert alike == pytest.approx(average_models(scores, how), abs=1e-6)
    two = np.array([[[0.1], [0.2]], [[0.4], [0.3]]], np.float32)  # ranks 1/3, 2/3 and 2/3, 1/3
    assert average_ranks(two, (0.75, 0.25))[:, 0].tolist() == pytest.approx([5 / 12, 7 / 12])
