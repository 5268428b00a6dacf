"""The teacher's vector of a clip: of the seconds that it covers, mixed as clips are mixed."""

import numpy as np
import pandas as pd
import pytest

from catalog.teacher_targets import Span, TeacherTargets
from catalog.vectors import About, Vectors

# Windows of 1 s: the middles lie at 0.5, 1.5 and 2.5 s
VECTORS = Vectors(
    np.array(["a/1.ogg"] * 3 + ["b/2.ogg"]),
    np.array([0.0, 1.0, 2.0, 0.0]),
    np.array([[3, 0], [0, 4], [0, 2], [0, 0]], np.float32),
    About("a network", "CC0", 1.0),
)
DF = pd.DataFrame({"filepath": ["a/1.ogg.npy", "b/2.ogg.npy", "c/3.ogg.npy"]})
NEAR = Span(0.0, 1.0)
SLANTED = np.array([3, 4], np.float32) / 5


@pytest.mark.parametrize(
    ("span", "expected"),
    [
        (NEAR, [1, 0]),
        (Span(0.0, 2.0), SLANTED),  # the mean of both, scaled to length 1
        (Span(1.6, 2.4), [0, 1]),  # no middle in it: the nearest
    ],
)
def test_a_clip_takes_the_direction_of_the_seconds_that_it_covers(span, expected):
    found = TeacherTargets(VECTORS, DF).of([0], [span])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_seconds_of_a_row_that_is_a_window_begin_where_it_does():
    windows = pd.DataFrame({"filepath": ["a/1.ogg.npy"] * 2, "start_s": [0.0, 1.0]})
    teacher = TeacherTargets(VECTORS, windows)
    assert teacher.of([1], [NEAR]).tolist() == [0, 1] != teacher.of([0], [NEAR]).tolist()


def test_clips_heard_together_are_averaged_and_mixup_weighs_them():
    teacher = TeacherTargets(VECTORS, DF)
    spans = [NEAR, Span(1.0, 2.0)]
    np.testing.assert_allclose(teacher.of([0, 0], spans), [0.5, 0.5])
    np.testing.assert_allclose(teacher.of([0, 0], spans, 0.3), [0.3, 0.7], atol=1e-6)


@pytest.mark.parametrize("other", [1, 2, 9])  # of no length, not in the file, a background
def test_what_has_no_vector_has_none_and_no_mix_with_it_has(other):
    teacher = TeacherTargets(VECTORS, DF)
    assert np.isnan(teacher.of([other], [NEAR])).all()
    assert np.isnan(teacher.of([0, other], [NEAR, NEAR])).all()
    assert np.isnan(teacher.of([0, other], [NEAR, NEAR], 0.5)).all()
    assert teacher.n_known == 2
