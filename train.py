"""Train one SED model a fold, resume it exactly, and leave what is needed to judge it.

    python train.py --folds 0 1 --train-bs 16

Read this file from the top: `run` goes through the folds; `train_fold` and `build_fold` make the
data, the model and the optimizer of one; `train_one_epoch` and `validate` are the loop;
`finish_epoch` is what an epoch leaves. What protects a run is called by one name each and lives in
training/: signals (stopping), too little time (run_clock) or memory (memory), losses that are not
finite (bad_steps), interruptions (resuming), several processes (processes), damaged recordings
(verifying).

Every random draw follows from (seed, epoch, index) for a clip and from (seed, epoch, batch) for a
batch, so a resumed run makes the same draws as an unbroken one.
"""

import functools
import logging
import math
from dataclasses import replace
from typing import Any

from configs import Config, check_command_line, configure_logger, load_config, run_main, set_seed

check_command_line(__name__, __doc__)  # --help and mistyped settings need not wait for torch

import pandas as pd
import torch
from timm.utils import ModelEmaV3

from audio.mel import check_bands
from catalog import train_table
from catalog.annotated import expand_windows
from catalog.frame_targets import of_clips
from catalog.sources import check_sources
from dataset import WaveformDataset
from metrics import MetricMeter
from model import build_model, compile_model, pick_amp_dtype, pick_device
from network.memory_format import torch_format
from scheduler import get_scheduler, step_after_epoch, stepped_on
from training import bad_steps, folder, forecast, late_steps, memory, processes, resuming
from training.averaging import average_weights, collect_weights
from training.batch_size import Training, settle_batch_size
from training.batches import batches_in_turn, build_loader, fill_batch
from training.criterion import build_loss
from training.devices import pick_frontend, set_up_device
from training.distillation import taught, with_teacher
from training.ending import tell_ending, unfinished_folds
from training.epoch_files import history_row, leave_files
from training.epoch_report import EpochClock, log_best
from training.floor import Probe, compare_with_floor, find_floor, frozen_settings, leave_frozen
from training.fold import Fold, Parts, Precision, Progress
from training.launches import settle_launches
from training.loggers import followed
from training.mixed import Mixed, mix_batch, mixed_loss
from training.naming import settle_number
from training.rate_finder import search_rates, search_settings
from training.rates import begin_training, build_optimizer
from training.readings import BatchLoss
from training.refit import refit, refit_plan, split_rows
from training.run_clock import OutOfTimeError, RunClock
from training.scored import Scored
from training.sheets import begin_logs, leave_worst_clips
from training.soup import make_soup, soup_settings
from training.stopping import STOP, stop_if_asked
from training.stopwatch import VALID_WAITING, WAITING
from training.verifying import (
    check_names,
    check_pseudo_labels,
    check_recordings,
    verify_prepared,
    warn_of_one_species,
)

logger = logging.getLogger("birdclef.train")


def main() -> int:
    """Train the folds of the settings and print their scores."""
    config = load_config(description=__doc__ or "")
    configure_logger(config)
    table = train_table.read_train_table(config.train_dataframe_path)
    summary = run(table, config)

    if processes.is_first_of_torchrun():
        tell_ending(summary, config)
    return 0


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
    config = frozen_settings(soup_settings(search_settings(config or Config())))
    device = pick_device(processes.local_device(config.device))
    check_names(config)
    check_sources(config)
    config = with_teacher(config)
    table = train_table.check_table(train_df, str(config.train_dataframe_path))
    check_recordings(table, config)
    check_pseudo_labels(table, config)
    rows = expand_windows(table, config)  # as they are, unless their labels have a time
    class_names = train_table.load_class_names(rows)
    warn_of_one_species(class_names, config)

    def trial(config: Config) -> Fold:  # is thrown away
        parts = split_rows(rows, config.folds[0], config)
        return build_fold(*parts, 0, class_names, config, device, load_weights=False)

    set_up_device(device, config, n_rows=len(rows))
    with processes.joined(device), STOP.noted():
        number = processes.from_first(functools.partial(settle_number, config))
        config = replace(config, exp_id=number)
        training = Training(trial, forward_backward, optimizer_step)
        config = settle_batch_size(config, device, len(rows), training)
        if config.verify:
            processes.from_first(lambda: verify_prepared(table, config))

        clock, unfinished = RunClock(config.max_hours), {}
        for number in config.folds[: 1 if config.refit else None]:
            try:
                forecast.check_room(clock)
                train_fold(rows, number, class_names, config, device, clock)
            except OutOfTimeError:
                unfinished = unfinished_folds(config, number)
                break

        return processes.from_first(lambda: folder.write_summary(config, unfinished=unfinished))


