"""Where an epoch's time went: every moment counts once, and looking changes nothing."""

import logging
import re
import time

import pytest
import torch

import checkpoint as ckpt
import train
from configs import Config
from training import epoch_files, epoch_report, folder, processes, stopwatch
from training.stopwatch import (
    PARTS,
    REST,
    VALID_WAITING,
    WAITING,
    Stopwatch,
    build_watch,
    describe_parts,
    find_limit,
)


class Clock:
    """Stands for the time module: time passes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now

    def passes(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(stopwatch, "time", clock)
    return clock


def used(watch: Stopwatch) -> dict[str, float]:
    return {part: seconds for part, seconds in watch.seconds().items() if seconds}


def test_every_moment_counts_once_by_hand(clock):
    watch = Stopwatch()
    clock.passes(1)
    with watch.part("forward"):
        clock.passes(2)
        with watch.part("checkpoint"):
            clock.passes(4)
            with watch.part(WAITING):
                clock.passes(8)
            clock.passes(16)
        clock.passes(32)
    clock.passes(64)
    assert used(watch) == {"forward": 34, "checkpoint": 20, WAITING: 8, REST: 65}
    clock.passes(128)
    assert sum(watch.seconds().values()) == 255 == clock.now - 100
    assert list(watch.seconds()) == list(PARTS)


def test_a_part_ends_when_its_block_raises(clock):
    watch = Stopwatch()
    with pytest.raises(KeyError), watch.part("backward"):
        clock.passes(3)
        raise KeyError
    clock.passes(5)
    assert used(watch) == {"backward": 3, REST: 5}
    watch.restart()
    clock.passes(7)
    assert used(watch) == {REST: 7}


def test_what_a_device_still_computes_belongs_to_the_part_that_asked_for_it(clock):
    queued = [0.0]

    def wait_for_the_device() -> None:
        clock.passes(queued.pop())
        queued.append(0.0)

    watch = Stopwatch(wait_for_the_device)
    with watch.part("forward"):
        clock.passes(1)  # queues ten seconds of work
        queued[0] = 10.0
    with watch.part("backward"):
        clock.passes(2)
    assert used(watch) == {"forward": 11, "backward": 2}


def test_an_unknown_part_is_refused():
    with pytest.raises(KeyError, match="foward"), Stopwatch().part("foward"):
        pass


# In training --------------------------------------------------------------------------------------


def test_the_parts_of_an_epoch_add_up_to_its_wall_time_and_hold_what_happened_in_them(
    df, config, monkeypatch
):
    config.epochs, config.profile = 1, True
    began, ended, found = [], [], []

    def slower(module, name: str, seconds: float) -> None:
        original = getattr(module, name)

        def slow(*args, **kwargs):
            time.sleep(seconds)
            return original(*args, **kwargs)

        monkeypatch.setattr(module, name, slow)

    slower(train, "mix_batch", 0.03)  # in each of three steps
    slower(train, "mixed_loss", 0.05)
    slower(train, "optimizer_step", 0.07)
    slower(train, "score_batch", 0.11)  # in each of two batches of validation
    slower(processes, "gather_rows", 0.13)
    slower(epoch_files, "snapshot", 0.17)  # writing it is no part of the epoch
    slower(folder, "write_history", 0.5)
    original_epoch = train.train_one_epoch
    monkeypatch.setattr(
        train,
        "train_one_epoch",
        lambda fold: (began.append(time.monotonic()), original_epoch(fold)),
    )
    monkeypatch.setattr(
        epoch_report,
        "describe_parts",
        lambda seconds: (ended.append(time.monotonic()), found.append(seconds)),
    )
    train.run(df, config)
    seconds = found[0]
    assert sum(seconds.values()) == pytest.approx(ended[0] - began[0], abs=0.05)
    at_least = {
        "copy to the device": 0.09,
        "forward": 0.15,
        "optimizer step": 0.21,
        "validation: model": 0.22,
        "metric": 0.13,
        "checkpoint": 0.17,
    }
    for part, least in at_least.items():
        assert least <= seconds[part] < least + 3, part
    assert seconds[WAITING] > 0 and seconds[VALID_WAITING] > 0 and seconds["backward"] > 0
    assert seconds[REST] < 0.3 * sum(seconds.values())


def test_looking_changes_nothing_but_the_log(df, config, caplog):
    config.epochs = 1
    with caplog.at_level(logging.INFO, "birdclef"):
        train.run(df, config)
        assert "where epoch" not in caplog.text
        looked = Config(
            **{**config.to_dict(), "profile": True, "models_dir": config.root / "other"}
        )
        train.run(df, looked)
    assert (
        caplog.text.count("where epoch")
        == 1
        == len(re.findall("limits? this machine", caplog.text))
    )
    histories = [(each.fold_dir(0) / "history.csv").read_bytes() for each in (config, looked)]
    assert histories[0] == histories[1]
    states = [
        ckpt.read_checkpoint(each.fold_dir(0) / "last.pth")["model"] for each in (config, looked)
    ]
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


@pytest.mark.parametrize(
    ("profile", "device", "expected"),
    [
        (True, "cuda:1", ["cuda:1"] * 3),
        (False, "cuda:1", []),
        (True, "cpu", []),
    ],  # it starts, it ends, it is read
)
def test_a_gpu_is_waited_for_only_when_someone_looks(monkeypatch, profile, device, expected):
    waited = []
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda device: waited.append(str(device)))
    watch = build_watch(Config(profile=profile), torch.device(device))
    with watch.part("forward"):
        pass
    watch.seconds()
    assert waited == expected


# What the log says --------------------------------------------------------------------------------


def test_the_table_by_hand():
    assert describe_parts({"forward": 3.0, "backward": 9.0}).splitlines() == [
        "forward                           3.00 s   25.0 %",
        "backward                          9.00 s   75.0 %",
        "sum                              12.00 s  100.0 %",
    ]


@pytest.mark.parametrize(
    ("waiting", "num_workers", "on_cpu", "expected"),
    [
        (9, 0, True, r"the model limits this machine \(9 % .* compile_model$"),
        (9, 4, False, r"the model limits this machine \(9 % .* larger train_bs$"),
        (11, 0, False, r"the data limit this machine \(11 % .* num_workers of 1 or more"),
        (
            50,
            3,
            True,
            r"the data limit this machine \(50 % .* another num_workers than 3; .* same processors",
        ),
        (
            50,
            3,
            False,
            r"the data limit this machine \(50 % .* more num_workers than 3 .* frontend=device",
        ),
    ],
)
def test_the_limit_and_what_to_change(waiting, num_workers, on_cpu, expected):
    seconds = dict.fromkeys(PARTS, 0.0) | {
        WAITING: waiting - 4.0,
        VALID_WAITING: 4.0,
        "forward": 100.0 - waiting,
    }
    assert pytest.approx(100) == sum(seconds.values())
    text = find_limit(seconds, num_workers=num_workers, on_cpu=on_cpu)
    assert re.search(expected, text) and "\n" not in text
