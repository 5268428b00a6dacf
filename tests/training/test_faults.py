"""What ends a run from outside: kills, signals, full disks, lost files. Real processes, real signals."""

import os
import shutil
import signal
import subprocess
import sys
import time
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

import checkpoint as ckpt
import train
from benchmarks.kill_loop import differences, make_run, run_kill_loop
from catalog import report
from configs import Config, UserError
from files import CannotWriteError
from model import SED
from tests.test_train import Linear
from training import devices, folder, stopping

ROOT = Path(train.__file__).resolve().parent


@pytest.mark.slow
def test_killed_twenty_times_it_ends_as_if_never_killed(tmp_path):
    loop, found = run_kill_loop(tmp_path, kills=20, seed=8)
    assert found == []
    assert loop.killed.total() >= 20 and len(loop.killed) >= 3  # in several phases


def test_the_kill_loop_sees_a_difference(tmp_path):
    config, df = make_run(tmp_path, epochs=1, train_bs=6)
    train.run(df, config)
    other = Config(**{**config.to_dict(), "models_dir": tmp_path / "other", "seed": 9})
    train.run(df, other)
    assert {"history.csv", "last.pth: model", "valid_predictions.npz: scores"} <= set(
        differences(config.fold_dir(0), other.fold_dir(0))
    )
    assert differences(config.fold_dir(0), config.fold_dir(0)) == []


# Signals ------------------------------------------------------------------------------------------


def start(config: Config, df: pd.DataFrame, *flags: str) -> subprocess.Popen:
    """Start `python train.py` in a process group of its own."""
    df.to_csv(config.train_dataframe_path, index=False)
    settings = config.root / "settings.yaml"
    settings.write_text(yaml.safe_dump(config.to_dict()))
    return subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), "--config", str(settings), *flags],
        start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def wait_for(path: Path, process: subprocess.Popen) -> None:
    until = time.monotonic() + 120
    while not path.exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    assert path.exists(), process.communicate()[1]


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


@pytest.mark.slow
def test_a_killed_run_leaves_no_lock_although_its_workers_live_on(tmp_path):
    config, df = make_run(tmp_path, epochs=10_000, num_workers=2)
    process = start(config, df)
    wait_for(config.fold_dir(0) / "last.pth", process)
    workers = [
        int(pid)
        for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    ]
    for worker in workers:
        os.kill(worker, signal.SIGSTOP)  # such as sleep in a disk's queue
    process.kill()
    process.wait()  # not communicate: the workers hold the pipes
    try:
        assert any(Path(f"/proc/{worker}").exists() for worker in workers)
        with folder.lock_folder(config.fold_dir(0)):
            pass
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


# Disks and files ----------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 12 MB, where the test may mount one."""
    path = tmp_path / "disk"
    path.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(path)],
        capture_output=True,
        check=False,
    )
    if not mounted or mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    yield path
    subprocess.run(["umount", str(path)], check=True)


def test_a_full_disk_ends_the_run_with_one_line_and_leaves_the_old_checkpoints(
    tmp_path, small_disk
):
    config, df = make_run(tmp_path, models_dir=small_disk, epochs=1, accumulation_steps=1)
    train.run(df, config)
    before = {path.name: path.read_bytes() for path in config.fold_dir(0).glob("*.pth")}
    assert len(before) == 2
    (small_disk / "ballast").write_bytes(bytes(shutil.disk_usage(small_disk).free - 100_000))
    with pytest.raises(CannotWriteError, match="cannot be written.*unchanged") as full:
        train.run(df, Config(**{**config.to_dict(), "epochs": 3}))
    assert len(str(full.value).splitlines()) == 1
    assert {path.name: path.read_bytes() for path in config.fold_dir(0).glob("*.pth")} == before
    assert not list(config.fold_dir(0).glob("*.part"))
    (small_disk / "ballast").unlink()
    train.run(df, Config(**{**config.to_dict(), "epochs": 2}))
    assert len(pd.read_csv(config.fold_dir(0) / "history.csv")) == 2


def test_a_read_only_disk_is_one_clear_line(tmp_path, small_disk):
    config, df = make_run(tmp_path, models_dir=small_disk)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(UserError, match="Exp_47/fold_0: cannot be written: Read-only file system"):
        train.run(df, config)


