"""compare.py: differences that are there, that are not, and what it refuses."""

import numpy as np
import pandas as pd
import pytest

import compare
from configs import UserError
from inference.blend_file import read_blend
from inference.out_of_fold import OutOfFold
from tests.made_up_scores import made_up, write


def test_an_experiment_that_is_better_is_told_from_one_that_is_not(tmp_path, rng, capsys):
    good, bad = made_up(rng, n=300, noise=0.9), made_up(rng, n=300, noise=0.99)
    bad.scores[:120] = rng.random((120, 3)) * 0.9
    write(tmp_path / "Exp_1", good)
    write(tmp_path / "Exp_2", bad)
    output = tmp_path / "differences.csv"
    flags = ["--draws", "200", "--output", str(output)]
    compare.main([str(tmp_path / "Exp_1"), str(tmp_path / "Exp_2"), *flags])
    table = pd.read_csv(output).set_index("metric")
    assert list(table["experiment"].unique()) == ["Exp_2"]
    assert (table["high"] < 0).all() and (table["p_noise"] < 0.05).all()
    species = [name for name in table.index if name.startswith("average_precision of ")]
    assert species == [f"average_precision of {name}" for name in ("robin", "tit", "wren")]
    assert table.loc[species, "difference"].mean() == pytest.approx(
        table.loc["macro_ap", "difference"]
    )
    assert "3 differences with noise below 0.05, where chance makes 0.2" in capsys.readouterr().out


def test_a_species_without_a_recording_has_no_difference(tmp_path, rng, capsys):
    oof = made_up(rng)
    oof.labels[:, 2] = 0
    for name in ("Exp_1", "Exp_2"):
        write(tmp_path / name, oof)
    output = tmp_path / "differences.csv"
    flags = ["--draws", "20", "--output", str(output)]
    compare.main([str(tmp_path / "Exp_1"), str(tmp_path / "Exp_2"), *flags])
    row = pd.read_csv(output).set_index("metric").loc["average_precision of wren"]
    assert row[["difference", "low", "high", "p_noise"]].isna().all()
    assert "species by species: 0 differences" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"class_names": ("robin", "tit", "zebra")}, "other classes: wren, zebra"),
        ({"folds": np.zeros(90, int)}, "other folds trained"),
        ({"filenames": np.array([f"{k}.wav" for k in range(90)])}, "other recordings"),
        ({"labels": np.ones((90, 3), np.uint8)}, "other labels"),
    ],
)
def test_what_cannot_be_compared_is_refused(tmp_path, rng, change, said):
    oof = made_up(rng)
    write(tmp_path / "Exp_1", oof)
    write(tmp_path / "Exp_2", OutOfFold(**vars(oof) | change))
    with pytest.raises(UserError, match=said):
        compare.main([str(tmp_path / "Exp_1"), str(tmp_path / "Exp_2"), "--draws", "2"])


def test_a_blend_is_written_for_predict(tmp_path, rng, capsys):
    one = made_up(rng, n=90, noise=0.9)
    other = OutOfFold(**vars(one) | {"scores": made_up(rng, n=90, noise=0.9).scores})
    write(tmp_path / "Exp_1", one)
    write(tmp_path / "Exp_2", other)
    path = tmp_path / "blend.yaml"
    flags = ["--draws", "20", "--blend", str(path)]
    assert compare.main([str(tmp_path / "Exp_1"), str(tmp_path / "Exp_2"), *flags]) == 0
    weights = dict(read_blend(path))
    assert set(weights) <= {tmp_path / "Exp_1", tmp_path / "Exp_2"}
    assert sum(weights.values()) == pytest.approx(1)
    assert "on held-out folds" in capsys.readouterr().out
