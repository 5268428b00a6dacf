"""Steps that wait for nothing, as on CUDA, here on a CPU: the same run, read a step late."""

import logging
from collections import deque

import pytest
import torch

import checkpoint as ckpt
import train
from benchmarks.kill_loop import differences, make_run
from configs import UserError
from tests.small_run import build, copy_of, positioned, run_until, same, weights
from tests.waiting import WaitError, waiting_refused
from training import late_steps
from training.remembered import Remembered


def make_late(fold):
    """Let a fold on the CPU do as one on CUDA does."""
    for group in fold.parts.optimizer.param_groups:
        group["fused"], group["foreach"] = True, False
    fold.late = deque()
    if fold.parts.ema is not None:
        fold.ema_before = Remembered(fold.parts.ema.module.state_dict().values())
    return fold


@pytest.fixture
def fused(monkeypatch):
    """AdamW in one operation, as on CUDA; its last digits are others than without."""
    original = train.build_optimizer

    def built(model, config, device):
        groups = original(model, config, device).param_groups
        names = ("params", "lr", "weight_decay")
        groups = [{name: one[name] for name in names} for one in groups]
        return torch.optim.AdamW(groups, fused=True)

    monkeypatch.setattr(train, "build_optimizer", built)


def test_a_late_step_asks_for_no_number(df, config, monkeypatch):
    # SpecAugment draws on the CPU and asks for those numbers, which no GPU is waited for.
    config = copy_of(config, ema_decay=0.9, p_mixup=0.5, p_cutmix=0.5, p_spec_augment=0.0)
    config = copy_of(config, grad_clip=1.0, scheduler_name="cosine")
    fold = make_late(build(df, config))
    fold.parts.model.train()
    batches = list(positioned(fold, 1))
    train.train_step(fold, batches[0])
    with waiting_refused(monkeypatch):
        for batch in batches[1:]:
            train.train_step(fold, batch)
    assert fold.progress.train_loss.count == 14 and len(fold.late) == 1  # one is not read yet
    late_steps.read(fold)
    assert fold.progress.train_loss.count == 18 and fold.progress.step == 3


def test_a_step_that_is_read_at_once_is_found_by_the_same_test(df, config, monkeypatch):
    fold = build(df, copy_of(config, p_spec_augment=0.0))
    fold.parts.model.train()
    with waiting_refused(monkeypatch), pytest.raises(WaitError):
        train.train_step(fold, next(iter(positioned(fold, 1))))


@pytest.mark.slow
def test_a_late_run_is_the_run_that_reads_at_once(tmp_path, fused, monkeypatch):
    config, df = make_run(tmp_path, epochs=2, checkpoint_every_steps=0)
    train.run(df, config)
    late = copy_of(config, models_dir=tmp_path / "late")
    monkeypatch.setattr("training.fold.reads_late", lambda device, config: True)
    train.run(df, late)
    assert differences(config.fold_dir(0), late.fold_dir(0)) == []

    # Stopped inside an epoch, where the last step is read for the checkpoint
    broken = copy_of(config, models_dir=tmp_path / "broken", checkpoint_every_steps=1)
    run_until(df, broken, monkeypatch, step=1)
    state = ckpt.read_checkpoint(broken.fold_dir(0) / "last.pth")
    assert state["step"] == 1 and state["train_loss"]["count"] == 6
    train.run(df, broken)
    assert differences(config.fold_dir(0), broken.fold_dir(0)) == []


def spoiled(batch):
    bad = {**batch, "image": batch["image"].clone()}
    bad["image"][2, 0, 5, 5] = float("nan")
    return bad


def test_a_bad_batch_leaves_no_trace_before_it_is_read_and_is_named_then(df, config, caplog):
    caplog.set_level(logging.WARNING)
    config = copy_of(config, ema_decay=0.9)
    fold = make_late(build(df, config))
    fold.parts.model.train()
    good, other, _ = positioned(fold, 1)
    train.train_step(fold, good)
    before = weights(fold)
    ema = {name: value.clone() for name, value in fold.parts.ema.module.state_dict().items()}
    steps = [state["step"].item() for state in fold.parts.optimizer.state.values()]

    train.train_step(fold, spoiled(other))
    assert same(before, fold.parts.model.state_dict())  # the running statistics too
    assert same(ema, fold.parts.ema.module.state_dict())
    assert steps == [state["step"].item() for state in fold.parts.optimizer.state.values()]
    assert (fold.progress.step, fold.progress.skipped_steps) == (2, 0) and not caplog.text

    late_steps.read(fold)
    assert (fold.progress.skipped_steps, fold.progress.bad_steps) == (1, 1)
    assert fold.progress.train_loss.count == 7
    fold.train_sampler.set_position(1)
    names = {fold.train_set.filename(index) for _, index in fold.train_sampler.keys(1)}
    assert "epoch 1 batch 1: loss nan" in caplog.text
    assert all(name in caplog.text for name in names)


@pytest.mark.parametrize("amp_dtype", ["auto", "float16"])
def test_steps_after_a_bad_one_are_those_that_follow_without_it(df, config, amp_dtype):
    found = []
    for is_late in (True, False):
        fold = build(df, copy_of(config, amp_dtype=amp_dtype, ema_decay=0.9))
        make_late(fold)
        fold.late = fold.late if is_late else None
        fold.parts.model.train()
        first, second, third = positioned(fold, 1)
        for batch in (first, spoiled(second), third):
            train.train_step(fold, batch)
        late_steps.read(fold)
        found.append((fold, fold.parts.scaler.state_dict()))
    (late, late_scale), (at_once, scale) = found
    assert same(late.parts.model.state_dict(), at_once.parts.model.state_dict())
    assert same(late.parts.ema.module.state_dict(), at_once.parts.ema.module.state_dict())
    assert late_scale == scale
    assert late.progress.train_loss.avg == at_once.progress.train_loss.avg
    assert late.progress.skipped_steps == at_once.progress.skipped_steps == 1


def test_too_many_bad_steps_end_the_run_a_step_later(df, config):
    config.max_bad_steps = 2
    fold = make_late(build(df, config))
    fold.parts.model.train()
    bad = spoiled(next(iter(positioned(fold, 1))))
    train.train_step(fold, bad)
    fold.progress.batch = 0
    train.train_step(fold, bad)
    fold.progress.batch = 0
    with pytest.raises(UserError, match="2 steps in a row without a finite loss"):
        train.train_step(fold, bad)


def test_a_schedule_by_steps_goes_on_over_a_bad_one(df, config):
    fold = make_late(build(df, copy_of(config, scheduler_name="one_cycle")))
    fold.parts.model.train()
    train.train_step(fold, spoiled(next(iter(positioned(fold, 1)))))
    assert fold.parts.scheduler.last_epoch == 1


def test_a_search_for_a_rate_reads_each_loss_at_once(config):
    from training.devices import reads_late

    cuda = torch.device("cuda")
    assert reads_late(cuda, config) and not reads_late(torch.device("cpu"), config)
    assert not reads_late(cuda, copy_of(config, find_lr=True))