@pytest.mark.slow
def test_recordings_deleted_in_mid_run_are_one_clear_line(tmp_path):
    config, df = make_run(tmp_path, epochs=10_000, num_workers=2)
    process = start(config, df)
    wait_for(config.fold_dir(0) / "last.pth", process)
    shutil.rmtree(config.train_np_dir)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 2
    last = said.strip().splitlines()[-1]
    assert (
        last.startswith("error: ")
        and "no prepared audio for bird" in last
        and "Traceback" not in said
    )


def make_report(config: Config, df: pd.DataFrame, *, check_sums: bool) -> None:
    """Write what prepare_audios.py would have said of these files; its older versions wrote no check sums."""
    rows = {}
    for filepath in df["filepath"]:
        samples = np.load(config.train_np_dir / filepath)
        facts = {
            "peak": np.abs(samples).max().round(6),
            "crc32": f"{zlib.crc32(samples.tobytes()):08x}",
        }
        rows[filepath.removesuffix(".npy")] = {"status": "ok", "seconds": 2.0} | facts
    report.write_rows(config.report_path, rows)
    if not check_sums:
        pd.read_csv(config.report_path).drop(columns="crc32").to_csv(
            config.report_path, index=False
        )


def change_a_sample(path: Path, value: float) -> None:
    samples = np.load(path)
    samples[100] = value
    np.save(path, samples)


def test_verify_finds_a_sample_that_changed(tmp_path):
    config, df = make_run(tmp_path, epochs=1, verify=True)
    make_report(config, df, check_sums=True)
    train.verify(df, config)
    path = config.train_np_dir / df["filepath"][3]
    change_a_sample(path, np.nextafter(np.load(path)[100], np.float32(1)))  # by its last bit
    with pytest.raises(
        UserError, match=r"1 of 16 prepared recordings are damaged; .*bird0/3.ogg.npy: its samples"
    ):
        train.run(df, config)


def test_verify_reads_what_the_header_does_not_tell(tmp_path):
    config, df = make_run(tmp_path, epochs=1, verify=True)
    make_report(config, df, check_sums=False)
    train.verify(df, config)
    for row, damage in ((2, np.nan), (5, 3e5)):
        change_a_sample(config.train_np_dir / df["filepath"][row], damage)
    with pytest.raises(
        UserError,
        match=r"2 of 16 prepared recordings are damaged; .*bird2/2.ogg.npy: its peak is nan",
    ):
        train.run(df, config)
    config.report_path.unlink()  # without any report they must be finite
    with pytest.raises(
        UserError,
        match=r"1 of 16 prepared recordings are damaged; .*bird2/2.ogg.npy: its peak is nan",
    ):
        train.run(df, config)
    config.verify = False
    (config.train_np_dir / df["filepath"][0]).write_bytes(b"")
    with pytest.raises(
        UserError, match=r"1 of 16 prepared recordings cannot be used; .*bird0/0.ogg.npy"
    ):
        train.run(df, config)


# Memory -------------------------------------------------------------------------------------------


class Small(Linear):
    """Stands for a device with memory for n clips; it fails in the backward pass as well as in the forward one."""

    def __init__(self, n: int, where: str) -> None:
        super().__init__()
        self.n, self.where = n, where

    def forward(self, images):
        if len(images) > self.n and self.where == "forward":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        output = super().forward(images)
        if len(images) > self.n:  # the bias has its gradient by then, the weight not yet
            output["framewise_logit"].register_hook(self._fail)
        return output

    def _fail(self, gradient):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_out_of_memory_halves_the_micro_batch_and_not_the_step(tmp_path, caplog, where):
    weights, losses = [], []
    for n in (12, 2):
        config, df = make_run(
            tmp_path / str(n),
            train_bs=5,
            accumulation_steps=2,
            models_dir=tmp_path,
            ema_decay=None,
            checkpoint_every_steps=0,
        )
        config.train_dir, config.amp = config.fold_dir(0), False
        fold = train.build_fold(df, df, 0, ["bird0", "bird1", "bird2"], config, torch.device("cpu"))
        torch.manual_seed(0)
        model = Small(n, where)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        fold = replace(fold, parts=replace(fold.parts, model=model, optimizer=optimizer))
        train.train_one_epoch(fold)
        weights.append(fold.parts.model.head.weight.detach())
        losses.append(fold.progress.train_loss.avg)
        assert (
            fold.progress.micro_batch == (0 if n == 12 else 2) and fold.progress.skipped_steps == 0
        )
    assert torch.allclose(weights[0], weights[1], rtol=0, atol=1e-6) and losses[0] == pytest.approx(
        losses[1], rel=1e-6
    )
    assert [
        message.split(";")[0] for message in caplog.messages if "clips at a time" in message
    ] == ["CUDA out of memory"] * 2  # 5 to 3 to 2


