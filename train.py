"""Train one SED model a fold, resume it exactly, and leave what is needed to judge it.

    python train.py --folds 0 1 --train-bs 16

Read from the top: `run` goes through the folds; `train_fold` is one fold; `train_one_epoch` and
`validate` are the loop. A single step is in step.py, what is carried along and resumed in
fold_run.py. Everything random follows from (seed, epoch, index) for an item of the data set and
from (seed, epoch, batch) for a step, so a resumed run makes the same draws as an unbroken one.
"""

import contextlib
import logging
import math
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from types import FrameType
from typing import Any

from configs import Config, UserError, check_command_line, configure_logger, load_config, run_main

check_command_line(__name__, __doc__)  # --help and mistyped settings need not wait for torch

import numpy as np
import pandas as pd
import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

import checkpoint as ckpt
import dataset as data
from audio.recording import samples_crc32
from catalog.sources import check_sources
from metrics import AverageMeter, MetricMeter, describe_scores
from model import find_backbone, pick_device
from prepare_audios import read_report
from scheduler import stepped_on
from training import folder, processes
from training.fold_run import FoldRun, build_fold_run, find_checkpoint, resume, save
from training.step import score_in_memory, train_step
from training.stopwatch import VALID_WAITING, WAITING, describe_parts, find_limit

logger = logging.getLogger("birdclef.train")


# Folds --------------------------------------------------------------------------------------------


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
    device = pick_device(processes.local_device(config.device))
    find_backbone(config.base_model_name)
    check_sources(config)
    df = data.check_table(train_df, str(config.train_dataframe_path))
    class_names = data.load_class_names(df)
    known = sorted(set(df["kfold"]))
    if missing := [fold for fold in config.folds if fold not in known]:
        raise UserError(
            f"folds: there is no fold {missing[0]} in {config.train_dataframe_path}; it has {known}"
        )
    data.check_prepared(df, config.train_np_dir)
    make_deterministic() if config.deterministic else make_fast(device)
    with processes.joined(device), STOP.noted():
        if config.verify:
            processes.from_first(lambda: verify_prepared(df, config))
        for fold in config.folds:
            train_fold(df, fold, class_names, config, device)
        return processes.from_first(lambda: folder.write_summary(config))


def train_fold(
    df: pd.DataFrame, fold: int, class_names: list[str], config: Config, device: torch.device
) -> None:
    """Train one fold, from its newest checkpoint if there is one."""
    config = replace(config, train_dir=config.fold_dir(fold))
    with contextlib.ExitStack() as first_process:
        processes.from_first(lambda: open_folder(first_process, config))
        if config.debug:
            df, config = data.shrink(df, fold, config)
        train_part, valid_part = data.split_fold(df, fold, config.rare_birds)
        logger.info("fold %d: %d recordings to train, %d to validate, %d species, on %s, %d process%s",
                    fold, len(train_part), len(valid_part), len(class_names), device, processes.world_size(),
                    "es" * (processes.world_size() > 1))  # fmt: skip
        found = processes.from_first(lambda: find_checkpoint(config, class_names))
        load_weights = (
            found is None
        )  # a resumed run needs neither the network nor the file they came from
        fold_run = build_fold_run(
            train_part, valid_part, fold, class_names, config, device, load_weights=load_weights
        )
        if found is not None:
            resume(fold_run, *found)
        processes.from_first(lambda: folder.write_settings(fold_run.train_dir, config, class_names))
        while fold_run.epoch < config.epochs and not stopped_early(fold_run):
            started, done = time.perf_counter(), fold_run.batch
            fold_run.watch.restart()
            train_one_epoch(fold_run)
            trained = time.perf_counter()
            finish_epoch(fold_run, *validate(fold_run))
            log_epoch(
                fold_run,
                done=done,
                train_s=trained - started,
                valid_s=time.perf_counter() - trained,
            )
    logger.info(
        "fold %d: best epoch %d, validation loss %.5f",
        fold,
        fold_run.best_epoch,
        fold_run.best_loss,
    )


