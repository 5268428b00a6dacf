"""What is chosen for a device where the settings leave it open, and what the log says of it."""

import logging
import os

import pytest
import torch
import yaml

import checkpoint as ckpt
import model as models
import train
from configs import Config
from tests.small_run import CPU, copy_of
from training import launches
from training.launches import pick_compiling, settle_launches

CUDA = torch.device("cuda")  # a name; nothing here needs the device


@pytest.fixture(autouse=True)
def no_cache(monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "elsewhere")
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    monkeypatch.setattr(launches, "can_compile", lambda: True)


def test_a_long_run_on_cuda_is_compiled_and_others_are_not(monkeypatch):
    assert pick_compiling(CUDA, 20_000) == (
        "on",
        "20000 steps pay for one or two minutes of compiling",
    )
    assert pick_compiling(CUDA, 19_999).value == "off"
    assert pick_compiling(CPU, 10**9).value == "off"
    monkeypatch.setattr(launches, "can_compile", lambda: False)
    assert pick_compiling(CUDA, 20_000) == ("off", "triton and a C compiler are needed for it")


def test_what_is_left_open_is_chosen_and_said(caplog, monkeypatch, tmp_path):
    caplog.set_level(logging.INFO)
    config = Config(root=tmp_path, base_model_name="regnety_032", folds=[0, 1], epochs=100)
    found = settle_launches(config, CUDA, 3200)  # 100 steps an epoch
    assert (found.channels_last, found.compile_model) == ("off", "on")
    assert "channels_last off: timm measured regnety_032 in channels_last: -29 %" in caplog.text
    assert "compile_model on: 20000 steps pay" in caplog.text
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "models" / "compiled")


def test_what_is_given_stands(caplog, tmp_path):
    caplog.set_level(logging.INFO)
    config = Config(root=tmp_path, channels_last="off", compile_model="graphs")
    assert settle_launches(config, CUDA, 10**6) == config
    assert caplog.messages[0].startswith("compiled code is kept in") and len(caplog.messages) == 1


@pytest.mark.parametrize(("given", "level"), [("on", "WARNING"), ("auto", "INFO")])
def test_several_processes_compile_nothing_and_say_so(caplog, monkeypatch, tmp_path, given, level):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(launches.processes, "world_size", lambda: 2)
    config = Config(root=tmp_path, channels_last="off", compile_model=given, epochs=100)
    assert settle_launches(config, CUDA, 10**6).compile_model == "off"
    (record,) = caplog.records
    assert record.levelname == level and "compile_model off: not with several" in record.message


def test_a_folder_for_compiled_code_that_is_given_stands(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "mine")
    settle_launches(Config(root=tmp_path, compile_model="on"), CPU, 1)
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == "mine"


def test_words_and_what_earlier_versions_wrote(tmp_path):
    assert Config(channels_last=True, compile_model=False).to_dict().items() >= {
        ("channels_last", "on"),
        ("compile_model", "off"),
    }
    text = yaml.safe_dump(Config(channels_last="off", compile_model="on").to_dict())
    read = Config(**yaml.safe_load(text))
    assert (read.channels_last, read.compile_model) == ("off", "on")
    with pytest.raises(ValueError, match="channels_last"):
        Config(channels_last="sometimes")


def test_a_run_on_a_cpu_is_what_it_was_and_its_settings_say_so(df, config, caplog):
    caplog.set_level(logging.INFO)
    config.epochs = 1
    train.run(df, config)
    settings = yaml.safe_load((config.fold_dir(0) / "config.yaml").read_text())["config"]
    assert (settings["channels_last"], settings["compile_model"]) == ("on", "off")

    # A checkpoint of an earlier version, whose switches were true and false
    path = config.fold_dir(0) / "last.pth"
    state = ckpt.read_checkpoint(path)
    assert state["config"]["channels_last"] == "on"
    state["config"] |= {"channels_last": True, "compile_model": False}
    ckpt.save_checkpoint(path, state)
    caplog.clear()
    train.run(df, copy_of(config, epochs=2))
    assert "channels_last was" not in caplog.text and "compile_model was" not in caplog.text
    assert ckpt.read_checkpoint(path)["epoch"] == 2


def test_graphs_are_asked_of_torch(monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "compile", lambda model, **how: asked.append(how))
    for how in ("on", "graphs"):
        models.compile_model(torch.nn.Linear(1, 1), how)
    assert [one["options"].get("triton.cudagraphs") for one in asked] == [None, True]
    assert all(one["options"]["fallback_random"] and not one["dynamic"] for one in asked)
