"""When a run ends and what it takes: by hand on a run whose clock the test moves."""

from datetime import datetime

import pytest
import torch

import train
from tests.small_run import build
from training import forecast, run_clock
from training.forecast import Left


@pytest.fixture
def time(monkeypatch) -> list[float]:
    """The time in seconds, to be moved by the test."""
    moment = [0.0]
    monkeypatch.setattr(run_clock, "now", lambda: moment[0])
    return moment


@pytest.fixture
def fold(df, config):
    """Fold 1 of three: 18 clips to train in batches of 7, 6 to validate, five epochs."""
    config.folds, config.epochs = [0, 1, 2], 5
    made = build(df, config)
    made.number = 1
    return made


def test_before_an_epoch_has_ended_its_clips_are_the_measure(fold, time):
    fold.clock.begin_epoch()
    assert forecast.status(fold) == ""
    fold.progress.batch, time[0] = 1, 14.0  # 2 s a clip
    fold.progress.train_loss.update(0.25, 7)
    epoch_s = 2 * (18 + 6)
    left = forecast.time_left(fold)
    assert left == Left(11 * 2 + 6 * 2, 34 + 4 * epoch_s, 34 + 9 * epoch_s)
    said = "loss 0.2500, 0 clips/s, left: epoch 0:34, fold 3:46, all 7:46"  # 0.5 is rounded
    assert forecast.status(fold) == said


def test_then_the_last_epoch_is_and_its_validation(fold, time):
    fold.clock.begin_epoch()
    fold.progress.batch, time[0] = 3, 18.0
    fold.clock.begin_validation()
    time[0] += 2.0
    assert forecast.time_left(fold).epoch == 6 - 2  # six clips of 1 s each, two seconds in
    time[0] += 2.0
    fold.progress.end_epoch({"epoch": 1, "valid_loss": 1.0})
    fold.clock.end_epoch()
    assert forecast.time_left(fold) == Left(0, 4 * 22, 9 * 22)

    fold.clock.begin_epoch()
    fold.progress.batch, time[0] = 2, time[0] + 7.0  # 0.5 s a clip
    assert forecast.time_left(fold).epoch == 4 * 0.5 + 4
    assert forecast.time_left(fold).fold == 6 + 3 * 22


def test_epochs_that_later_folds_have_behind_them_are_not_waited_for(fold, time):
    config = fold.config
    train.folder.write_history(config.fold_dir(2), [{"epoch": k, "valid_loss": 1} for k in (1, 2)])
    fold.clock.epoch_s = [10.0]
    assert forecast.time_left(fold).run == (5 + 3) * 10
    config.resume = False
    assert forecast.time_left(fold).run == (5 + 5) * 10


def test_clips_that_another_process_trained_on_say_nothing_of_the_speed(fold, time):
    fold.progress.batch = 1
    fold.clock.begin_epoch(1)
    assert forecast.clips_done(fold) == 0 and forecast.status(fold) == ""
    fold.progress.batch, time[0] = 3, 11.0
    assert forecast.clips_done(fold) == 11 and "1 clips/s" in forecast.status(fold)


def test_the_end_is_said_once_after_a_minute_with_the_disk(fold, time, caplog):
    caplog.set_level("INFO", "birdclef.train")
    fold.clock.begin_epoch()
    fold.progress.batch, time[0] = 1, 59.0
    forecast.look(fold)
    assert caplog.text == ""
    time[0] = 60.0
    forecast.look(fold)
    forecast.look(fold)
    assert caplog.text.count("3 folds end about") == 1 and " MB" in caplog.text


def test_the_disk_is_that_of_the_files(df, config):
    """The estimate of a fold against what a whole run has left."""
    config.epochs, config.keep_checkpoints, config.ema_decay = 3, 2, 0.9
    said = []
    original = train.finish_epoch

    def noted(fold, *args):
        said.append(forecast.fold_bytes(fold))
        original(fold, *args)

    train.finish_epoch = noted
    try:
        train.run(df, config)
    finally:
        train.finish_epoch = original
    found = [path.stat().st_size for path in config.fold_dir(0).glob("*.pth")]
    assert len(found) == 3 and max(said) == pytest.approx(sum(found), rel=0.15)


def test_a_disk_without_room_is_said_at_once(fold, time, caplog, monkeypatch):
    full = type("Usage", (), {"free": 10})
    monkeypatch.setattr(forecast.shutil, "disk_usage", lambda path: full)
    fold.clock.epoch_s = [1.0]
    forecast.look(fold)
    assert "the disk has room for 1 MB; lower --keep-checkpoints" in caplog.text


def test_tensors_are_found_however_deep():
    state = {"a": torch.zeros(2), "b": {0: {"c": torch.ones(3)}}, "d": 5, "e": [1]}
    assert [len(one) for one in forecast.tensors_in(state)] == [2, 3]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(20, "0:20"), (4800, "1:20:00"), (59.6, "1:00"), (183_600, "2 d 3:00:00"), (0, "0:00")],
)
def test_lengths_of_time(seconds, text):
    assert forecast.clock(seconds) == text


def test_moments_and_sizes():
    start = datetime(2026, 3, 1, 14, 20)  # a Sunday
    assert forecast.at(0, start) == "Sun 14:20" and forecast.at(86_400, start) == "Mon 14:20"
    assert forecast.at(7 * 86_400, start) == "2026-03-08 14:20"
    assert [forecast.size(n) for n in (10, 8.5e8, 1.1e9)] == ["1 MB", "850 MB", "1.1 GB"]


def test_checkpoints_are_added_up_while_one_of_them_is_replaced(tmp_path):
    (tmp_path / "fold_0").mkdir()
    for name, size in (("last.pth", 10), ("Exp_1.pth", 5), ("train.log", 99)):
        (tmp_path / "fold_0" / name).write_bytes(bytes(size))
    assert forecast.checkpoint_bytes(tmp_path) == 15
    (tmp_path / "fold_0" / "gone.pth").symlink_to(tmp_path / "nowhere")  # as one that was deleted
    assert forecast.checkpoint_bytes(tmp_path) == 15
