"""Batches: how many workers load them, and what is said where shared memory is short."""

from collections import namedtuple

import pytest
import torch

import train
from configs import Config, UserError
from dataset import WaveformDataset
from tests.small_run import (
    CPU,
    SPECIES,
    assert_same_end,
    build,
    copy_of,
    run_until,
)
from training import batches
from training.batches import (
    EpochSampler,
    batches_in_turn,
    build_loader,
    collate,
    fill_batch,
    item_bytes,
    pick_last_batch,
    workers_that_fit,
)
from training.fold import Fold
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
    said = item_bytes(dataset[1, 1], config.max_mixed_birds)
    sizes = []
    for index in range(len(dataset)):
        batch = collate([dataset[1, index]])
        sizes.append(sum(value.numel() * value.element_size() for value in batch.values()))
    assert 0.99 * said - 1000 < max(sizes) <= said


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


# Constant shapes ----------------------------------------------------------------------------------


def batches_of(last: str, n_items: int = 10, batch_size: int = 4, **share) -> list[list[int]]:
    sampler = EpochSampler(n_items, batch_size, seed=8, shuffle=True, last=last, **share)
    sampler.set_position(3)
    found = [[row for _, row in keys] for keys in sampler]
    assert len(found) == len(sampler)
    return found


def test_a_last_batch_is_kept_filled_or_dropped():
    kept = batches_of("keep")
    assert [len(batch) for batch in kept] == [4, 4, 2]
    assert batches_of("drop") == kept[:2]
    assert batches_of("fill") == [*kept[:2], kept[2] + kept[0][:2]]
    assert batches_of("fill", n_items=8) == batches_of("keep", n_items=8)


def test_a_set_smaller_than_a_batch_is_repeated_to_fill_it():
    (rows,) = batches_of("fill", n_items=3, batch_size=7)
    assert rows[:3] == rows[3:6] and rows[6] == rows[0] and sorted(rows[:3]) == [0, 1, 2]


def test_processes_have_equal_shares_of_a_filled_batch():
    shares = [batches_of("fill", rank=rank, world_size=2) for rank in (0, 1)]
    assert [[len(batch) for batch in share] for share in shares] == [[2, 2, 2]] * 2


def test_cuda_fills_and_the_cpu_keeps_unless_told_otherwise():
    cuda = torch.device("cuda")  # a name; nothing here needs the device
    assert (pick_last_batch(Config(), cuda), pick_last_batch(Config(), CPU)) == ("fill", "keep")
    assert pick_last_batch(Config(last_batch="drop"), cuda) == "drop"


def test_a_set_of_which_all_would_be_dropped_is_refused(df, config):
    with pytest.raises(UserError, match="18 clips are less than a batch of 19"):
        build(df, copy_of(config, train_bs=19, last_batch="drop"))


@pytest.mark.parametrize("last", ["fill", "drop"])
def test_a_run_with_a_filled_or_dropped_last_batch_resumes_exactly(df, config, last, monkeypatch):
    config = copy_of(config, last_batch=last, checkpoint_every_steps=1, ema_decay=0.9)
    train.run(df, config)
    broken = copy_of(config, models_dir=config.root / "broken")
    run_until(df, broken, monkeypatch, step=2)
    train.run(df, broken)
    assert_same_end(config, broken)


def test_the_loss_of_a_filled_batch_counts_each_clip_that_was_seen(df, config):
    fold = build(df, copy_of(config, last_batch="fill"))
    train.train_one_epoch(fold)
    assert (fold.train_set.n_rows, fold.progress.train_loss.count) == (18, 21)


def test_images_are_repeated_until_there_are_enough():
    images = torch.arange(6.0).reshape(3, 2)
    assert fill_batch(images, 5).tolist() == [[0, 1], [2, 3], [4, 5], [4, 5], [4, 5]]
    assert fill_batch(images, 2) is images and fill_batch(images, 0) is images


def test_filled_validation_has_one_shape_and_the_same_scores(df, config, monkeypatch):
    fold = build(df, config)
    sizes = []
    fold.parts.model.register_forward_pre_hook(lambda model, args: sizes.append(len(args[0])))
    loss, meter = train.validate(fold)
    monkeypatch.setattr(Fold, "constant_valid_size", lambda fold: 4)
    filled_loss, filled = train.validate(fold)
    assert sizes == [4, 2] + [4, 4]
    assert filled_loss == pytest.approx(loss, rel=1e-6)
    assert abs(filled.scores - meter.scores).max() < 1e-6 and filled.scores.shape == (6, 3)


def test_workers_are_forked_from_a_process_that_has_made_an_item(df, config, monkeypatch):
    made, make = [], WaveformDataset.__getitem__
    monkeypatch.setattr(
        WaveformDataset, "__getitem__", lambda self, key: made.append(key) or make(self, key)
    )
    for num_workers, expected in ((0, []), (2, [(1, 0)])):
        made.clear()
        config.num_workers = num_workers
        dataset = WaveformDataset(df, config, "train", SPECIES)
        build_loader(dataset, config, CPU)
        assert made == expected
