"""Scores of validation, read when all batches are scored."""

import numpy as np
import pytest
import torch

import train
from tests.small_run import build
from tests.waiting import WaitError, waiting_refused
from training.scored import Scored


def test_losses_are_averaged_over_clips_and_rows_stay_in_order():
    scored = Scored()
    labels = torch.tensor([[True, False], [False, True], [True, True]])
    scored.add([(torch.tensor(1.0), 2), (torch.tensor(4.0), 1)], torch.eye(3, 2), labels)
    scored.add([(torch.tensor(6.0), 1)], torch.full((1, 2), 0.5), labels[:1])
    loss, scores, found = scored.read()
    assert (loss.avg, loss.count) == (3.0, 4)  # (2 * 1 + 4 + 6) / 4
    assert np.array_equal(np.concatenate(scores), [[1, 0], [0, 1], [0, 0], [0.5, 0.5]])
    assert np.array_equal(np.concatenate(found), [*labels.tolist(), [True, False]])


def test_a_process_without_a_share_has_nothing():
    loss, scores, labels = Scored().read()
    assert (loss.total, loss.count, scores, labels) == (0.0, 0, [], [])


def test_validation_asks_for_no_number_before_all_is_scored(df, config, monkeypatch):
    fold = build(df, config)
    fold.parts.model.eval()
    batches = list(fold.valid_loader)
    scored = Scored()
    with torch.inference_mode(), waiting_refused(monkeypatch):
        for batch in batches:
            scored.add(*train.score_batch(fold, batch))
        with pytest.raises(WaitError):
            scored.read()
    assert scored.read()[0].count == 6
