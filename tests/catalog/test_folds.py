"""Dealing recordings into folds."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.folds import assign_folds, group_rows

# Dealing into folds


@settings(deadline=None)
@given(st.lists(st.integers(0, 11), min_size=2, max_size=80), st.integers(2, 6), st.integers(0, 5))
def test_single_recordings_are_dealt_evenly(classes, n_folds, seed):
    folds = assign_folds(
        [f"bird{c}" for c in classes], np.arange(len(classes)), n_folds=n_folds, seed=seed
    )
    for name in set(classes):
        counts = np.bincount(folds[np.array(classes) == name], minlength=n_folds)
        assert counts.max() - counts.min() <= 1
    sizes = np.bincount(folds, minlength=n_folds)
    assert sizes.max() - sizes.min() <= 1


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 30)), min_size=6, max_size=80),
    st.integers(2, 6),
)
def test_groups_stay_together_and_no_fold_is_empty(rows, n_folds):
    labels = [f"bird{label}" for label, _ in rows]
    groups = np.unique([group for _, group in rows], return_inverse=True)[1]
    folds = assign_folds(labels, groups, n_folds=n_folds, seed=8)
    assert ((folds >= 0) & (folds < n_folds)).all()
    assert all(len(set(folds[groups == group])) == 1 for group in groups)
    if groups.max() + 1 >= n_folds:
        assert set(folds) == set(range(n_folds))


@settings(deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=8), st.integers(0, 30), st.integers(0, 9))
def test_single_rows_level_what_groups_left_uneven(group_sizes, n_single, seed):
    sizes = np.array(group_sizes + [1] * n_single)
    groups = np.repeat(np.arange(len(sizes)), sizes)
    folds = assign_folds(["bird"] * len(groups), groups, n_folds=3, seed=seed)
    in_groups = np.bincount(folds[sizes[groups] > 1], minlength=3)
    final = np.bincount(folds, minlength=3)
    assert final.max() - final.min() <= max(1, in_groups.max() - in_groups.min())
    if n_single >= 3 * in_groups.max():  # enough to fill every fold up to the fullest
        assert final.max() - final.min() <= 1


def test_folds_worked_by_hand():
    # Two authors of 2 rows each take a fold each; of the 4 single rows the empty fold gets 3 (level
    # 2, one odd row).
    folds = assign_folds(["a"] * 8, np.array([0, 0, 1, 1, 2, 3, 4, 5]), n_folds=3, seed=1)
    assert folds[0] == folds[1] != folds[2] == folds[3]
    assert sorted(np.bincount(folds, minlength=3)) == [2, 3, 3]


def test_singletons_of_many_species_spread_over_the_folds():
    folds = assign_folds([f"bird{i:02}" for i in range(70)], np.arange(70), n_folds=5, seed=8)
    assert np.bincount(folds).tolist() == [14] * 5
    assert folds.tolist() != sorted(folds.tolist())


def test_the_seed_alone_decides():
    labels = ["a", "b", "c"] * 30
    first, again, other = (
        assign_folds(labels, np.arange(90), n_folds=5, seed=seed) for seed in (8, 8, 9)
    )
    assert first.tolist() == again.tolist()
    assert first.tolist() != other.tolist()


def test_large_groups_are_spread_by_class():
    # 20 groups of 5 rows in 2 classes: 2 groups of each class a fold, 20 rows.
    labels = np.repeat(["a", "b"], 50)
    folds = assign_folds(labels, np.repeat(np.arange(20), 5), n_folds=5, seed=3)
    assert np.bincount(folds[:50]).tolist() == np.bincount(folds[50:]).tolist() == [10] * 5


# Groups of copies


def test_groups_follow_chains():
    ids = np.array([0, 0, 1, 2, 3, 4])
    contents = np.array([0, 1, 1, 2, 3, 4])
    authors = np.array([-1, -1, -1, 7, 7, -1])
    groups = group_rows(ids, contents, authors)
    assert groups[0] == groups[1] == groups[2]
    assert groups[3] == groups[4]
    assert len(set(groups)) == 3


@given(st.lists(st.tuples(st.integers(-1, 6), st.integers(-1, 6)), min_size=1, max_size=25))
def test_groups_equal_a_search_by_hand(rows):
    groups = group_rows(np.array([a for a, _ in rows]), np.array([b for _, b in rows]))
    tied = [
        {i} | {j for j, b in enumerate(rows) if any(x == y >= 0 for x, y in zip(a, b, strict=True))}
        for i, a in enumerate(rows)
    ]
    for start in range(len(rows)):
        reached, pending = set(), [start]
        while pending:
            if (i := pending.pop()) not in reached:
                reached.add(i)
                pending += tied[i]
        assert reached == set(np.flatnonzero(groups == groups[start]))
    assert set(groups) == set(range(max(groups) + 1))
