"""Train one SED model a fold, resume it exactly, and leave what is needed to judge it.

    python train.py --folds 0 1 --train-bs 16

Read from the top: `run` goes through the folds; `train_fold` is one fold; `train_one_epoch`, `train_step` and
`validate` are the loop. Everything random in it follows from (seed, epoch, index) for an item of the data set
and from (seed, epoch, batch) for a step, so a resumed run makes the same draws as an unbroken one.
"""

import logging
import math
import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from configs import Config, UserError, check_command_line, configure_logger, load_config, run_main, set_seed, versions

check_command_line(__name__, __doc__)  # --help and mistyped settings need not wait for torch

import numpy as np
import pandas as pd
import torch
from timm.utils import ModelEmaV3
from torch.utils.data import DataLoader
from tqdm import tqdm

import checkpoint as ckpt
import dataset as data
from metrics import AverageMeter, MetricMeter, describe_scores, get_loss
from model import build_model, find_backbone, pick_amp_dtype, pick_device
from scheduler import get_scheduler, stepped_on
from transforms import cutmix, mixup

logger = logging.getLogger("birdclef.train")


# How far a run has come, by the names of FoldRun's fields
PROGRESS = ("epoch", "batch", "step", "skipped_steps", "bad_steps", "best_loss", "best_epoch", "history")


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
    train_sampler: data.EpochSampler
    valid_loader: DataLoader
    valid_sampler: data.EpochSampler

    epoch: int = 0  # the last complete one, counted from 1
    batch: int = 0  # batches done of the epoch after it
    step: int = 0  # optimizer steps in all
    skipped_steps: int = 0  # of them without effect, in this epoch
    bad_steps: int = 0  # skipped in a row
    train_loss: AverageMeter = field(default_factory=AverageMeter)
    best_loss: float = math.inf
    best_epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)

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
            **{name: getattr(self, name) for name in PROGRESS},
            "ema": self.ema.module.state_dict() if self.ema else None,
            "train_loss": self.train_loss.state_dict(),
            "rng": ckpt.capture_rng(),
            "fold": self.fold,
            "class_names": self.class_names,
            "config": self.config.to_dict(),
            "versions": versions(),
        }


# Folds --------------------------------------------------------------------------------------------------


def run(train_df: pd.DataFrame, config: Config | None = None) -> dict[str, Any]:
    """Train the folds of `config.folds` one after the other.

    Args:
        train_df: the table of split_data.py; it is not changed.
        config: settings; None takes the defaults.

    Returns:
        The summary, as in `summary.json`: best scores of each fold and their mean.

    Raises:
        UserError: a table, fold, file, weights or checkpoint that training cannot work with.
    """
    config = config or Config()
    device = pick_device(config.device)
    find_backbone(config.base_model_name)
    df = data.check_table(train_df, str(config.train_dataframe_path))
    class_names = data.load_class_names(df)
    known = sorted(set(df["kfold"]))
    if missing := [fold for fold in config.folds if fold not in known]:
        raise UserError(f"folds: there is no fold {missing[0]} in {config.train_dataframe_path}; it has {known}")
    data.check_prepared(df, config.train_np_dir)
    for fold in config.folds:
        train_fold(df, fold, class_names, config, device)
    return ckpt.write_summary(config)