# One fold -----------------------------------------------------------------------------------------


def train_fold(
    table: pd.DataFrame,
    number: int,
    class_names: list[str],
    config: Config,
    device: torch.device,
    clock: RunClock,
) -> None:
    """Train one fold, from its newest checkpoint if there is one.

    Raises:
        OutOfTimeError: the time of --max-hours does not do; what is trained is saved.
    """
    frontend = pick_frontend(config, device)
    config = replace(config, train_dir=config.fold_dir(number), frontend=frontend)
    config, n_epochs = refit_plan(config)  # as it is, unless all rows are to be trained on
    with folder.opened(config), followed(config) as logs:
        config = settle_launches(config, device, len(table))
        if config.debug:
            table, config = train_table.shrink(table, number, config)
        parts = split_rows(table, number, config)
        split = resuming.split_digest(*parts, config.pseudo_labels)

        # A resumed run takes its weights from the checkpoint and needs no other.
        found = processes.from_first(lambda: resuming.find_checkpoint(config, class_names, split))
        if config.freeze == "all":  # a fold that has its head is complete
            fit = functools.partial(leave_frozen, *parts, number, class_names, config, device)
            return processes.from_first(fit) if found is None else None
        is_new, probe = found is None and not config.soup, None
        if is_new:
            check_bands(config)
            probe = processes.from_first(lambda: find_floor(*parts, class_names, config, device))
        fold = build_fold(
            *parts, number, class_names, config, device,
            load_weights=is_new, probe=probe, split=split,
        )  # fmt: skip
        fold.clock, fold.stop_after, fold.logs = clock, n_epochs, logs
        if config.find_lr:
            return search_rates(fold, train_step)
        resuming.begin(fold, found)
        if config.refit:
            return refit(fold, train_one_epoch)
        with fold.writer.finishing():
            if config.soup:
                make_soup(fold, validate)
                finish_epoch(fold, *validate(fold))
                return log_best(fold)
            begin_logs(fold)
            train_epochs(fold)

        log_best(fold)
        compare_with_floor(number, fold.progress)
        leave_worst_clips(fold)


def train_epochs(fold: Fold) -> None:
    """Train and validate epoch after epoch; at the end, average the last weights if asked to."""
    config, progress = fold.config, fold.progress
    while not progress.is_complete(fold.n_epochs, config.early_stopping):
        forecast.check_room(fold.clock)
        times = EpochClock(fold)
        train_one_epoch(fold)
        times.end_training(fold)
        finish_epoch(fold, *validate(fold))
        times.report(fold)

    if average_weights(fold):
        finish_epoch(fold, *validate(fold))


