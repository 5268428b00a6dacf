"""planning/shipping.py: thresholds, folders and the page."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from configs import Config, UserError
from inference.calibration import Calibration
from inference.outputs import read_threshold
from inference.scorers import open_models
from planning.contest import hold
from planning.shipping import gather_models, how_to_predict, predict_command, write_thresholds
from tests.made_up_scores import made_up
from tests.predicting import save_model, tiny


def test_thresholds_are_those_of_the_best_f1(tmp_path, rng):
    oof = made_up(rng, n=60, noise=0.9)
    assert write_thresholds(tmp_path / "t.csv", oof) == 3
    table = pd.read_csv(tmp_path / "t.csv").set_index("species")["best_f1_threshold"]
    for number, species in enumerate(oof.class_names):
        labels, scores = oof.labels[:, number], oof.scores[:, number]
        best = max(f1_score(labels, scores >= value) for value in scores)
        assert f1_score(labels, scores >= table[species] - 1e-6) == pytest.approx(best)


def test_species_of_few_recordings_share_the_threshold_of_all(tmp_path, rng):
    oof = made_up(rng, n=60, noise=0.9)
    few = np.flatnonzero(oof.labels[:, 1])[4:]
    oof.labels[few, 1] = 0  # four are left
    assert write_thresholds(tmp_path / "t.csv", oof) == 2
    table = pd.read_csv(tmp_path / "t.csv").set_index("species")["best_f1_threshold"]
    labels, scores = oof.labels.ravel(), oof.scores.ravel()
    best = max(f1_score(labels, scores >= value) for value in scores)
    shared = table[oof.class_names[1]]
    assert f1_score(labels, scores >= shared - 1e-6) == pytest.approx(best)

    oof.labels[:] = 0
    assert write_thresholds(tmp_path / "t.csv", oof) == 0
    assert len(pd.read_csv(tmp_path / "t.csv")) == 0


def test_thresholds_are_calibrated_as_the_scores_are(tmp_path, rng):
    oof = made_up(rng, n=60)
    path = tmp_path / "t.csv"
    write_thresholds(path, oof)
    raw = read_threshold(str(path), None, oof.class_names, None)
    line = Calibration(slope=0.5, offset=-1.0)
    calibrated = read_threshold(str(path), None, oof.class_names, line)
    assert raw is not None and calibrated is not None
    logits = 0.5 * np.log(raw / (1 - raw)) - 1
    assert calibrated == pytest.approx(1 / (1 + np.exp(-logits)), rel=1e-4)


def test_two_experiments_become_one_model(tmp_path):
    name = "Exp_47_fold_0_epoch_1_loss_0.50000_cmap_0.50000.pth"
    folders = [tmp_path / "Exp_1", tmp_path / "Exp_2"]
    for folder in folders:
        for fold in ("fold_0", "fold_1"):
            (folder / fold).mkdir(parents=True)
            save_model(folder / fold / name, tiny())
    assert gather_models(tmp_path / "best", folders[:1]) == folders[0]
    assert not (tmp_path / "best").exists()
    for _ in range(2):  # made anew each time
        best = gather_models(tmp_path / "best", folders)
        assert sorted(path.name for path in best.iterdir()) == [f"fold_{k}" for k in range(4)]
    assert len(open_models(best, tiny()).models) == 4


def test_a_fold_without_a_model_is_said(tmp_path):
    (tmp_path / "Exp_1/fold_0").mkdir(parents=True)
    with pytest.raises(UserError, match="no checkpoint"):
        gather_models(tmp_path / "best", [tmp_path / "Exp_1"] * 2)


def test_the_page_has_the_command_and_every_candidate(rng):
    oof = made_up(rng, n=60)
    entries, winner = hold({"probe": oof, "planned": oof}, 100, 8)
    command = predict_command(Path("models/a b"), Path("t.csv"))
    folders = {"probe": Path("models/Exp_1_probe"), "planned": Path("models/Exp_1")}
    page = how_to_predict(entries, winner, folders, command, Config(folds=[0, 1]), n_own=2)
    assert "'models/a b'" in command and f"```bash\n{command}\n```" in page
    assert (
        "**probe**: models/Exp_1_probe." in page
        and "60 held-back recordings, which hold 3 of 3" in page
    )
    assert "of fold 0, 1, by macro" in page and "2 species have one of their own" in page
    assert page.count("\n| ") == 5 and "Not told apart from the best single one: planned" in page
    assert "is found twice" not in page
    high = [replace(one, score=(0.33, 0.34, 0.48)) for one in entries]
    page = how_to_predict(high, winner, folders, command, Config(folds=[0, 1]), n_own=2)
    assert "one that is drawn twice is found twice" in page
