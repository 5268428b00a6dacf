"""A wrong label among the demo's songs is found, by a probe in place of a trained network."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import compare
import evaluate
import probe
from examples.sample_songs import render_clip

NAMES = ["blackcap", "chiffchaff", "dunnock"]
WRONG = 14  # a dunnock that is labelled a blackcap


def write_songs(config, n: int = 36) -> pd.DataFrame:
    """Three of the demo's species in turn, 2 s each; WRONG has the label of another."""
    rows = []
    for number in range(n):
        species = number % 3
        label = NAMES[0] if number == WRONG else NAMES[species]
        path = config.train_np_dir / label / f"{number}.ogg.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(number)
        np.save(path, render_clip(species, rng=rng, seconds=2.0, start=0.2, stop=1.9))
        row = {"primary_label": label, "labels": label, "filepath": f"{label}/{path.name}"}
        rows.append(row | {"kfold": number // 3 % 3})
    return pd.DataFrame(rows)


@pytest.mark.slow
def test_a_wrong_label_is_among_the_first_three_of_the_doctor(config, capsys):
    config = replace(config, period=2.0, n_mels=64, folds=[0, 1, 2])
    table = write_songs(config)
    probe.run(table, config)
    folder = config.models_dir / "Exp_47_probe"
    table.to_csv(config.train_dataframe_path, index=False)
    curve = ["--learning-curve", "--table", str(config.train_dataframe_path)]
    assert evaluate.main([str(folder), "--draws", "50", *curve]) == 0

    doctor = pd.read_csv(folder / "evaluation" / "doctor.csv", keep_default_na=False)
    name = table["filepath"][WRONG].removesuffix(".npy")
    first = doctor.head(3).set_index("filename")
    assert name in first.index and first.loc[name, "seems_to_be"] == NAMES[2]
    said = capsys.readouterr().out
    assert "copies with another label: 0" in said and "10 more would bring" in said
    learning = pd.read_csv(folder / "evaluation" / "learning_curve.csv")
    assert learning["macro_ap"].iloc[0] < learning["macro_ap"].iloc[-2]
    page = (folder / "evaluation" / "evaluation.html").read_text(encoding="utf-8")
    assert page.count('"image":') == 18 and '"curve":[]' not in page  # the folds' own models

    other = replace(config, exp_id=48, seed=9)
    probe.run(table, other)
    folders = [str(config.models_dir / f"Exp_{number}_probe") for number in (47, 48)]
    assert compare.main([*folders, "--draws", "50"]) == 0
    assert "seed" in capsys.readouterr().out.partition("settings that differ")[2]