def train_fold(df: pd.DataFrame, fold: int, class_names: list[str], config: Config, device: torch.device) -> None:
    """Train one fold, from its newest checkpoint if there is one."""
    train_dir = config.fold_dir(fold)
    config = replace(config, train_dir=train_dir)
    with ckpt.lock_folder(train_dir), ckpt.log_to_file(train_dir / "train.log"):
        if config.debug:
            df, config = data.shrink(df, fold, config)
        train_part, valid_part = data.split_fold(df, fold, config.rare_birds)
        logger.info("fold %d: %d recordings to train, %d to validate, %d species, on %s",
                    fold, len(train_part), len(valid_part), len(class_names), device)  # fmt: skip
        if not config.resume:
            ckpt.set_aside(train_dir)
        start_from = ckpt.get_initial_checkpoint(config)
        load_weights = start_from is None  # a resumed run needs neither the network nor the file they came from
        fold_run = build_fold_run(train_part, valid_part, fold, class_names, config, device, load_weights=load_weights)
        if start_from is not None:
            resume(fold_run, start_from)
        ckpt.write_settings(train_dir, config, class_names)
        while fold_run.epoch < config.epochs and not stopped_early(fold_run):
            started = time.perf_counter()
            waited = train_one_epoch(fold_run)
            trained = time.perf_counter()
            finish_epoch(fold_run, *validate(fold_run))
            log_epoch(fold_run, train_s=trained - started, valid_s=time.perf_counter() - trained, waited_s=waited)
    logger.info("fold %d: best epoch %d, validation loss %.5f", fold, fold_run.best_epoch, fold_run.best_loss)


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
    train_loader, train_sampler = data.build_loader(train_set, config, device)
    valid_loader, valid_sampler = data.build_loader(valid_set, config, device)
    model = build_model(config, len(class_names), load_weights=load_weights).to(device)
    if config.channels_last:
        model = model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=config.weight_decay)
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
        ema=ModelEmaV3(model, decay=config.ema_decay, use_warmup=True) if config.ema_decay else None,
        criterion=get_loss(
            config.loss_name, alpha=config.focal_alpha, gamma=config.focal_gamma, weights=config.loss_weights
        ),
        amp_dtype=amp_dtype,
        train_set=train_set,
        valid_set=valid_set,
        train_loader=train_loader,
        train_sampler=train_sampler,
        valid_loader=valid_loader,
        valid_sampler=valid_sampler,
    )


# The loop -----------------------------------------------------------------------------------------------


def train_one_epoch(run: FoldRun) -> float:
    """Train what is left of the epoch, with a checkpoint in between where settings ask for it.

    Returns:
        Seconds spent waiting for data.
    """
    run.model.train()
    run.train_sampler.set_position(run.epoch + 1, run.batch)
    every_steps = run.config.checkpoint_every_steps or math.inf
    every_s = run.config.checkpoint_every_minutes * 60 or math.inf
    waited, saved_at, asked = 0.0, time.monotonic(), time.perf_counter()
    for batch in progress_bar(run.train_loader, run.batch, len(run.train_sampler), f"epoch {run.epoch + 1}"):
        waited += time.perf_counter() - asked
        stepped = train_step(run, batch)
        due = run.step % every_steps == 0 or time.monotonic() - saved_at > every_s
        if stepped and due and run.batch < len(run.train_sampler):
            ckpt.save_checkpoint(run.train_dir / ckpt.LAST_NAME, run.state())
            saved_at = time.monotonic()
        asked = time.perf_counter()
    return waited


def train_step(run: FoldRun, batch: dict[str, torch.Tensor]) -> bool:
    """Go forward and backward on one batch; take an optimizer step when its group is complete.

    Args:
        run: its model, optimizer, scaler, schedule and counters move on.
        batch: image (B, 3, T, F) and targets (B, C), on the CPU.

    Returns:
        Whether the group of `accumulation_steps` batches is complete.
    """
    first, last, group_size = accumulation_group(run)
    if run.batch == first:
        run.optimizer.zero_grad(set_to_none=True)
        run.group_is_sound = True
        run.buffers_before = [buffer.clone() for buffer in run.model.buffers()]
    torch.manual_seed(step_seed(run))  # dropout, drop path, SpecAugment
    loss = forward_loss(run, batch)
    n_clips = len(batch["image"])
    if math.isfinite(value := float(loss.detach())):
        run.scaler.scale(loss * (n_clips / group_size)).backward()
        run.train_loss.update(value, n_clips)
    else:
        run.group_is_sound = False
        report_bad_batch(run, f"loss {value}")
    if complete := run.batch == last:
        take_optimizer_step(run)
    run.batch += 1
    return complete


def accumulation_group(run: FoldRun) -> tuple[int, int, int]:
    """Find the first and last batch, and the clips, of the group that the current batch belongs to."""
    sampler, size = run.train_sampler, run.config.accumulation_steps
    first = run.batch - run.batch % size
    last = min(first + size, len(sampler)) - 1
    return first, last, min((last + 1) * sampler.batch_size, sampler.n_items) - first * sampler.batch_size


def step_seed(run: FoldRun) -> int:
    """Make the seed of torch's generators from (seed, epoch, batch)."""
    sequence = np.random.SeedSequence((run.config.seed, run.epoch + 1, run.batch))
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))


