"""--max-hours: what a run that was stopped in time leaves and says, and how it goes on."""

import json
import sys

import pandas as pd
import pytest

import checkpoint as ckpt
import train
from configs import Config
from tests.small_run import assert_same_end, copy_of
from training import run_clock
from training.ending import describe_unfinished


@pytest.fixture
def time(monkeypatch) -> list[float]:
    """The time in seconds, to be moved by the test."""
    moment = [0.0]
    monkeypatch.setattr(run_clock, "now", lambda: moment[0])
    return moment


class Watched:
    """A clock that moves 40 s with each step and 40 s with each validation."""

    def __init__(self, monkeypatch, time) -> None:
        step, validate = train.train_step, train.validate

        def slow_step(*args):
            time[0] += 40
            return step(*args)

        def slow_validate(*args):
            time[0] += 40
            return validate(*args)

        monkeypatch.setattr(train, "train_step", slow_step)
        monkeypatch.setattr(train, "validate", slow_validate)


def test_a_run_stops_after_the_last_epoch_that_fits_and_goes_on_as_if_unbroken(
    df, config, time, monkeypatch
):
    config.epochs, config.ema_decay = 3, 0.9
    train.run(df, config)

    Watched(monkeypatch, time)  # an epoch of 3 steps takes 160 s
    limited = copy_of(config, models_dir=config.root / "other", max_hours=400 / 3600)
    summary = train.run(df, limited)
    assert time[0] == 320  # a third epoch would have ended after 480 s
    assert summary["unfinished"] == {"0": 2} and summary["folds"]["0"]["epoch"] <= 2
    assert ckpt.read_checkpoint(limited.fold_dir(0) / "last.pth")["epoch"] == 2

    summary = train.run(df, limited)
    assert "unfinished" not in summary
    assert_same_end(config, limited)


def test_an_epoch_that_does_not_fit_is_stopped_inside_saved_and_resumed(
    df, config, time, monkeypatch
):
    config.ema_decay = 0.9
    train.run(df, config)
    Watched(monkeypatch, time)
    limited = copy_of(config, models_dir=config.root / "other", max_hours=70 / 3600)
    counts = []
    for _ in range(9):
        summary = train.run(df, limited)
        state = ckpt.read_checkpoint(limited.fold_dir(0) / "last.pth")
        counts.append((state["epoch"], state["batch"]))
        if "unfinished" not in summary:
            break
    assert counts[0] == (0, 2)  # two steps end after 80 s
    assert_same_end(config, limited)


def test_folds_that_did_not_begin_are_said_and_the_command_goes_on(
    df, config, time, monkeypatch, capsys
):
    config.folds, config.epochs, config.max_hours = [0, 2, 3], 1, 250 / 3600
    Watched(monkeypatch, time)
    df.to_csv(config.train_dataframe_path, index=False)
    flags = ["--root", str(config.root), "--folds", "0", "2", "3"]
    monkeypatch.setattr(sys, "argv", ["train.py", *flags])
    monkeypatch.setattr(train, "load_config", lambda **_: config)
    monkeypatch.setattr(train.processes, "is_first_of_torchrun", lambda: True)
    assert train.main() == 0
    said = capsys.readouterr().out
    assert "fold 0: best epoch 1" in said and "stopped by --max-hours 0.0694444" in said
    assert "fold 2: not begun\nfold 3: not begun" in said
    assert f"next: python train.py --root {config.root} --folds 0 2 3" in said
    assert not config.fold_dir(2).exists()
    summary = json.loads((config.exp_dir / "summary.json").read_text())
    assert summary["unfinished"] == {"2": 0, "3": 0}

    config.max_hours = None
    assert train.main() == 0
    assert "next: python plot_loss_metric.py" in capsys.readouterr().out
    assert all(len(pd.read_csv(config.fold_dir(k) / "history.csv")) == 1 for k in (0, 2, 3))


def test_a_run_without_a_whole_epoch_still_ends_well(df, config, time, monkeypatch, capsys):
    config.max_hours = 30 / 3600
    Watched(monkeypatch, time)
    summary = train.run(df, config)
    assert summary == {"exp_id": 47, "folds": {}, "mean": {}, "unfinished": {"0": 0}}
    said = describe_unfinished(summary["unfinished"], config.exp_dir, config)
    assert said.splitlines()[1] == "fold 0: in its first epoch"


def test_hours_are_no_part_of_the_experiment(df, config):
    config.epochs = 1
    train.run(df, config)
    train.run(df, copy_of(config, epochs=2, max_hours=9))
    assert Config(max_hours=8.5).max_hours == 8.5
    names = sorted(path.name for path in config.fold_dir(0).glob("config*.yaml"))
    texts = [(config.fold_dir(0) / name).read_text() for name in names]
    assert len(names) == 2 and "epochs: 2" in texts[1]
