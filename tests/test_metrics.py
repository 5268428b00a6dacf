"""Scores against exact fractions, scikit-learn and numbers worked by hand; meters."""

import math
import warnings
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from metrics import (
    AverageMeter,
    MetricMeter,
    macro_average_precision,
    macro_roc_auc,
    padded_cmap,
    padded_cmap_floor,
)
from tests.reference import (
    exhaustive_floor,
    slow_macro_average_precision,
    slow_macro_roc_auc,
    slow_padded_cmap,
)

SCORES = [padded_cmap, macro_average_precision, macro_roc_auc]


def sklearn_padded_cmap(labels: np.ndarray, scores: np.ndarray, padding_factor: int) -> float:
    ones = np.ones((padding_factor, labels.shape[1]))
    return average_precision_score(
        np.vstack([labels, ones]), np.vstack([scores, ones]), average="macro"
    )


def labels_and_scores(rng, n_rows, n_classes, dtype=np.float64, levels=None):
    labels = (rng.random((n_rows, n_classes)) < rng.random(n_classes)).astype(np.uint8)
    scores = rng.random((n_rows, n_classes))
    if levels:
        scores = np.floor(scores * levels) / levels
    return labels, scores.astype(dtype)


# Padded cmAP --------------------------------------------------------------------------------------


def test_golden_numbers():
    # class 1: 5/6 + 1/6 * 6/7 = 41/42; class 2 has no positives: 1
    labels = [[1, 0], [0, 0], [0, 0]]
    scores = [[0.2, 0.3], [0.9, 0.2], [0.1, 0.1]]
    assert padded_cmap(labels, scores, 5) == pytest.approx(83 / 84, abs=1e-15)

    # class 1: both rows tie at 0.5: 5/6 + 1/6 * 6/7 = 41/42; the others 1
    labels = [[1, 0, 1], [0, 0, 1]]
    scores = [[0.5, 0.5, 0.9], [0.5, 0.1, 0.8]]
    assert padded_cmap(labels, scores, 5) == pytest.approx(125 / 126, abs=1e-15)


def test_score_of_one_ties_with_the_padding():
    # a negative at 1.0 joins the padding rows: precision 5/6 for them, 6/7 for the positive below
    tied = 5 / 6 * 5 / 6 + 1 / 6 * 6 / 7
    assert padded_cmap([[0], [1]], [[1.0], [0.5]], 5) == pytest.approx(tied, abs=1e-15)

    # a positive at 1.0 does no harm; nor does a negative just below 1, in either precision
    assert padded_cmap([[1], [0]], [[1.0], [0.5]], 5) == 1.0
    for dtype in (np.float32, np.float64):
        below_one = np.nextafter(dtype(1), dtype(0))
        assert padded_cmap([[1], [0]], np.array([[1.0], [below_one]], dtype=dtype), 5) == 1.0


