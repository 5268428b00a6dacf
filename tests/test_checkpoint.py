"""Checkpoints: what is written is read back whole; damage and strangers' files are refused."""

import logging
import os
import pickle
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

import checkpoint as ckpt
from configs import Config, capture_rng
from files import CannotWriteError
from training import changes


def make_state(epoch=1, value=1.0, **extra):
    return {
        "model": {"weight": torch.full((3,), value)},
        "optimizer": {
            "state": {0: {"step": torch.tensor(2.0)}},
            "param_groups": [{"lr": 0.1, "params": [0]}],
        },
        "epoch": epoch,
        "step": 4 * epoch,
        "batch": 0,
        "rng": capture_rng(),
        "best_loss": float("inf"),
        "class_names": ["NA", "22961", "Rana temporaria"],
        "config": Config().to_dict(),
        "history": [{"epoch": 1, "valid_loss": 0.5}],
        **extra,
    }


def sign(path: Path) -> None:
    with path.open("r+b") as file:
        ckpt.sign(file)


def save_named(folder: Path, epoch: int, **state) -> Path:
    path = folder / ckpt.checkpoint_name(exp_id=47, fold=0, epoch=epoch, loss=0.5, cmap=0.25)
    ckpt.save_checkpoint(path, make_state(epoch, **state))
    return path


def test_name_is_the_documented_one():
    name = ckpt.checkpoint_name(exp_id=47, fold=0, epoch=25, loss=0.0024, cmap=0.766984)
    assert name == "Exp_47_fold_0_epoch_25_loss_0.00240_cmap_0.76698.pth"


def test_what_is_written_is_what_is_read(tmp_path):
    state = make_state(value=0.1)
    ckpt.save_checkpoint(tmp_path / "last.pth", state)
    read = ckpt.read_checkpoint(tmp_path / "last.pth")
    assert read.pop("format_version") == ckpt.FORMAT_VERSION
    assert torch.equal(read["model"]["weight"], state["model"]["weight"])
    assert torch.equal(read["rng"]["torch"], state["rng"]["torch"])
    plain = ("epoch", "step", "best_loss", "class_names", "config", "history")
    assert {name: read[name] for name in plain} == {name: state[name] for name in plain}
    assert [path.name for path in tmp_path.iterdir()] == ["last.pth"]


def test_any_torch_reads_the_file(tmp_path):
    ckpt.save_checkpoint(tmp_path / "last.pth", make_state(value=3.0))
    state = torch.load(tmp_path / "last.pth", weights_only=True)
    assert state["model"]["weight"].tolist() == [3.0] * 3


@pytest.mark.parametrize("value", [np.float64(1), Path("x"), np.zeros(2), {1, 2}, Config()])
def test_only_plain_types_are_saved_and_the_place_is_named(tmp_path, value):
    with pytest.raises(TypeError, match=r"state\['config'\]\['lr'\] is a"):
        ckpt.save_checkpoint(tmp_path / "last.pth", make_state(config={"lr": value}))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nothing_non_finite_is_saved_over_a_good_one(tmp_path, bad):
    path = tmp_path / "last.pth"
    ckpt.save_checkpoint(path, make_state(value=1.0))
    with pytest.raises(ckpt.CheckpointError, match="model weight holds NaN or infinity"):
        ckpt.save_checkpoint(path, make_state(value=bad))
    assert ckpt.read_checkpoint(path)["model"]["weight"].tolist() == [1.0] * 3


def test_every_flipped_bit_and_every_cut_is_noticed(tmp_path, rng):
    path = tmp_path / "last.pth"
    ckpt.save_checkpoint(path, make_state())
    content = path.read_bytes()
    for _ in range(100):
        position, bit = int(rng.integers(len(content))), int(rng.integers(8))
        damaged = bytearray(content)
        damaged[position] ^= 1 << bit
        path.write_bytes(damaged)
        with pytest.raises(ckpt.CheckpointError, match="last.pth"):
            ckpt.read_checkpoint(path)
    for length in [0, 1, 72, 73, *rng.integers(0, len(content), 20)]:
        path.write_bytes(content[:length])
        with pytest.raises(ckpt.CheckpointError, match="last.pth"):
            ckpt.read_checkpoint(path)


class _Hostile:
    def __reduce__(self):
        return os.system, ("touch hacked",)


