"""export.py --to hub: the folder scores as its checkpoints do, and its example runs."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

import export
from configs import Config, UserError
from inference.hub_card import sum_licences
from inference.model_files import find_checkpoints
from inference.scorers import TorchModels, open_models
from tests.exporting import CLASSES, expected_scores, make_folds

ROOT = Path(export.__file__).resolve().parent


@pytest.fixture(scope="module")
def experiment(tmp_path_factory) -> Config:
    return make_folds(tmp_path_factory.mktemp("hub"))


@pytest.fixture(scope="module")
def shared(experiment) -> Path:
    """Both folds as a folder, `birds`."""
    output = experiment.root / "birds"
    flags = f"{experiment.exp_dir} --ensemble --to hub --output {output} --root {experiment.root}"
    flags, config = export.read_command_line([*flags.split(), "--licence", "CC BY 4.0"])
    return export.export_hub(flags, config)


def test_the_folder_scores_as_the_checkpoints_do(experiment, shared, rng):
    clip = rng.standard_normal(32_000).astype(np.float32)
    wanted, _ = expected_scores(experiment.exp_dir, [clip])
    models = open_models(shared, Config(device="cpu", amp=False))
    assert models.class_names == CLASSES and len(models.models) == 2
    found = models.score([models.prepare(clip)], frames=False)[0].mean(axis=0)
    np.testing.assert_array_equal(found, wanted)


def test_the_card_says_what_it_was_trained_on(shared):
    card = (shared / "README.md").read_text()
    assert card.startswith("---\ntags: ") and "Licence: CC BY 4.0." in card
    assert "24 recordings" in card and "- CC BY 4.0: 24" in card
    assert all(f"`{name}`" in card for name in CLASSES)
    assert "fold 0: " in card and "0.62" in card
    about = json.loads((shared / "config.json").read_text())
    assert "train_np_dir" not in about["settings"] and about["settings"]["n_mels"] == 32


def test_the_example_of_the_card_runs(shared):
    (code,) = re.findall(r"```python\n(.*?)```", (shared / "README.md").read_text(), re.S)
    assert len(code.splitlines()) == 4
    tone = 0.3 * np.sin(2 * np.pi * 3500 * np.arange(32_000) / 32_000)
    soundfile.write(shared.parent / "song.wav", tone, 32_000)
    answer = subprocess.run(
        [sys.executable, "-c", code],
        cwd=shared.parent,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    assert all(f"'{name}': " in answer.stdout for name in CLASSES)


def test_one_fold_goes_beside_its_checkpoint(experiment):
    flags, config = export.read_command_line(
        [str(experiment.fold_dir(0)), "--to", "hub", "--root", str(experiment.root)]
    )
    output = export.export_hub(flags, config)
    assert output == experiment.fold_dir(0) / "hub"
    paths = find_checkpoints(experiment.fold_dir(0))
    assert len(TorchModels(paths, Config(device="cpu")).models) == 1


def test_other_precisions_are_refused():
    with pytest.raises(UserError, match="float32"):
        export.read_command_line(["m", "--to", "hub", "--precision", "float16"])


def test_licences_are_summed_up():
    table = pd.DataFrame({"licence": ["CC0", "CC BY", "CC0", "", None]})
    assert sum_licences(table) == {"CC0": 2, "not stated": 2, "CC BY": 1}
    assert sum_licences(pd.DataFrame({"a": [1, 2]})) == {"not stated": 2}
