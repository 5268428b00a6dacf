"""Every switch of the head and of its training: resumed, on the device front end, with --debug."""

import numpy as np
import pandas as pd
import pytest

import dataset as data
import train
from configs import Config, UserError
from inference.scorers import open_models
from tests.small_run import assert_same_end, copy_of, make_recordings, run_until, tiny_config
from training.floor import compare_with_floor
from training.fold import Progress, rank

LINEAR = {"head": "linear", "head_input": "rows", "head_block": -1, "mel_statistics": 8}
SWITCHES = {
    "start from the probe": {
        **LINEAR, "probe_start": True, "loss_name": "cross_entropy", "smoothing": 0.1,
        "frozen_statistics": "always", "head_lr": 1e-4, "monitor": "last", "ema_decay": 0.9,
    },
    "probe beside": {"probe_below": 100, "monitor": "macro_ap"},
    "head first": {"frozen_epochs": 1, "frozen_statistics": "first", "monitor": "macro_roc_auc"},
    "layer by layer": {"layer_decay": 0.7, "head_lr": 2e-3, "scheduler_name": "one_cycle"},
    "log-mean-exp": {"pooling": "log_mean_exp", "loss_name": "asymmetric", "p_late_stripes": 1.0},
    "max, rows": {"pooling": "max", "head_input": "rows", "loss_name": "soft_auc_bce"},
    "gem, masked": {
        "pooling": "gem", "head": "linear", "loss_name": "bce_focal_2way",
        "secondary_targets": "masked", "monitor": "cmap_pad_5",
    },
    "no bird": {"no_bird_class": True, "loss_name": "cross_entropy_2way", "head_block": -2},
    "steps of warm-up": {
        "scheduler_name": "linear_warmup_cosine", "scheduler_params": {"warmup_steps": 2},
        "score_by": "softmax",
    },
}  # fmt: skip


@pytest.fixture
def config(tmp_path) -> Config:
    return tiny_config(tmp_path, train_bs=3, epochs=2, keep_checkpoints=9, ema_decay=0.9)


@pytest.fixture
def df(config) -> pd.DataFrame:
    return make_recordings(config, 16)


@pytest.mark.slow
@pytest.mark.parametrize("name", SWITCHES)
def test_a_stopped_run_goes_on_as_if_it_had_not(df, config, monkeypatch, name):
    config = copy_of(config, checkpoint_every_steps=1, **SWITCHES[name])
    train.run(df, config)
    broken = copy_of(config, models_dir=config.root / "other")
    for step in (1, 5):  # inside the first epoch, and inside the second
        run_until(df, broken, monkeypatch, step=step)
    train.run(df, broken)
    assert_same_end(config, broken)


@pytest.mark.slow
@pytest.mark.parametrize("name", SWITCHES)
def test_debug_and_the_device_front_end_train_what_predict_takes(df, config, name):
    config = copy_of(config, debug=True, frontend="device", **SWITCHES[name])
    train.run(df, config)
    history = pd.read_csv(config.fold_dir(0) / "history.csv")
    assert len(history) == 2 and np.isfinite(history["train_loss"]).all()

    models = open_models(config.fold_dir(0), config)
    stored = np.load(config.fold_dir(0) / "valid_predictions.npz")
    _, valid_part = data.split_fold(df, 0, [])
    images = [
        models.prepare(np.load(config.train_np_dir / path)) for path in valid_part["filepath"]
    ]
    clipwise, _, _ = models.score(images, frames=False)
    np.testing.assert_allclose(clipwise[0], stored["scores"], atol=1e-4)


def test_a_training_that_starts_from_the_probe_has_its_scores_at_once(df, config, monkeypatch):
    config = copy_of(
        config, epochs=1, lr=1e-12, weight_decay=0.0, **SWITCHES["start from the probe"]
    )
    config = copy_of(config, ema_decay=None, head_lr=1e-12)
    train.run(df, config)
    row = pd.read_csv(config.fold_dir(0) / "history.csv").iloc[0]
    assert row["macro_ap"] == pytest.approx(row["probe_macro_ap"], abs=1e-6)
    assert row["valid_loss"] == pytest.approx(row["probe_valid_loss"], rel=1e-4)


def test_a_sed_head_cannot_start_from_the_probe(df, config):
    with pytest.raises(UserError, match="give head: linear, too"):
        train.run(df, copy_of(config, probe_start=True))


def test_the_probe_changes_nothing_of_a_training_beside_it(df, config):
    train.run(df, copy_of(config, epochs=1))
    plain = np.load(config.fold_dir(0) / "valid_predictions.npz")["scores"]
    beside = copy_of(config, epochs=1, probe_below=100, models_dir=config.root / "other")
    train.run(df, beside)
    scores = np.load(beside.fold_dir(0) / "valid_predictions.npz")["scores"]
    np.testing.assert_array_equal(plain, scores)


@pytest.mark.parametrize(("reached", "warned"), [(0.5, True), (0.6, True), (0.61, False)])
def test_training_that_does_not_beat_the_probe_is_warned_of(caplog, reached, warned):
    progress = Progress(probe={"probe_macro_ap": 0.6})
    progress.end_epoch({"epoch": 1, "valid_loss": 1.0, "macro_ap": reached})
    compare_with_floor(0, progress)
    assert ("did not beat" in caplog.text) == warned


def test_the_best_epoch_is_the_best_in_what_is_monitored():
    rows = [
        {"epoch": 1, "valid_loss": 0.3, "macro_ap": 0.5},
        {"epoch": 2, "valid_loss": 0.2, "macro_ap": 0.4},
        {"epoch": 3, "valid_loss": 0.4, "macro_ap": float("nan")},
    ]
    best = {}
    for monitor in ("valid_loss", "macro_ap", "last"):
        progress = Progress()
        for row in rows:
            progress.end_epoch(row, monitor)
        best[monitor] = progress.best_epoch
        assert progress.best_epoch == min(rows, key=lambda row: rank(row, monitor))["epoch"]
    assert best == {"valid_loss": 2, "macro_ap": 1, "last": 3}
