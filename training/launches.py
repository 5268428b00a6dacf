"""How a GPU is kept busy: the memory format of the model, and compiled code.

Where the settings say "auto", both are chosen here for the device and the length of the run, and
the log says why. `config.yaml` has what was chosen.
"""

import logging
import os
import shutil
from dataclasses import replace
from typing import Literal, NamedTuple

import torch

from configs import Config
from network.memory_format import pick_format
from training import processes

logger = logging.getLogger("birdclef.train")

# Compiling takes 1 to 2 minutes, and on CUDA a step might gain 10 of 40 to 56 ms by it (a B0 of
# batch 64 on an H200 computes for 31 of 56 ms): 10,000 steps pay for it. Not measured on CUDA.
STEPS_THAT_PAY_FOR_COMPILING = 20_000
CODE_FOLDER = "compiled"  # in models_dir: what torch.compile has made, for the next run


class Choice(NamedTuple):
    """A setting's value and the reason for it."""

    value: Literal["on", "off"]
    reason: str


def settle_launches(config: Config, device: torch.device, n_clips: int) -> Config:
    """Choose the memory format and whether to compile where that is left open, and log both.

    Args:
        config: settings of a fold.
        device: that is trained on.
        n_clips: of an epoch, about.
    """
    n_steps = len(config.folds) * config.epochs * n_clips // config.batch_size
    if config.channels_last == "auto":
        chosen = pick_format(config.base_model_name, device.type)
        is_last = chosen.name == "channels_last"
        config = replace(config, channels_last="on" if is_last else "off")
        logger.info("channels_last %s: %s", config.channels_last, chosen.reason)
    if config.compile_model != "off" and processes.world_size() > 1:
        level = logging.INFO if config.compile_model == "auto" else logging.WARNING
        logger.log(level, "compile_model off: not with several processes, which share each batch")
        config = replace(config, compile_model="off")
    if config.compile_model == "auto":
        choice = pick_compiling(device, n_steps)
        config = replace(config, compile_model=choice.value)
        logger.info("compile_model %s: %s", choice.value, choice.reason)
    if config.compile_model != "off":
        keep_compiled_code(config)
    return config


def pick_compiling(device: torch.device, n_steps: int) -> Choice:
    """Say whether compiling pays within a run: on CUDA, if it has steps enough."""
    if device.type != "cuda":
        return Choice("off", "a CPU gains 3 to 9 % after two minutes of compiling")
    if n_steps < STEPS_THAT_PAY_FOR_COMPILING:
        return Choice(
            "off", f"{n_steps} steps; {STEPS_THAT_PAY_FOR_COMPILING} would pay for compiling"
        )
    if not can_compile():
        return Choice("off", "triton and a C compiler are needed for it")
    return Choice("on", f"{n_steps} steps pay for one or two minutes of compiling")


def can_compile() -> bool:
    """Say whether torch.compile finds here what it needs on CUDA."""
    from torch.utils._triton import has_triton

    return has_triton() and any(shutil.which(name) for name in ("cc", "gcc", "clang"))


def keep_compiled_code(config: Config) -> None:
    """Let torch keep what it compiles beside the experiments, unless it is told where."""
    folder = os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(config.models_dir / CODE_FOLDER))
    logger.info("compiled code is kept in %s; a later run starts sooner by it", folder)
