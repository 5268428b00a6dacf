"""What the machine has: processors, memory, a GPU, room on the disk."""

import os
import shutil
from dataclasses import dataclass

import torch

from catalog.outlook import existing_folder
from configs import Config, available_cpus
from model import pick_device


@dataclass(frozen=True)
class Machine:
    """A machine.

    Attributes:
        cores: processors that this process may use.
        memory_gb: main memory; 0 where the system does not say.
        device: cpu, cuda or mps.
        device_name: of the GPU, or "".
        device_gb: memory of the GPU; 0 without one.
        disk_gb: free where prepared recordings go.
    """

    cores: int
    memory_gb: float
    device: str
    device_name: str
    device_gb: float
    disk_gb: float


def look_at_machine(config: Config) -> Machine:
    """Look at this machine, its device as the settings choose it, and the disk of train_np_dir."""
    device = pick_device(config.device)
    name, memory = "", 0.0
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        name, memory = properties.name, properties.total_memory / 1e9
    return Machine(
        cores=available_cpus(),
        memory_gb=_memory_gb(),
        device=device.type,
        device_name=name,
        device_gb=memory,
        disk_gb=shutil.disk_usage(existing_folder(config.train_np_dir)).free / 1e9,
    )


def _memory_gb() -> float:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    except (AttributeError, ValueError, OSError):  # Windows
        return 0.0