def test_a_hostile_pickle_runs_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "last.pth"
    torch.save({"format_version": 1, "model": _Hostile()}, path)
    sign(path)  # even with a digest that fits
    with pytest.raises(ckpt.CheckpointError, match="last.pth"):
        ckpt.read_checkpoint(path)
    path.write_bytes(pickle.dumps(_Hostile()))
    with pytest.raises(ckpt.CheckpointError, match="last.pth"):
        ckpt.read_checkpoint(path)
    assert not (tmp_path / "hacked").exists()


def test_a_newer_format_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(ckpt, "FORMAT_VERSION", 2)
    ckpt.save_checkpoint(tmp_path / "last.pth", make_state())
    monkeypatch.undo()
    with pytest.raises(ckpt.CheckpointError, match="format version 2; this code reads version 1"):
        ckpt.read_checkpoint(tmp_path / "last.pth")


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "last.pth"
    ckpt.save_checkpoint(path, make_state(value=1.0))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CannotWriteError, match="No space left.*what was there before is unchanged"):
        ckpt.save_checkpoint(path, make_state(value=2.0))
    monkeypatch.undo()
    assert ckpt.read_checkpoint(path)["model"]["weight"].tolist() == [1.0] * 3
    assert [item.name for item in tmp_path.iterdir()] == ["last.pth"]


def test_a_disk_that_becomes_full_while_torch_writes_leaves_the_old_checkpoint(tmp_path):
    """Torch turns the system's error into one of its own, about positions in the archive."""
    resource = pytest.importorskip("resource")
    path = tmp_path / "last.pth"
    ckpt.save_checkpoint(path, make_state(value=1.0))

    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
    try:
        with pytest.raises(CannotWriteError, match=r"last.pth: cannot be written: File too large"):
            ckpt.save_checkpoint(path, make_state(model={"weight": torch.zeros(1_000_000)}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)

    assert ckpt.read_checkpoint(path)["model"]["weight"].tolist() == [1.0] * 3
    assert [item.name for item in tmp_path.iterdir()] == ["last.pth"]


def test_a_checkpoint_of_version_1_still_loads():
    state = ckpt.read_checkpoint(Path(__file__).parent / "data" / "checkpoint_version_1.pth")
    model, optimizer, _ = make_parts()
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
    assert ckpt.load_checkpoint(model, optimizer, state, scheduler=scheduler) == (1, 1)
    assert model.weight.tolist() == [[0.0, 0.125, 0.25], [0.375, 0.5, 0.625]]
    assert model.bias.tolist() == [0.5, -0.25]
    assert scheduler.best == 0.5
    assert state["class_names"] == ["NA", "22961"]
    assert state["config"]["n_mels"] == 224
    changes.check_same_setup(state, Path("last.pth"), Config(), ["NA", "22961"])


def test_signed_garbage_is_an_error_and_nothing_else(tmp_path, rng):
    """Anyone can compute a digest, so a signed file may hold anything."""
    path = tmp_path / "last.pth"
    ckpt.save_checkpoint(path, make_state())
    content = path.read_bytes()
    unsigned = content[: -ckpt.DIGEST_LENGTH - 2] + b"\0\0"
    for _ in range(150):
        damaged = bytearray(unsigned)
        for position in rng.integers(len(damaged), size=int(rng.integers(1, 30))):
            damaged[position] = int(rng.integers(256))
        path.write_bytes(damaged)
        sign(path)
        try:
            state = ckpt.read_checkpoint(path)
            ckpt.load_checkpoint(torch.nn.Linear(3, 2), None, state)
        except ckpt.CheckpointError as error:
            assert len(str(error).splitlines()) == 1


@pytest.mark.parametrize("missing", ["model", "epoch", "class_names", "config", "history"])
def test_a_checkpoint_without_a_part_says_which(tmp_path, missing):
    state = make_state()
    del state[missing]
    ckpt.save_checkpoint(tmp_path / "last.pth", state)
    message = f"not a checkpoint of this project: no usable {missing} in it"
    with pytest.raises(ckpt.CheckpointError, match=message):
        ckpt.read_checkpoint(tmp_path / "last.pth")


# Which one to go on from --------------------------------------------------------------------------


def test_the_newest_is_found_by_number_not_by_text(tmp_path):
    config = Config(train_dir=tmp_path)
    assert ckpt.get_initial_checkpoint(config) is None
    save_named(tmp_path, 99)
    newest = save_named(tmp_path, 100)
    last_as_text = max(path.name for path in tmp_path.iterdir())
    assert last_as_text != newest.name
    assert ckpt.get_initial_checkpoint(config) == newest


def test_last_is_preferred_unless_a_best_one_is_newer(tmp_path):
    config = Config(train_dir=tmp_path)
    ckpt.save_checkpoint(tmp_path / "last.pth", make_state(5))
    save_named(tmp_path, 5)
    assert ckpt.get_initial_checkpoint(config) == tmp_path / "last.pth"
    newer = save_named(tmp_path, 6)
    assert ckpt.get_initial_checkpoint(config) == newer


def test_damaged_ones_are_skipped_with_a_warning_that_names_both(tmp_path, caplog):
    good = save_named(tmp_path, 3)
    bad = save_named(tmp_path, 4)
    bad.write_bytes(bad.read_bytes()[:-100])
    (tmp_path / "last.pth").write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        assert ckpt.get_initial_checkpoint(Config(train_dir=tmp_path)) == good
    assert len(caplog.messages) == 2
    assert "last.pth" in caplog.messages[0] and bad.name in caplog.messages[1]
    assert all(good.name in message for message in caplog.messages)


def test_only_damaged_ones_is_an_error_not_a_fresh_start(tmp_path):
    (tmp_path / "last.pth").write_bytes(b"half")
    with pytest.raises(ckpt.CheckpointError, match="no sound checkpoint is left.*last.pth"):
        ckpt.get_initial_checkpoint(Config(train_dir=tmp_path))


# Into the parts of a run --------------------------------------------------------------------------


def test_the_weights_that_count_are_the_averaged_ones_where_there_are_any():
    own, averaged = {"weight": torch.zeros(1)}, {"weight": torch.ones(1)}
    assert ckpt.scored_weights({"model": own, "ema": averaged}) is averaged
    assert ckpt.scored_weights({"model": own, "ema": None}) is own
    assert ckpt.scored_weights({"model": own}) is own


def take_steps(model, optimizer, scheduler, n):
    for _ in range(n):
        optimizer.zero_grad()
        model(torch.randn(4, 3)).square().mean().backward()
        optimizer.step()
        scheduler.step()


def make_parts():
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    return model, optimizer, torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)


