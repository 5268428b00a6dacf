"""Steps with a loss or gradient that is not finite: skipped, named, counted, without a trace."""

import logging

import pytest

import train
from configs import UserError
from tests.small_run import build, positioned, same, weights, with_linear_model


def test_a_bad_batch_is_skipped_named_and_leaves_no_trace(df, config, caplog):
    fold = build(df, config)
    fold.parts.model.train()
    batch = next(iter(positioned(fold, 1)))
    before = weights(fold)
    bad = {**batch, "image": batch["image"].clone()}
    bad["image"][2, 0, 5, 5] = float("nan")
    with caplog.at_level(logging.WARNING):
        assert train.train_step(fold, bad)
    assert same(before, fold.parts.model.state_dict())  # the running statistics too
    assert (fold.progress.step, fold.progress.skipped_steps, fold.progress.bad_steps) == (
        1,
        1,
        1,
    ) and fold.progress.train_loss.count == 0
    names = {fold.train_loader.dataset.filename(index) for _, index in fold.train_sampler.keys(0)}
    assert "loss nan" in caplog.text and all(name in caplog.text for name in names)
    assert train.train_step(fold, batch) and fold.progress.bad_steps == 0


def test_too_many_bad_steps_in_a_row_stop_the_run(df, config):
    config.max_bad_steps = 2
    fold = build(df, config)
    batch = next(iter(positioned(fold, 1)))
    batch["image"][:] = float("inf")
    train.train_step(fold, batch)
    with pytest.raises(UserError, match="2 steps in a row without a finite loss"):
        train.train_step(fold, batch)


def test_infinite_gradients_without_a_scaler_are_skipped_too(df, config):
    fold = with_linear_model(build(df, config))
    fold.parts.model.head.weight.register_hook(lambda grad: grad * float("inf"))
    before = weights(fold)
    train.train_step(fold, next(iter(positioned(fold, 1))))
    assert same(before, fold.parts.model.state_dict()) and fold.progress.skipped_steps == 1
