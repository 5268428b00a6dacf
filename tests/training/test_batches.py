"""Batches: how many workers load them, and what is said where shared memory is short."""

from collections import namedtuple

import pytest

from configs import UserError
from dataset import WaveformDataset
from tests.small_run import SPECIES
from training import batches
from training.batches import batches_in_turn, collate, item_bytes, workers_that_fit
from training.stopwatch import WAITING, Stopwatch

Usage = namedtuple("Usage", "free")


@pytest.mark.parametrize(
    ("free_mb", "wanted", "fit"), [(1000, 8, 8), (64, 8, 2), (64, 2, 2), (29, 8, 0), (64, 0, 0)]
)
def test_workers_are_as_many_as_shared_memory_has_room_for(
    tmp_path, monkeypatch, caplog, free_mb, wanted, fit
):
    """A worker needs three batches of 10 MB: two that wait and one that it makes."""
    monkeypatch.setattr(batches.shutil, "disk_usage", lambda path: Usage(free_mb * 10**6))
    assert workers_that_fit(wanted, 10**7, tmp_path) == fit
    assert ("--shm-size" in caplog.text) == (fit < wanted)


def test_without_shared_memory_to_ask_the_number_stays(tmp_path):
    assert workers_that_fit(5, 10**12, tmp_path / "none") == 5


@pytest.mark.parametrize("frontend", ["cpu", "device"])
def test_an_item_is_no_larger_than_said(df, config, frontend):
    config.frontend, config.p_stop_mixing = frontend, 0.0
    dataset = WaveformDataset(df, config, "train", SPECIES)
    batch = collate([dataset[1, 0]])
    found = sum(value.numel() * value.element_size() for value in batch.values())
    said = item_bytes(dataset, config)
    assert 0.9 * said < found < 1.05 * said + 200  # and some draws of 8 bytes each


def test_a_loader_without_shared_memory_is_one_line(df, config):
    class Full:
        def __len__(self):
            return 1

        def __iter__(self):
            raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>")
            yield

    with pytest.raises(UserError, match="--shm-size, or set --num-workers 0"):
        next(batches_in_turn(Full(), Stopwatch(), WAITING, what="epoch 1"))


def test_other_errors_of_a_loader_stay_what_they_are():
    def broken():
        raise RuntimeError("something else")
        yield

    class Broken:
        def __len__(self):
            return 1

        def __iter__(self):
            return broken()

    with pytest.raises(RuntimeError, match="something else"):
        next(batches_in_turn(Broken(), Stopwatch(), WAITING, what="epoch 1"))
