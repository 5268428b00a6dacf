"""The global generators: a seed and a saved state repeat their draws."""

import random

import numpy as np
import torch

from checkpoint import _check_plain
from configs import capture_rng, restore_rng, set_seed


def draw():
    return random.random(), random.gauss(0, 1), np.random.normal(), torch.rand(2).tolist()  # noqa: NPY002


def test_a_seed_repeats_all_three_generators():
    set_seed(8)
    first = draw()
    set_seed(8)
    assert draw() == first
    set_seed(9)
    assert all(one != other for one, other in zip(draw(), first, strict=True))


def test_a_saved_state_repeats_all_three_generators():
    state = capture_rng()
    _check_plain(state)  # it can go into a checkpoint
    first = draw()
    assert draw() != first
    restore_rng(state)
    assert draw() == first
