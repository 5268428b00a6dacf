"""Slots: batches of workers in memory that is made once are those of the usual loader."""

import time
from dataclasses import replace

import numpy as np
import pytest
import torch

import train
from configs import Config, UserError
from dataset import WaveformDataset
from tests.small_run import CPU, SPECIES, assert_same_end, copy_of
from training import batches
from training.batches import EpochSampler, build_loader, collate_into
from training.kept import KeptBatches
from training.slots import SlotLoader, Slots, Stored, join

CUDA = torch.device("cuda")  # a name; nothing here needs the device


def in_slots(
    dataset: WaveformDataset, config: Config, **share: int
) -> tuple[SlotLoader, EpochSampler]:
    """Build the loader of CUDA, which then hands its batches over on the CPU."""
    loader, sampler = build_loader(dataset, config, CUDA, **share)
    if isinstance(loader, KeptBatches):
        loader = loader._loader
    assert isinstance(loader, SlotLoader)
    loader.device, loader.pin_memory = CPU, False
    return loader, sampler


def all_batches(loader, sampler, epoch: int) -> list[dict[str, torch.Tensor]]:
    sampler.set_position(epoch)
    return [{name: value.clone() for name, value in batch.items()} for batch in loader]


@pytest.mark.parametrize("frontend", ["cpu", "device"])
@pytest.mark.parametrize("mode", ["train", "valid"])
def test_batches_in_slots_are_those_of_the_usual_loader(df, config, frontend, mode):
    config = replace(config, frontend=frontend, num_workers=0, p_masks=0.5, last_batch="keep")
    dataset = WaveformDataset(df, config, mode, SPECIES)
    usual = build_loader(dataset, config, CPU)
    slots = in_slots(dataset, replace(config, num_workers=2))
    for epoch in (1, 2):  # the same workers go on
        found, expected = all_batches(*slots, epoch), all_batches(*usual, epoch)
        assert len(found) == len(expected) >= 4
        for one, other in zip(found, expected, strict=True):
            assert one.keys() == other.keys()
            for name, value in other.items():
                assert one[name].dtype == value.dtype and torch.equal(one[name], value)


def test_a_batch_stays_until_the_one_after_the_next_is_asked_for(df, config):
    """As a GPU needs it, which copies one batch while it trains on the one before."""
    config = replace(config, frontend="device", num_workers=1, train_bs=2)
    dataset = WaveformDataset(df, config, "train", SPECIES)
    loader, sampler = in_slots(dataset, config)
    sampler.set_position(1)
    earlier: list[tuple[dict, dict]] = []
    for batch in loader:
        earlier = [*earlier[-1:], (batch, {name: value.clone() for name, value in batch.items()})]
        time.sleep(0.03)  # in which the worker makes all that it may
        for kept, copy in earlier:
            assert all(torch.equal(kept[name], copy[name]) for name in copy)


def worker(monkeypatch, number: int) -> None:
    monkeypatch.setattr(
        "training.slots.get_worker_info", lambda: type("Info", (), {"id": number})()
    )


def test_a_worker_writes_its_own_slots_in_turn(monkeypatch):
    slots = Slots(2, 3, 1000)
    worker(monkeypatch, 1)
    pieces = {"a": [np.full((1, 3), 7, np.int16), np.full((2, 3), 8, np.int16)], "b": [np.ones(1)]}
    stored = [slots.write(pieces) for _ in range(4)]
    assert [(one.worker, one.slot) for one in stored] == [(1, 0), (1, 1), (1, 2), (1, 0)]
    found = slots.read(stored[3])
    assert found["a"].tolist() == [[7] * 3, [8] * 3, [8] * 3] and found["a"].dtype == torch.int16
    assert found["b"].tolist() == [1.0] and found["b"].data_ptr() % 64 == 0
    assert not slots.memory[0].any() or slots.memory[1].any()


