"""Targets of labelled clips and pseudo-labelled windows that are heard together."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from catalog.mixed_targets import MixedTargets, capped
from catalog.pseudo_labels import PseudoLabels
from catalog.refuted import Refuted
from catalog.targets import Targets

CLASSES = ["robin", "tit", "wren"]
BACKGROUND, WINDOW, OTHER, EMPTY = 2, 3, 4, 5  # two rows, one background, three windows


def mixed(*, no_bird: bool = False, smoothing: float = 0.0, **settings) -> MixedTargets:
    df = pd.DataFrame({"primary_label": ["robin", "tit"], "labels": ["robin", "tit wren"]})
    labelled = Targets(df, CLASSES, no_bird_class=no_bird, smoothing=smoothing)
    pseudo = PseudoLabels(
        paths=np.array([b"a", b"b", b"c"]),
        starts_s=np.zeros(3),
        ends_s=np.ones(3),
        weights=np.array([1.2, 0.6, 0.0]),
        classes=np.array([2, 1, 0], np.int32),
        scores=np.array([0.8, 0.4, 0.6], np.float32),
        offsets=np.array([0, 2, 3, 3]),
    )
    return MixedTargets(labelled, pseudo, first_window=WINDOW, **settings)


def close(targets: np.ndarray, *expected: float) -> bool:
    is_near = np.allclose(targets, expected, atol=1e-6, equal_nan=True)
    return is_near and targets.dtype == np.float32


def test_rows_alone_are_as_without_windows():
    assert close(mixed().of([0]), 1, 0, 0)
    assert close(mixed().of([1]), 0, 1, 0.3)
    assert close(mixed().of([BACKGROUND]), 0, 0, 0)


def test_a_window_has_the_scores_raised_to_the_power():
    assert close(mixed().of([WINDOW]), 0, 0.4, 0.8)
    assert close(mixed(power=2.0).of([WINDOW]), 0, 0.16, 0.64)


def test_a_window_that_refutes_a_species_masks_the_others_that_are_not_heard():
    targets = mixed()
    number = {name: place for place, name in enumerate(CLASSES)}
    refuted = Refuted([(), (), ("wren",)], number)
    targets._pseudo = replace(targets._pseudo, refuted=refuted)
    assert close(targets.of([EMPTY]), np.nan, np.nan, 0) and targets.has_masks
    assert close(targets.of([0, EMPTY]), 1, np.nan, 0)
    assert close(targets.of([1, EMPTY]), np.nan, 1, 0.3)
    assert close(targets.of([EMPTY, OTHER]), 0.6, np.nan, 0)
    assert not targets.is_without_bird(EMPTY)
    no_bird = mixed(no_bird=True)
    no_bird._pseudo = targets._pseudo
    assert close(no_bird.of([EMPTY]), np.nan, np.nan, 0, np.nan)
    assert close(no_bird.of([0, EMPTY]), 1, np.nan, 0, 0)


def test_each_class_takes_its_highest_target():
    assert close(mixed().of([1, WINDOW]), 0, 1, 0.8)
    assert close(mixed().of([WINDOW, OTHER]), 0.6, 0.4, 0.8)


def test_sums_are_capped_part_by_part():
    assert close(mixed(pseudo_cap=0.75).of([WINDOW]), 0, 0.25, 0.5)
    assert close(mixed(pseudo_cap=0.75).of([OTHER]), 0.6, 0, 0)
    assert close(mixed(label_cap=0.5).of([1]), 0, 0.5 / 1.3, 0.15 / 1.3)
    assert close(mixed(label_cap=0.5, pseudo_cap=0.6).of([0, WINDOW]), 0.5, 0.2, 0.4)


def test_no_bird_takes_what_the_scores_leave():
    targets = mixed(no_bird=True)
    assert close(targets.of([OTHER]), 0.6, 0, 0, 0.4)
    assert close(targets.of([WINDOW]), 0, 0.4, 0.8, 0)
    assert close(targets.of([EMPTY]), 0, 0, 0, 1)
    assert close(targets.of([EMPTY, OTHER]), 0.6, 0, 0, 0.4)
    assert close(targets.of([0, EMPTY]), 1, 0, 0, 0)
    assert close(targets.of([BACKGROUND, OTHER]), 0.6, 0, 0, 0.4)
    assert close(targets.of([BACKGROUND]), 0, 0, 0, 1)


def test_smoothing_is_that_of_rows():
    assert close(mixed(smoothing=0.3).of([OTHER]), 0.7 * 0.6 + 0.1, 0.1, 0.1)


def test_who_has_no_bird():
    targets = mixed()
    kinds = [0, BACKGROUND, WINDOW, EMPTY]
    assert [targets.is_without_bird(row) for row in kinds] == [False, True, False, True]
    assert targets.primary.tolist() == [0, 1]


def test_masked_targets_do_not_count_in_a_sum():
    targets = np.array([np.nan, 1.0, 1.0], np.float32)
    assert close(capped(targets, 1.0), np.nan, 0.5, 0.5)


@pytest.mark.parametrize("cap", [None, 2.0])
def test_what_fits_is_left_as_it_is(cap):
    targets = np.array([1.0, 0.5], np.float32)
    assert capped(targets, cap) is targets
