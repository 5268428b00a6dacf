"""A whole training epoch through the loader on two cores: the share of processor time that is not the model's.

    python -m benchmarks.epoch [--root FOLDER] [--model NAME] [--clips 64] [--batch-size 16]
    [--repeats 3]

Counted as CPU seconds of this process and of its two loader processes; the model's are those of the
same steps on batches in memory.
"""

import resource
import time
from dataclasses import replace

import pandas as pd
import torch

from benchmarks import timing
from benchmarks.material import prepared_archive
from benchmarks.step import next_epoch, ours
from train import build_fold, train_one_epoch
from training.fold import Fold
from training.stopwatch import WAITING


def main() -> None:
    """Measure and report."""
    options = timing.parse_options(
        "epoch",
        __doc__ or "",
        root=None,
        model="tf_efficientnet_b0",
        clips=64,
        batch_size=16,
        repeats=3,
    )
    with prepared_archive(options.root) as (config, df):
        df = pd.concat([df] * (1 + options.clips // len(df)), ignore_index=True)[: options.clips]
        config = replace(
            config,
            base_model_name=options.model,
            pretrained=False,
            train_bs=options.batch_size,
            num_workers=2,
            train_dir=config.fold_dir(0),
        )
        names = sorted(df["primary_label"].unique())
        fold = build_fold(df, df[:1], 0, names, config, torch.device("cpu"))
        with (
            timing.one_core()
        ):  # the model's; threads that wait for each other spin, which CPU time counts as work
            measure(fold)  # the first steps make plans that later ones use
            rows = [measure(fold) for _ in range(options.repeats)]
    timing.report("epoch", rows, {"clips": options.clips, "model": options.model})


def measure(fold: Fold) -> dict[str, float | str]:
    """Train an epoch through the loader, then the same steps on its batches in memory; return a row."""
    loader = fold.train_loader
    children = cpu_of_children()
    fold.watch.restart()
    started, cpu = time.perf_counter(), time.process_time()
    train_one_epoch(fold)
    waited = fold.watch.seconds()[WAITING]
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    next_epoch(fold)
    fold.train_sampler.set_position(fold.progress.epoch)
    batches = list(loader)
    loader._iterator = None  # ends the workers; the CPU time of a child counts when it has ended
    loading = (cpu_of_children() - children) / 2  # two epochs were loaded
    in_memory = time.process_time()
    ours(fold, batches)()
    model = time.process_time() - in_memory
    fold.train_loader = loader
    return {
        "candidate": "an epoch",
        "seconds": seconds,
        "waiting %": 100 * waited / seconds,
        "CPU s": cpu + loading,
        "of the loader's processes": loading,
        "of the model": model,
        "outside the model %": 100 * (1 - model / (cpu + loading)),
    }


def cpu_of_children() -> float:
    """CPU seconds, user and system, of the child processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
