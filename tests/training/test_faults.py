"""What ends a run from outside: kills, full disks, lost files. Real processes."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pandas as pd
import pytest

import train
from benchmarks.kill_loop import differences, make_run, run_kill_loop
from configs import Config, UserError
from files import CannotWriteError
from tests.small_run import start, wait_for
from training import folder


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
