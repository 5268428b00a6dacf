"""What an epoch leaves is written beside the next one: the same files, and no error is lost."""

import threading

import pytest

import checkpoint as ckpt
import train
from benchmarks.kill_loop import differences
from files import CannotWriteError
from tests.small_run import copy_of
from training import folder, late_steps


def test_training_goes_on_while_an_epochs_files_are_written_and_they_are_as_they_were(
    df, config, monkeypatch
):
    train.run(df, config)
    other = copy_of(config, models_dir=config.root / "other")
    original, step = ckpt.save_checkpoint, train.train_step
    has_trained_on, seen = threading.Event(), []

    def save(path, state):
        if threading.current_thread() is not threading.main_thread() and state["epoch"] == 1:
            seen.append(has_trained_on.wait(60))  # the next epoch's first step comes meanwhile
        original(path, state)

    def train_step(fold, batch):
        stepped = step(fold, batch)
        if fold.progress.epoch == 1:
            has_trained_on.set()
        return stepped

    monkeypatch.setattr(ckpt, "save_checkpoint", save)
    monkeypatch.setattr(train, "train_step", train_step)
    train.run(df, other)
    assert seen and all(seen)
    assert differences(config.fold_dir(0), other.fold_dir(0)) == []


@pytest.mark.parametrize("epochs", [2, 1])  # raised before the next files, and at the end
def test_files_that_cannot_be_written_end_the_run_and_history_is_not_ahead(
    df, config, monkeypatch, epochs
):
    config.epochs = epochs
    original = ckpt.save_checkpoint

    def save(path, state):
        if path.name == "last.pth":
            raise CannotWriteError(path, OSError(28, "No space left on device"))
        original(path, state)

    monkeypatch.setattr(ckpt, "save_checkpoint", save)
    with pytest.raises(CannotWriteError, match=r"last\.pth: cannot be written: No space left"):
        train.run(df, config)
    assert not (config.fold_dir(0) / "history.csv").exists()

    monkeypatch.undo()  # the best one of the epoch is there, and the run goes on with it
    train.run(df, config)
    assert ckpt.read_checkpoint(config.fold_dir(0) / "last.pth")["epoch"] == epochs


def test_the_processes_of_a_loader_are_not_forked_beside_a_thread(df, config, monkeypatch):
    config = copy_of(config, checkpoint_every_steps=1, epochs=1)
    alive, original = [], train.batches_in_turn

    def counted(loader, *args, **kwargs):
        alive.append([one.name for one in threading.enumerate() if one.name == "writer"])
        return original(loader, *args, **kwargs)

    monkeypatch.setattr(train, "batches_in_turn", counted)
    train.run(df, config)
    assert alive == [[], []]


def test_every_step_is_read_before_it_is_saved(df, config, monkeypatch):
    read, saved = [], []
    monkeypatch.setattr(late_steps, "read", lambda fold, n_left=0: read.append(n_left))
    original = ckpt.save_checkpoint
    monkeypatch.setattr(
        ckpt, "save_checkpoint", lambda *args: (saved.append(len(read)), original(*args))
    )
    train.run(df, copy_of(config, checkpoint_every_steps=1, epochs=1))
    assert saved[:2] == [1, 2]  # two steps inside the epoch


def test_the_line_of_timing_follows_the_history(df, config, monkeypatch):
    order = []
    for name in ("write_history", "append_timing"):
        original = getattr(folder, name)

        def noted(*args, name=name, original=original):
            order.append(name)
            original(*args)

        monkeypatch.setattr(folder, name, noted)
    train.run(df, config)
    assert order == ["write_history", "append_timing"] * 2
