"""The recipes: each is read, and says for what and by which command."""

import re
from pathlib import Path

import pytest

from audio.mel import check_bands
from configs import Config, load_config
from model import build_model
from tests.switches import SWITCHES

ROOT = Path(__file__).resolve().parent.parent
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
# Of the runs of tests, and said elsewhere
NOT_IN_THE_TABLE = {"train_bs"}


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


def test_every_switch_has_a_row_that_says_what_it_brought():
    page = (ROOT / "docs/recipes.md").read_text()
    table = page.split("## The switches")[1].split("\n## ")[0]
    rows = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("| `")]
    assert all(len(row) == 4 and row[3].strip() for row in rows)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row[0])}
    assert named <= set(Config().to_dict())
    modes = {"refit", "find_lr", "soup", "soup_greedy", "freeze", "teacher_features"}
    assert set().union(modes, *SWITCHES.values()) - NOT_IN_THE_TABLE <= named
