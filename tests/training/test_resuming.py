"""A run that was stopped and started again is the run that was never stopped."""

import pandas as pd
import pytest
import yaml

import checkpoint as ckpt
import train
from configs import Config, UserError
from tests.small_run import (
    assert_same_end,
    copy_of,
    make_recordings,
    run_until,
    tiny_config,
)
from training import resuming
from training.resuming import SaveTimer, split_digest

WAVEFORM = ("noise_injection", "gaussian_noise", "pink_noise", "random_volume", "cosine_volume")
EVERYTHING_ON = {
    **{f"p_{name}": 0.5 for name in (*WAVEFORM, "masks", "spec_augment", "mixup", "cutmix")},
    "dropout": 0.3,
    "ema_decay": 0.9,
    "grad_clip": 1.0,
    "accumulation_steps": 2,
    "keep_checkpoints": 9,
}


@pytest.fixture
def config(tmp_path) -> Config:
    return tiny_config(tmp_path, train_bs=3, epochs=3, **EVERYTHING_ON)


@pytest.fixture
def df(config) -> pd.DataFrame:
    return make_recordings(config, 16)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("workers_before", "workers_after", "amp_dtype", "scheduler_name"),
    [
        (0, 2, "bfloat16", "reduce_lr_on_plateau"),
        (2, 0, "float16", "linear_warmup_cosine"),
        (0, 0, "auto", "cosine_warm_restarts"),
    ],
)
def test_stopped_after_an_epoch(
    df, config, monkeypatch, workers_before, workers_after, amp_dtype, scheduler_name
):
    config = copy_of(
        config, amp_dtype=amp_dtype, scheduler_name=scheduler_name, scheduler_params={}
    )
    train.run(df, config)
    broken = copy_of(config, exp_id=48, num_workers=workers_before)
    # checkpoint names carry the experiment, so the second lies in a models folder of its own
    broken = copy_of(broken, exp_id=47, models_dir=config.root / "other")
    run_until(df, broken, monkeypatch, step=2)
    assert len(pd.read_csv(broken.fold_dir(0) / "history.csv")) == 1
    train.run(df, copy_of(broken, num_workers=workers_after))
    assert_same_end(config, broken)


@pytest.mark.slow
def test_stopped_inside_epochs_again_and_again(df, config, monkeypatch):
    config = copy_of(config, checkpoint_every_steps=1)
    train.run(df, config)
    broken = copy_of(config, models_dir=config.root / "other")
    for step in (1, 3, 4):
        run_until(df, broken, monkeypatch, step=step)
        state = ckpt.read_checkpoint(broken.fold_dir(0) / "last.pth")
        assert state["step"] == step
    train.run(df, broken)
    assert_same_end(config, broken)


def test_a_batch_is_never_seen_twice_in_a_resumed_epoch(df, config, monkeypatch):
    config = copy_of(config, checkpoint_every_steps=1, epochs=1)
    seen = []
    original = train.mix_batch

    def recorded(fold, images, targets):
        seen.append((fold.progress.epoch, fold.progress.batch))
        return original(fold, images, targets)

    monkeypatch.setattr(train, "mix_batch", recorded)
    run_until(df, config, monkeypatch, step=1)
    train.run(df, config)
    assert seen == [(0, 0), (0, 1), (0, 2), (0, 3)]


def test_a_damaged_last_checkpoint_costs_an_epoch_not_the_run(df, config, monkeypatch, caplog):
    config = copy_of(config, epochs=2)
    train.run(df, config)
    broken = copy_of(config, models_dir=config.root / "other")
    train.run(df, copy_of(broken, epochs=1))
    last = broken.fold_dir(0) / "last.pth"
    last.write_bytes(last.read_bytes()[:1000])
    train.run(df, broken)
    assert "last.pth: damaged" in caplog.text and "going on from" in caplog.text
    assert_same_end(config, broken)


