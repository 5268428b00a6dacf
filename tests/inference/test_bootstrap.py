"""Weighted scores against scikit-learn; draws of whole recordings."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from inference.bootstrap import draw_weights, interval, macro, score_classes


def test_every_class_in_every_draw_equals_scikit_learn(rng):
    labels = (rng.random((120, 6)) < 0.15).astype(np.uint8)
    labels[:, 5] = 0  # a class without positives
    scores = np.round(rng.random((120, 6)), 1).astype(np.float32)  # many ties
    weights = draw_weights(np.arange(120) // 3, 12, seed=1)
    found = score_classes(labels, scores, weights)
    assert np.isnan(found.average_precision[:, 5]).all() and np.isnan(found.roc_auc[:, 5]).all()
    n_scored = 0
    for draw, weight in enumerate(weights):
        for number in range(5):
            if not (labels[:, number] * weight).any():
                assert np.isnan(found.average_precision[draw, number])
                continue
            given = labels[:, number], scores[:, number]
            wanted = average_precision_score(*given, sample_weight=weight)
            assert found.average_precision[draw, number] == pytest.approx(wanted, abs=1e-12)
            wanted = roc_auc_score(*given, sample_weight=weight)
            assert found.roc_auc[draw, number] == pytest.approx(wanted, abs=1e-12)
            n_scored += 1
    assert n_scored > 40


def test_a_draw_takes_recordings_whole_and_as_many_as_there_are():
    groups = np.array([7, 7, 7, 2, 5, 5])
    weights = draw_weights(groups, 200, seed=3)
    assert (weights[:, 0] == weights[:, 1]).all() and (weights[:, 4] == weights[:, 5]).all()
    assert (weights[:, [0, 3, 4]].sum(axis=1) == 3).all()
    assert np.array_equal(weights, draw_weights(groups, 200, seed=3))
    assert weights[:, 3].mean() == pytest.approx(1, abs=0.2)


def test_macro_and_interval_leave_out_what_has_no_score():
    draws = np.array([[1.0, np.nan], [0.5, 0.7], [np.nan, np.nan]])
    assert macro(draws).tolist()[:2] == pytest.approx([1.0, 0.6]) and np.isnan(macro(draws)[2])
    low, high = interval(np.column_stack([np.arange(101.0), np.full(101, np.nan)]))
    assert (low[0], high[0]) == (2.5, 97.5) and np.isnan(low[1])


def test_intervals_cover_the_truth_as_often_as_they_say(rng):
    """Scores are normal, those of positives d higher: the AUC is Phi(d / sqrt 2)."""
    covered = 0
    for trial in range(60):
        labels = (np.arange(300) < 100).astype(np.uint8)[:, None]
        scores = rng.standard_normal((300, 1)) + labels
        weights = draw_weights(np.arange(300), 200, seed=trial)
        low, high = interval(score_classes(labels, scores, weights).roc_auc[:, 0])
        covered += low <= 0.76025 <= high
    assert 51 <= covered <= 60  # 57 expected
