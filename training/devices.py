"""What torch is told about the device before the first step."""

import logging
import os

import torch

from configs import keep_freed_memory

logger = logging.getLogger("birdclef.train")


def set_up_device(device: torch.device, *, deterministic: bool) -> None:
    """Ask for repeatable results, or for speed; on a CPU, keep the memory of each step."""
    if device.type == "cpu":
        keep_freed_memory()
    if deterministic:
        make_deterministic()
    else:
        make_fast(device)


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


def make_fast(device: torch.device) -> None:
    """Let CUDA trade the last digits for speed; other devices have no such choice."""
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # tries the ways to convolve once for each shape
        # TF32 where amp leaves float32; convolutions take it by default
        torch.set_float32_matmul_precision("high")
