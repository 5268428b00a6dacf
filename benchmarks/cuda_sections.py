"""The sections of benchmarks/cuda.py: each prints rows of JSON about one thing a GPU is used for.

Sizes are those of a real run on a GPU, or tiny ones that show on any device that a section works.
"""

import contextlib
import csv
import functools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml

import train
from benchmarks.kill_loop import differences, make_run
from benchmarks.material import prepared_archive
from benchmarks.step import next_epoch
from benchmarks.timing import describe_machine
from configs import Config
from inference.scorers import TorchModels
from metrics import get_loss
from model import build_model
from training.devices import set_up_device
from training.fold import Fold
from training.stopwatch import VALID_WAITING, WAITING

ROOT = Path(__file__).resolve().parent.parent
FORMATS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
MODES = {"eager": "", "compiled": "default", "graphs": "reduce-overhead"}


@dataclass(frozen=True)
class Sizes:
    """How much a section does."""

    model: str = "tf_efficientnet_b0"
    batches: tuple[int, ...] = (32, 64, 128)
    n_steps: int = 30
    repeats: int = 5
    launches_batch: int = 64
    n_clips: int = 4096  # of an epoch
    workers: int = 8
    n_mels: int = 224
    period: float = 5.0
    n_windows: int = 2048
    modes: tuple[str, ...] = tuple(MODES)
    amp_dtypes: tuple[str, ...] = ("float16", "bfloat16")


TINY = Sizes(
    model="test_efficientnet",
    batches=(2,),
    n_steps=2,
    repeats=2,
    launches_batch=2,
    n_clips=16,
    workers=0,
    n_mels=32,
    period=1.0,
    n_windows=6,
    modes=("eager",),  # compiling takes minutes on a CPU
    amp_dtypes=("bfloat16",),
)


def run_section(name: str, *, is_try: bool) -> None:
    """Print the rows of a section, on CUDA, or on what there is for a try.

    Raises:
        RuntimeError: there is no CUDA device, and it is not a try.
    """
    if not is_try and not torch.cuda.is_available():
        raise RuntimeError("no CUDA device here; --try runs on any")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print(json.dumps({"section": name, "card": card(device)}), flush=True)
    for row in SECTIONS[name](TINY if is_try else Sizes(), device):
        print(json.dumps({"section": name, **row}), flush=True)


def card(device: torch.device) -> str:
    """Name what is measured on."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    return f"no card: {describe_machine().get('processor', device.type)}"


def wait(device: torch.device) -> None:
    """Wait until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(device: torch.device, work: Callable[[], Any]) -> float:
    """Return the seconds of `work`, the device's part of it included."""
    wait(device)
    started = time.perf_counter()
    work()
    wait(device)
    return time.perf_counter() - started


