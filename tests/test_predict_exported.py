"""predict.py on a file of export.py: the checkpoint's scores, without torch."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile as sf

from tests.exporting import export_with, need_onnx

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def sounds(tmp_path, rng) -> Path:
    """Recordings of another rate than the model's, one of them shorter than a clip."""
    (tmp_path / "sounds").mkdir()
    for number, seconds in enumerate((2.5, 0.3)):
        time = np.arange(int(seconds * 22_050)) / 22_050
        waveform = 0.3 * np.sin(
            2 * np.pi * 1000 * (number + 1) * time
        ) + 0.01 * rng.standard_normal(len(time))
        sf.write(tmp_path / "sounds" / f"s{number}.wav", waveform, 22_050)
    return tmp_path / "sounds"


def predict(
    model: Path, sounds: Path, output: Path, *more: object, after: str = "pass"
) -> pd.DataFrame:
    begin = "import sys; sys.argv[0] = 'predict.py'; import predict"
    code = f"{begin}; code = predict.main(); {after}; sys.exit(code)"
    flags = [
        model,
        sounds,
        "--output",
        output,
        "--format",
        "long",
        "--threshold",
        0,
        "--stride",
        0.5,
        *more,
    ]
    answer = subprocess.run(
        [sys.executable, "-c", code, *map(str, flags)], cwd=ROOT, capture_output=True, text=True
    )
    assert answer.returncode == 0, answer.stderr
    return pd.read_csv(output, dtype={"species": str}, keep_default_na=False)


@pytest.mark.slow
def test_an_exported_file_scores_as_its_checkpoint_and_needs_no_torch(
    trained_folds, sounds, tmp_path
):
    config = trained_folds
    need_onnx()
    path, _ = export_with(
        config, config.fold_dir(0), "--to", "onnx", "--output", tmp_path / "model.onnx"
    )
    page = tmp_path / "report.html"
    no_torch = "assert 'torch' not in sys.modules"
    found = predict(path, sounds, tmp_path / "onnx.csv", "--report", page, after=no_torch)
    assert page.read_text(encoding="utf-8").count('"curve":[') > 0
    wanted = predict(config.fold_dir(0), sounds, tmp_path / "torch.csv")
    keys = ["file", "start_s", "species"]
    both = found.merge(wanted, on=keys, suffixes=("", "_torch"))
    assert (
        len(both) == len(found) == len(wanted) == 3 * (4 + 1)
    )  # species, and windows of both recordings
    assert np.abs(both["score"] - both["score_torch"]).max() < 1e-4
    assert both["score"].nunique() > 10
