"""Averages of weights: against a mean by hand, with statistics made anew, and resumed."""

import pandas as pd
import pytest
import torch
from torch import nn

import checkpoint as ckpt
import train
from configs import Config
from inference.model_files import find_checkpoints
from tests.small_run import assert_same_end, copy_of, make_recordings, run_until, tiny_config
from training import averaging
from training.averaging import add_to_mean, remake_statistics, with_weights


def test_the_mean_of_weights_is_that_of_all_of_them():
    models = [nn.Linear(3, 2) for _ in range(4)]
    mean: dict[str, torch.Tensor] = {}
    for number, model in enumerate(models, start=1):
        mean = add_to_mean(mean, model, number)
    for name in ("weight", "bias"):
        expected = torch.stack([getattr(model, name) for model in models]).double().mean(dim=0)
        torch.testing.assert_close(mean[name].double(), expected, rtol=1e-6, atol=1e-7)

    before = models[0].weight.clone()
    copied = with_weights(models[0], mean)
    assert torch.equal(copied.weight, mean["weight"]) and torch.equal(models[0].weight, before)


def test_statistics_made_anew_are_the_averages_over_all_batches():
    norm, batches = nn.BatchNorm1d(2), [torch.randn(5, 2) * 3 + 1 for _ in range(3)]
    norm.running_mean.fill_(100.0)  # of other weights
    remake_statistics(norm, batches, lambda model, images: model(images))

    torch.testing.assert_close(norm.running_mean, torch.stack([b.mean(0) for b in batches]).mean(0))
    torch.testing.assert_close(norm.running_var, torch.stack([b.var(0) for b in batches]).mean(0))
    assert norm.momentum == 0.1 and not norm.training


@pytest.fixture
def config(tmp_path) -> Config:
    return tiny_config(tmp_path, train_bs=3, epochs=3, keep_checkpoints=9, monitor="last")


@pytest.fixture
def df(config) -> pd.DataFrame:
    return make_recordings(config, 16)


@pytest.mark.slow
def test_the_last_epochs_are_averaged_at_the_end_and_a_run_stopped_there_goes_on(
    df, config, monkeypatch
):
    plain = copy_of(config, models_dir=config.root / "plain")
    train.run(df, plain)
    config = copy_of(config, average_epochs=2, ema_decay=0.5)
    config = copy_of(config, ema_decay=None)
    train.run(df, config)

    # The epochs themselves are those of a run without it, to the byte.
    ours, theirs = (
        (one.fold_dir(0) / "history.csv").read_text().splitlines() for one in (config, plain)
    )
    assert ours[:4] == theirs and len(ours) == 5
    assert ours[4].split(",")[3] == ""  # it has no training loss of its own

    # Its parameters are the mean of the last two; predict.py takes it.
    states = {named.epoch: ckpt.read_checkpoint(named.path) for named in
              ckpt.named_checkpoints(config.fold_dir(0))}  # fmt: skip
    path = find_checkpoints(config.fold_dir(0))[0]
    average = ckpt.read_checkpoint(path)["ema"]
    assert "epoch_4" in path.name
    for name in ("fc1.weight", "bn0.weight"):
        expected = (states[2]["model"][name] + states[3]["model"][name]) / 2
        torch.testing.assert_close(average[name], expected)
    assert not torch.equal(average["bn0.running_mean"], states[3]["model"]["bn0.running_mean"])

    # Stopped while the statistics are made, and again when all is done
    broken = copy_of(config, models_dir=config.root / "broken")
    run_until(df, broken, monkeypatch, step=6)
    original = averaging.remake_statistics

    def pulled(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(averaging, "remake_statistics", pulled)
    with pytest.raises(KeyboardInterrupt):
        train.run(df, broken)
    monkeypatch.setattr(averaging, "remake_statistics", original)
    for _ in range(2):
        train.run(df, broken)
    assert (broken.fold_dir(0) / "history.csv").read_text().splitlines() == ours
    again = ckpt.read_checkpoint(find_checkpoints(broken.fold_dir(0))[0])["ema"]
    assert all(torch.equal(value, again[name]) for name, value in average.items())


@pytest.mark.slow
def test_frozen_statistics_stay_in_the_average_of_averages(df, config):
    config = copy_of(config, epochs=2, average_epochs=2, frozen_statistics="always", ema_decay=0.9)
    train.run(df, config)
    state = ckpt.read_checkpoint(config.fold_dir(0) / ckpt.LAST_NAME)
    for name, value in state["ema"].items():
        if "running" in name:
            assert torch.equal(value, state["model"][name]), name
    other = copy_of(config, models_dir=config.root / "other")
    train.run(df, other)
    assert_same_end(config, other)
