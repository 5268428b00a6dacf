"""The probe at fewer recordings: which are chosen, and that it equals the probe at the end."""

import numpy as np
import pytest

import probe
from catalog import train_table
from model import pick_device
from tests.small_run import SPECIES
from training.learning_curve import N_REPEATS, measure_curve, subsets

LABELS = np.array(["a"] * 6 + ["b"] * 3 + ["c"])


def test_subsets_hold_so_many_of_each_species_and_grow():
    is_train = np.ones(10, bool)
    is_train[0] = False
    found = list(subsets(LABELS, is_train, seed=1, sizes=(1, 2, 9)))
    assert [(most, repeat) for most, repeat, _ in found] == [
        *((most, repeat) for repeat in range(N_REPEATS) for most in (1, 2)),
        (5, 0),
    ]
    for most, _, chosen in found:
        assert not chosen[0]
        counts = [int(chosen[label == LABELS].sum()) for label in "abc"]
        assert counts == [min(most, 5), min(most, 3), 1]
    for (_, _, fewer), (most, _, more) in zip(found[:-1], found[1:], strict=True):
        assert most == 1 or not (fewer & ~more).any()
    assert (found[0][2] != found[2][2]).any()  # another repeat, another choice


def test_the_last_of_the_curve_is_the_probe_itself(df, config):
    summary = probe.run(df, config)
    parts = train_table.split_fold(train_table.check_table(df), 0, [])
    curve = measure_curve(*parts, SPECIES, config, pick_device("cpu"))
    assert curve["most"].tolist() == [1, 2, 5] * N_REPEATS + [6]  # 24 rows, 3 species, 4 folds
    assert curve["recordings"].iloc[-1] == 6
    whole = summary["folds"]["0"]["macro_ap"]
    assert curve["macro_ap"].iloc[-1] == pytest.approx(whole, abs=1e-6)
    assert curve["macro_ap"].between(0, 1).all()