def build_fold(
    train_part: pd.DataFrame,
    valid_part: pd.DataFrame,
    number: int,
    class_names: list[str],
    config: Config,
    device: torch.device,
    *,
    load_weights: bool = True,
    probe: Probe | None = None,
    split: str = "",
) -> Fold:
    """Make data, model, optimizer, schedule and loss, as they are before the first step."""
    set_seed(config.seed)

    # Data
    share = {"rank": processes.rank(), "world_size": processes.world_size()}
    train_set = WaveformDataset(train_part, config, "train", class_names)
    scored_part = train_part if config.refit else valid_part  # a refit never looks at it
    valid_set = WaveformDataset(scored_part, config, "valid", class_names)
    train_loader, train_sampler = build_loader(train_set, config, device, **share)
    valid_loader, valid_sampler = build_loader(valid_set, config, device, **share)

    # Model, float32 weights; images go through it in amp_dtype
    sed = build_model(config, len(class_names), load_weights=load_weights)
    if probe is not None and probe.state is not None and config.probe_start:
        sed.load_state_dict(probe.state)  # the same backbone, with the regression as its head
    if train_set.vector_size:
        sed.project_to(train_set.vector_size)
    model = processes.synchronize_batch_norm(sed).to(device)
    model = model.to(memory_format=torch_format(config.channels_last != "off"))
    amp_dtype = pick_amp_dtype(config, device)

    # Optimizer, schedule, loss
    optimizer = build_optimizer(model, config, device)
    steps_per_epoch = math.ceil(len(train_sampler) / config.accumulation_steps)
    scheduler = get_scheduler(config, optimizer, steps_per_epoch=steps_per_epoch)
    scaler = torch.amp.GradScaler(device.type, enabled=amp_dtype is torch.float16)
    ema = ModelEmaV3(model, decay=config.ema_decay, use_warmup=True) if config.ema_decay else None
    progress = Progress(probe=probe.columns if probe else {})
    n_columns = len(class_names) + config.no_bird_class
    labels_loss = build_loss(config, is_timed=train_set.is_timed, has_masks=train_set.has_masks)
    criterion = taught(labels_loss, config, n_columns, epoch=lambda: progress.epoch)
    how = config.compile_model
    compiled = compile_model(model, how) if how in ("on", "graphs") else None

    return Fold(
        number=number,
        class_names=class_names,
        split=split or resuming.split_digest(train_part, valid_part, config.pseudo_labels),
        config=config,
        device=device,
        train_loader=train_loader,
        train_sampler=train_sampler,
        valid_loader=valid_loader,
        valid_sampler=valid_sampler,
        criterion=criterion,
        parts=Parts(model, optimizer, scheduler, scaler, ema),
        precision=Precision(amp_dtype, compiled),
        progress=progress,
    )


# One epoch ----------------------------------------------------------------------------------------


def train_one_epoch(fold: Fold) -> None:
    """Train what is left of the epoch; save in between where the settings ask for it."""
    progress, loader, sampler = fold.progress, fold.train_loader, fold.train_sampler
    begin_training(fold.parts.model, fold.config, progress.epoch)
    sampler.set_position(progress.epoch + 1, progress.batch)
    timer = resuming.SaveTimer(fold.config)

    what = f"epoch {progress.epoch + 1}"
    status = functools.partial(forecast.status, fold)
    for batch in batches_in_turn(
        loader, fold.watch, WAITING, what=what, done=progress.batch, status=status
    ):
        has_stepped = train_step(fold, batch)
        if not has_stepped:
            continue

        forecast.look(fold)
        stop_if_asked(fold)
        if timer.is_due(progress.step) and progress.batch < len(sampler):
            resuming.save_beside(fold)
            timer.restart()
    late_steps.read(fold)


def train_step(fold: Fold, batch: dict[str, torch.Tensor]) -> bool:
    """Go forward and backward on one batch, and say whether the optimizer has stepped.

    It steps when a group of `accumulation_steps` batches is complete.
    """
    progress, watch = fold.progress, fold.watch
    if fold.start_group():
        fold.parts.optimizer.zero_grad(set_to_none=True)
        fold.statistics.remember()

    with watch.part("copy to the device"):
        images, targets = fold.to_device(batch)
        mixed = mix_batch(fold, images, targets)

    losses = memory.train_in_parts_that_fit(fold, mixed, forward_backward)
    fold.group.losses[progress.batch] = losses  # on the device; optimizer_step reads them

    is_complete = progress.batch == fold.group.last
    if is_complete:
        with watch.part("optimizer step"):
            optimizer_step(fold)
    progress.batch += 1
    return is_complete


def forward_backward(fold: Fold, mixed: Mixed) -> torch.Tensor:
    """Add the gradients of a batch, or of a part of it, weighed by its clips in the group.

    Returns:
        The loss averaged over its clips, ().
    """
    with fold.watch.part("forward"):
        output = fold.call(fold.forward, mixed.images)
        loss = mixed_loss(fold.criterion, output, mixed)  # in float32

    with fold.watch.part("backward"):
        share = len(mixed.images) / fold.group.n_clips
        fold.parts.scaler.scale(loss * share).backward()
    return loss.detach()


