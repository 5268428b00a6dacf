"""One fold's training in a few small objects: its parts, its progress, the step it is in."""

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.utils import ModelEmaV3

from configs import Config, UserError
from dataset import WaveformDataset
from images.device_frontend import DeviceFrontend
from metrics import AverageMeter
from training import processes
from training.background import Writer
from training.batches import EpochSampler, Loader
from training.devices import reads_late
from training.distillation import VECTOR, beside
from training.loggers import Logs
from training.readings import BatchLoss, Reading
from training.remembered import Remembered
from training.run_clock import RunClock
from training.stopwatch import build_watch

Forward = Callable[[torch.Tensor], dict[str, torch.Tensor]]


@dataclass
class Parts:
    """What learns: the objects whose state a checkpoint holds."""

    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: Any
    scaler: torch.amp.GradScaler
    ema: ModelEmaV3 | None = None  # averaged weights, scored in place of the model's own
    average: torch.nn.Module | None = None  # of the last epochs, made at the fold's end

    @property
    def averaged(self) -> torch.nn.Module | None:
        """The averaged weights where there are any."""
        return self.average or (self.ema.module if self.ema else None)

    @property
    def scored_model(self) -> torch.nn.Module:
        """The averaged weights where there are any, else the model's own."""
        return self.averaged or self.model


def rank(row: Mapping[str, float], monitor: str) -> float:
    """Say how an epoch does in what is monitored: the lower the better, NaN is the worst."""
    value = {"valid_loss": row["valid_loss"], "last": -row["epoch"]}.get(monitor)
    value = -row[monitor] if value is None else value
    return math.inf if math.isnan(value) else value


@dataclass
class Progress:
    """How far a fold has come; a checkpoint holds every field."""

    epoch: int = 0  # complete epochs
    batch: int = 0  # batches done of the epoch after them
    step: int = 0  # optimizer steps in all
    skipped_steps: int = 0  # of them without effect, in this epoch
    bad_steps: int = 0  # skipped in a row
    micro_batch: int = 0  # clips that go through the model at once; 0: the whole batch
    best_loss: float = math.inf  # of validation
    best_epoch: int = 0
    train_loss: AverageMeter = field(default_factory=AverageMeter)  # of this epoch
    history: list[dict[str, float]] = field(default_factory=list)  # a row per complete epoch
    probe: dict[str, float] = field(default_factory=dict)  # what floor.py found, if it was asked
    average: dict[str, torch.Tensor] = field(default_factory=dict)  # mean weights of late epochs
    n_averaged: int = 0  # epochs in it
    is_averaged: bool = False  # it was validated and saved: the fold is complete

    def end_epoch(self, row: dict[str, float], monitor: str = "valid_loss") -> bool:
        """Add a complete epoch's row and go to the next; say whether it is the best so far."""
        earlier = [rank(one, monitor) for one in self.history]
        self.history.append(row)
        self.epoch, self.batch, self.skipped_steps = self.epoch + 1, 0, 0
        self.train_loss = AverageMeter()

        is_best = rank(row, monitor) < min(earlier, default=math.inf)
        if is_best:
            self.best_loss, self.best_epoch = row["valid_loss"], self.epoch
        return is_best

    def is_complete(self, n_epochs: int, patience: int | None) -> bool:
        """Say whether all epochs are done, or as many as early stopping allows."""
        return self.is_averaged or self.epoch >= n_epochs or self.has_stalled(patience)

    def has_stalled(self, patience: int | None) -> bool:
        """Say whether the validation loss has not improved for `patience` epochs."""
        if patience is None or self.epoch == 0:
            return False
        return self.epoch - self.best_epoch >= patience


@dataclass
class StepGroup:
    """The batches that make one optimizer step: `accumulation_steps`, or the epoch's rest."""

    first: int  # number of its first batch in the epoch
    last: int
    n_clips: int  # of all its batches
    losses: dict[int, list[BatchLoss]] = field(default_factory=dict)  # by batch, of its parts


@dataclass
class Precision:
    """How the model is called: in which number format, and compiled or not."""

    amp_dtype: torch.dtype | None  # of autocast; None is plain float32
    compiled: Forward | None = None  # the model's forward pass as torch.compile makes it
    valid_micro_batch: int = 0  # clips validated at once; 0: the whole batch