@contextlib.contextmanager
def built(sizes: Sizes, device: torch.device, n_clips: int, **changes: Any) -> Iterator[Fold]:
    """Build a fold that trains on `n_clips` made-up clips and validates on an eighth of them."""
    with prepared_archive(None, n_recordings=64, seconds=2 * sizes.period) as (config, df):
        config = replace(
            config,
            base_model_name=sizes.model,
            pretrained=False,
            n_mels=sizes.n_mels,
            period=sizes.period,
            device=device.type,
            num_workers=sizes.workers,
            train_dir=config.fold_dir(0),
            **changes,
        )
        assert config.train_dir is not None
        config.train_dir.mkdir(parents=True)
        names = sorted(df["primary_label"].unique())
        train_part = pd.concat([df] * -(-n_clips // len(df)), ignore_index=True)[:n_clips]
        set_up_device(device, config, n_rows=n_clips)
        yield train.build_fold(
            train_part, train_part[: max(8, n_clips // 8)], 0, names, config, device
        )


# 1 The step ---------------------------------------------------------------------------------------


def step(sizes: Sizes, device: torch.device) -> Iterator[dict[str, Any]]:
    """Our step against a bare one, on a batch that lies on the device."""
    for batch_size in sizes.batches:
        changes = {"train_bs": batch_size, "p_mixup": 0.0, "p_cutmix": 0.0, "frontend": "cpu"}
        with built(sizes, device, batch_size * sizes.n_steps, **changes) as fold:
            batch = made_up_batch(fold, batch_size)
            fold.train_loader = _Same(fold.train_loader.dataset, batch, sizes.n_steps)  # type: ignore[assignment]

            def ours(fold: Fold = fold) -> None:
                train.train_one_epoch(fold)
                next_epoch(fold)

            bare = bare_epoch(fold, batch, sizes.n_steps)
            candidates = {"ours": ours, "bare": bare}
            runs: dict[str, list[float]] = {name: [] for name in candidates}
            for turn in range(sizes.repeats + 1):
                for name, epoch in candidates.items():
                    seconds = timed(device, epoch) / sizes.n_steps
                    if turn:  # the first turn makes plans
                        runs[name].append(1e3 * seconds)
            over = [100 * (one / two - 1) for one, two in zip(*runs.values(), strict=True)]
            found = {f"{name} ms": median(values) for name, values in runs.items()}
            yield {"batch": batch_size, **found, "over %": median(over), "goal %": 3}


class _Same:
    """A loader of one batch, again and again."""

    def __init__(self, dataset: Any, batch: dict[str, torch.Tensor], n_batches: int) -> None:
        self.dataset, self.batch, self.n_batches = dataset, batch, n_batches

    def __len__(self) -> int:
        return self.n_batches

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        return iter([self.batch] * self.n_batches)


def made_up_batch(fold: Fold, n_clips: int) -> dict[str, torch.Tensor]:
    """Draw images of one plane (B, 1, T, F) and targets (B, C), on the device."""
    config = fold.config
    shape = (n_clips, 1, config.image_frames, config.image_bands)
    targets = torch.full((n_clips, len(fold.class_names)), 0.0025)
    targets[:, 0] = 0.995
    return {"image": torch.rand(shape).to(fold.device), "targets": targets.to(fold.device)}


def bare_epoch(
    fold: Fold,
    batch: dict[str, torch.Tensor],
    n_steps: int,
    memory_format: torch.memory_format = torch.channels_last,
    mode: str = "",
) -> Callable[[], None]:
    """Return a function that trains some steps as plainly as AMP allows."""
    device, config = fold.device, fold.config
    amp_dtype = fold.precision.amp_dtype
    model = build_model(config, len(fold.class_names)).to(device).train()
    model = model.to(memory_format=memory_format)
    forward = torch.compile(model, mode=mode) if mode else model
    criterion = get_loss(config.loss_name)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    scaler = torch.amp.GradScaler(device.type, enabled=amp_dtype is torch.float16)
    images = batch["image"].expand(-1, 3, -1, -1)

    def epoch() -> None:
        for _ in range(n_steps):
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(device.type, dtype=amp_dtype, enabled=amp_dtype is not None):
                output = forward(images)
            scaler.scale(criterion(output, batch["targets"])).backward()
            scaler.step(optimizer)
            scaler.update()

    return epoch


# 2 The launches -----------------------------------------------------------------------------------


def launches(sizes: Sizes, device: torch.device) -> Iterator[dict[str, Any]]:
    """The bare step in both memory formats, eager, compiled and as CUDA graphs."""
    batch_size = sizes.launches_batch
    with built(sizes, device, batch_size, train_bs=batch_size, frontend="cpu") as fold:
        batch = made_up_batch(fold, batch_size)
        for mode in sizes.modes:
            for name, memory_format in FORMATS.items():
                row: dict[str, Any] = {"batch": batch_size, "mode": mode, "format": name}
                try:
                    torch.compiler.reset()
                    first = bare_epoch(fold, batch, 3, memory_format, MODES[mode])
                    row["first 3 steps s"] = timed(device, first)
                    seconds = [timed(device, first) / 3 for _ in range(2 * sizes.repeats)]
                    row["clips/s"] = batch_size / median(seconds)
                    row["kernels ms"] = kernel_ms(device, first) / 3
                except Exception as error:  # a mode that does not work is a result, too
                    row["error"] = " ".join(str(error).split())[:200]
                yield row


def kernel_ms(device: torch.device, work: Callable[[], None]) -> float:
    """Return the milliseconds in which the GPU's kernels ran; 0 without a GPU."""
    if device.type != "cuda":
        return 0.0
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        work()
        wait(device)
    return sum(event.self_device_time_total for event in profiler.key_averages()) / 1e3


# 3 The start --------------------------------------------------------------------------------------


def start(sizes: Sizes, device: torch.device) -> Iterator[dict[str, Any]]:
    """`train.py` as a command: what of its time is not its epochs."""
    with built(sizes, device, 8, train_bs=8) as fold:
        config = replace(fold.config, epochs=3, folds=[0], train_bs=8, train_dir=None)
        path = config.root / "settings.yaml"
        path.write_text(yaml.safe_dump(config.to_dict()))
        command = [sys.executable, str(ROOT / "train.py"), "--config", str(path)]
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        whole = time.perf_counter() - started
        with (config.fold_dir(0) / "timing.csv").open(newline="") as file:
            epochs = [float(row["train_s"]) + float(row["valid_s"]) for row in csv.DictReader(file)]
    later = median(epochs[1:])
    yield {
        "outside of epochs s": whole - sum(epochs),
        "goal s": 10,
        "first epoch beyond the next s": epochs[0] - later,
        "goal, epoch s": 5,
    }


# 4 The feed, 5 between epochs ---------------------------------------------------------------------


def feed(sizes: Sizes, device: torch.device) -> Iterator[dict[str, Any]]:
    """Whole epochs through the loader, with images made on either side."""
    batch_size = max(sizes.batches)
    for frontend in ("device", "cpu"):
        changes = {"train_bs": batch_size, "frontend": frontend}
        with built(sizes, device, sizes.n_clips, **changes) as fold:
            train.train_one_epoch(fold)  # workers start, plans are made
            next_epoch(fold)
            fold.watch.restart()
            seconds = timed(device, functools.partial(train.train_one_epoch, fold))
            waiting = fold.watch.seconds()[WAITING]
        found = {"clips/s": sizes.n_clips / seconds, "waiting %": 100 * waiting / seconds}
        yield {"frontend": frontend, "workers": sizes.workers, **found, "goal %": 3}


def between(sizes: Sizes, device: torch.device) -> Iterator[dict[str, Any]]:
    """What of an epoch is validation, metric and checkpoint."""
    with built(sizes, device, sizes.n_clips, train_bs=max(sizes.batches)) as fold:
        for _ in range(2):
            fold.watch.restart()
            training = timed(device, lambda: train.train_one_epoch(fold))
            started = time.perf_counter()
            train.finish_epoch(fold, *train.validate(fold))
            rest = time.perf_counter() - started
        parts = ("validation: model", VALID_WAITING, "metric", "checkpoint")
        seconds = fold.watch.seconds()
        fold.writer.wait()  # for the files, which the next epoch would not wait for
    found = {f"{part} s": seconds[part] for part in parts}
    yield {"training s": training, **found, "share %": 100 * rest / (training + rest), "goal %": 10}


# 6 Exact ------------------------------------------------------------------------------------------


def exact(sizes: Sizes, device: torch.device) -> Iterator[dict[str, Any]]:
    """Two deterministic runs, and one that is stopped inside an epoch and goes on."""
    for amp_dtype in sizes.amp_dtypes:
        for frontend in ("cpu", "device"):
            with tempfile.TemporaryDirectory() as folder:
                config, df = make_run(
                    Path(folder),
                    device=device.type,
                    epochs=2,
                    deterministic=True,
                    amp_dtype=amp_dtype,
                    frontend=frontend,
                )
                again = replace(config, models_dir=config.root / "again")
                broken = replace(config, models_dir=config.root / "broken")
                train.run(df, config)
                train.run(df, again)
                stop_after(df, broken, n_steps=2)
                train.run(df, broken)
                ends = [one.fold_dir(0) for one in (config, again, broken)]
                yield {
                    "amp_dtype": amp_dtype,
                    "frontend": frontend,
                    "a second run differs in": differences(*ends[:2]),
                    "a resumed run differs in": differences(ends[0], ends[2]),
                }


class _Stopped(Exception):
    """Ends a run as a pulled plug does."""


def stop_after(df: pd.DataFrame, config: Config, *, n_steps: int) -> None:
    """Train until just before an optimizer step, and leave nothing behind but checkpoints."""
    original = train.train_step

    def step_or_stop(fold: Fold, batch: dict[str, torch.Tensor]) -> bool:
        if fold.progress.step >= n_steps:
            raise _Stopped
        return original(fold, batch)

    train.train_step = step_or_stop
    try:
        with contextlib.suppress(_Stopped):
            train.run(df, config)
    finally:
        train.train_step = original


# 7 Predict, 8 memory ------------------------------------------------------------------------------


def predict(sizes: Sizes, device: torch.device) -> Iterator[dict[str, Any]]:
    """Scores of the device against those of the CPU, and its speed against the bare network."""
    with built(sizes, device, 16, train_bs=8) as fold:
        train.resuming.save(fold)
        path = fold.dir / "last.pth"
        clip = np.random.default_rng(1).normal(size=fold.config.n_samples).astype("f4") / 10
        on_cpu = TorchModels([path], Config(device="cpu"))
        images = [on_cpu.prepare(np.roll(clip, 997 * number)) for number in range(8)]
        expected, _, _ = on_cpu.score(images, frames=False)
        for amp, allowed in ((True, 1e-3), (False, 1e-5)):
            models = TorchModels([path], Config(device=device.type, amp=amp))
            scores, _, _ = models.score(images, frames=False)
            many = [images[number % 8] for number in range(models.batch_size)]
            n_batches = -(-sizes.n_windows // len(many))

            def ours(models: TorchModels = models, many: Any = many, n: int = n_batches) -> None:
                for _ in range(n):
                    models.score(many, frames=False)

            ours()
            rate = n_batches * len(many) / timed(device, ours)
            bare = bare_rate(models, many, n_batches, device)
            yield {
                "amp": amp,
                "largest difference": float(np.abs(scores - expected).max()),
                "allowed": allowed,
                "windows/s": rate,
                "of the bare network": rate / bare,
                "goal": 0.85,
            }


def bare_rate(models: TorchModels, many: list[Any], n_batches: int, device: torch.device) -> float:
    """Return the windows a second of the network alone, on images that lie on the device."""
    images = torch.from_numpy(np.stack(many)).to(device).expand(-1, 3, -1, -1).contiguous()

    def run() -> None:
        with (
            torch.inference_mode(),
            torch.autocast(
                device.type, dtype=models.amp_dtype, enabled=models.amp_dtype is not None
            ),
        ):
            for _ in range(n_batches):
                models.models[0](images)

    run()
    return n_batches * len(many) / timed(device, run)


def memory(sizes: Sizes, device: torch.device) -> Iterator[dict[str, Any]]:
    """A batch that does not fit is halved and the epoch ends; a share of the card is left free."""
    if device.type != "cuda":
        yield {"not run": "running out of memory needs a card"}
        return

    batch_size = max(sizes.batches)
    changes = {"train_bs": batch_size, "frontend": "cpu"}
    with built(replace(sizes, workers=0), device, batch_size, **changes) as fold:
        torch.cuda.reset_peak_memory_stats(device)
        train.train_one_epoch(fold)
        next_epoch(fold)
        peak = torch.cuda.max_memory_allocated(device)
        whole = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(0.6 * peak / whole, device)
        train.train_one_epoch(fold)
        yield {
            "batch": batch_size,
            "peak MB": peak / 1e6,
            "clips at a time with 0.6 of it": fold.progress.micro_batch,
            "skipped steps": fold.progress.skipped_steps,
        }


SECTIONS: dict[str, Callable[[Sizes, torch.device], Iterator[dict[str, Any]]]] = {
    "step": step,
    "launches": launches,
    "start": start,
    "feed": feed,
    "between": between,
    "exact": exact,
    "predict": predict,
    "memory": memory,
}
