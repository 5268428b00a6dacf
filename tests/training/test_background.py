"""Files written by a thread: their order, what becomes of an error, and the copy they come from."""

import logging
import threading
from collections import OrderedDict

import pytest
import torch

from training.background import Writer, snapshot


def test_jobs_run_in_order_beside_the_program_and_leave_no_thread():
    n_threads = threading.active_count()
    gate, done = threading.Event(), []
    writer = Writer()
    writer.start(lambda: (gate.wait(10), done.append(1)))
    writer.add(lambda: done.append(2))
    assert done == []  # the first still waits
    gate.set()
    writer.start(lambda: done.append(3))  # it begins after those before
    assert done[:2] == [1, 2]
    writer.wait()
    assert done == [1, 2, 3] and threading.active_count() == n_threads


def failing() -> None:
    raise OSError("the disk is full")


def test_a_failure_is_raised_before_the_next_job_which_is_not_begun_and_only_once():
    done = []
    writer = Writer()
    writer.start(failing)
    writer.add(lambda: done.append("it follows what failed"))
    with pytest.raises(OSError, match="the disk is full"):
        writer.start(lambda: done.append("next"))
    writer.wait()
    assert done == []
    writer.start(lambda: done.append("later"))
    writer.wait()
    assert done == ["later"]


def test_the_end_of_a_block_waits_and_raises():
    done, gate = [], threading.Event()
    writer = Writer()
    with writer.finishing():
        writer.start(lambda: (gate.wait(10), done.append(1)))
        gate.set()
    assert done == [1]
    with pytest.raises(OSError, match="full"), writer.finishing():
        writer.start(failing)


def test_a_block_that_fails_itself_raises_its_own_error_and_logs_that_of_the_files(caplog):
    caplog.set_level(logging.ERROR)
    writer = Writer()
    with pytest.raises(KeyError, match="recording"), writer.finishing():
        writer.start(failing)
        raise KeyError("recording")
    assert caplog.messages == ["the disk is full"]


def test_a_snapshot_is_equal_and_shares_nothing():
    module = torch.nn.Linear(2, 2)
    state = {"model": module.state_dict(), "history": [{"epoch": 1}], "betas": (0.9, None)}
    copied = snapshot(state)
    assert torch.equal(copied["model"]["weight"], module.weight)
    assert isinstance(copied["model"], OrderedDict)
    assert copied["model"]._metadata == state["model"]._metadata
    assert copied["history"] == [{"epoch": 1}] and copied["betas"] == (0.9, None)

    before = copied["model"]["weight"].clone()
    with torch.no_grad():
        module.weight += 1
    state["history"][0]["epoch"] = 2
    state["history"].append({})
    assert torch.equal(copied["model"]["weight"], before) and copied["history"] == [{"epoch": 1}]


def test_a_snapshot_keeps_the_order_of_a_tensors_values():
    grid = torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last)
    copied = snapshot(grid)
    assert copied.stride() == grid.stride() and torch.equal(copied, grid)
    assert copied.data_ptr() != grid.data_ptr()
