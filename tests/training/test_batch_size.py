"""`--train-bs auto`: sizes by trial, by a CPU's memory, and as an experiment had them before."""

import logging

import pytest
import torch
import yaml

import train
from configs import UserError
from tests.small_run import build, copy_of
from training import batch_size
from training.batch_size import free_bytes, largest_that_fits, size_for_memory


@pytest.mark.parametrize(
    ("memory", "most", "expected"),
    [(5, 99, 4), (1, 99, 1), (7, 7, 7), (8, 99, 8), (100, 999, 96), (64, 64, 64), (999, 70, 64)],
)
def test_doubling_and_halving_end_at_the_largest_that_fits(memory, most, expected):
    asked = []

    def fits(size):
        asked.append(size)
        return size <= memory

    found = largest_that_fits(fits, most)
    assert max(asked) <= most and found <= min(memory, most)
    assert found == expected or (found % 8 == 0 and found >= expected)
    assert min(memory, most) - found < 8
    assert len(asked) <= 12 and len(set(asked)) == len(asked)  # none is tried twice


def test_one_clip_too_much_says_what_to_do():
    with pytest.raises(UserError, match="one clip alone does not fit: take a smaller"):
        largest_that_fits(lambda size: False, 99)


def test_a_cpus_share_by_hand():
    assert size_for_memory(100, 100 * 2 * 2 * 16, 999) == 16  # 16 clips of 200 bytes are half of it
    assert size_for_memory(100, 100 * 2 * 2 * 16 - 1, 999) == 8
    assert size_for_memory(1, 10**9, 999) == 32 and size_for_memory(1, 10**9, 5) == 4
    assert size_for_memory(10**9, 1, 999) == 1


def test_free_memory_is_what_the_machine_or_the_container_has(tmp_path):
    assert free_bytes(tmp_path) == 8 * 10**9
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:     500 kB\n")
    assert free_bytes(tmp_path) == 512_000
    group = tmp_path / "sys" / "fs" / "cgroup"
    group.mkdir(parents=True)
    (group / "memory.current").write_text("1000\n")
    (group / "memory.max").write_text("max\n")
    assert free_bytes(tmp_path) == 512_000
    (group / "memory.max").write_text("4000\n")
    assert free_bytes(tmp_path) == 3000


def test_activations_are_counted_without_weights_and_grow_with_the_image(df, config):
    small = batch_size.activation_bytes(build(df, config), train.forward_backward)
    large = build(df, copy_of(config, n_mels=64))
    twice = batch_size.activation_bytes(large, train.forward_backward)
    assert 1.7 < twice / small < 2.2
    assert all(parameter.grad is None for parameter in large.parts.model.parameters())


# In a run -----------------------------------------------------------------------------------------


@pytest.fixture
def small_device(monkeypatch):
    """A CPU that runs out of memory as a GPU does: from 12 clips on."""
    whole, sizes = train.forward_backward, []

    def forward_backward(fold, mixed):
        sizes.append(len(mixed.images))
        if len(mixed.images) > 11:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return whole(fold, mixed)

    monkeypatch.setattr(train, "forward_backward", forward_backward)
    monkeypatch.setattr(batch_size, "runs_out_of_memory", lambda device: True)
    monkeypatch.setattr(batch_size, "FEWEST_STEPS", 1)
    return sizes


def test_a_run_finds_its_size_once_and_goes_on_with_it(df, config, small_device, caplog):
    caplog.set_level(logging.INFO)
    config = copy_of(config, train_bs="auto", epochs=1, ema_decay=0.9)
    train.run(df, config)
    assert small_device[:3] == [8, 16, 8] or small_device[:2] == [8, 16]
    assert "train_bs auto: 8 clips, the most that fit on cpu" in caplog.text
    assert "lr stays 0.001" in caplog.text
    settings = yaml.safe_load((config.fold_dir(0) / "config.yaml").read_text())["config"]
    assert settings["train_bs"] == 8 and settings["lr"] == 0.001

    # The trial leaves no trace: the run is that of a number given by hand.
    by_hand = copy_of(config, train_bs=8, models_dir=config.root / "by_hand")
    train.run(df, by_hand)
    histories = [one.fold_dir(0) / "history.csv" for one in (config, by_hand)]
    assert histories[0].read_bytes() == histories[1].read_bytes()

    small_device.clear()
    caplog.clear()
    train.run(df, copy_of(config, epochs=2, folds=[0, 1]))
    assert max(small_device) == 8
    assert f"8 clips, as {config.fold_dir(0)} has been trained with" in caplog.text
    assert "train_bs was" not in caplog.text


def test_a_new_run_in_place_of_another_finds_its_size_anew(df, config, small_device):
    config = copy_of(config, epochs=1)
    train.run(df, config)  # with 7
    auto = copy_of(config, train_bs="auto")
    assert batch_size.earlier_size(auto) == (7, f"as {config.fold_dir(0)} has been trained with")
    assert batch_size.earlier_size(copy_of(auto, resume=False)) is None


def test_a_cpu_goes_by_its_rule(df, config, caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(batch_size, "FEWEST_STEPS", 1)
    train.run(df, copy_of(config, train_bs="auto", epochs=1))
    assert "train_bs auto: 16 clips, a CPU's share" in caplog.text  # of 24 rows


def test_a_size_that_is_not_settled_is_no_number(config):
    with pytest.raises(ValueError, match="train_bs is auto"):
        _ = copy_of(config, train_bs="auto").batch_size
    assert copy_of(config, train_bs=5).batch_size == 5
