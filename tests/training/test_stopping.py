"""SIGTERM and SIGINT: what is finished, what is saved, and how a run goes on. Real signals."""

import os
import signal
import sys
import time

import pytest

import checkpoint as ckpt
import train
from benchmarks.kill_loop import differences, make_run
from configs import Config
from tests.small_run import start, wait_for
from training import stopping


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status", "name"), [(signal.SIGTERM, 143, "SIGTERM"), (signal.SIGINT, 130, "SIGINT")]
)
def test_a_signal_to_the_whole_group_ends_after_the_step_and_the_run_goes_on(
    tmp_path, number, status, name
):
    config, df = make_run(tmp_path, epochs=2, num_workers=1)
    train.run(df, config)
    broken = Config(
        **{**config.to_dict(), "models_dir": tmp_path / "other", "checkpoint_every_steps": 0}
    )
    endless = Config(**{**broken.to_dict(), "epochs": 10_000})
    process = start(endless, df, "--resume")
    wait_for(broken.fold_dir(0) / "train.log", process)
    time.sleep(0.3)  # somewhere in the first epochs, or still before them
    os.killpg(process.pid, number)  # workers too, as a terminal or a batch system does
    said = process.communicate(timeout=60)[1]
    assert process.returncode == status
    assert (
        f"stopped by {name}" in said
        and "to go on: python train.py --config" in said
        and "Traceback" not in said
    )
    state = ckpt.read_checkpoint(broken.fold_dir(0) / "last.pth")
    assert state["step"] > 0
    if state["epoch"] < 2:
        train.run(df, broken)
        assert differences(config.fold_dir(0), broken.fold_dir(0)) == []


@pytest.mark.slow
def test_a_second_signal_leaves_at_once(tmp_path):
    config, df = make_run(tmp_path, epochs=10_000, train_bs=12, accumulation_steps=1)
    process = start(config, df)
    wait_for(config.fold_dir(0) / "train.log", process)
    os.kill(process.pid, signal.SIGSTOP)  # so that both come before the step is finished
    os.kill(process.pid, signal.SIGTERM)
    os.kill(process.pid, signal.SIGINT)
    os.kill(process.pid, signal.SIGCONT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode in (130, 143)
    assert "a second signal stops at once" in said and "all is saved" not in said


def test_a_signal_during_validation_is_resumed_with_validation(tmp_path, monkeypatch):
    config, df = make_run(tmp_path, epochs=2)
    train.run(df, config)
    broken = Config(**{**config.to_dict(), "models_dir": tmp_path / "other"})
    original = train.score_batch

    def told_to_stop(fold, batch):
        os.kill(os.getpid(), signal.SIGTERM)
        return original(fold, batch)

    monkeypatch.setattr(train, "score_batch", told_to_stop)
    with pytest.raises(SystemExit) as stopped:
        train.run(df, broken)
    assert stopped.value.code == 143
    monkeypatch.undo()
    state = ckpt.read_checkpoint(broken.fold_dir(0) / "last.pth")
    assert (state["epoch"], state["batch"]) == (
        0,
        4,
    )  # all batches of the first epoch, which is not complete
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    train.run(df, broken)
    assert differences(config.fold_dir(0), broken.fold_dir(0)) == []


def test_the_command_to_go_on_sets_nothing_aside(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", "--no-resume", "--folds", "0", "1"])
    assert stopping.resume_command() == "python train.py --folds 0 1"


def test_the_command_to_go_on_names_the_machines(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", "--folds", "0"])
    monkeypatch.setattr(stopping.processes, "world_size", lambda: 4)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("GROUP_WORLD_SIZE", "2")
    monkeypatch.setenv("GROUP_RANK", "1")
    monkeypatch.setenv("MASTER_ADDR", "10.0.0.5")
    monkeypatch.setenv("MASTER_PORT", "29500")
    assert stopping.resume_command() == (
        "torchrun --nnodes=2 --node-rank=1 --nproc-per-node=2 --master-addr=10.0.0.5 "
        "--master-port=29500 train.py --folds 0"
    )
    monkeypatch.setenv("GROUP_WORLD_SIZE", "1")
    assert stopping.resume_command() == "torchrun --nproc-per-node=2 train.py --folds 0"
