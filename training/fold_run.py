"""The parts of one fold's training, how far it has come, and how it goes on from a checkpoint."""

import functools
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from timm.utils import ModelEmaV3
from torch.utils.data import DataLoader

import checkpoint as ckpt
import dataset as data
from configs import Config, set_seed, versions
from images.device_frontend import DeviceFrontend
from metrics import AverageMeter, get_loss
from model import build_model, compile_model, pick_amp_dtype
from scheduler import get_scheduler
from training import folder, processes
from training.batches import EpochSampler, build_loader
from training.stopwatch import Stopwatch

logger = logging.getLogger("birdclef.train")

# How far a run has come, by the names of FoldRun's fields
PROGRESS = (
    "epoch",
    "batch",
    "step",
    "skipped_steps",
    "bad_steps",
    "best_loss",
    "best_epoch",
    "history",
)
# Those that came later: a checkpoint without them is that of a run that had no use for them
LATER_PROGRESS = {"micro_batch": 0}


@dataclass
class FoldRun:
    """The parts of one fold's training, and how far it has come."""

    config: Config
    fold: int
    class_names: list[str]
    device: torch.device
    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: Any
    scaler: torch.amp.GradScaler
    ema: ModelEmaV3 | None
    criterion: Any
    amp_dtype: torch.dtype | None
    train_set: data.WaveformDataset
    valid_set: data.WaveformDataset
    train_loader: DataLoader
    train_sampler: EpochSampler
    valid_loader: DataLoader
    valid_sampler: EpochSampler

    epoch: int = 0  # the last complete one, counted from 1
    batch: int = 0  # batches done of the epoch after it
    step: int = 0  # optimizer steps in all
    skipped_steps: int = 0  # of them without effect, in this epoch
    bad_steps: int = 0  # skipped in a row
    micro_batch: int = 0  # clips that go through the model at once; 0: the whole batch
    valid_micro_batch: int = 0  # the same in validation, where it changes nothing but memory
    train_loss: AverageMeter = field(default_factory=AverageMeter)
    best_loss: float = math.inf
    best_epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)

    frontend: DeviceFrontend | None = (
        None  # makes training images of waveforms, if the data set does not
    )
    watch: Stopwatch = field(default_factory=Stopwatch)  # of the epoch
    compiled: Callable[[torch.Tensor], dict[str, torch.Tensor]] | None = (
        None  # the model's forward pass
    )

    # Of the group of batches that make one optimizer step
    group_is_sound: bool = True
    buffers_before: list[torch.Tensor] = field(default_factory=list)

    @property
    def train_dir(self) -> Path:
        """The fold's folder."""
        assert self.config.train_dir is not None
        return self.config.train_dir

    @property
    def scored_model(self) -> torch.nn.Module:
        """The averaged weights where there are any."""
        return self.ema.module if self.ema else self.model

    def state(self) -> dict[str, Any]:
        """All that a resume needs, in tensors and plain types."""
        parts = ("model", "optimizer", "scheduler", "scaler")
        return {
            **{name: getattr(self, name).state_dict() for name in parts},
            **{name: getattr(self, name) for name in (*PROGRESS, *LATER_PROGRESS)},
            "ema": self.ema.module.state_dict() if self.ema else None,
            "train_loss": self.train_loss.state_dict(),
            "rng": ckpt.capture_rng(),
            "fold": self.fold,
            "class_names": self.class_names,
            "config": self.config.to_dict(),
            "versions": versions(),
        }


