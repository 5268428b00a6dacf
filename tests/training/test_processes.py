"""Two processes over gloo train as one does; they are started by torchrun."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import checkpoint as ckpt
import train
from benchmarks.kill_loop import make_run
from configs import Config
from training import processes
from training.batches import EpochSampler

ROOT = Path(train.__file__).resolve().parent
# Without what each process draws for its own clips: dropout, masks, and the partners of MixUp.
NOTHING_RANDOM = {
    "p_mixup": 0.0,
    "p_cutmix": 0.0,
    "p_spec_augment": 0.0,
    "dropout": 0.0,
    "amp": False,
}


@pytest.fixture
def torchrun():
    """Start train.py, or another script, in two processes; what is left at the end is killed."""
    started = []

    def start(
        config: Config, df, *flags: str, script: Path = ROOT / "train.py"
    ) -> subprocess.Popen:
        df.to_csv(config.train_dataframe_path, index=False)
        settings = config.root / "settings.yaml"
        settings.write_text(yaml.safe_dump(config.to_dict()))
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", *flags]
        command += ["--standalone", str(script), "--config", str(settings)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        for pid in descendants(
            process.pid
        ):  # first, while their parents can still be asked; each has its own session
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.kill()
        process.communicate()


def children(pid: int) -> list[int]:
    try:
        return [
            int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ]
    except OSError:  # it has ended
        return []


def descendants(pid: int) -> list[int]:
    found = children(pid)
    return found + [other for child in found for other in descendants(child)]


@pytest.mark.slow
def test_two_processes_do_what_one_does_and_one_goes_on_with_what_they_made(tmp_path, torchrun):
    # Ten clips in a batch of nine and one of one, in which the second process has no share; both
    # make one step. Large enough for the network's last maps to have several frames: over two
    # values alone, batch normalisation turns another order of summing into tenths of a gradient,
    # with one process too.
    large = {"n_mels": 64, "period": 2.0}
    config, df = make_run(tmp_path, epochs=1, train_bs=9, grad_clip=None, **NOTHING_RANDOM, **large)
    train.run(df, config)
    two = Config(**{**config.to_dict(), "models_dir": tmp_path / "two"})
    process = torchrun(two, df)
    said = process.communicate(timeout=120)[0]
    assert process.returncode == 0, said
    assert (
        said.count("fold 0 epoch   1") == 1
        and "2 processes" in said
        and said.count("\nwrote ") == 1
    )
    one_state, two_state = (
        ckpt.read_checkpoint(made.fold_dir(0) / "last.pth") for made in (config, two)
    )
    moments = [state["optimizer"]["state"] for state in (one_state, two_state)]
    largest = max(float(moments[0][key]["exp_avg"].abs().max()) for key in moments[0])
    for key in moments[0]:  # a tenth of the gradient
        assert torch.allclose(
            moments[0][key]["exp_avg"], moments[1][key]["exp_avg"], rtol=0, atol=1e-3 * largest
        )
    for name, tensor in one_state["model"].items():
        if "running" in name or "tracked" in name:
            assert torch.allclose(tensor, two_state["model"][name], rtol=1e-4, atol=1e-6), name
    row, other = one_state["history"][0], two_state["history"][0]
    assert row["train_loss"] == pytest.approx(other["train_loss"], rel=1e-5)
    # Adam makes a whole step of a gradient that is nearly zero, whatever its sign, so the rest is
    # less equal.
    assert row["valid_loss"] == pytest.approx(other["valid_loss"], rel=1e-2)
    paths = [made.fold_dir(0) / "valid_predictions.npz" for made in (config, two)]
    with np.load(paths[0]) as found, np.load(paths[1]) as by_two:
        assert found["filenames"].tolist() == by_two["filenames"].tolist()
        assert np.array_equal(found["labels"], by_two["labels"])
        assert np.allclose(found["scores"], by_two["scores"], atol=2e-2)
    two.epochs = 2
    train.run(df, two)  # a checkpoint of two processes, gone on with by one
    assert [row["epoch"] for row in _history(two)] == [1, 2]


@pytest.mark.slow
def test_a_killed_process_is_restarted_and_the_run_goes_on(tmp_path, torchrun):
    config, df = make_run(tmp_path, epochs=4, resume=False)
    process = torchrun(config, df, "--max-restarts=1", "--monitor-interval=0.2")
    until = time.monotonic() + 100
    while not (config.fold_dir(0) / "last.pth").exists() and time.monotonic() < until:
        time.sleep(0.02)
    os.kill(children(process.pid)[-1], signal.SIGKILL)
    said = process.communicate(timeout=120)[0]
    assert process.returncode == 0, said
    assert "going on from" in said and [row["epoch"] for row in _history(config)] == [1, 2, 3, 4]
    assert not list(
        config.fold_dir(0).glob("replaced_*")
    )  # --no-resume is for the first start alone


# train.py, where the second process has memory for no clip
ONE_IS_FULL = """
import os, torch, train
from configs import run_main
whole = train.forward_backward
def forward_backward(fold, mixed):
    if os.environ["RANK"] == "1":
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
    return whole(fold, mixed)
