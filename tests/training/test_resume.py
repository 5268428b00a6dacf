"""A run that was stopped and started again is the run that was never stopped."""

import numpy as np
import pandas as pd
import pytest
import torch

import checkpoint as ckpt
import train
from configs import Config
from tests.small_run import make_recordings

EVERYTHING_ON = {
    "p_noise_injection": 0.5, "p_gaussian_noise": 0.5, "p_pink_noise": 0.5, "p_random_volume": 0.5,
    "p_cosine_volume": 0.5, "p_masks": 0.5, "p_spec_augment": 0.5, "p_mixup": 0.5, "p_cutmix": 0.5, "dropout": 0.3,
    "ema_decay": 0.9, "grad_clip": 1.0, "accumulation_steps": 2, "keep_checkpoints": 9,
}  # fmt: skip


@pytest.fixture
def config(tmp_path) -> Config:
    return Config(
        root=tmp_path, base_model_name="test_efficientnet", pretrained=False, n_mels=32, period=1.0, train_bs=3,
        valid_bs=4, epochs=3, folds=[0], num_workers=0, device="cpu", **EVERYTHING_ON,
    )  # fmt: skip


@pytest.fixture
def df(config) -> pd.DataFrame:
    return make_recordings(config, 16)


class Stopped(Exception):
    """Stands for whatever ends a run."""


def copy_of(config: Config, **changes) -> Config:
    return Config(**{**config.to_dict(), **changes})


def run_until(df, config, monkeypatch, *, step: int) -> None:
    """Train and stop like a pulled plug, just before optimizer step `step` + 1."""
    original = train.train_step

    def step_or_stop(fold, batch):
        if fold.progress.step >= step:
            raise Stopped
        return original(fold, batch)

    monkeypatch.setattr(train, "train_step", step_or_stop)
    with pytest.raises(Stopped):
        train.run(df, config)
    monkeypatch.setattr(train, "train_step", original)


def assert_same_end(first: Config, second: Config) -> None:
    ours, theirs = first.fold_dir(0), second.fold_dir(0)
    assert (ours / "history.csv").read_bytes() == (theirs / "history.csv").read_bytes()
    states = [ckpt.read_checkpoint(folder / "last.pth") for folder in (ours, theirs)]
    for part in ("model", "ema"):
        for name, tensor in states[0][part].items():
            assert torch.equal(tensor, states[1][part][name]), f"{part} {name}"
    for part in (
        "scheduler",
        "scaler",
        "step",
        "best_loss",
        "best_epoch",
        "history",
        "skipped_steps",
    ):
        assert states[0][part] == states[1][part], part
    moments = [state["optimizer"]["state"] for state in states]
    assert all(
        torch.equal(moments[0][key]["exp_avg"], moments[1][key]["exp_avg"]) for key in moments[0]
    )
    with (
        np.load(ours / "valid_predictions.npz") as one,
        np.load(theirs / "valid_predictions.npz") as two,
    ):
        assert np.array_equal(one["scores"], two["scores"]) and np.array_equal(
            one["labels"], two["labels"]
        )
    names = [
        [item.path.name for item in ckpt.named_checkpoints(folder)] for folder in (ours, theirs)
    ]
    assert names[0] == names[1]


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