def optimizer_step(fold: Fold) -> None:
    """Unscale, clip and step; where a loss or gradient is not finite, skip the step."""
    config, progress = fold.config, fold.progress
    model, optimizer, scheduler = fold.parts.model, fold.parts.optimizer, fold.parts.scheduler
    scaler, ema = fold.parts.scaler, fold.parts.ema

    processes.sum_gradients(model.parameters())
    scaler.unscale_(optimizer)  # before clipping, or the limit would be on scaled gradients
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.grad_clip or math.inf)
    if fold.late is not None:
        return late_steps.step(fold, norm)

    is_sound = bad_steps.read_losses(fold, norm)
    if is_sound:
        scaler.step(optimizer)
    scaler.update()  # halves the scale after an overflow

    progress.step += 1
    if not is_sound:
        bad_steps.skip_step(fold)
        return

    progress.bad_steps = 0
    if ema is not None:
        ema.update(model, step=progress.step)
    if stepped_on(config.scheduler_name) == "step":
        scheduler.step()


# Validation ---------------------------------------------------------------------------------------


@torch.inference_mode()
def validate(fold: Fold) -> tuple[float, MetricMeter]:
    """Score the whole validation part at once.

    Returns:
        Loss on hard targets averaged over samples, and the meter with all scores (N, C) and labels
        (N, C).

    Raises:
        UserError: a score is not finite.
    """
    loader, sampler, watch = fold.valid_loader, fold.valid_sampler, fold.watch
    fold.writer.wait()  # the loader's processes are forked, once, and not beside a thread
    fold.parts.scored_model.eval()
    scored = Scored()
    sampler.set_position(0)
    for batch in batches_in_turn(loader, watch, VALID_WAITING, what="validation"):
        if batch:  # a process may have no share in the last one
            with watch.part("validation: model"):
                scored.add(*score_batch(fold, batch))
        stop_if_asked(fold)

    with watch.part("metric"):
        loss, scores, labels = scored.read()
        all_scores, all_labels = processes.gather_rows(sampler.rows(), scores, labels)  # (N, C)
        bad_steps.check_scores(fold, all_scores)
        meter = MetricMeter()
        average = fold.valid_set.average_windows  # a recording may have several clips
        meter.update(average(all_scores), average(all_labels))
        summed, count = processes.total(loss.total, loss.count)
    return summed / count, meter


def score_batch(
    fold: Fold, batch: dict[str, torch.Tensor]
) -> tuple[list[BatchLoss], torch.Tensor, torch.Tensor]:
    """Score a batch: the losses of its parts, clipwise scores and labels, both (B, C)."""
    images, targets = fold.to_device(batch)

    def score(clips: slice) -> tuple[BatchLoss, torch.Tensor]:
        part = images[clips]
        filled = fold.call(fold.parts.scored_model, fill_batch(part, fold.constant_valid_size()))
        output = {name: value[: len(part)] for name, value in filled.items()}
        loss = fold.criterion(output, targets[clips])
        return (loss, len(part)), output["clipwise_output"]

    parts = memory.score_in_parts_that_fit(fold, images, score)
    losses, scores = zip(*parts, strict=True)
    labels = of_clips(targets)[:, : len(fold.class_names)] >= 0.5
    return list(losses), torch.cat(scores), labels


# What an epoch leaves -----------------------------------------------------------------------------


def finish_epoch(fold: Fold, valid_loss: float, meter: MetricMeter) -> None:
    """Step the schedule, add the history row, and write the epoch's files."""
    config, parts, progress = fold.config, fold.parts, fold.progress
    with fold.watch.part("metric"):
        scores = meter.compute()
    row = history_row(fold, valid_loss, scores)
    progress.is_averaged = parts.average is not None
    if not progress.is_averaged:
        collect_weights(fold)
        step_after_epoch(config.scheduler_name, parts.scheduler, valid_loss)

    is_best = progress.end_epoch(row, config.monitor)
    if processes.is_first():
        leave_files(fold, meter, is_best=is_best)


if __name__ == "__main__":
    run_main(main)
