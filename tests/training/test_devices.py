"""What torch is told about the device."""

import os

import pytest
import torch

import train
from configs import Config
from tests.small_run import CPU
from training import devices


def test_deterministic_asks_torch_and_says_where_it_ends(monkeypatch, caplog):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    caplog.set_level("INFO")
    try:
        devices.make_deterministic()
        assert (
            torch.are_deterministic_algorithms_enabled()
            and torch.is_deterministic_algorithms_warn_only_enabled()
        )
        assert (
            not torch.backends.cudnn.benchmark
            and os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
        )
        assert "another of these rounds otherwise" in caplog.text
    finally:
        torch.use_deterministic_algorithms(False)


CUDA = torch.device("cuda")  # a name; nothing here needs the device


@pytest.fixture
def torch_settings(monkeypatch):
    """What torch is set to, as functions; put back afterwards."""
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield lambda: (torch.backends.cudnn.benchmark, torch.get_float32_matmul_precision())
    torch.set_float32_matmul_precision(before)


def test_only_cuda_has_its_convolutions_tried_and_tf32(torch_settings):
    devices.make_fast(CPU, 10**6)
    assert torch_settings() == (False, "highest")
    devices.make_fast(CUDA, 10**6)
    assert torch_settings() == (True, "high")
    assert (
        torch.backends.cuda.matmul.fp32_precision
        == torch.backends.cudnn.conv.fp32_precision
        == "tf32"
    )


def test_deterministic_runs_take_neither(df, config, torch_settings, monkeypatch):
    asked = []
    monkeypatch.setattr(devices, "make_deterministic", lambda: asked.append("deterministic"))
    monkeypatch.setattr(devices, "make_fast", lambda device, n_steps: asked.append(device.type))
    monkeypatch.setattr(train, "train_fold", lambda *args: None)
    monkeypatch.setattr(train.folder, "write_summary", lambda *args, **kwargs: {})
    train.run(df, config)
    config.deterministic = True
    train.run(df, config)
    assert asked == ["cpu", "deterministic"]


def test_a_short_run_does_not_wait_for_trials_of_convolutions(torch_settings):
    devices.make_fast(CUDA, 100)
    assert torch_settings() == (False, "high")


@pytest.mark.parametrize(
    ("asked", "device", "expected"),
    [
        ("auto", CPU, "cpu"),
        ("auto", CUDA, "device"),
        ("cpu", CUDA, "cpu"),
        ("device", CPU, "device"),
    ],
)
def test_images_are_made_on_the_device_where_that_is_cuda(asked, device, expected):
    assert devices.pick_frontend(Config(frontend=asked), device) == expected
