"""Which rows an epoch shows: shares by counting, and a function of the generator alone."""

import numpy as np
import pandas as pd
import pytest

from catalog.sampling import read_stars, row_weights, rows_of_epoch
from configs import UserError

PRIMARY = np.array([0] * 1 + [1] * 4 + [2] * 25)


def shares(sampling: str, n_clips: int = 30_000) -> list[float]:
    weights = row_weights(PRIMARY, None, sampling=sampling, by_rating=False)
    rows = rows_of_epoch(30, n_clips, weights, np.random.default_rng(1))
    return (np.bincount(PRIMARY[rows]) / n_clips).tolist()


def test_species_come_by_their_rows_their_root_or_all_the_same():
    assert shares("rows") == pytest.approx([1 / 30, 4 / 30, 25 / 30], abs=1e-9)
    assert shares("square_root") == pytest.approx([1 / 8, 2 / 8, 5 / 8], abs=1e-3)
    assert shares("balanced") == pytest.approx([1 / 3] * 3, abs=1e-3)


def test_without_weights_every_row_comes_in_turn():
    assert row_weights(PRIMARY, None, sampling="rows", by_rating=False) is None
    rows = rows_of_epoch(5, 12, None, np.random.default_rng(0))
    assert rows.tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]


@pytest.mark.parametrize("sampling", ["square_root", "balanced"])
def test_a_row_comes_as_often_as_its_weight_says_but_for_rounding(sampling):
    weights = row_weights(PRIMARY, None, sampling=sampling, by_rating=False)
    for seed in range(20):
        rows = rows_of_epoch(30, 90, weights, np.random.default_rng(seed))
        expected = 90 * weights / weights.sum()
        assert (np.abs(np.bincount(rows, minlength=30) - expected) < 1).all()


def test_ratings_are_numbers_with_a_point_or_a_comma_and_nothing_else():
    stars = read_stars(pd.Series(["4,5", " 3.0", "", "0", None]))
    np.testing.assert_array_equal(stars, [4.5, 3.0, np.nan, 0.0, np.nan])
    with pytest.raises(UserError, match="2 ratings are no numbers, such as 'A'; .* A to E are 5"):
        read_stars(pd.Series(["4.5", "A", "no score"]))


def test_weights_by_ratings_that_are_not_there_are_said_to_have_no_effect(caplog):
    row_weights(PRIMARY, None, sampling="rows", by_rating=True)
    assert "the table has no column rating" in caplog.text


def test_ratings_weigh_the_rows_of_a_species_and_not_the_species():
    primary = np.array([0, 0, 0, 1])
    ratings = pd.Series(["5.0", "1.0", "", "1.0"])
    weights = row_weights(primary, ratings, sampling="rows", by_rating=True)
    # Stars 5, 1 and 3 for none: of three rows' worth, 5/9, 1/9 and 3/9.
    np.testing.assert_allclose(weights, [3 * 5 / 9, 3 / 9, 1.0, 1.0])
    balanced = row_weights(primary, ratings, sampling="balanced", by_rating=True)
    np.testing.assert_allclose(balanced, [5 / 9, 1 / 9, 3 / 9, 1.0])
    none = row_weights(primary, None, sampling="rows", by_rating=True)
    np.testing.assert_allclose(none, np.ones(4))


def test_the_generator_decides_and_nothing_else():
    weights = row_weights(PRIMARY, None, sampling="balanced", by_rating=False)
    first, again, other = (
        rows_of_epoch(30, 30, weights, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
