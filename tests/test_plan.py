"""plan.py from recordings to settings that every script takes."""

import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest

import plan
import prepare_audios
import probe
import split_data
from configs import UserError, load_config, read_yaml
from inference.command_line import read_command_line as read_predict
from planning.rules import RULES

SMALL = "--base-model-name test_efficientnet --no-pretrained --device cpu --num-workers 0"
GIVEN = "--n-mels 32 --period 1 --max-bad-fraction 0.2 --folds 0"


@pytest.fixture(scope="module")
def written(planned_archive, tmp_path_factory) -> Path:
    """A copy of the archive with its plan."""
    root = tmp_path_factory.mktemp("written")
    shutil.copytree(planned_archive / "data", root / "data")
    flags = ["--root", str(root), "--output", str(root / "plan.yaml"), "--hours", "0.01"]
    assert plan.main([*flags, *SMALL.split(), *GIVEN.split()]) == 0
    return root


def run(script, path: Path, monkeypatch) -> int:
    monkeypatch.setattr(sys, "argv", [f"{script.__name__}.py", "--config", str(path)])
    return script.main()


def test_what_is_given_stands_in_the_plan(written):
    read = read_yaml(written / "plan.yaml")
    assert (read["n_mels"], read["period"], read["folds"]) == (32, 1.0, [0])
    assert read["train_audio_dir"] == str(written / "data/train_audio")
    assert read["epochs"] <= 10 and read["loss_name"] == "cross_entropy"
    assert (written / "plan.html").read_text().startswith("<!doctype html>")


def test_every_script_reads_the_plan(written):
    path = str(written / "plan.yaml")
    for script in ("prepare_audios", "split_data", "train", "probe"):
        assert load_config(["--config", path], script=script).n_mels == 32
    _, config = read_predict(["model", "sounds", "--output", "x.csv", "--config", path])
    assert config.root == written


def test_the_plan_leads_to_a_model(written, monkeypatch, capsys):
    path = written / "plan.yaml"
    assert run(prepare_audios, path, monkeypatch) == 0
    assert run(split_data, path, monkeypatch) in (0, None)
    assert len(pd.read_csv(written / "train.csv")) == 11
    assert run(probe, path, monkeypatch) == 0
    assert "macro AP" in capsys.readouterr().out
    assert (written / "models/Exp_47_probe/fold_0/valid_predictions.npz").exists()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.setting)
def test_a_rule_is_explained(rule, capsys):
    assert plan.main(["--explain", rule.setting.replace("_", "-")]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{rule.setting}\n")
    assert all(part in said for part in ("looks at", "turns at", "says", "evidence"))
    assert "{" not in said
    assert max(map(len, said.splitlines())) < 80


def test_a_setting_without_a_rule_is_said():
    with pytest.raises(UserError, match="unknown rule 'n_mel'.*n_mels"):
        plan.main(["--explain", "n_mel"])


def test_without_recordings_the_plan_says_so(tmp_path):
    with pytest.raises(UserError, match="no recordings"):
        plan.main(["--root", str(tmp_path), "--no-trial"])


def test_a_mistyped_flag_is_named():
    with pytest.raises(UserError, match="did you mean --hours"):
        plan.main(["--hour", "3"])