def build_fold_run(
    train_part: pd.DataFrame,
    valid_part: pd.DataFrame,
    fold: int,
    class_names: list[str],
    config: Config,
    device: torch.device,
    *,
    load_weights: bool = True,
) -> FoldRun:
    """Make data, model, optimizer, schedule and the rest, in their state before the first step."""
    set_seed(config.seed)
    train_set = data.WaveformDataset(train_part, config, "train", class_names)
    valid_set = data.WaveformDataset(valid_part, config, "valid", class_names)
    share = {"rank": processes.rank(), "world_size": processes.world_size()}
    train_loader, train_sampler = build_loader(train_set, config, device, **share)
    valid_loader, valid_sampler = build_loader(valid_set, config, device, **share)
    model = processes.synchronize_batch_norm(
        build_model(config, len(class_names), load_weights=load_weights)
    )
    model = model.to(device)
    if config.channels_last:
        model = model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.lr, weight_decay=config.weight_decay
    )
    steps_per_epoch = -(-len(train_sampler) // config.accumulation_steps)
    amp_dtype = pick_amp_dtype(config, device)
    return FoldRun(
        config=config,
        fold=fold,
        class_names=class_names,
        device=device,
        model=model,
        optimizer=optimizer,
        scheduler=get_scheduler(config, optimizer, steps_per_epoch=steps_per_epoch),
        scaler=torch.amp.GradScaler(device.type, enabled=amp_dtype is torch.float16),
        ema=ModelEmaV3(model, decay=config.ema_decay, use_warmup=True)
        if config.ema_decay
        else None,
        criterion=get_loss(
            config.loss_name,
            alpha=config.focal_alpha,
            gamma=config.focal_gamma,
            weights=config.loss_weights,
        ),
        amp_dtype=amp_dtype,
        train_set=train_set,
        valid_set=valid_set,
        train_loader=train_loader,
        train_sampler=train_sampler,
        valid_loader=valid_loader,
        valid_sampler=valid_sampler,
        compiled=compile_model(model) if config.compile_model else None,
        frontend=DeviceFrontend(config, train_set.pink, device)
        if config.frontend == "device"
        else None,
        watch=build_watch(config, device),
    )


def build_watch(config: Config, device: torch.device) -> Stopwatch:
    """Make the stopwatch of a run; only where someone looks at it does it wait for a GPU, which holds training up."""
    is_waited_for = config.profile and device.type != "cpu"
    return Stopwatch(
        functools.partial(torch.accelerator.synchronize, device) if is_waited_for else None
    )


def find_checkpoint(config: Config, class_names: list[str]) -> tuple[Path, dict[str, Any]] | None:
    """Read the newest sound checkpoint of the fold's folder; None where there is none at all.

    Raises:
        CheckpointError: it was made with other classes, another network or other audio settings.
    """
    path = ckpt.get_initial_checkpoint(config)
    if path is None:
        return None
    state = ckpt.read_checkpoint(path)
    ckpt.check_same_setup(state, path, config, class_names)
    return path, state


def resume(run: FoldRun, path: Path, state: dict[str, Any]) -> None:
    """Go on from a checkpoint, and leave the folder as an unbroken run would have it at this point.

    Raises:
        CheckpointError: it does not fit the run, or lacks a part.
    """
    ckpt.load_checkpoint(
        run.model,
        run.optimizer,
        state,
        scheduler=run.scheduler,
        scaler=run.scaler if run.scaler.is_enabled() else None,
        ema=run.ema.module if run.ema else None,
    )
    if (before := state["config"].get("lr", run.config.lr)) != run.config.lr:
        ckpt.scale_rates(run.optimizer, run.scheduler, run.config.lr / before)
    if missing := [name for name in (*PROGRESS, "train_loss") if name not in state]:
        raise ckpt.CheckpointError(f"{path}: no {', '.join(missing)} in it")
    for name in PROGRESS:
        setattr(run, name, state[name])
    for name, default in LATER_PROGRESS.items():
        setattr(run, name, state.get(name, default))
    run.train_loss.load_state_dict(state["train_loss"])
    if processes.is_first():
        if (
            path.name != ckpt.LAST_NAME
        ):  # stopped between the two files of an epoch, or the newer one is damaged
            save(run)
        ckpt.prune_checkpoints(run.train_dir, run.config.keep_checkpoints)
        folder.write_history(run.train_dir, run.history)
    logger.info(
        "fold %d: going on from %s, epoch %d, batch %d", run.fold, path, run.epoch + 1, run.batch
    )


def save(run: FoldRun) -> None:
    """Write `last.pth`, in the first process."""
    if processes.is_first():
        with run.watch.part("checkpoint"):
            ckpt.save_checkpoint(run.train_dir / ckpt.LAST_NAME, run.state())
