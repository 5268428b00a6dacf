"""What a step leaves to be read: whether it is bad, and the mean loss of each batch."""

import math

import pytest
import torch

from training.readings import Reading


def reading(*losses: float, norm: float = 1.0) -> Reading:
    """A step of two batches: the first came in parts of 3 and 1 clips, the second whole."""
    first, second, third = map(torch.tensor, losses)
    return Reading({4: [(first, 3), (second, 1)], 5: [(third, 2)]}, torch.tensor(norm), lambda _: 0)


def test_the_losses_of_parts_are_weighed_by_their_clips():
    one = reading(1.0, 5.0, 7.0, norm=0.5)
    assert one.is_bad.item() == 0
    assert one.values() == (0.5, {4: (2.0, 4), 5: (7.0, 2)})


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_anything_that_is_not_finite_makes_a_step_bad(bad):
    assert reading(1.0, bad, 7.0).is_bad.item() == 1
    one = reading(1.0, 5.0, 7.0, norm=bad)
    assert one.is_bad.item() == 1 and one.is_bad.dtype == torch.float32
    norm, losses = one.values()
    assert not math.isfinite(norm) and losses[4] == (2.0, 4)


def test_large_losses_that_are_finite_are_good():
    assert reading(3e38, 3e38, 3e38, norm=3e38).is_bad.item() == 0


def test_several_processes_sum_their_shares_on_the_device(monkeypatch):
    from training import processes

    monkeypatch.setattr(processes, "world_size", lambda: 2)
    monkeypatch.setattr(processes, "sum_tensor", lambda tensor: tensor * 2)  # two that are alike
    losses = {4: [(torch.tensor(1.0), 3), (torch.tensor(5.0), 1)]}
    one = Reading(losses, torch.tensor(0.5), lambda batch: {4: 8}[batch])
    assert one.values() == (0.5, {4: (2.0, 8)})
