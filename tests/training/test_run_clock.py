"""What a run's clock measures, and when it says that the time is over."""

import math

import pytest

from training import run_clock
from training.run_clock import RunClock


@pytest.fixture
def time(monkeypatch) -> list[float]:
    """The time in seconds, to be moved by the test."""
    moment = [1000.0]
    monkeypatch.setattr(run_clock, "now", lambda: moment[0])
    return moment


def epoch(clock: RunClock, time: list[float], train_s: float, valid_s: float, first=0) -> None:
    clock.begin_epoch(first)
    time[0] += train_s
    clock.begin_validation()
    time[0] += valid_s
    clock.end_epoch()


def test_an_epoch_is_timed_in_its_parts(time):
    clock = RunClock()
    assert clock.trained_s() == clock.validated_s() == 0
    clock.begin_epoch()
    time[0] += 30
    assert (clock.trained_s(), clock.validated_s()) == (30, 0)
    clock.begin_validation()
    time[0] += 4
    assert (clock.trained_s(), clock.validated_s()) == (30, 4)
    clock.end_epoch()
    assert clock.epoch_s == [34] and clock.valid_s == 4 and clock.trained_s() == 0


def test_an_epoch_that_was_resumed_in_its_midst_is_no_measure(time):
    clock = RunClock()
    epoch(clock, time, 10, 2, first=3)
    assert clock.epoch_s == [] and clock.valid_s == 2


def test_the_first_epoch_is_tried_and_a_later_one_only_if_it_fits(time):
    clock = RunClock(max_hours=1)
    time[0] += 3599
    assert clock.has_room() and not clock.is_over()
    time[0] -= 3599
    epoch(clock, time, 900, 100)
    epoch(clock, time, 700, 100)
    assert clock.seconds_to_stop() == 1800
    time[0] += 700  # 1100 s are left, and the longest epoch took 1000
    assert clock.has_room()
    time[0] += 60  # 1040 s: less than 1.05 times as many
    assert not clock.has_room() and not clock.is_over()
    time[0] += 1040
    assert clock.is_over()


def test_without_a_limit_there_is_always_room(time):
    clock = RunClock()
    epoch(clock, time, 1e9, 0)
    assert clock.has_room() and not clock.is_over() and clock.seconds_to_stop() == math.inf