def test_a_finished_run_trains_no_further(df, config):
    config = copy_of(config, epochs=1)
    train.run(df, config)
    before = (config.fold_dir(0) / "last.pth").read_bytes()
    train.run(df, config)
    assert (config.fold_dir(0) / "last.pth").read_bytes() == before


def test_a_lower_rate_is_the_rate_from_there_on(df, config):
    train.run(df, copy_of(config, epochs=1))
    train.run(df, copy_of(config, epochs=2, lr=config.lr / 4))
    assert list(pd.read_csv(config.fold_dir(0) / "history.csv")["lr"]) == [config.lr, config.lr / 4]


def test_more_epochs_go_on_from_the_end(df, config):
    train.run(df, copy_of(config, epochs=1))
    train.run(df, copy_of(config, epochs=2))
    assert list(pd.read_csv(config.fold_dir(0) / "history.csv")["epoch"]) == [1, 2]


# Another split ------------------------------------------------------------------------------------


def test_another_split_under_the_same_number_is_refused_with_both_ways_out(df, config):
    train.run(df, copy_of(config, epochs=1))
    before = (config.fold_dir(0) / "last.pth").read_bytes()
    swapped = df.assign(kfold=(df["kfold"] + 1) % 4)  # other recordings are held back
    with pytest.raises(UserError, match="another split.*--exp-id.*--no-resume"):
        train.run(swapped, config)
    assert (config.fold_dir(0) / "last.pth").read_bytes() == before


def test_the_order_of_the_table_and_folds_that_are_not_held_back_make_no_other_split(df):
    first, second = df[df["kfold"] != 0], df[df["kfold"] == 0]
    digest = split_digest(first, second)
    assert digest == split_digest(first[::-1], second.assign(kfold=3))
    assert digest != split_digest(second, first)
    assert digest != split_digest(first[1:], second)
    assert digest != split_digest(first.assign(labels="bird9"), second)


def test_a_split_is_identified_once_a_fold(df, config, monkeypatch):
    original, asked = train.resuming.split_digest, []
    monkeypatch.setattr(
        train.resuming, "split_digest", lambda *args: (asked.append(1), original(*args))[1]
    )
    train.run(df, copy_of(config, epochs=1, folds=[0, 1]))
    assert len(asked) == 2


def test_a_checkpoint_without_a_split_goes_on(df, config):
    train.run(df, copy_of(config, epochs=1))
    path = config.fold_dir(0) / "last.pth"
    state = ckpt.read_checkpoint(path)
    del state["split"]  # as older versions wrote it
    for best in config.fold_dir(0).glob("Exp_*.pth"):
        best.unlink()
    ckpt.save_checkpoint(path, state)
    train.run(df, copy_of(config, epochs=2))
    assert ckpt.read_checkpoint(path)["epoch"] == 2


# What the folder says of it -----------------------------------------------------------------------


def test_the_settings_of_the_first_epochs_and_of_the_later_ones_are_both_kept(df, config):
    fold_dir = config.fold_dir(0)
    for epochs, lr in ((1, config.lr), (2, config.lr / 2), (3, config.lr / 2)):
        train.run(df, copy_of(config, epochs=epochs, lr=lr, num_workers=0))
    texts = {path.name: path.read_text() for path in fold_dir.glob("config*.yaml")}
    rates = {name: yaml.safe_load(text)["config"]["lr"] for name, text in texts.items()}
    assert rates["config.yaml"] == config.lr
    assert rates["config_from_epoch_2.yaml"] == config.lr / 2


def test_a_checkpoint_within_an_epoch_is_due_by_steps_or_by_the_clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(resuming.time, "monotonic", lambda: now[0])
    timer = SaveTimer(Config(checkpoint_every_minutes=2, checkpoint_every_steps=5))
    assert [timer.is_due(step) for step in (4, 5, 6)] == [False, True, False]
    now[0] += 121
    assert timer.is_due(6)
    timer.restart()
    assert not timer.is_due(6)
    never = SaveTimer(Config())
    now[0] += 1e6
    assert not never.is_due(5)