train.forward_backward = forward_backward
run_main(train.main)
"""


@pytest.mark.slow
def test_a_process_without_memory_ends_them_all_and_says_what_to_do(tmp_path, torchrun):
    config, df = make_run(tmp_path, epochs=1)
    (script := tmp_path / "one_is_full.py").write_text(ONE_IS_FULL)
    process = torchrun(config, df, script=script)
    said = process.communicate(timeout=120)[0]
    assert process.returncode != 0
    reason = (
        "CUDA out of memory; with several processes a batch cannot be split on the way: "
        "lower train_bs"
    )
    assert f"error: {reason}" in said
    assert (
        "error: another of the processes has ended" in said and "[rank0]" not in said
    )  # which has torch's traceback


def _history(config: Config) -> list[dict]:
    return ckpt.read_checkpoint(config.fold_dir(0) / "last.pth")["history"]


@pytest.mark.parametrize("world_size", [2, 3, 5])
def test_shares_are_disjoint_and_make_up_each_batch(world_size):
    whole = EpochSampler(23, 4, seed=8, shuffle=True)
    shares = [EpochSampler(23, 4, seed=8, shuffle=True, rank=rank, world_size=world_size)
              for rank in range(world_size)]  # fmt: skip
    for sampler in (whole, *shares):
        sampler.set_position(3, 1)
    for batch, *parts in zip(whole, *shares, strict=True):
        assert sorted(key for part in parts for key in part) == sorted(batch)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert shares[0].keys(2) == whole.keys(2)  # what a bad batch is reported with


def test_without_torchrun_there_is_one_process(monkeypatch):
    model = torch.nn.BatchNorm1d(3)
    assert (processes.rank(), processes.world_size(), processes.is_first()) == (0, 1, True)
    assert processes.synchronize_batch_norm(model) is model
    assert processes.total(1.5, 2) == [1.5, 2] and processes.gather("a") == ["a"]
    assert processes.local_device("cpu") == "cpu"
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert processes.local_device("cuda") == "cuda:1" and processes.local_device("cpu") == "cpu"


def test_batch_norm_of_one_share_equals_torchs(monkeypatch):
    """With the sums of one process it is torch's layer: output, gradients, statistics."""
    monkeypatch.setattr(processes.dist, "all_reduce", lambda tensor: None)
    torch.manual_seed(0)
    theirs = torch.nn.BatchNorm2d(4)
    torch.nn.init.uniform_(theirs.weight)
    ours = processes.SyncBatchNorm(torch.nn.BatchNorm2d(4))
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(5, 4, 3, 2) * 3 + 100
    outputs = []
    for layer in (theirs, ours):
        inputs = x.clone().requires_grad_()
        output = layer(inputs)
        (output * torch.arange(output.numel()).view_as(output)).sum().backward()
        outputs.append(
            (output, inputs.grad, layer.weight.grad, layer.running_mean, layer.running_var)
        )
    for one, other in zip(*outputs, strict=True):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-4)
    assert ours.num_batches_tracked == 1
    assert torch.allclose(theirs.eval()(x), ours.eval()(x), atol=1e-5)
