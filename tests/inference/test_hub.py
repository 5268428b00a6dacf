"""inference/hub.py: a shared folder is read without running anything of it, or refused."""

import json

import pytest
import torch
from safetensors.torch import save_file

import inference.hub as hub
from configs import Config, UserError
from inference.scorers import open_models

ABOUT = {
    "format": hub.HUB_FORMAT, "class_names": ["a"], "folds": [{}, {}], "settings": {"n_mels": 8},
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    save_file({"0.w": torch.ones(2), "1.w": torch.zeros(3)}, tmp_path / hub.HUB_WEIGHTS)
    (tmp_path / hub.SETTINGS).write_text(json.dumps(ABOUT))
    return tmp_path


def test_weights_go_to_their_fold(folder):
    assert hub.is_hub(folder) and not hub.is_hub(folder.parent)
    one, other = hub.read_hub(folder / hub.HUB_WEIGHTS)
    assert one["model"]["w"].tolist() == [1, 1] and other["model"]["w"].tolist() == [0, 0, 0]
    assert one["class_names"] == ["a"] and one["config"] == {"n_mels": 8}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (hub.SETTINGS, "{"),
        (hub.SETTINGS, "[]"),
        (hub.SETTINGS, "{}"),
        (hub.SETTINGS, json.dumps(ABOUT | {"folds": []})),
        (hub.SETTINGS, json.dumps(ABOUT | {"folds": 3})),
        (hub.HUB_WEIGHTS, "no weights"),
        (hub.HUB_WEIGHTS, ""),
    ],
)
def test_what_is_damaged_is_refused(folder, name, content):
    (folder / name).write_text(content)
    with pytest.raises(UserError, match="cannot be read as a shared model"):
        hub.read_hub(folder / hub.HUB_WEIGHTS)


def test_another_version_is_refused(folder):
    (folder / hub.SETTINGS).write_text(json.dumps(ABOUT | {"format": "birdclef hub 2"}))
    with pytest.raises(UserError, match="another version"):
        open_models(folder, Config(device="cpu"))


def test_an_address_is_fetched_and_only_three_files_of_it(folder, monkeypatch):
    asked = []

    def download(name, allow_patterns):
        asked.append((name, sorted(allow_patterns)))
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert hub.fetch("hf-hub:ann/birds") == folder
    assert asked == [("ann/birds", sorted([hub.HUB_WEIGHTS, hub.SETTINGS, hub.CARD]))]


def test_an_address_that_is_not_there_is_said(monkeypatch):
    def download(name, allow_patterns):
        raise OSError("no such\nplace")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with pytest.raises(UserError, match="hf-hub:ann/birds: cannot be fetched: no such place"):
        hub.fetch("hf-hub:ann/birds")
