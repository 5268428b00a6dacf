"""Dealing recordings into folds: groups stay together, classes are spread evenly."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def group_rows(*keys: np.ndarray) -> np.ndarray:
    """Number the groups of rows that share a value of any key, directly or through other rows.

    Args:
        keys: each (n_rows,) int from 0; -1 is shared with no other row. The result is alike,
            without -1.
    """
    rows, others = np.arange(len(keys[0])), []
    for values in keys:
        _, first, value = np.unique(values, return_index=True, return_inverse=True)
        others.append(np.where(values >= 0, first[value], rows))  # the first row of the same value
    edges = (np.tile(rows, len(keys)), np.concatenate(others))
    graph = coo_array((np.ones(len(edges[0]), dtype=bool), edges), shape=(len(rows), len(rows)))
    return connected_components(graph, directed=False)[1]


def assign_folds(
    labels: Sequence[str] | pd.Series, groups: np.ndarray, *, n_folds: int, seed: int
) -> np.ndarray:
    """Deal rows into folds, each class as evenly as its groups allow, no group in two folds.

    Groups of several rows go first, the largest before the others, each to the fold that has least
    of its classes (of these, the smallest). The single rows then level the counts of their class.
    Where all groups are single rows, a class's counts in two folds differ by one at most, and so do
    the folds' sizes. With n_folds groups or more, no fold is empty. Time is linear in the rows.

    Args:
        labels: (n_rows,) class names.
        groups: (n_rows,) int from 0, none left out.
        n_folds: >= 2; the result is (n_rows,) int, 0..n_folds-1.
        seed: of the shuffling.
    """
    rng = np.random.default_rng(seed)
    classes, _ = pd.factorize(np.asarray(labels, dtype=object), sort=True)
    folds = np.zeros(len(classes), dtype=np.int64)
    loads = np.zeros(n_folds, dtype=np.int64)  # rows placed so far
    counts = np.zeros((classes.max() + 1, n_folds), dtype=np.int64)  # the same by class
    sizes = np.bincount(groups)[groups]  # (n_rows,) rows in the row's group
    order = rng.permutation(len(classes))
    ranks = rng.permutation(groups.max() + 1)[groups]

    weights = (1 / np.bincount(classes))[classes]  # (n_rows,): classes count alike, large or small
    shared = order[sizes[order] > 1]
    shared = shared[np.lexsort((ranks[shared], -sizes[shared]))]
    for rows in _runs(shared, groups):
        # A sum down the rows, no matrix product: ties stay exact, so that every machine deals
        # alike.
        cost = (weights[rows, None] * counts[classes[rows]]).sum(axis=0)  # (n_folds,)
        least = np.flatnonzero(cost == cost.min())
        fold = least[loads[least].argmin()]
        folds[rows] = fold
        np.add.at(counts, (classes[rows], fold), 1)
        loads[fold] += len(rows)

    single = order[sizes[order] == 1]
    for rows in _runs(single[np.argsort(classes[single], kind="stable")], classes):
        # Each fold offers places at its count of the class, one above, and so on; the lowest are
        # taken.
        places = counts[classes[rows[0]]] + np.arange(len(rows))[:, None]  # (len(rows), n_folds)
        lightest_first = np.broadcast_to(loads, places.shape)
        taken = np.lexsort((lightest_first.ravel(), places.ravel()))[: len(rows)]
        folds[rows] = taken % n_folds
        loads += np.bincount(folds[rows], minlength=n_folds)
    return folds


def _runs(rows: np.ndarray, values: np.ndarray) -> list[np.ndarray]:
    """Cut rows wherever the value changes from one to the next."""
    return np.split(rows, np.flatnonzero(np.diff(values[rows])) + 1) if len(rows) else []