def forward_loss(run: FoldRun, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Mix the batch, go forward under autocast and take the lam-weighted loss in float32, a scalar."""
    config = run.config
    images, targets = to_device(run, batch)
    rng = np.random.default_rng((config.seed, run.epoch + 1, run.batch, 1))
    targets_b, lam = targets, 1.0
    if rng.random() < config.p_mixup:
        images, targets, targets_b, lam = mixup(images, targets, config.mixup_alpha, rng)
    elif rng.random() < config.p_cutmix:
        images, targets, targets_b, lam = cutmix(images, targets, config.cutmix_alpha, rng)
    with torch.autocast(run.device.type, dtype=run.amp_dtype, enabled=run.amp_dtype is not None):
        output = run.model(images)
    loss = run.criterion(output, targets)
    return loss if lam == 1.0 else lam * loss + (1.0 - lam) * run.criterion(output, targets_b)


def to_device(run: FoldRun, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Copy images (B, 3, T, F) and targets (B, C) to the device, images in the model's memory format."""
    memory_format = torch.channels_last if run.config.channels_last else torch.contiguous_format
    images = batch["image"].to(run.device, non_blocking=True).contiguous(memory_format=memory_format)
    return images, batch["targets"].to(run.device, non_blocking=True)


def take_optimizer_step(run: FoldRun) -> None:
    """Unscale, clip and step; where loss or gradients are not finite, leave the weights as they were and count."""
    sound = run.group_is_sound
    if sound:
        run.scaler.unscale_(run.optimizer)  # before clipping, or the limit would be on scaled gradients
        norm = torch.nn.utils.clip_grad_norm_(run.model.parameters(), run.config.grad_clip or math.inf)
        sound = bool(norm.isfinite())
        if sound or run.scaler.is_enabled():  # an enabled scaler skips the step itself, and halves its scale
            run.scaler.step(run.optimizer)
            run.scaler.update()
    run.step += 1
    if not sound:
        skip_step(run)
        return
    run.bad_steps = 0
    if run.ema:
        run.ema.update(run.model, step=run.step)
    if stepped_on(run.config.scheduler_name) == "step":
        run.scheduler.step()


def skip_step(run: FoldRun) -> None:
    """Count a step without effect and undo what its forward pass did to the running statistics.

    Raises:
        UserError: `max_bad_steps` in a row.
    """
    for buffer, before in zip(run.model.buffers(), run.buffers_before, strict=True):
        buffer.copy_(before)
    run.skipped_steps += 1
    run.bad_steps += 1
    if run.bad_steps >= run.config.max_bad_steps:
        raise UserError(
            f"{run.bad_steps} steps in a row without a finite loss and gradient (epoch {run.epoch + 1}); "
            f"{run.train_dir / ckpt.LAST_NAME} holds the last good state; try a lower lr, a grad_clip, or "
            "amp_dtype=bfloat16"
        )


def report_bad_batch(run: FoldRun, what: str) -> None:
    """Log the recordings in the current batch, those that were mixed in too."""
    birds = {bird for key in run.train_sampler.keys(run.batch) for bird in run.train_set.birds_of(key)}
    names = ", ".join(sorted(run.train_set.filename(bird) for bird in birds))
    logger.warning(
        "epoch %d batch %d: %s, the step is skipped; its recordings: %s", run.epoch + 1, run.batch, what, names
    )


@torch.inference_mode()
def validate(run: FoldRun) -> tuple[float, MetricMeter]:
    """Score the whole validation part at once.

    Returns:
        Loss on hard targets averaged over samples, and the meter with all scores (N, C) and labels (N, C).
    """
    model = run.scored_model.eval()
    loss, meter = AverageMeter(), MetricMeter()
    run.valid_sampler.set_position(0)
    for batch in progress_bar(run.valid_loader, 0, len(run.valid_sampler), "validation"):
        images, targets = to_device(run, batch)
        with torch.autocast(run.device.type, dtype=run.amp_dtype, enabled=run.amp_dtype is not None):
            output = model(images)
        if not output["clipwise_output"].isfinite().all():
            raise UserError(f"epoch {run.epoch + 1}: scores are not finite; {run.train_dir} holds the epochs before it")
        loss.update(float(run.criterion(output, targets)), len(images))
        meter.update(output["clipwise_output"].cpu().numpy(), (batch["targets"] >= 0.5).numpy())
    return loss.avg, meter


def progress_bar(loader: DataLoader, done: int, total: int, what: str) -> Iterator[dict[str, torch.Tensor]]:
    """Show a bar that vanishes when it is done, and is not there when output is not a terminal."""
    return iter(tqdm(loader, desc=what, initial=done, total=total, leave=False, disable=None, unit="batch"))


# What an epoch leaves -----------------------------------------------------------------------------------


def finish_epoch(run: FoldRun, valid_loss: float, meter: MetricMeter) -> None:
    """Step the schedule, add the history row, and write the epoch's files; `last.pth` is what makes it count."""
    row = {
        "epoch": run.epoch + 1,
        "step": run.step,
        "lr": float(run.optimizer.param_groups[0]["lr"]),
        "train_loss": run.train_loss.avg,
        "valid_loss": valid_loss,
        **meter.compute(),
        "skipped_steps": run.skipped_steps,
    }
    when = stepped_on(run.config.scheduler_name)
    if when != "step":
        run.scheduler.step(*([valid_loss] if when == "valid_loss" else []))
    run.history.append(row)
    run.epoch, run.batch, run.skipped_steps, run.train_loss = run.epoch + 1, 0, 0, AverageMeter()
    is_best = valid_loss < run.best_loss
    if is_best:
        run.best_loss, run.best_epoch = valid_loss, run.epoch
    state = run.state()
    if is_best:
        ckpt.save_best(run.train_dir, state, keep=run.config.keep_checkpoints)
        ckpt.write_predictions(run.train_dir, meter.scores, meter.labels, run.valid_set.filenames(), run.class_names)
    ckpt.save_checkpoint(run.train_dir / ckpt.LAST_NAME, state)
    ckpt.write_history(run.train_dir, run.history)


def stopped_early(run: FoldRun) -> bool:
    """Say whether the validation loss has not improved for `early_stopping` epochs."""
    patience = run.config.early_stopping
    return patience is not None and run.epoch - run.best_epoch >= patience and run.epoch > 0


def log_epoch(run: FoldRun, *, train_s: float, valid_s: float, waited_s: float) -> None:
    """Log the epoch's one line, and keep its timing apart from the history, which two equal runs share to the byte."""
    row = run.history[-1]
    clips_per_s = run.train_sampler.n_items / train_s
    logger.info(
        "fold %d epoch %3d  train %.5f  valid %.5f  cmap_pad_5 %.4f (floor %.4f)  macro AP %.4f  AUROC %.4f  "
        "lr %.2e  %.0f s, %.1f clips/s, %.0f %% waiting for data%s",
        run.fold, row["epoch"], row["train_loss"], row["valid_loss"], row["cmap_pad_5"], row["cmap_pad_5_floor"],
        row["macro_ap"], row["macro_roc_auc"], row["lr"], train_s + valid_s, clips_per_s, 100 * waited_s / train_s,
        "  *" if run.best_epoch == run.epoch else "",
    )  # fmt: skip
    with (run.train_dir / "timing.csv").open("a") as file:
        if file.tell() == 0:
            file.write("epoch,train_s,valid_s,clips_per_s,waiting_share\n")
        file.write(f"{run.epoch},{train_s:.2f},{valid_s:.2f},{clips_per_s:.2f},{waited_s / train_s:.4f}\n")


# Resuming -----------------------------------------------------------------------------------------------


def resume(run: FoldRun, path: Path) -> None:
    """Go on from a checkpoint of the fold's folder.

    Raises:
        UserError: it was made with other classes, another network or other audio settings.
    """
    state = ckpt.read_checkpoint(path)
    ckpt.check_same_setup(state, path, run.config, run.class_names)
    ckpt.load_checkpoint(
        run.model,
        run.optimizer,
        state,
        scheduler=run.scheduler,
        scaler=run.scaler if run.scaler.is_enabled() else None,
        ema=run.ema.module if run.ema else None,
    )
    for name in PROGRESS:
        setattr(run, name, state[name])
    run.train_loss.load_state_dict(state["train_loss"])
    ckpt.write_history(run.train_dir, run.history)
    logger.info("fold %d: going on from %s, epoch %d, batch %d", run.fold, path, run.epoch + 1, run.batch)


def main() -> int:
    """Train the folds of the settings and say what came of it."""
    config = load_config(description=__doc__ or "")
    configure_logger(config)
    summary = run(data.read_train_table(config.train_dataframe_path), config)
    for fold, best in summary["folds"].items():
        print(f"fold {fold}: best epoch {best['epoch']:.0f}  {describe_scores(best)}")
    print(f"mean of {len(summary['folds'])}: {describe_scores(summary['mean'])}")
    print(f"wrote {config.exp_dir}\nnext: {shlex.join(['python', 'plot_loss_metric.py', str(config.exp_dir)])}")
    return 0


if __name__ == "__main__":
    run_main(main)
