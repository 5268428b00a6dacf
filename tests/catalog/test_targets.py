"""Targets of rows heard together: smoothing, secondary birds, recordings without a bird."""

import math

import numpy as np
import pandas as pd
import pytest

from catalog.targets import Targets
from configs import UserError

NAMES = ["a", "b", "c"]
DF = pd.DataFrame(
    {
        "primary_label": ["a", "b", "nocall"],
        "labels": ["a c", "b", ""],
    }
)


def of(rows: list[int], **settings) -> list[float]:
    return Targets(DF, NAMES, **settings).of(rows).tolist()


def test_hard_and_smooth():
    assert of([0]) == pytest.approx([1.0, 0.0, 0.3])
    assert of([0], smooth=True) == pytest.approx([0.995, 0.0025, 0.3])
    assert of([0, 1]) == pytest.approx([1.0, 1.0, 0.3])


def test_smoothing_by_a_number():
    assert of([1], smoothing=0.1) == pytest.approx([0.1 / 3, 0.9 + 0.1 / 3, 0.1 / 3])
    assert sum(of([1], smoothing=0.3)) == pytest.approx(1.0)
    assert of([1], smoothing=0.2, no_bird_class=True)[3] == pytest.approx(0.05)


def test_secondary_birds_soft_positive_or_masked():
    assert of([0], secondary=0.7) == pytest.approx([1.0, 0.0, 0.7])
    assert of([0], secondary=1.0) == [1.0, 0.0, 1.0]
    masked = of([0, 1], secondary=math.nan)
    assert masked[:2] == [1.0, 1.0] and math.isnan(masked[2])


def test_a_primary_bird_wins_over_a_mask():
    df = pd.DataFrame({"primary_label": ["a", "c"], "labels": ["a c", "c"]})
    assert Targets(df, NAMES, secondary=math.nan).of([0, 1]).tolist() == [1.0, 0.0, 1.0]


def test_without_a_bird_all_is_zero_or_the_last_column_is_one():
    assert of([2]) == [0.0, 0.0, 0.0]
    assert of([2], no_bird_class=True) == [0.0, 0.0, 0.0, 1.0]
    assert of([7], no_bird_class=True) == [0.0, 0.0, 0.0, 1.0]  # a background beyond the rows
    assert of([1, 2, 7], no_bird_class=True) == [0.0, 1.0, 0.0, 0.0]
    targets = Targets(DF, NAMES)
    assert [targets.is_without_bird(row) for row in (0, 1, 2, 3)] == [False, False, True, True]


def test_a_label_outside_the_classes():
    with pytest.raises(UserError, match="primary_label b is not among the 1 classes"):
        Targets(DF, ["a"])
    assert np.array_equal(Targets(DF, ["a", "b"]).of([0]), np.float32([1, 0]))