@dataclass
class Fold:
    """One fold's training."""

    number: int
    class_names: list[str]
    split: str  # digest of the recordings and labels that it trains and validates on
    config: Config
    device: torch.device
    train_loader: Loader
    train_sampler: EpochSampler
    valid_loader: Loader
    valid_sampler: EpochSampler
    criterion: Any
    parts: Parts
    precision: Precision

    progress: Progress = field(default_factory=Progress)
    group: StepGroup = field(default_factory=lambda: StepGroup(0, 0, 0))
    clock: RunClock = field(default_factory=RunClock)  # of the run, over all its folds
    logs: Logs = field(default_factory=Logs)  # where it is followed beside history.csv
    stop_after: int | None = None  # epochs of a refit; None: those of the settings

    def __post_init__(self) -> None:
        config, device = self.config, self.device
        self.statistics = Remembered(self.parts.model.buffers())
        # Steps that are not read yet; None where each is read before the next one begins
        self.late: deque[Reading] | None = deque() if reads_late(device, config) else None
        self.ema_before: Remembered | None = None
        if self.late is not None and self.parts.ema is not None:
            self.ema_before = Remembered(self.parts.ema.module.state_dict().values())
        self.watch = build_watch(config, device)
        self.writer = Writer()  # of checkpoints, while training goes on
        self.frontend: DeviceFrontend | None = None  # makes images, if the loader does not
        if config.frontend == "device":
            self.frontend = DeviceFrontend(config, self.train_set.pink, device)

    @property
    def n_epochs(self) -> int:
        """Epochs to train; a schedule is planned for those of the settings."""
        epochs = self.config.epochs
        return epochs if self.stop_after is None else min(self.stop_after, epochs)

    @property
    def dir(self) -> Path:
        """The fold's folder."""
        assert self.config.train_dir is not None
        return self.config.train_dir

    @property
    def train_set(self) -> WaveformDataset:
        """The recordings to train on."""
        assert isinstance(self.train_loader.dataset, WaveformDataset)
        return self.train_loader.dataset

    @property
    def valid_set(self) -> WaveformDataset:
        """The recordings to validate on."""
        assert isinstance(self.valid_loader.dataset, WaveformDataset)
        return self.valid_loader.dataset

    def step_seed(self) -> int:
        """Make the seed of torch's generators from (seed, epoch, batch, process)."""
        progress = self.progress
        key = (self.config.seed, progress.epoch + 1, progress.batch, processes.rank())
        return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> np.uint64(1))

    def to_device(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Copy a batch to the device: images (B, channels, T, F) and targets (B, C).

        Where labels have a time, targets are (B, 1 + S, C): a clip's, then those of its S steps.

        The images may be one plane seen as often as there are channels. The model's first layers
        rearrange them whatever their memory format, so they are not brought into its.
        """
        if not batch:  # this process has no share in it
            config, n_columns = self.config, len(self.class_names) + self.config.no_bird_class
            image = torch.zeros(0, config.in_channels, config.image_frames, config.image_bands)
            batch = {"image": image, "targets": torch.zeros(0, n_columns)}

        # From pinned memory the copy runs beside the program; from other memory it blocks anyway.
        batch = {name: value.to(self.device, non_blocking=True) for name, value in batch.items()}
        if "image" not in batch:  # frontend="device"
            assert self.frontend is not None
            return self.frontend(batch), beside(batch["targets"], batch.get(VECTOR))
        images = batch["image"].expand(-1, self.config.in_channels, -1, -1)
        return images, beside(batch["targets"], batch.get(VECTOR))

    def start_group(self) -> bool:
        """Find the group of the current batch; say whether it begins here."""
        sampler, size = self.train_sampler, self.config.accumulation_steps
        batch = self.progress.batch
        first = batch - batch % size
        if batch == first or self.group.first != first:
            end = min(first + size, len(sampler))
            n_clips = sum(map(self.clips_of, range(first, end)))
            self.group = StepGroup(first, end - 1, n_clips)
        return batch == first

    def clips_of(self, batch: int) -> int:
        """Count the clips of a batch of an epoch, in all processes together."""
        sampler = self.train_sampler
        return min(sampler.batch_size, sampler.n_items - batch * sampler.batch_size)

    def constant_valid_size(self) -> int:
        """Return the clips that each batch of validation is filled to; 0: they stay as they are.

        On CUDA another size would have its algorithms looked for again.
        """
        if self.device.type != "cuda":
            return 0
        share = -(-self.valid_sampler.batch_size // processes.world_size())
        return self.precision.valid_micro_batch or share

    def call(self, model: Forward, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Go through a model in the number format of the settings."""
        amp_dtype = self.precision.amp_dtype
        with torch.autocast(self.device.type, dtype=amp_dtype, enabled=amp_dtype is not None):
            return model(images)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Go through the model; whole batches go through its compiled form, if there is one.

        Another number of clips would take minutes to compile, too.

        Raises:
            UserError: the model cannot be compiled here.
        """
        compiled = self.precision.compiled
        if compiled is None or len(images) != self.config.batch_size:
            return self.parts.model(images)

        try:
            return compiled(images)
        except torch._dynamo.exc.TorchDynamoException as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"compile_model: this model cannot be compiled here ({reason}); train without it"
            ) from error
