"""planning/machine.py against what the system says itself."""

import os
import shutil

import torch

from configs import Config
from planning.machine import look_at_machine


def test_this_machine_is_described(tmp_path):
    found = look_at_machine(Config(root=tmp_path, device="cpu"))
    assert 1 <= found.cores <= os.cpu_count()
    assert found.device == "cpu" and found.device_gb == 0 and found.device_name == ""
    free = shutil.disk_usage(tmp_path).free / 1e9
    assert abs(found.disk_gb - free) < 1
    assert found.memory_gb > 0.5


def test_a_gpu_is_named(tmp_path, monkeypatch):
    class Properties:
        name, total_memory = "Pretend", 24e9

    monkeypatch.setattr("planning.machine.pick_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Properties)
    found = look_at_machine(Config(root=tmp_path))
    assert (found.device, found.device_name, found.device_gb) == ("cuda", "Pretend", 24)


def test_without_sysconf_memory_is_unknown(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "sysconf")
    assert look_at_machine(Config(root=tmp_path, device="cpu")).memory_gb == 0
