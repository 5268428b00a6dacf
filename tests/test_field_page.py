"""docs/field.md: its commands run in their order, in one process."""

import importlib
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs/field.md").read_text(encoding="utf-8")
SMALL = (
    "--base-model-name test_efficientnet --no-pretrained --n-mels 32 --period 2.5 --folds 0 "
    "--num-workers 0 --device cpu"
).split()
ARCHIVE = "--species 3 --recordings 14 --seconds 5".split()
MORE = {
    "examples/make_sample_data.py": ARCHIVE,
    "split_data.py": ["--n-folds", "3"],
    "probe.py": SMALL,
    "examples/self_training.py": SMALL,
    "examples/make_soundscapes.py": ["--count", "3", "--seconds", "20"],
    "pseudo_label.py": ["--keep-above", "0.3", "--num-workers", "0", "--device", "cpu"],
    "predict.py": ["--num-workers", "0", "--device", "cpu"],
}


def commands() -> list[list[str]]:
    blocks = re.findall(r"```bash\n(.*?)```", PAGE, re.S)
    return [shlex.split(line)[1:] for block in blocks for line in block.splitlines()]


@pytest.fixture
def reader(tmp_path, monkeypatch) -> Path:
    """A folder with prepared and split recordings, and two backgrounds."""
    monkeypatch.chdir(tmp_path)
    run("examples/make_sample_data.py", ["--output", "data", *ARCHIVE], monkeypatch)
    run("prepare_audios.py", ["--max-bad-fraction", "0.2"], monkeypatch)
    run("split_data.py", ["--n-folds", "3"], monkeypatch)
    for number in range(2):
        noise = 0.1 * np.random.default_rng(number).standard_normal(10 * 32_000)
        path = tmp_path / f"data/background/{number}/noise.flac"
        path.parent.mkdir(parents=True)
        soundfile.write(path, noise, 32_000)
    return tmp_path


def run(script: str, flags: list[str], monkeypatch) -> None:
    module = importlib.import_module(script.removesuffix(".py").replace("/", "."))
    monkeypatch.setattr(sys, "argv", [script, *flags])
    status = module.main(flags) if script.startswith("examples/") else module.main()
    assert not status


@pytest.mark.slow
def test_every_command_runs_in_the_order_shown(reader, monkeypatch, capsys):
    monkeypatch.setattr(
        importlib.import_module("examples.self_training"),
        "run_stage",
        lambda script, flags: run(script, list(flags), monkeypatch),
    )
    shown = commands()
    assert [script for script, *_ in shown[5:]] == [
        "probe.py", "pseudo_label.py", "examples/self_training.py", "predict.py",
        "examples/score_soundscapes.py",
    ]  # fmt: skip
    for script, *flags in shown:
        run(script, [*flags, *MORE.get(script, [])], monkeypatch)

    found = pd.read_csv(reader / "field/found.csv")
    assert found["any_bird"].between(0, 1).all()
    assert "bird or none, ROC-AUC: maximum" in capsys.readouterr().out
    assert "Round 1 of self-training" in (reader / "field/rounds/round_1.html").read_text()
