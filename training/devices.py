"""What torch is told about the device before the first step."""

import logging
import os
from typing import Literal

import torch

from configs import Config, keep_freed_memory

logger = logging.getLogger("birdclef.train")

# Trials take 20 to 40 s (EfficientNet-B0, H200), which 4 ms saved in each step make up for.
STEPS_THAT_PAY_FOR_TRIALS = 10_000
GUESSED_BATCH = 64  # clips, while it is not known how many fit


def set_up_device(device: torch.device, config: Config, *, n_rows: int) -> None:
    """Ask for repeatable results, or for speed; on a CPU, keep the memory of each step.

    Args:
        device: that is trained on.
        config: settings of the run.
        n_rows: clips of an epoch, about.
    """
    if device.type == "cpu":
        keep_freed_memory()

    if config.deterministic:
        make_deterministic()
    else:
        batch_size = GUESSED_BATCH if config.train_bs == "auto" else config.batch_size
        n_steps = len(config.folds) * config.epochs * n_rows // batch_size
        make_fast(device, n_steps)


def pick_frontend(config: Config, device: torch.device) -> Literal["cpu", "device"]:
    """Choose what makes training images; "auto" takes the device where that is a CUDA one."""
    if config.frontend != "auto":
        return config.frontend
    return "device" if device.type == "cuda" else "cpu"


def reads_late(device: torch.device, config: Config) -> bool:
    """Say whether losses are read a step late: on CUDA, whose steps then wait for nothing.

    The search for a rate needs each loss before the next step.
    """
    return device.type == "cuda" and not config.find_lr


def make_deterministic() -> None:
    """Ask torch for repeatable results on CUDA too, and say where that ends."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    logger.info(
        "deterministic: equal runs are equal on the same device model, torch and CUDA, with the "
        "same number of processes; another of these rounds otherwise, and an operation that torch "
        "warns of has no repeatable form"
    )


def make_fast(device: torch.device, n_steps: int) -> None:
    """Let CUDA trade the last digits for speed; other devices have no such choice.

    Args:
        device: that is trained on.
        n_steps: of the whole run. cuDNN tries its ways to convolve only in a run that is long
            enough to make up for the time that this takes.
    """
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = n_steps >= STEPS_THAT_PAY_FOR_TRIALS
        # TF32 where amp leaves float32; convolutions take it by default
        torch.set_float32_matmul_precision("high")