@pytest.mark.parametrize("padding", [1, 3, 5])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_padded_cmap_matches_exact_fractions_with_ties(rng, padding, dtype):
    for _ in range(40):
        labels = rng.integers(0, 2, size=(rng.integers(1, 12), 4))
        levels = rng.integers(0, 5, size=labels.shape)
        scores = (levels / 4).astype(dtype)  # ties everywhere, some with the padding
        exact = slow_padded_cmap(labels, scores, padding)
        assert padded_cmap(labels, scores, padding) == pytest.approx(float(exact), abs=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("levels", [None, 10])
def test_all_scores_match_scikit_learn(rng, dtype, levels):
    labels, scores = labels_and_scores(rng, 2_000, 12, dtype, levels)
    labels[:, 3] = 0
    labels[:, 4] = 1
    assert padded_cmap(labels, scores, 5) == pytest.approx(
        sklearn_padded_cmap(labels, scores, 5), abs=1e-12
    )
    some = labels.any(axis=0)
    expected = average_precision_score(labels[:, some], scores[:, some], average="macro")
    assert macro_average_precision(labels, scores) == pytest.approx(expected, abs=1e-12)
    mixed = some & ~labels.all(axis=0)
    expected = roc_auc_score(labels[:, mixed], scores[:, mixed], average="macro")
    assert macro_roc_auc(labels, scores) == pytest.approx(expected, abs=1e-12)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_any_floats_match_exact_fractions(data):
    n_rows, n_classes = data.draw(st.integers(1, 8)), data.draw(st.integers(1, 3))
    width = data.draw(st.sampled_from([32, 64]))
    edge = [0.0, -0.0, 1.0, 2.0**-149, 2.0**-126, 0.5, 1 - 2.0**-24]
    score = st.one_of(st.sampled_from(edge), st.floats(0, 1, width=width))

    def draw_table(value):
        n = n_rows * n_classes
        values = data.draw(st.lists(value, min_size=n, max_size=n))
        return np.array(values).reshape(n_rows, n_classes)

    scores = draw_table(score).astype(f"float{width}")
    labels = draw_table(st.integers(0, 1))
    exact = float(slow_padded_cmap(labels, scores, 3))
    assert padded_cmap(labels, scores, 3) == pytest.approx(exact, abs=1e-12)


def test_padded_cmap_is_kept_by_row_order_and_by_monotone_maps_below_one(rng):
    labels, scores = labels_and_scores(rng, 300, 7, levels=40)
    value = padded_cmap(labels, scores)
    order = rng.permutation(300)
    assert padded_cmap(labels[order], scores[order]) == pytest.approx(value, abs=1e-14)
    assert padded_cmap(labels, scores**3 / 2) == pytest.approx(value, abs=1e-14)


def test_inputs_stay_as_they_are_whatever_their_layout(rng):
    labels, scores = labels_and_scores(rng, 50, 3, np.float32)
    copies = labels.copy(), scores.copy()
    value = padded_cmap(labels, scores)
    assert padded_cmap(np.asfortranarray(labels), np.asfortranarray(scores)) == value
    assert padded_cmap(labels[::-1][::-1], np.repeat(scores, 2, axis=0)[::2]) == value
    np.testing.assert_array_equal(labels, copies[0])
    np.testing.assert_array_equal(scores, copies[1])


@pytest.mark.parametrize("dtype", [bool, np.int64, np.float32])
def test_labels_of_any_dtype(rng, dtype):
    labels, scores = labels_and_scores(rng, 50, 3)
    assert padded_cmap(labels.astype(dtype), scores) == padded_cmap(labels, scores)


def test_mean_over_batches_would_be_another_number(rng):
    labels = (rng.random((320, 40)) < 0.02).astype(np.uint8)
    scores = np.clip(0.3 * labels + 0.6 * rng.random(labels.shape), 0, 0.99)
    batches = [slice(start, start + 4) for start in range(0, 320, 4)]
    per_batch = np.mean([padded_cmap(labels[batch], scores[batch]) for batch in batches])
    assert per_batch > padded_cmap(labels, scores) + 0.1


# What is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize("score", SCORES)
def test_refuses_what_would_be_scored_wrong(score):
    labels = np.array([[1, 0], [0, 1]])
    scores = np.array([[0.2, 0.3], [0.9, 0.2]])
    with pytest.raises(ValueError, match=r"scores\[1, 0\] is 4.5.*not logits"):
        score(labels, [[0.2, 0.3], [4.5, 0.2]])
    with pytest.raises(ValueError, match=r"scores\[0, 1\] is -0.3"):
        score(labels, [[0.2, -0.3], [0.5, 0.2]])
    with pytest.raises(ValueError, match=r"scores\[1, 1\] is nan"):
        score(labels, [[0.2, 0.3], [0.5, math.nan]])
    with pytest.raises(ValueError, match=r"labels\[0, 0\] is 0.995.*labels must be hard"):
        score([[0.995, 0], [0, 1]], scores)
    with pytest.raises(ValueError, match=r"labels\[1, 1\] is 2"):
        score([[1, 0], [0, 2]], scores)
    with pytest.raises(ValueError, match=r"labels\[0, 1\] is nan"):
        score([[1, math.nan], [0, 0]], scores)
    with pytest.raises(ValueError, match=r"got \(2, 2\) and \(1, 2\)"):
        score(labels, scores[:1])
    for shape in [(0, 3), (3, 0), (4,)]:
        with pytest.raises(ValueError, match="one shape"):
            score(np.zeros(shape, dtype=int), np.zeros(shape))


def test_padding_factor_below_one_is_refused():
    with pytest.raises(ValueError, match="padding_factor must be at least 1, got 0"):
        padded_cmap([[1]], [[0.5]], 0)


# Unpadded scores ----------------------------------------------------------------------------------


def test_unpadded_scores_match_the_slow_ones(rng):
    for _ in range(40):
        labels = rng.integers(0, 2, size=(rng.integers(2, 12), 3))
        labels[0] = [1, 0, 1]
        labels[1] = [0, 0, 1]
        scores = rng.integers(0, 4, size=labels.shape) / 4
        exact_ap = float(slow_macro_average_precision(labels, scores))
        exact_auc = float(slow_macro_roc_auc(labels, scores))
        assert macro_average_precision(labels, scores) == pytest.approx(exact_ap, abs=1e-12)
        assert macro_roc_auc(labels, scores) == pytest.approx(exact_auc, abs=1e-12)


def test_classes_that_cannot_be_scored_are_left_out():
    labels = np.array([[1, 0, 1], [0, 0, 1]])
    scores = np.array([[0.4, 0.9, 0.3], [0.6, 0.1, 0.2]])
    without_class_2 = (1 / 2 + 1) / 2
    assert macro_average_precision(labels, scores) == pytest.approx(without_class_2)
    assert macro_roc_auc(labels, scores) == 0.0  # class 1 alone
    nothing = np.zeros((2, 3), dtype=int)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert math.isnan(macro_average_precision(nothing, scores))
        assert math.isnan(macro_roc_auc(nothing, scores))
        assert math.isnan(macro_roc_auc(nothing + 1, scores))
        assert padded_cmap(nothing, scores) == 1.0


# Floors -------------------------------------------------------------------------------------------


def test_floor_of_one_positive_in_two_rows():
    # first or second of the two: (1 + 41/42) / 2
    assert padded_cmap_floor([1], 2, 5) == pytest.approx(83 / 84, abs=1e-15)
    assert exhaustive_floor(1, 2, 5) == Fraction(83, 84)


@pytest.mark.parametrize("padding", [0, 1, 3, 5])
def test_floor_is_the_mean_over_every_order(padding):
    for n_rows in range(1, 8):
        for n_positives in range(0 if padding else 1, n_rows + 1):
            exact = float(exhaustive_floor(n_positives, n_rows, padding))
            floor = padded_cmap_floor([n_positives], n_rows, padding)
            assert floor == pytest.approx(exact, abs=1e-14)


def test_floor_averages_the_classes_and_knows_the_empty_one():
    both = padded_cmap_floor([0, 3], 10, 5)
    assert both == pytest.approx((1 + padded_cmap_floor([3], 10, 5)) / 2, abs=1e-15)
    # without padding it leaves out the empty class, as macro_average_precision does
    assert padded_cmap_floor([0, 3], 10, 0) == padded_cmap_floor([3], 10, 0)
    assert math.isnan(padded_cmap_floor([0, 0], 10, 0))
    # rare among many: about 5 / (5 + n)
    assert padded_cmap_floor([20], 1_000_000, 5) == pytest.approx(5 / 25, abs=1e-3)


def test_random_scores_get_the_floor(rng):
    labels = np.zeros((60, 3), dtype=np.uint8)
    labels[:2, 0] = labels[:20, 1] = 1
    values = [padded_cmap(labels, rng.random(labels.shape)) for _ in range(2_000)]
    error = np.std(values) / math.sqrt(len(values))
    floor = padded_cmap_floor(labels.sum(axis=0), 60, 5)
    assert np.mean(values) == pytest.approx(floor, abs=5 * error)


@pytest.mark.parametrize(
    ("counts", "n_rows", "padding"),
    [([4], 3, 5), ([-1], 3, 5), ([0.5], 3, 5), ([], 3, 5), ([1], 0, 5), ([1], 3, -1)],
)
def test_floor_refuses_impossible_counts(counts, n_rows, padding):
    with pytest.raises(ValueError, match="must be|is needed|whole numbers"):
        padded_cmap_floor(counts, n_rows, padding)


# Meters -------------------------------------------------------------------------------------------


def test_average_meter_weighs_by_samples():
    meter = AverageMeter()
    assert math.isnan(meter.avg)
    meter.update(1.0, 32)
    meter.update(torch.tensor(5.0), 8)
    meter.update(math.nan, 0)  # no sample, no effect
    assert meter.avg == (32 + 40) / 40
    with pytest.raises(ValueError, match="must not be negative"):
        meter.update(1.0, -1)


def test_average_meter_goes_on_exactly(rng):
    values = rng.random(100)
    whole, first, second = AverageMeter(), AverageMeter(), AverageMeter()
    for value in values:
        whole.update(value, 3)
    for value in values[:41]:
        first.update(value, 3)
    state = first.state_dict()
    assert {type(value) for value in state.values()} <= {float, int}
    second.load_state_dict(state)
    for value in values[41:]:
        second.update(value, 3)
    assert second.avg == whole.avg
    assert second.count == 300


def test_metric_meter_scores_the_whole_epoch(rng):
    labels, scores = labels_and_scores(rng, 70, 5, np.float32)
    labels[:, 2] = 0
    meter = MetricMeter()
    for start in range(0, 70, 32):
        batch = slice(start, start + 32)
        meter.update(torch.from_numpy(scores[batch]), torch.from_numpy(labels[batch]).float())

    result = meter.compute()
    assert {type(value) for value in result.values()} == {float}
    counts = labels.sum(axis=0)
    for padding in (1, 3, 5):
        assert result[f"cmap_pad_{padding}"] == pytest.approx(
            sklearn_padded_cmap(labels, scores, padding), abs=1e-12
        )
        assert result[f"cmap_pad_{padding}_floor"] == padded_cmap_floor(counts, 70, padding)
    assert result["macro_ap"] == macro_average_precision(labels, scores)
    assert result["macro_ap_floor"] == padded_cmap_floor(counts, 70, 0)
    assert result["macro_roc_auc"] == macro_roc_auc(labels, scores)
    np.testing.assert_array_equal(meter.scores, scores)
    np.testing.assert_array_equal(meter.labels, labels)
    assert (meter.scores.dtype, meter.labels.dtype) == (np.float32, np.uint8)


def test_metric_meter_keeps_copies():
    scores = torch.tensor([[0.25, 0.5]])
    meter = MetricMeter()
    meter.update(scores, np.array([[1, 0]], dtype=np.uint8))
    scores.zero_()
    np.testing.assert_array_equal(meter.scores, [[0.25, 0.5]])


def test_metric_meter_refuses_at_once():
    meter = MetricMeter()
    with pytest.raises(ValueError, match="call update first"):
        meter.compute()
    with pytest.raises(ValueError, match=r"labels\[0, 0\] is 0.995"):
        meter.update(torch.tensor([[0.2]]), torch.tensor([[0.995]]))
    with pytest.raises(ValueError, match="not logits"):
        meter.update(torch.tensor([[-3.0]]), torch.tensor([[1]]))
    for dtype in (torch.float16, torch.bfloat16):
        with pytest.raises(ValueError, match="take the sigmoid in float32"):
            meter.update(torch.tensor([[0.5]], dtype=dtype), torch.tensor([[1]]))
    meter.update(torch.tensor([[0.2]]), torch.tensor([[1]]))
    with pytest.raises(ValueError, match="2 classes after batches of 1"):
        meter.update(torch.tensor([[0.2, 0.1]]), torch.tensor([[1, 0]]))
