"""What predict.py takes from an evaluation: where it lies, its calibration, its thresholds."""

import logging

import numpy as np
import pandas as pd
import pytest
import yaml

from configs import UserError
from inference.calibration import Calibration
from inference.command_line import read_command_line
from inference.evaluated import (
    find_evaluation,
    is_from_evaluation,
    read_thresholds,
    settle_calibration,
)
from inference.window_scores import settle_scores

NAMES = ["robin", "tit", "wren"]
LINE = Calibration(2.0, 1.0)


def write_evaluation(folder, **content):
    folder.mkdir(parents=True)
    table = {
        "species": ["robin", "tit"],
        "best_f1_threshold": [0.25, np.nan],
        "threshold_precision_0.9": [0.75, np.nan],
    }
    pd.DataFrame(table).to_csv(folder / "species.csv", index=False)
    line = {"slope": 2.0, "offset": 1.0, "method": "platt", "class_names": NAMES} | content
    (folder / "calibration.yaml").write_text(yaml.safe_dump(line))
    return folder


def flags_of(*words):
    flags, config = read_command_line(["m", "r", "--output", "o", *words])
    settle_scores(flags, config)
    return flags


def test_an_evaluation_is_found_in_or_above_the_model(tmp_path):
    fold = tmp_path / "Exp_1" / "fold_0"
    fold.mkdir(parents=True)
    (fold / "best.pth").touch()
    assert find_evaluation(fold, None) is None
    above = write_evaluation(tmp_path / "Exp_1" / "evaluation")
    for model in (tmp_path / "Exp_1", fold, fold / "best.pth"):
        assert find_evaluation(model, None) == above
    own = write_evaluation(fold / "evaluation")
    assert find_evaluation(fold, None) == own and find_evaluation(fold, above) == above
    write_evaluation(tmp_path / "evaluation")
    (tmp_path / "Exp_2").mkdir()
    assert find_evaluation(tmp_path / "Exp_2", None) is None  # of another experiment
    with pytest.raises(UserError, match="no species.csv in it"):
        find_evaluation(fold, tmp_path)


def test_scores_are_calibrated_where_an_evaluation_is_there(tmp_path, caplog):
    folder = write_evaluation(tmp_path / "evaluation")
    with caplog.at_level(logging.INFO, "birdclef"):
        assert settle_calibration(flags_of(), folder, NAMES) == LINE
    assert "scores are calibrated by" in caplog.text and "--calibration off" in caplog.text
    assert settle_calibration(flags_of(), None, NAMES) is None
    assert settle_calibration(flags_of("--calibration", "off"), folder, NAMES) is None
    path = str(folder / "calibration.yaml")
    assert settle_calibration(flags_of("--calibration", path), None, NAMES) == LINE


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--average", "rank"], "ranks are no probabilities"),
        (["--events"], "events are found in scores as they are"),
        (["--score", "mix"], "fitted to clipwise scores"),
    ],
)
def test_other_scores_are_left_as_they_are(tmp_path, words, said, caplog):
    folder = write_evaluation(tmp_path / "evaluation")
    with caplog.at_level(logging.INFO, "birdclef"):
        assert settle_calibration(flags_of(*words), folder, NAMES) is None
    assert said in caplog.text
    path = str(folder / "calibration.yaml")
    with pytest.raises(UserError, match=said):
        settle_calibration(flags_of(*words, "--calibration", path), None, NAMES)


def test_a_calibration_of_other_species_is_not_taken(tmp_path, caplog):
    folder = write_evaluation(tmp_path / "evaluation", class_names=["zebra"])
    assert settle_calibration(flags_of(), folder, NAMES) is None
    assert "other species" in caplog.text
    with pytest.raises(UserError, match="other species"):
        path = str(folder / "calibration.yaml")
        settle_calibration(flags_of("--calibration", path), None, NAMES)


def test_thresholds_of_each_species_are_calibrated_as_scores_are(tmp_path):
    folder = write_evaluation(tmp_path / "evaluation")
    assert read_thresholds("best-f1", folder, NAMES, None).tolist() == [0.25, 0.5, 0.5]
    assert read_thresholds("precision=0.9", folder, NAMES, None).tolist() == [0.75, 1, 1]
    found = read_thresholds("best-f1", folder, NAMES, LINE)
    assert found[0] == LINE.apply(np.float32([0.25]))[0] and found[1] == 0.5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("precision=0.8", "run evaluate.py again with --precision 0.8"),
        ("precision=2", "a precision lies above 0 and is at most 1"),
        ("precision=x", "a precision lies above 0 and is at most 1"),
    ],
)
def test_a_threshold_that_the_evaluation_lacks_is_refused(tmp_path, text, said):
    folder = write_evaluation(tmp_path / "evaluation")
    assert is_from_evaluation(text) and not is_from_evaluation("0.5")
    with pytest.raises(UserError, match=said):
        read_thresholds(text, folder, NAMES, None)
    with pytest.raises(UserError, match="needs an evaluation of the model"):
        read_thresholds(text, None, NAMES, None)
    with pytest.raises(UserError, match="none of its 2 species"):
        read_thresholds("best-f1", folder, ["zebra"], None)