def open_folder(stack: contextlib.ExitStack, config: Config) -> None:
    """Lock the fold's folder and log into it until the stack closes; set an earlier run aside if that is wanted."""
    assert config.train_dir is not None
    stack.enter_context(folder.lock_folder(config.train_dir))
    stack.enter_context(folder.log_to_file(config.train_dir / "train.log"))
    if (
        not config.resume and not processes.is_restart()
    ):  # after a restart, the earlier run is this one
        folder.set_aside(config.train_dir)


def make_deterministic() -> None:
    """Ask torch for the same result from the same run on CUDA too, and say where that ends."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    logger.info(
        "deterministic: equal runs are equal on the same device model, torch and CUDA, with the same number of "
        "processes; another of these rounds otherwise, and an operation of which torch warns has no repeatable form"
    )


def make_fast(device: torch.device) -> None:
    """Allow CUDA what torch leaves off for the sake of the last digits; other devices have no such choice."""
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = (
            True  # tries the ways to convolve once for each shape; few shapes occur here
        )
        torch.set_float32_matmul_precision(
            "high"
        )  # TF32 where amp leaves float32; convolutions take it by default


def verify_prepared(df: pd.DataFrame, config: Config) -> None:
    """Read every prepared recording in full: it must be what prepare_audios.py wrote, as its report tells.

    Raises:
        UserError: some are damaged; the message counts them and names the first.
    """
    report = read_report(config.report_path)
    told = dict(
        zip(
            report["filename"] + ".npy",
            zip(report["crc32"], report["peak"], strict=True),
            strict=True,
        )
    )
    faults = []
    for filepath in tqdm(df["filepath"], "verifying", leave=False, disable=None, unit="file"):
        path = config.train_np_dir / filepath
        try:
            fault = describe_change(data.open_recording(path), *told.get(filepath, ("", math.nan)))
        except (OSError, ValueError) as error:
            fault = str(error)
        faults += [f"{path}: {fault}"] if fault else []
    if faults:
        raise UserError(
            f"{len(faults)} of {len(df)} prepared recordings are damaged; {faults[0]}; "
            "delete them and run prepare_audios.py again"
        )
    logger.info("verified %d prepared recordings", len(df))


def describe_change(samples: np.ndarray, crc32: str, peak: float) -> str:
    """Say how samples (n,) differ from what was written, "" if they do not.

    Without a check sum, as in reports of older versions, they must be finite, and as loud as was
    reported.
    """
    if crc32:
        return (
            "" if samples_crc32(samples) == crc32 else "its samples are not those that were written"
        )
    full_scale = 32767 if samples.dtype == np.int16 else 1
    found = float(np.abs(samples.astype(np.float32)).max()) / full_scale
    told = found if math.isnan(peak) else min(peak, 1.0) if full_scale > 1 else peak
    # NaN is near nothing
    return (
        ""
        if abs(found - told) < 1e-4
        else f"its peak is {found:g}, and was {told:g} when it was made"
    )


# The loop -----------------------------------------------------------------------------------------


def train_one_epoch(run: FoldRun) -> None:
    """Train what is left of the epoch, with a checkpoint in between where settings ask for it."""
    run.model.train()
    run.train_sampler.set_position(run.epoch + 1, run.batch)
    every_steps = run.config.checkpoint_every_steps or math.inf
    every_s = run.config.checkpoint_every_minutes * 60 or math.inf
    saved_at = time.monotonic()
    for batch in in_turn(run, run.train_loader, run.batch, f"epoch {run.epoch + 1}", WAITING):
        stepped = train_step(run, batch)
        due = run.step % every_steps == 0 or time.monotonic() - saved_at > every_s
        if stepped:
            stop_if_asked(run)
        if stepped and due and run.batch < len(run.train_sampler):
            save(run)
            saved_at = time.monotonic()


@torch.inference_mode()
def validate(run: FoldRun) -> tuple[float, MetricMeter]:
    """Score the whole validation part at once.

    Returns:
        Loss on hard targets averaged over samples, and the meter with all scores (N, C) and labels
        (N, C).
    """
    run.scored_model.eval()
    loss, scores, labels = AverageMeter(), [], []
    run.valid_sampler.set_position(0)
    for batch in in_turn(run, run.valid_loader, 0, "validation", VALID_WAITING):
        if batch:
            with run.watch.part("validation: model"):
                batch_loss, batch_scores = score_in_memory(run, batch)
                loss.update(batch_loss, len(batch_scores))
                scores.append(batch_scores.numpy())
                labels.append((batch["targets"] >= 0.5).numpy())
        stop_if_asked(run)
    with run.watch.part("metric"):
        return gather_validation(run, loss, scores, labels)


def gather_validation(
    run: FoldRun, loss: AverageMeter, scores: list[np.ndarray], labels: list[np.ndarray]
) -> tuple[float, MetricMeter]:
    """Put what all processes scored into the order of the validation part, each row once.

    Raises:
        UserError: a score is not finite.
    """
    rows = [index for batch in run.valid_sampler for _, index in batch]
    parts = [part for part in processes.gather((rows, scores, labels)) if part[0]]
    order = np.argsort(np.concatenate([rows for rows, _, _ in parts]))
    all_scores = np.concatenate([part for _, found, _ in parts for part in found])[order]  # (N, C)
    all_labels = np.concatenate([part for _, _, found in parts for part in found])[order]  # (N, C)
    if not np.isfinite(all_scores).all():
        raise UserError(
            f"epoch {run.epoch + 1}: scores are not finite; {run.train_dir} holds the epochs before it"
        )
    meter = MetricMeter()
    meter.update(all_scores, all_labels)
    summed, count = processes.total(loss.total, loss.count)
    return summed / count, meter


def in_turn(
    run: FoldRun, loader: DataLoader, done: int, what: str, part: str
) -> Iterator[dict[str, torch.Tensor]]:
    """Yield the batches after those that are done, the time until each on the run's stopwatch as `part`.

    A bar shows how far it is; it vanishes when all is done, and is not there when output is not a
    terminal.
    """
    quiet = None if processes.is_first() else True
    bar = tqdm(
        loader, desc=what, initial=done, total=len(loader), leave=False, disable=quiet, unit="batch"
    )
    batches = iter(bar)
    while True:
        with run.watch.part(part):
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


# What an epoch leaves -----------------------------------------------------------------------------


def finish_epoch(run: FoldRun, valid_loss: float, meter: MetricMeter) -> None:
    """Step the schedule, add the history row, and write the epoch's files; `last.pth` is what makes it count."""
    with run.watch.part("metric"):
        scores = meter.compute()
    row = {
        "epoch": run.epoch + 1,
        "step": run.step,
        "lr": float(run.optimizer.param_groups[0]["lr"]),
        "train_loss": run.train_loss.avg,
        "valid_loss": valid_loss,
        **scores,
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
    if not processes.is_first():
        return
    with run.watch.part("checkpoint"):
        if (
            is_best
        ):  # the predictions first: a run killed in between repeats the epoch and writes them again
            names = run.valid_set.filenames()
            folder.write_predictions(
                run.train_dir, meter.scores, meter.labels, names, run.class_names
            )
            ckpt.save_best(run.train_dir, run.state(), keep=run.config.keep_checkpoints)
        save(run)
        folder.write_history(run.train_dir, run.history)


def stopped_early(run: FoldRun) -> bool:
    """Say whether the validation loss has not improved for `early_stopping` epochs."""
    patience = run.config.early_stopping
    return patience is not None and run.epoch - run.best_epoch >= patience and run.epoch > 0


def log_epoch(run: FoldRun, *, done: int, train_s: float, valid_s: float) -> None:
    """Log the epoch's one line and its timing; `done` batches of it were done before this process began."""
    if not processes.is_first():
        return
    row, seconds = run.history[-1], run.watch.seconds()
    waiting_share = seconds[WAITING] / train_s
    clips_per_s = (run.train_sampler.n_items - done * run.train_sampler.batch_size) / train_s
    logger.info(
        "fold %d epoch %3d  train %.5f  valid %.5f  cmap_pad_5 %.4f (floor %.4f)  macro AP %.4f  AUROC %.4f  "
        "lr %.2e  %.0f s, %.1f clips/s, %.0f %% waiting for data%s",
        run.fold, row["epoch"], row["train_loss"], row["valid_loss"], row["cmap_pad_5"], row["cmap_pad_5_floor"],
        row["macro_ap"], row["macro_roc_auc"], row["lr"], train_s + valid_s, clips_per_s, 100 * waiting_share,
        "  *" if run.best_epoch == run.epoch else "",
    )  # fmt: skip
    timing = {"epoch": run.epoch, "train_s": round(train_s, 2), "valid_s": round(valid_s, 2),
              "clips_per_s": round(clips_per_s, 2), "waiting_share": round(waiting_share, 4)}  # fmt: skip
    folder.append_timing(run.train_dir, timing)
    if run.config.profile:
        limit = find_limit(
            seconds, num_workers=run.config.num_workers, on_cpu=run.device.type == "cpu"
        )
        logger.info("where epoch %d went:\n%s\n%s", run.epoch, describe_parts(seconds), limit)


# Stopping -----------------------------------------------------------------------------------------


class StopRequest:
    """SIGTERM or SIGINT: the first is noted and the step finished, the second leaves at once."""

    def __init__(self) -> None:
        self.signal_number = 0

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """Note both signals in the block, where Python allows it: in the main thread."""
        self.signal_number = 0
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {
            number: signal.signal(number, self.note) for number in (signal.SIGTERM, signal.SIGINT)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def note(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal; nothing that holds a lock may be called here."""
        if self.signal_number:
            os._exit(128 + number)
        self.signal_number = number
        os.write(2, b"\nstopping after this step; a second signal stops at once and loses it\n")


STOP = StopRequest()


def stop_if_asked(run: FoldRun) -> None:
    """Save and leave, with exit status 128 plus the signal's number, if this or another process was told to stop.

    Raises:
        SystemExit: it was.
    """
    if not processes.total(bool(STOP.signal_number))[0]:
        return
    save(run)
    number = STOP.signal_number or signal.SIGTERM
    logger.warning(
        "stopped by %s; all is saved in %s; to go on: %s",
        signal.Signals(number).name, run.train_dir / ckpt.LAST_NAME, resume_command(),
    )  # fmt: skip
    raise SystemExit(128 + number)


def resume_command() -> str:
    """Return the command that goes on with this run: the same one, without --no-resume."""
    flags = [flag for flag in sys.argv[1:] if flag not in ("--no-resume", "--no_resume")]
    n = processes.world_size()
    return shlex.join(
        [*(["torchrun", f"--nproc-per-node={n}"] if n > 1 else ["python"]), "train.py", *flags]
    )


def main() -> int:
    """Train the folds of the settings and say what came of it."""
    config = load_config(description=__doc__ or "")
    configure_logger(config)
    summary = run(data.read_train_table(config.train_dataframe_path), config)
    if os.environ.get("RANK", "0") != "0":
        return 0
    for fold, best in summary["folds"].items():
        print(f"fold {fold}: best epoch {best['epoch']:.0f}  {describe_scores(best)}")
    print(f"mean of {len(summary['folds'])}: {describe_scores(summary['mean'])}")
    print(
        f"wrote {config.exp_dir}\nnext: {shlex.join(['python', 'plot_loss_metric.py', str(config.exp_dir)])}"
    )
    return 0


if __name__ == "__main__":
    run_main(main)
