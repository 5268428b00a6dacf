"""planning/trial.py on a network of a few milliseconds."""

import pytest
import torch

from planning import trial
from tests.small_run import tiny_config


@pytest.fixture
def settings(tmp_path, monkeypatch):
    monkeypatch.setattr(trial, "TRIAL_S", 0.05)
    return tiny_config(tmp_path, train_bs=4)


def test_a_pace_is_measured(settings):
    pace = trial.try_out(settings, 3)
    assert pace.batch == 4
    assert 1 < pace.train_per_s < pace.valid_per_s * 5 < 1e6


def test_the_pace_is_that_of_the_turns(settings, monkeypatch):
    monkeypatch.setattr(trial, "time_items", lambda *_: 0.02)
    monkeypatch.setattr(trial, "time_training", lambda *_: 0.08)
    monkeypatch.setattr(trial, "time_scoring", lambda *_: 0.03)
    pace = trial.try_out(settings, 3)
    assert pace.train_per_s == pytest.approx(10) and pace.valid_per_s == pytest.approx(20)


def test_a_batch_that_does_not_fit_is_halved(settings, monkeypatch):
    tried = []

    def train(model, config, batch, *_):
        tried.append(batch)
        if batch > 1:
            raise torch.OutOfMemoryError
        return 0.1

    monkeypatch.setattr(trial, "time_training", train)
    assert trial.try_out(settings, 3).batch == 1 and tried == [4, 2, 1]


def test_backgrounds_are_not_needed(settings, tmp_path):
    settings.background_dir = tmp_path / "nowhere"
    settings.p_background = 0.5
    assert trial.try_out(settings, 3).batch == 4