def test_a_batch_too_large_for_a_slot_travels_as_it_is(monkeypatch):
    slots = Slots(1, 2, 64)
    worker(monkeypatch, 0)
    small, large = {"a": [np.zeros(16, np.float32)]}, {"a": [np.ones(17, np.float32)]}
    assert isinstance(slots.write(small), Stored)
    assert torch.equal(slots.write(large)["a"], torch.ones(17))


def test_waveforms_of_two_types_are_joined_as_torch_joins_them():
    parts = [np.array([[1, 2]], np.int16), np.array([[0.5, 0.25]], np.float32)]
    expected = torch.cat([torch.from_numpy(part) for part in parts])
    found = join({"waveforms": parts})["waveforms"]
    assert found.dtype == expected.dtype and torch.equal(found, expected)


def test_a_share_without_clips_is_an_empty_batch():
    assert collate_into(Slots(1, 1, 64), []) == {}


def test_without_shared_memory_for_slots_it_says_what_to_do(df, config, monkeypatch):
    def refuse(*args: object) -> None:
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>")

    monkeypatch.setattr(batches, "Slots", refuse)
    dataset = WaveformDataset(df, replace(config, num_workers=1), "train", SPECIES)
    with pytest.raises(UserError, match="--shm-size, or set --num-workers 0"):
        build_loader(dataset, replace(config, num_workers=1), CUDA)


@pytest.mark.slow
def test_a_run_through_slots_ends_as_one_without(df, config, monkeypatch):
    config = replace(config, frontend="device", num_workers=1, ema_decay=0.9)
    train.run(df, config)
    other = copy_of(config, models_dir=config.root / "slots")
    built = []

    def build(dataset, config, device, **share):
        loader, sampler = in_slots(dataset, config, **share)
        built.append(loader)
        return loader, sampler

    monkeypatch.setattr(batches, "pick_last_batch", lambda config, device: "keep")
    monkeypatch.setattr(train, "build_loader", build)
    train.run(df, other)
    assert all(isinstance(loader, SlotLoader) for loader in built) and built
    assert_same_end(config, other)


# On a GPU -----------------------------------------------------------------------------------------


class Cudart:
    """Stands for CUDA's runtime, which registers memory or does not."""

    class cudaError:  # noqa: D106, N801
        success = 0

    def __init__(self, error: int) -> None:
        self.error, self.registered = error, {}

    def cudaHostRegister(self, address: int, n_bytes: int, flags: int) -> int:  # noqa: N802
        self.registered[address] = n_bytes
        return self.error

    def cudaHostUnregister(self, address: int) -> None:  # noqa: N802
        del self.registered[address]


def test_memory_is_pinned_as_long_as_it_is_there(monkeypatch):
    cudart = Cudart(0)
    monkeypatch.setattr(torch.cuda, "cudart", lambda: cudart)
    slots = Slots(1, 2, 128)
    slots.pin(CPU)
    assert cudart.registered == {slots.memory.data_ptr(): 256}
    del slots
    assert cudart.registered == {}


def test_memory_that_cannot_be_pinned_is_a_warning(monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "cudart", lambda: Cudart(2))
    Slots(1, 2, 128).pin(CPU)
    assert "cannot be pinned (CUDA error 2)" in caplog.text


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("frontend", ["cpu", "device"])
def test_batches_arrive_on_a_gpu_as_they_were_made(df, config, frontend):
    config = replace(config, frontend=frontend, num_workers=0, last_batch="keep")
    dataset = WaveformDataset(df, config, "train", SPECIES)
    usual = build_loader(dataset, config, CPU)
    loader, sampler = build_loader(dataset, replace(config, num_workers=2), CUDA)
    for epoch in (1, 2):
        found, expected = all_batches(loader, sampler, epoch), all_batches(*usual, epoch)
        for one, other in zip(found, expected, strict=True):
            assert all(one[name].is_cuda for name in other)
            assert all(torch.equal(one[name].cpu(), value) for name, value in other.items())
    assert loader.slots.memory.is_pinned()
