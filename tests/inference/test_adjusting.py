"""Scores adjusted after models are averaged, against slow references."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs import UserError
from inference.adjusting import (
    Adjustment,
    gaussian_weights,
    read_by_species,
    read_neighbours,
    smooth,
)
from inference.calibration import Calibration

TABLE = st.lists(st.lists(st.integers(0, 8), min_size=2, max_size=2), max_size=7)
CLASSES = ["Great tit", "NA", "007"]


def slow_smooth(rows: list[list[float]], weights: list[float]) -> list[list[float]]:
    """Window by window and class by class, with every pair of windows looked at."""
    smoothed = []
    for here in range(len(rows)):
        row = []
        for species in range(len(rows[here])):
            total = weighed = 0.0
            for there in range(len(rows)):
                distance = abs(here - there)
                weight = 1.0 if distance == 0 else 0.0
                if 0 < distance <= len(weights):
                    weight = weights[distance - 1]
                total += weight * rows[there][species]
                weighed += weight
            row.append(total / weighed)
        smoothed.append(row)
    return smoothed


@given(TABLE, st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), max_size=9))
def test_smoothing_is_a_weighted_mean_of_the_neighbours_there_are(rows, weights):
    scores = np.array(rows, np.float32).reshape(-1, 2) / 9
    wanted = slow_smooth(scores.tolist(), weights)
    np.testing.assert_allclose(smooth(scores, weights), np.reshape(wanted, (-1, 2)), atol=1e-6)


def test_smoothing_by_hand():
    scores = np.array([[0.0], [0.6], [0.3]], np.float32)
    found = smooth(scores, [0.5])[:, 0].tolist()
    assert found == pytest.approx([0.3 / 1.5, (0 + 0.6 + 0.15) / 2, (0.3 + 0.3) / 1.5])
    found = smooth(scores, [0.5, 0.25])[:, 0].tolist()
    assert found == pytest.approx([0.375 / 1.75, 0.375, 0.6 / 1.75])


def test_a_gaussian_has_its_weights_by_name():
    weights = gaussian_weights(1.0)
    assert weights == pytest.approx([math.exp(-0.5), math.exp(-2), math.exp(-4.5)])
    assert read_neighbours(["gaussian"]) == weights
    assert read_neighbours(["gaussian", "2"])[3] == pytest.approx(math.exp(-2))
    assert read_neighbours(["0.5", "0.25"]) == (0.5, 0.25) and read_neighbours([]) == ()


@pytest.mark.parametrize("words", [["2"], ["-1"], ["x"], ["gaussian", "0"], ["gaussian", "1", "2"],
                                   ["nan"]])  # fmt: skip
def test_other_weights_are_refused(words):
    with pytest.raises(UserError, match="give weights from 0 to 1, or gaussian"):
        read_neighbours(words)


@given(TABLE.filter(len), st.sampled_from([0.0, 0.2, 1.0]))
def test_leaning_moves_each_score_to_the_recordings_maximum_of_its_class(rows, lean):
    scores = np.array(rows, np.float32) / 9
    found = Adjustment(lean=lean).apply(scores)
    for species in range(2):
        highest = max(row[species] / 9 for row in rows)
        for number, row in enumerate(rows):
            wanted = (1 - lean) * row[species] / 9 + lean * highest
            assert found[number, species] == pytest.approx(wanted, abs=1e-6)


def test_powers_come_first_then_neighbours_then_the_lean():
    scores = np.array([[0.5, 0.5], [0.0, 0.25]], np.float32)
    found = Adjustment(np.array([2.0, 0.5]), (1.0,), 0.5).apply(scores)
    root, half = math.sqrt(0.5), 0.5
    means = [0.125, (root + half) / 2]  # of both windows alike, so that leaning changes nothing
    np.testing.assert_allclose(found, [means, means], rtol=1e-6)


def test_nothing_asked_changes_nothing_and_scores_stay_below_one(rng):
    scores = rng.random((5, 3), np.float32)
    assert np.array_equal(Adjustment().apply(scores), scores)
    highest = np.full((3, 2), 1 - 2**-24, np.float32)
    for change in (Adjustment(np.array([1e-9, 1])), Adjustment(None, (1.0,)), Adjustment(lean=1)):
        assert (change.apply(highest) < 1).all() and change.apply(highest).dtype == np.float32
    assert Adjustment(np.ones(2), (1.0,), 1.0).apply(highest[:0]).shape == (0, 2)


def test_a_number_or_a_table_by_species(tmp_path):
    path = tmp_path / "species.csv"
    path.write_text("species,best_f1_threshold,n\nGreat tit,0.25,3\n007,,0\nDodo,0.9,1\n")
    columns = ["threshold", "best_f1_threshold"]
    assert read_by_species("0.3", columns, CLASSES, 0.5).tolist() == [0.3] * 3
    assert read_by_species(str(path), columns, CLASSES, 0.5).tolist() == [0.25, 0.5, 0.5]
    path.write_text("species;threshold\nNA;0,75\nNA;0,75\n")  # as spreadsheets in Europe write
    assert read_by_species(str(path), columns, CLASSES, 0.5).tolist() == [0.5, 0.75, 0.5]
    path.write_text("\ufeffspecies,threshold,best_f1_threshold\nNA,0.75,0.1\n")
    assert read_by_species(str(path), columns, CLASSES, 0.5).tolist() == [0.5, 0.75, 0.5]


def test_species_of_a_table_may_have_accents_as_a_mac_writes_them(tmp_path):
    path = tmp_path / "species.csv"
    path.write_text("species,threshold\nE\u0301tourneau,0.25\n", encoding="utf-8")
    found = read_by_species(str(path), ["threshold"], ["\u00c9tourneau"], 0.5)
    assert found.tolist() == [0.25]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("species,score\nNA,1\n", "needs the columns species and threshold; has species, score"),
        ("species,threshold\nDodo,1\n", "none of its 1 species is a class of the model"),
        ("species,threshold\nNA,high\n", "column threshold: could not convert"),
        ("species,threshold\nNA,0.4\nNA,0.5\n", "NA has two numbers, 0.4 and 0.5"),
        ("", "neither a number nor a CSV that can be read: .* it is empty"),
    ],
)
def test_tables_that_do_not_fit_are_refused(tmp_path, text, message):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        read_by_species(str(tmp_path / "t.csv"), ["threshold"], CLASSES, 0.5)
    with pytest.raises(UserError, match="neither a number nor a CSV that can be read"):
        read_by_species(str(tmp_path / "none.csv"), ["threshold"], CLASSES, 0.5)


def test_calibration_comes_first():
    line = Calibration(2.0, 1.0)
    scores = np.array([[0.25, 0.5], [0.0, 0.9]], np.float32)
    found = Adjustment(powers=np.array([2.0, 1.0]), calibration=line).apply(scores)
    expected = Adjustment(powers=np.array([2.0, 1.0])).apply(line.apply(scores))
    assert np.array_equal(found, expected) and not np.array_equal(found, scores)