def test_out_of_memory_in_validation_halves_its_batch_and_changes_no_score(
    tmp_path, monkeypatch, caplog
):
    config, df = make_run(tmp_path, epochs=1, valid_bs=5)
    train.run(df, config)
    small = Config(**{**config.to_dict(), "models_dir": tmp_path / "small"})
    whole, sizes = SED.forward, []

    def forward(model, images):
        sizes.append(len(images))
        if not model.training and len(images) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return whole(model, images)

    monkeypatch.setattr(SED, "forward", forward)
    train.run(df, small)
    assert sizes[-6:] == [5, 3, 2, 2, 1, 1]  # a batch of five, and one of one
    said = [message for message in caplog.messages if "are validated" in message]
    assert said == [
        f"CUDA out of memory; from here on {n} clips at a time are validated" for n in (3, 2)
    ]
    rows = [
        ckpt.read_checkpoint(made.fold_dir(0) / "last.pth")["history"][0]
        for made in (config, small)
    ]
    assert rows[0] == pytest.approx(rows[1], rel=1e-6)
    paths = [made.fold_dir(0) / "valid_predictions.npz" for made in (config, small)]
    with np.load(paths[0]) as one, np.load(paths[1]) as two:
        assert np.allclose(one["scores"], two["scores"], rtol=0, atol=1e-6)
    weights = [
        ckpt.read_checkpoint(made.fold_dir(0) / "last.pth")["model"] for made in (config, small)
    ]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_a_run_goes_on_with_the_micro_batch_it_had(tmp_path, monkeypatch):
    config, df = make_run(tmp_path, train_bs=6, epochs=2, checkpoint_every_steps=0)
    whole = train.forward_backward

    def forward_backward(fold, mixed):
        if len(mixed.images) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return whole(fold, mixed)

    monkeypatch.setattr(train, "forward_backward", forward_backward)
    train.run(df, config)
    broken = Config(**{**config.to_dict(), "models_dir": tmp_path / "other"})
    train.run(df, Config(**{**broken.to_dict(), "epochs": 1}))
    monkeypatch.undo()  # as much memory as anyone wants: the resumed run must keep to the parts that it had
    assert ckpt.read_checkpoint(broken.fold_dir(0) / "last.pth")["micro_batch"] == 3
    train.run(df, broken)
    assert differences(config.fold_dir(0), broken.fold_dir(0)) == []


def test_one_clip_too_much_is_an_error_that_says_what_to_do(tmp_path):
    config, df = make_run(tmp_path, amp=False, ema_decay=None)
    config.train_dir = config.fold_dir(0)
    fold = train.build_fold(df, df, 0, ["bird0", "bird1", "bird2"], config, torch.device("cpu"))
    fold = replace(fold, parts=replace(fold.parts, model=Small(0, "forward")))
    batch = next(iter(fold.train_loader))
    with pytest.raises(UserError, match="CUDA out of memory; one clip alone does not fit"):
        train.train_step(fold, batch)


# Determinism --------------------------------------------------------------------------------------


def test_deterministic_asks_torch_and_says_where_it_ends(monkeypatch, caplog):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    caplog.set_level("INFO")
    try:
        devices.make_deterministic()
        assert (
            torch.are_deterministic_algorithms_enabled()
            and torch.is_deterministic_algorithms_warn_only_enabled()
        )
        assert (
            not torch.backends.cudnn.benchmark
            and os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
        )
        assert "another of these rounds otherwise" in caplog.text
    finally:
        torch.use_deterministic_algorithms(False)
