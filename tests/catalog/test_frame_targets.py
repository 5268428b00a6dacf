"""Targets of the moments of a clip: by hand, step by step, for windows of annotated recordings."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from catalog.frame_targets import FrameTargets, is_grid, join, of_clips, repeat_spans
from catalog.targets import Targets
from configs import Config

NAMES = ["robin", "wren"]
CONFIG = Config(sample_rate=1000, hop_length=100, n_fft=512, fmax=500.0, n_mels=8)
N_STEPS = 7  # 51 frames of a clip of 5 s, 8 in a step: one of 0.714 s
STEP_S = 5.0 / N_STEPS


def made_of(spans, config=CONFIG, **settings):
    """Targets of windows with these spans, smoothed as the settings say."""
    table = pd.DataFrame({"primary_label": "wren", "labels": "wren", "spans": spans})
    targets = Targets(table, NAMES, no_bird_class=config.no_bird_class, **settings)
    return FrameTargets(table, config, NAMES, targets)


def test_a_step_holds_a_bird_where_a_label_covers_half_of_it():
    song = ("wren", 1.0, 2.5)  # steps begin at 0, 0.714, 1.429, 2.143, 2.857, ...
    call = ("robin", 4.30, 4.34)  # shorter than a step; before and after 4.286
    found = made_of([[song, call]]).of([0], [0])
    assert found.shape == (N_STEPS, 2) and found.dtype == np.float32
    assert list(found[:, 1]) == [0, 1, 1, 1, 0, 0, 0]  # 2.143 to 2.5 is half of the last one
    assert list(found[:, 0]) == [0, 0, 0, 0, 0, 0, 1]


def test_a_call_across_two_steps_is_in_the_one_that_holds_more_of_it():
    call = ("wren", 4.286 - 0.02, 4.286 + 0.06)
    assert list(made_of([[call]]).of([0], [0])[:, 1]) == [0, 0, 0, 0, 0, 0, 1]


def test_values_are_those_of_the_clips_targets():
    smooth = made_of([[("wren", 0.0, 1.0)]], smooth=True).of([0], [0])
    assert smooth[0, 1] == np.float32(0.995) and smooth[3, 1] == np.float32(0.0025)

    spread = made_of([[("wren", 0.0, 1.0)]], smoothing=0.1).of([0], [0])
    assert spread[0, 1] == pytest.approx(0.95) and spread[3, 0] == pytest.approx(0.05)


def test_birds_heard_together_and_backgrounds_add_up():
    targets = made_of([[("wren", 0.0, 1.0)], [("robin", 4.0, 5.0)]])
    both = targets.of([0, 1, 2], [0, 0, 0])  # 2 is a background
    assert list(both[:, 1]) == [1, 0, 0, 0, 0, 0, 0] and list(both[:, 0]) == [0] * 6 + [1]
    assert not targets.of([2], [0]).any()


def test_a_rolled_clip_rolls_its_targets_over_the_end():
    targets = made_of([[("wren", 4.4, 5.0)]])
    rolled = targets.of([0], [round(1000 * STEP_S)])
    assert list(rolled[:, 1]) == [1, 0, 0, 0, 0, 0, 0]
    assert list(targets.of([0], [2500])[:, 1]) == [0, 0, 0, 1, 0, 0, 0]  # 1.9 to 2.5 s


def test_what_is_not_known_is_nan():
    weak = made_of([None, [("wren", 0.0, 1.0)]])
    assert np.isnan(weak.of([0], [0])).all()
    assert np.isnan(weak.of([1, 0], [0, 0])).all()

    unknown = made_of([[("wren", 0.0, 1.0)]], replace(CONFIG, unlabelled="unknown"))
    found = unknown.of([0], [0])
    assert list(found[0]) == [0, 1] and np.isnan(found[1:]).all()
    assert not unknown.of([1], [0]).any()  # a background has no bird, and that is known


def test_a_class_for_no_bird_holds_the_silent_steps():
    found = made_of([[("wren", 0.0, 1.0)]], replace(CONFIG, no_bird_class=True)).of([0], [0])
    assert list(found[:, 2]) == [0, 1, 1, 1, 1, 1, 1]


def test_labels_outside_the_classes_are_no_bird():
    assert not made_of([[("owl", 0.0, 1.0)]]).of([0], [0]).any()


def test_spans_of_a_short_window_repeat_as_its_samples_do():
    spans = [("wren", 0.5, 1.0), ("robin", 1.5, 3.0), ("robin", 2.5, 3.0)]
    assert repeat_spans(spans, 2.0, 5.0) == [
        ("wren", 0.5, 1.0),
        ("robin", 1.5, 2.0),
        ("wren", 2.5, 3.0),
        ("robin", 3.5, 4.0),
    ]
    assert repeat_spans(spans, 5.0, 5.0) == spans


def test_a_grid_of_clips_is_told_from_labels_drawn_by_hand():
    birdnet = np.array([0.0, 3.0, 3.0, 21.0])
    assert is_grid(birdnet, birdnet + 3)
    assert not is_grid(np.array([0.213, 3.482]), np.array([1.002, 4.17]))
    assert not is_grid(np.array([2.0, 4.0]), np.array([3.0, 5.5]))
    assert not is_grid(np.array([]), np.array([]))


def test_clips_and_steps_in_one_array():
    joined = join(np.array([1.0, 0.0]), np.zeros((N_STEPS, 2)))
    assert joined.shape == (1 + N_STEPS, 2)
    assert of_clips(joined[None]).tolist() == [[1.0, 0.0]]
    assert of_clips(joined).shape == (1 + N_STEPS, 2)  # targets of several clips, without steps
