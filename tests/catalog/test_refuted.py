"""Rows that say of some species alone that they are absent: what is known, and what is masked."""

import numpy as np
import pandas as pd

from catalog.refuted import Refuted
from catalog.targets import Targets

CLASSES = ["robin", "tit", "wren"]
NUMBER = {name: place for place, name in enumerate(CLASSES)}
NAN = np.nan


def test_unknown_are_the_classes_that_a_row_does_not_refute():
    refuted = Refuted([(), ("wren", "owl"), ("owl",)], NUMBER)
    assert refuted.is_partial.tolist() == [False, True, True]
    assert refuted.unknown(0, 3).tolist() == [False, False, False]
    assert refuted.unknown(1, 3).tolist() == [True, True, False]
    assert refuted.unknown(2, 3).all()  # of a species that is no class
    assert not refuted.unknown(3, 3).any() and not refuted.says_little(3)  # a background


def test_a_masked_target_gives_way_to_a_bird_that_is_heard_and_to_nothing_else():
    df = pd.DataFrame(
        {
            "primary_label": ["nocall", "tit", "nocall"],
            "labels": ["", "tit robin", ""],
            "refuted": ["wren tit", "", ""],
        }
    )
    targets = Targets(df, CLASSES, no_bird_class=True, masks=True)
    np.testing.assert_array_equal(targets.of([0]), [NAN, 0, 0, NAN])  # perhaps there is a robin
    np.testing.assert_array_equal(targets.of([2]), [0, 0, 0, 1])
    np.testing.assert_array_equal(targets.of([0, 2]), [NAN, 0, 0, NAN])
    np.testing.assert_allclose(targets.of([0, 1]), [0.3, 1, 0, 0])
    smooth = Targets(df, CLASSES, masks=True, smooth=True, smoothing=0.1)
    np.testing.assert_allclose(smooth.of([0]), [NAN, *[0.9 * 0.0025 + 0.1 / 3] * 2], rtol=1e-5)
    assert not Targets(df, CLASSES).has_masks
