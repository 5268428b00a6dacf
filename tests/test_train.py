"""The loop: steps, skips, mixing, validation, and what an epoch leaves."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import average_precision_score

import checkpoint as ckpt
import train
import transforms
from configs import Config, UserError
from metrics import BCEFocal2WayLoss
from model import pick_amp_dtype, pick_device
from tests.small_run import (
    CPU,
    SPECIES,
    build,
    positioned,
    same,
    weights,
    with_linear_model,
)
from training import folder

# A step -------------------------------------------------------------------------------------------


def test_one_batch_is_learnt_in_thirty_steps(df, config):
    config.p_mixup = config.p_cutmix = config.p_spec_augment = 0.0
    fold = build(df, config)
    fold.parts.model.train()
    batch = next(iter(fold.train_loader))
    losses = []
    for _ in range(30):
        fold.progress.batch = 0
        before = fold.progress.train_loss.total
        train.train_step(fold, batch)
        losses.append((fold.progress.train_loss.total - before) / 7)
    assert losses[-1] < 0.35 * losses[0]


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_the_loss_of_a_mixed_batch_is_weighted_by_lam(df, config, kind):
    config.p_mixup, config.p_cutmix = (1.0, 0.0) if kind == "mixup" else (0.0, 1.0)
    config.p_spec_augment = 0.0
    fold = build(df, config)
    fold.parts.model.eval()
    batch = next(iter(fold.train_loader))
    mixed = train.mix_batch(fold, *fold.to_device(batch))
    loss = train.mixed_loss(fold.criterion, fold.forward(mixed.images), mixed)

    rng = np.random.default_rng(
        (config.seed, 1, 0, 1)
    )  # (seed, epoch, batch, 1), as mix_batch draws it
    rng.random(1 if kind == "mixup" else 2)
    mix = getattr(transforms, kind)
    alpha = config.mixup_alpha if kind == "mixup" else config.cutmix_alpha
    images, targets_a, targets_b, lam = mix(
        batch["image"].expand(-1, 3, -1, -1), batch["targets"], alpha, rng
    )
    output = fold.parts.model(images)
    criterion = BCEFocal2WayLoss()
    expected = lam * criterion(output, targets_a) + (1 - lam) * criterion(output, targets_b)
    assert 0 < lam < 1 and float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-6)
    assert not torch.equal(targets_a, targets_b)


def test_accumulated_batches_step_like_one_large_batch(df, config):
    config.p_mixup = config.p_cutmix = 0.0
    found = []
    for bs, groups in ((9, 1), (3, 3), (4, 3)):  # 4 + 4 + 1: the last batch counts by its clips
        changed = Config(**{**config.to_dict(), "train_bs": bs, "accumulation_steps": groups})
        fold = with_linear_model(build(df[:12], changed))
        stepped = [train.train_step(fold, batch) for batch in positioned(fold, 1)]
        assert stepped == [False] * (groups - 1) + [True]
        found.append(fold.parts.model.head.weight.detach())
    assert torch.allclose(found[0], found[1], atol=1e-7) and torch.allclose(
        found[0], found[2], atol=1e-7
    )


def test_clipping_acts_on_unscaled_gradients(df, config):
    config.p_mixup = config.p_cutmix = 0.0
    config.grad_clip = 1e-4
    fold = with_linear_model(build(df, config), lr=1.0)
    fold.parts.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    before = [parameter.detach().clone() for parameter in fold.parts.model.parameters()]
    train.train_step(fold, next(iter(positioned(fold, 1))))
    moved = [
        after.detach() - old
        for after, old in zip(fold.parts.model.parameters(), before, strict=True)
    ]
    assert math.sqrt(sum(float(part.square().sum()) for part in moved)) == pytest.approx(
        1e-4, rel=1e-3
    )


# Mixed precision ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_amp_trains_on_the_cpu_through_the_same_path(df, config, dtype):
    config.amp_dtype = dtype
    fold = build(df, config)
    assert fold.parts.scaler.is_enabled() == (dtype == "float16")
    seen = []
    fold.parts.model.encoder.conv_stem.register_forward_hook(
        lambda *args: seen.append(args[2].dtype)
    )
    before = weights(fold)
    train.train_one_epoch(fold)
    assert set(seen) == {getattr(torch, dtype)}
    assert (
        fold.progress.step == 3 and fold.progress.skipped_steps <= 1
    )  # the first scale may be too high for float16
    assert 0 < fold.progress.train_loss.avg < 1
    assert not same(before, fold.parts.model.state_dict())
    loss, meter = train.validate(fold)
    assert 0 < loss < 1 and meter.scores.dtype == np.float32


def test_an_overflowing_step_is_skipped_the_scale_halves_and_training_goes_on(df, config):
    config.amp_dtype = "float16"
    fold = build(df, config)
    fold.parts.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    fold.parts.model.train()
    batches = iter(positioned(fold, 1))
    before = weights(fold)
    train.train_step(fold, next(batches))
    assert fold.parts.scaler.get_scale() == 2.0**39
    assert same(before, fold.parts.model.state_dict()) and (
        fold.progress.step,
        fold.progress.skipped_steps,
    ) == (1, 1)
    while (
        fold.parts.scaler.get_scale() > 2.0**10
        and fold.progress.skipped_steps == fold.progress.step
    ):
        fold.progress.batch = 0
        train.train_step(fold, next(iter(positioned(fold, 1))))
        fold.progress.bad_steps = 0
    assert fold.progress.skipped_steps < fold.progress.step and not same(
        before, fold.parts.model.state_dict()
    )


def test_amp_is_off_by_itself_only_where_it_does_not_pay(config):
    assert pick_amp_dtype(config, CPU) is None
    assert pick_amp_dtype(config, torch.device("cuda")) is torch.float16
    config.amp_dtype = "bfloat16"
    assert pick_amp_dtype(config, CPU) is torch.bfloat16
    config.amp = False
    assert pick_amp_dtype(config, CPU) is None


def test_one_scaler_serves_the_whole_run(df, config, monkeypatch):
    made = []
    original = torch.amp.GradScaler

    def counted(*args, **kwargs):
        made.append(original(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(torch.amp, "GradScaler", counted)
    config.amp_dtype, config.epochs = "float16", 3
    train.run(df, config)
    assert len(made) == 1
    assert ckpt.read_checkpoint(config.fold_dir(0) / "last.pth")["scaler"] == made[0].state_dict()


# Validation ---------------------------------------------------------------------------------------


def test_validation_loss_is_averaged_over_samples_on_hard_targets_and_scored_once(df, config):
    fold = with_linear_model(build(df, config))
    assert len(fold.valid_loader.dataset) == 6  # a batch of 4 and one of 2
    loss, meter = train.validate(fold)
    items = [fold.valid_loader.dataset[index] for index in range(6)]
    targets = torch.stack([item["targets"] for item in items])
    assert targets.unique().tolist() == pytest.approx([0.0, 0.3, 1.0])
    output = fold.parts.model(torch.stack([item["image"] for item in items]))
    expected = BCEFocal2WayLoss()(output, targets)  # a mean over all six
    assert loss == pytest.approx(float(expected.detach()), rel=1e-6)
    labels = (targets == 1.0).numpy()
    scores = output["clipwise_output"].detach().numpy()
    padded = (np.concatenate([labels, np.ones((5, 3))]), np.concatenate([scores, np.ones((5, 3))]))
    assert meter.compute()["cmap_pad_5"] == pytest.approx(
        average_precision_score(*padded, average="macro"), abs=1e-12
    )
    assert fold.parts.model.training is False


def test_the_averaged_weights_are_what_is_scored(df, config):
    config.ema_decay = 0.9
    fold = build(df, config)
    train.train_one_epoch(fold)
    assert fold.parts.scored_model is fold.parts.ema.module
    assert not same(weights(fold), fold.parts.ema.module.state_dict())
    loss, _ = train.validate(fold)
    fold.parts.ema = None
    assert train.validate(fold)[0] != loss


# What a run leaves --------------------------------------------------------------------------------


def test_a_run_leaves_what_the_contract_says(df, config):
    before = df.copy(deep=True)
    summary = train.run(df, config)
    pd.testing.assert_frame_equal(df, before)
    fold_dir = config.fold_dir(0)
    history = pd.read_csv(fold_dir / "history.csv")
    assert list(history["epoch"]) == [1, 2] and list(history["step"]) == [3, 6]
    wanted = {"lr", "train_loss", "valid_loss", "macro_ap", "macro_roc_auc", "skipped_steps"}
    wanted |= {f"cmap_pad_{n}{floor}" for n in (1, 3, 5) for floor in ("", "_floor")}
    assert wanted <= set(history.columns) and history.notna().all(axis=None)
    best = history.loc[history["valid_loss"].idxmin()]
    name = ckpt.checkpoint_name(
        exp_id=47, fold=0, epoch=int(best.epoch), loss=best.valid_loss, cmap=best.cmap_pad_5
    )
    state = torch.load(fold_dir / name, weights_only=True)
    assert state["class_names"] == SPECIES == json.loads((fold_dir / "classes.json").read_text())
    assert ckpt.read_checkpoint(fold_dir / "last.pth")["epoch"] == 2
    with np.load(fold_dir / "valid_predictions.npz") as found:
        assert found["scores"].shape == found["labels"].shape == (6, 3)
        assert found["filenames"][0] == df["filepath"][0].removesuffix(".npy")
        recomputed = average_precision_score(found["labels"], found["scores"], average="macro")
    assert recomputed == pytest.approx(best.macro_ap, abs=1e-12)
    assert summary == json.loads((config.exp_dir / "summary.json").read_text())
    assert summary["folds"]["0"]["valid_loss"] == best.valid_loss
    assert "fold 0 epoch   2" in (fold_dir / "train.log").read_text()
    assert (
        Config(**folder.yaml.safe_load((fold_dir / "config.yaml").read_text())["config"]).n_mels
        == 32
    )


def test_the_history_is_there_after_each_epoch_not_after_all_folds(df, config, monkeypatch):
    lengths = []
    original = train.finish_epoch

    def watched(fold, *args):
        original(fold, *args)
        fold.writer.wait()
        lengths.append(len((fold.dir / "history.csv").read_text().splitlines()) - 1)

    monkeypatch.setattr(train, "finish_epoch", watched)
    train.run(df, config)
    assert lengths == [1, 2]


def test_the_same_seed_writes_the_same_history_byte_for_byte(df, config, tmp_path):
    train.run(df, config)
    other = Config(**{**config.to_dict(), "exp_id": 48})
    train.run(df, other)
    first, second = (path / "history.csv" for path in (config.fold_dir(0), other.fold_dir(0)))
    assert first.read_bytes() == second.read_bytes()


def test_two_folds_make_one_summary_also_when_trained_apart(df, config):
    config.epochs = 1
    train.run(df, config)
    config.folds = [2]
    summary = train.run(df, config)
    assert list(summary["folds"]) == ["0", "2"]
    losses = [summary["folds"][fold]["valid_loss"] for fold in ("0", "2")]
    assert summary["mean"]["valid_loss"] == pytest.approx(sum(losses) / 2)


def test_early_stopping_counts_epochs_without_a_better_loss(df, config, monkeypatch):
    losses = iter([0.5, 0.4, 0.45, 0.41, 0.1])
    original = train.validate
    monkeypatch.setattr(train, "validate", lambda fold: (next(losses), original(fold)[1]))
    config.early_stopping, config.epochs = 2, 9
    train.run(df, config)
    history = pd.read_csv(config.fold_dir(0) / "history.csv")
    assert history["valid_loss"].tolist() == [0.5, 0.4, 0.45, 0.41]


def test_best_checkpoints_are_those_of_better_epochs_and_few(df, config, monkeypatch):
    losses = iter([0.5, 0.4, 0.45, 0.3, 0.2])
    original = train.validate
    monkeypatch.setattr(train, "validate", lambda fold: (next(losses), original(fold)[1]))
    config.epochs, config.keep_checkpoints = 5, 2
    train.run(df, config)
    assert [item.epoch for item in ckpt.named_checkpoints(config.fold_dir(0))] == [4, 5]


def test_no_resume_sets_the_earlier_run_aside(df, config):
    config.epochs = 1
    train.run(df, config)
    old = (config.fold_dir(0) / "history.csv").read_bytes()
    config.resume, config.lr = False, 1e-4
    train.run(df, config)
    assert (config.fold_dir(0) / "replaced_1" / "history.csv").read_bytes() == old
    assert len(pd.read_csv(config.fold_dir(0) / "history.csv")) == 1


def test_debug_takes_two_epochs(df, config):
    config.debug, config.epochs = True, 50
    train.run(df, config)
    assert len(pd.read_csv(config.fold_dir(0) / "history.csv")) == 2


@pytest.mark.parametrize("name", ["one_cycle", "linear_warmup_cosine", "cosine", "none"])
def test_each_schedule_is_stepped_when_it_should_be(df, config, name):
    config.scheduler_name = name
    train.run(df, config)
    rates = pd.read_csv(config.fold_dir(0) / "history.csv")["lr"].tolist()
    state = ckpt.read_checkpoint(config.fold_dir(0) / "last.pth")["scheduler"]
    assert state["last_epoch"] == (6 if name in ("one_cycle", "linear_warmup_cosine") else 2)
    assert (rates[0] == rates[1]) == (name == "none")


# People's mistakes --------------------------------------------------------------------------------


def test_a_fold_that_does_not_exist(df, config):
    config.folds = [7]
    with pytest.raises(
        UserError, match=r"there is no fold 7 in .*train.csv; it has \[0, 1, 2, 3\]"
    ):
        train.run(df, config)


def test_a_folder_trained_with_other_classes(df, config):
    config.epochs = 1
    train.run(df, config)
    renamed = df.assign(
        primary_label=df["primary_label"].str.upper(), labels=df["labels"].str.upper()
    )
    with pytest.raises(UserError, match="last.pth was trained with other classes .*--exp-id"):
        train.run(renamed, config)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"loss_name": "focal"}, r"unknown loss_name 'focal'.*choose from .*bce_focal, "),
        ({"scheduler_name": "cosin"}, r"unknown scheduler_name 'cosin' \(did you mean cosine"),
        ({"base_model_name": "efficientnet_b99"}, "efficientnet_b99"),
    ],
)
def test_unknown_names_are_refused_before_a_table_is_looked_at(settings, said):
    nothing = pd.DataFrame()
    with pytest.raises(UserError, match=said):
        train.run(nothing, Config(device="cpu", **settings))


def test_a_device_that_is_not_there(config):
    with pytest.raises(UserError, match="device 'cuda:99' cannot be used"):
        pick_device("cuda:99")


def test_two_runs_in_one_folder(df, config):
    with (
        folder.lock_folder(config.fold_dir(0)),
        pytest.raises(UserError, match="another run is training"),
    ):
        train.run(df, config)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_training_on_cuda_with_the_default_precision(df, config):
    config.device = "cuda"
    summary = train.run(df, config)
    assert math.isfinite(summary["mean"]["valid_loss"])
    assert ckpt.read_checkpoint(config.fold_dir(0) / "last.pth")["scaler"]["scale"] >= 1.0
