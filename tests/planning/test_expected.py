"""planning/expected.py against sums by hand."""

import pytest

from configs import Config
from planning.expected import expect
from planning.facts import Pace
from tests.planning.made_up import facts


def test_costs_by_hand():
    config = Config(epochs=10, folds=[0, 1], n_folds=5, max_seconds=10)
    found = facts(n_recordings=1000, hours=10, cores=2).with_pace(Pace(16, 50, 200))
    cost = expect(found, config)
    assert cost.prepare_min == pytest.approx(1000 * 10 / (500 * 2) / 60)
    assert cost.probe_min == pytest.approx(3000 / 200 / 60)
    assert cost.train_min == pytest.approx(2 * 10 * (800 / 50 + 200 / 200) / 60)
    assert cost.disk_gb == pytest.approx(1000 * 10 * 32_000 * 4 / 1e9)
    assert str(cost) == "prepare 1 min or less, probe 1 min, train 6 min; 1.3 GB of disk"


def test_without_a_trial_training_is_not_guessed():
    cost = expect(facts(is_annotated=True), Config())
    assert cost.train_min is None and "train" not in str(cost)
    assert cost.prepare_min == pytest.approx(6 * 3600 / (500 * 4) / 60)
