"""Scores of species, groups and all, against scikit-learn and by hand."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score

from inference.evaluation import find_thresholds, group_table, overall_table, species_table
from metrics import padded_cmap
from tests.made_up_scores import CLASSES, made_up, weights_of


def test_the_scores_are_those_of_scikit_learn_and_of_the_metric(rng):
    oof = made_up(rng, noise=0.9)
    overall = overall_table(oof, weights_of(oof)).set_index("metric")
    wanted = average_precision_score(oof.labels, oof.scores, average="macro")
    assert overall.loc["macro_ap", "score"] == pytest.approx(wanted, abs=1e-12)
    wanted = padded_cmap(oof.labels, oof.scores, 5)
    assert overall.loc["cmap_pad_5", "score"] == pytest.approx(wanted, abs=1e-12)
    hits = oof.labels[np.arange(90), oof.scores.argmax(axis=1)].mean()
    assert overall.loc["top_1", "score"] == pytest.approx(hits)
    assert (overall["low"] <= overall["score"]).all() and (
        overall["score"] <= overall["high"]
    ).all()

    species = species_table(oof, weights_of(oof), 0.9).set_index("species")
    for number, name in enumerate(CLASSES):
        wanted = average_precision_score(oof.labels[:, number], oof.scores[:, number])
        assert species.loc[name, "average_precision"] == pytest.approx(wanted, abs=1e-12)
        assert species.loc[name, "n_positive"] == 30


def test_thresholds_by_hand():
    labels, scores = np.array([1, 0, 1, 1, 0]), np.array([0.9, 0.8, 0.7, 0.6, 0.1])
    best, precise = find_thresholds(labels, scores, 0.9)
    assert best == pytest.approx((0.6, 0.75, 1.0, 6 / 7))
    assert precise[:3] == pytest.approx((0.9, 1.0, 1 / 3))
    assert np.isnan(find_thresholds(np.zeros(5), scores, 0.9)[0].score)
    assert np.isnan(find_thresholds(1 - labels, scores, 0.9)[1].score)


def test_equal_scores_share_a_threshold():
    best, _ = find_thresholds(np.array([1, 0, 1]), np.array([0.5, 0.5, 0.2]), 0.9)
    assert best.score == pytest.approx(0.2) and best.precision == pytest.approx(2 / 3)


def test_groups_are_scored_by_themselves(rng):
    oof = made_up(rng, noise=0.9)
    authors = pd.Series(np.where(np.arange(90) < 30, "a", "b"))
    table = group_table(oof, authors, weights_of(oof), column="author").set_index("value")
    assert table["n_recordings"].to_dict() == {"a": 30, "b": 60}
    hits = oof.labels[np.arange(90), oof.scores.argmax(axis=1)]
    assert table.loc["a", "top_1"] == pytest.approx(hits[:30].mean())
