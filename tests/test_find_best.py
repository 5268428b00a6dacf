"""find_best.py: what it trains, what it takes, and that its command predicts."""

import json
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

import find_best
from configs import Config, UserError
from tests.in_process import run_here
from tests.made_up_scores import made_up, write
from tests.small_run import make_recordings, tiny_config


@pytest.fixture
def prepared(tmp_path) -> Path:
    """A prepared archive and its settings, plan.yaml."""
    config = tiny_config(tmp_path, epochs=1, folds=[0])
    table = make_recordings(config)
    table["filename"] = table["filepath"].str.removesuffix(".npy")
    table.to_csv(config.train_dataframe_path, index=False)
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(config.to_dict()))
    return tmp_path


def pretend(monkeypatch, scores) -> list[str]:
    """Let a script leave scores and no model; return the scripts that were run."""
    run = []

    def script(command, check):
        assert not check
        config = Config(**yaml.safe_load(Path(command[3]).read_text()))
        name = Path(command[1]).stem
        folder = config.exp_dir if name == "train" else config.exp_dir.with_name("Exp_47_probe")
        run.append(f"{name} {config.exp_id}")
        write(folder, scores[folder.name])
        for fold in folder.iterdir():
            stored = {"config": config.to_dict()}
            (fold / "config.yaml").write_text(yaml.safe_dump(stored))
        (folder / "summary.json").write_text(json.dumps({"folds": {"0": {}, "1": {}}}))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(find_best.subprocess, "run", script)
    return run


def test_the_probe_is_shipped_where_it_wins(prepared, monkeypatch, rng, capsys):
    good = made_up(rng, n=120, noise=0.3)
    bad = made_up(rng, n=120, noise=0.3)
    bad.scores[:70] = 0.9 * rng.random((70, 3))
    run = pretend(monkeypatch, {"Exp_47_probe": good, "Exp_47": bad, "Exp_48": bad})
    flags = ["--config", str(prepared / "plan.yaml"), "--draws", "100"]
    flags += ["--output", str(prepared / "how.md")]
    assert find_best.main(flags) == 0
    assert run == ["probe 47", "train 47", "train 48"]
    assert "Exp_47_probe my/recordings" in (prepared / "how.md").read_text()
    assert "the winner: probe" in capsys.readouterr().out
    thresholds = (prepared / "models/Exp_47_thresholds.csv").read_text()
    assert thresholds.startswith("species,best_f1_threshold")

    assert find_best.main(flags) == 0
    assert len(run) == 3  # all were taken
    assert capsys.readouterr().out.count("taken from") == 3


def test_a_taken_number_is_refused_before_anything_is_trained(prepared, monkeypatch, rng):
    run = pretend(monkeypatch, {"Exp_48": made_up(rng, n=30)})
    settings = yaml.safe_load((prepared / "plan.yaml").read_text())
    other = prepared / "other.yaml"
    other.write_text(yaml.safe_dump(settings | {"exp_id": 48, "epochs": 3}))
    find_best.subprocess.run(["python", "train.py", "--config", str(other)], check=False)
    with pytest.raises(UserError, match="Exp_48/fold_0/config.yaml: trained with another .*epochs"):
        find_best.main(["--config", str(prepared / "plan.yaml")])
    assert run == ["train 48"]


def test_a_script_that_stops_is_said(prepared, monkeypatch):
    failed = subprocess.CompletedProcess([], 2)
    monkeypatch.setattr(find_best.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(UserError, match="probe.py stopped with status 2"):
        find_best.main(["--config", str(prepared / "plan.yaml")])


def test_without_a_table_nothing_is_trained(tmp_path):
    with pytest.raises(UserError, match="split_data.py first"):
        find_best.main(["--root", str(tmp_path)])


@pytest.mark.slow
def test_its_command_predicts(prepared, monkeypatch):
    monkeypatch.chdir(prepared)
    flags = "--config plan.yaml --neighbours 0 --draws 100".split()
    assert find_best.main(flags) == 0
    command = (prepared / "how_to_predict.md").read_text().split("```bash\n")[1].split("\n```")[0]

    (prepared / "my/recordings").mkdir(parents=True)
    time = np.arange(64_000) / 32_000
    tone = 0.5 * np.sin(2 * np.pi * 3500 * time)
    soundfile.write(prepared / "my/recordings/tone.wav", tone, 32_000)
    _, name, *words = shlex.split(command)
    assert run_here(prepared, name, *words, "--device", "cpu") == 0
    assert any(prepared.glob("found*.csv"))
    shutil.rmtree(prepared / "models")
