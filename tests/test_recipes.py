"""The recipes: each is read, and says for what and by which command."""

from pathlib import Path

import pytest

from audio.mel import check_bands
from configs import Config, load_config
from model import build_model

RECIPES = sorted((Path(__file__).resolve().parent.parent / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_settings_that_build_a_model(path):
    config = load_config(["--config", str(path), "--no-pretrained"])
    check_bands(config)
    config.base_model_name = "test_efficientnet"
    model = build_model(config, 5)
    assert model.n_mels == config.n_mels
    changed = [
        name for name, value in Config().to_dict().items() if value != config.to_dict()[name]
    ]
    assert len(changed) > 10


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_names_its_command(path):
    comment = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert any(f"--config recipes/{path.name}" in line for line in comment)
