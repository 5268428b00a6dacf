"""Calibration: the line that is fitted, what it does to scores, and what it is worth."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from configs import UserError
from inference.calibration import (
    N_BINS,
    Calibration,
    chance_error,
    choose,
    count,
    curves,
    fit,
    log_loss,
    out_of_sample,
    read_calibration,
    reliability,
    reliability_table,
    write_calibration,
)
from inference.out_of_fold import OutOfFold

NAMES = ("robin", "tit", "wren", "zebra")


def logit(p):
    return np.log(p / (1 - p))


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def miscalibrated(rng, n=3000, slope=2.5, offset=-1.0) -> OutOfFold:
    """Labels drawn with known probabilities; scores whose calibration is (slope, offset)."""
    z = rng.normal(-1, 2, (n, len(NAMES)))
    labels = (rng.random(z.shape) < sigmoid(z)).astype(np.uint8)
    scores = sigmoid((z - offset) / slope).astype(np.float32)
    names = np.array([f"{number // 2}.wav" for number in range(n)])
    return OutOfFold(scores, labels, names, np.arange(n) % 2, NAMES)


@pytest.mark.parametrize(("method", "offset"), [("platt", -1.0), ("temperature", 0.0)])
def test_the_expected_error_on_recordings_held_back_is_at_most_0_03(rng, method, offset):
    oof = miscalibrated(rng, offset=offset)
    found = curves(oof, out_of_sample(oof, method, seed=8))
    for which in ("pairs", "highest"):
        assert found[which, "before"].expected_error > 0.08
        assert found[which, "after"].expected_error <= 0.03
    fitted = fit(count(oof.labels, oof.scores), method)
    assert fitted.slope == pytest.approx(2.5, abs=0.15)
    assert fitted.offset == pytest.approx(offset, abs=0.15)


def test_the_line_is_that_of_a_logistic_regression(rng):
    oof = miscalibrated(rng, n=4000)
    fitted = fit(count(oof.labels, oof.scores), "platt")
    feature = logit(oof.scores.astype(float)).reshape(-1, 1)
    theirs = LogisticRegression(C=np.inf, tol=1e-8).fit(feature, oof.labels.reshape(-1))
    assert fitted.slope == pytest.approx(theirs.coef_[0, 0], abs=2e-4)
    assert fitted.offset == pytest.approx(theirs.intercept_[0], abs=2e-4)


def test_few_pairs_do_not_flatten_the_line(rng):
    oof = miscalibrated(rng, n=30)
    fitted = fit(count(oof.labels, oof.scores), "platt")
    feature = logit(oof.scores.astype(float)).reshape(-1, 1)
    theirs = LogisticRegression(C=np.inf, tol=1e-8).fit(feature, oof.labels.reshape(-1))
    assert fitted.slope == pytest.approx(theirs.coef_[0, 0], rel=2e-3)


def test_the_fit_of_a_part_has_not_seen_it(rng):
    oof = miscalibrated(rng, n=60)
    turned = oof.labels.copy()
    own = oof.filenames == "3.wav"
    turned[own] = 1 - turned[own]
    other = OutOfFold(oof.scores, turned, oof.filenames, oof.folds, NAMES)
    before, after = (out_of_sample(one, "platt", seed=1) for one in (oof, other))
    assert np.array_equal(before[own], after[own])  # both rows of the recording, and no others'
    assert not np.array_equal(before, after)


def test_apply_keeps_order_silence_and_the_limit():
    scores = np.array([0, 1e-6, 0.1, 0.5, 0.5000001, 0.9, np.nextafter(np.float32(1), 0)], "f4")
    found = Calibration(3.0, 1.0).apply(scores)
    assert found.dtype == np.float32 and found[0] == 0 and found.max() < 1
    assert (np.diff(found) >= 0).all()
    assert found[3] == pytest.approx(sigmoid(1.0))
    assert np.allclose(Calibration().apply(scores), scores, atol=1e-6)
    assert Calibration(2.0, -1.0).apply(np.zeros((2, 0), "f4")).shape == (2, 0)


@pytest.mark.parametrize("line", [Calibration(3.0, 1.0), Calibration(0.4, -2.0)])
def test_what_was_calibrated_can_be_undone(line, rng):
    scores = rng.uniform(0.02, 0.9, (50, 4)).astype(np.float32)
    scores[3] = 0
    assert np.allclose(line.undo(line.apply(scores)), scores, atol=1e-5)  # float32


def test_the_error_by_chance_is_that_of_drawn_labels(rng):
    for n, tolerance in ((40, 0.01), (200_000, 3e-4)):  # drawn, and by the formula
        scores = rng.beta(0.5, 1.0, n)
        drawn = [
            reliability(rng.random(n) < scores, scores).expected_error
            for _ in range(400 if n == 40 else 40)
        ]
        assert chance_error(scores, seed=1) == pytest.approx(np.mean(drawn), abs=tolerance)
    assert chance_error(np.zeros((0, 3)), seed=1) == 0


def test_what_is_drawn_as_before_is_what_was_given(rng):
    oof = miscalibrated(rng, n=300)
    given = Calibration(2.5, -1.0).apply(oof.scores)
    found = choose(oof, "platt", 8, given=given)
    assert found.curves["pairs", "before"].expected_error < 0.03 < 0.1
    assert choose(oof, "platt", 8).curves["pairs", "before"].expected_error > 0.08
    assert found.calibration == choose(oof, "platt", 8).calibration


def test_expected_error_by_hand():
    scores = np.array([0.1, 0.1, 0.5, 0.9])  # bins of 1 / 15: 1, 1, 7, 13
    labels = np.array([0, 1, 1, 1])
    curve = reliability(labels, scores)
    assert curve.n.sum() == 4 and curve.n[1] == 2 and N_BINS == 15
    assert curve.right[1] == 0.5 and curve.score[1] == pytest.approx(0.1)
    assert curve.expected_error == pytest.approx((2 * 0.4 + 0.5 + 0.1) / 4)


def test_nothing_to_learn_changes_nothing(rng):
    oof = miscalibrated(rng, n=50)
    none = np.zeros_like(oof.labels)
    assert fit(count(none, oof.scores), "platt") == Calibration()
    turned = fit(count(1 - oof.labels, oof.scores), "platt")
    assert turned.slope == 1 and turned.offset == 0  # never against the order of the scores
    apart = fit(count(np.array([[0], [1]]), np.array([[0.2], [0.8]])), "platt")
    assert np.isfinite([apart.slope, apart.offset]).all()
    lone = OutOfFold(oof.scores, oof.labels, np.repeat("a", 50), oof.folds, NAMES)
    assert np.array_equal(out_of_sample(lone, "platt", 1), oof.scores)


def test_the_better_method_is_chosen(rng):
    assert choose(miscalibrated(rng, offset=-2.0), "best", 8).calibration.method == "platt"
    oof = miscalibrated(rng)
    assert choose(oof, "temperature", 8).calibration.offset == 0
    flat = (logit(oof.scores.astype(float)), oof.labels)
    by_hand = -(flat[1] * np.log(sigmoid(flat[0])) + (1 - flat[1]) * np.log(sigmoid(-flat[0])))
    assert log_loss(oof.labels, oof.scores) == pytest.approx(by_hand.mean())


def test_the_table_lists_bins_that_hold_something(rng):
    table = reliability_table(choose(miscalibrated(rng, n=200), "best", 8).curves)
    assert (table["n"] > 0).all() and set(table["of"]) == {"pairs", "highest"}
    inside = table["mean_score"].between(table["low"] - 1e-9, table["high"] + 1e-9)
    assert inside.all()
    totals = table.groupby(["of", "calibrated"])["n"].sum()
    assert totals["pairs"].tolist() == [800, 800] and totals["highest"].tolist() == [200, 200]


def test_the_file_comes_back_and_fits_its_species_only(rng, tmp_path):
    verdict = choose(miscalibrated(rng), "platt", 8)
    path = tmp_path / "calibration.yaml"
    write_calibration(path, verdict, miscalibrated(rng))
    assert read_calibration(path, list(NAMES)) == verdict.calibration
    assert "pairs_after" in path.read_text()
    with pytest.raises(UserError, match="other species"):
        read_calibration(path, ["robin"])
    for text in ("slope: 1\n", "- 1\n", "a: [\n", "slope: x\noffset: 1\n"):
        path.write_text(text)
        with pytest.raises(UserError, match="no calibration of evaluate.py"):
            read_calibration(path, list(NAMES))
    path.write_text("{slope: 0, offset: 1, method: platt, class_names: []}")
    with pytest.raises(UserError, match="are no line"):
        read_calibration(path, [])
    with pytest.raises(UserError, match="cannot be read"):
        read_calibration(tmp_path / "nothing.yaml", [])