def test_resumed_parts_go_on_as_if_never_stopped(tmp_path):
    model, optimizer, scheduler = make_parts()
    take_steps(model, optimizer, scheduler, 3)
    parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
    state = {name: part.state_dict() for name, part in parts.items()}
    ckpt.save_checkpoint(tmp_path / "last.pth", make_state(7, **state))
    take_steps(model, optimizer, scheduler, 3)

    other, other_optimizer, other_scheduler = make_parts()
    path = tmp_path / "last.pth"
    assert ckpt.load_checkpoint(other, other_optimizer, path, scheduler=other_scheduler) == (7, 28)
    take_steps(other, other_optimizer, other_scheduler, 3)  # the same random inputs follow
    assert torch.equal(model.weight, other.weight)
    assert optimizer.param_groups[0]["lr"] == other_optimizer.param_groups[0]["lr"] == 0.1 * 0.5**6


def test_settings_of_the_optimizer_are_the_runs_and_not_the_checkpoints():
    model, optimizer, _ = make_parts()
    state = {**make_state(), "model": model.state_dict(), "optimizer": optimizer.state_dict()}
    state["optimizer"]["param_groups"][0] |= {"weight_decay": 0.5, "maximize": True, "lr": 0.25}
    other = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.125)
    ckpt.load_checkpoint(model, other, state)
    group = other.param_groups[0]
    assert (group["weight_decay"], group["maximize"], group["lr"]) == (0.125, False, 0.25)


def test_another_network_is_an_error_that_says_what_differs():
    state = make_state()
    model = torch.nn.Linear(3, 2)
    with pytest.raises(ckpt.CheckpointError, match="model does not fit this run.*bias"):
        ckpt.load_checkpoint(model, None, state)


def test_a_missing_part_is_an_error():
    state = {**make_state(), "model": torch.nn.Linear(3, 2).state_dict()}
    with pytest.raises(ckpt.CheckpointError, match="no state of the ema"):
        ckpt.load_checkpoint(torch.nn.Linear(3, 2), None, state, ema=torch.nn.Linear(3, 2))
