"""inference/paired.py: how often a difference that is none is taken for one, and means of pairs."""

import numpy as np

from inference.bootstrap import draw_weights
from inference.comparable import in_one_order
from inference.paired import all_metrics, difference_row
from tests.made_up_scores import made_up


def test_without_a_difference_false_alarms_come_at_the_stated_rate(rng):
    alarms = 0
    for trial in range(200):
        one, other = made_up(rng, n=60, noise=0.95), made_up(rng, n=60, noise=0.95)
        weights = draw_weights(np.arange(60), 100, seed=trial)
        ones = np.ones((1, 60), np.uint16)
        plain, drawn = [], []
        for oof in (one, other):
            plain.append(all_metrics(oof, ones))
            drawn.append(all_metrics(oof, weights))
        row = difference_row("a", "b", "macro_roc_auc", *plain, *drawn)
        alarms += row["p_noise"] < 0.05
    assert 2 <= alarms <= 22  # 10 expected


def test_recordings_are_sorted_by_fold_and_name(rng):
    oof = in_one_order(made_up(rng, n=30))
    keys = list(zip(oof.folds, oof.filenames, strict=True))
    assert keys == sorted(keys)
