"""Batches through 0, 1 and 2 workers, the start of an epoch, and the memory that a row takes.

python -m benchmarks.loader [--root FOLDER] [--batches 12] [--batch-size 16] [--repeats 5] [--rows
1000000]
"""

import gc
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from statistics import median
from typing import Any

import pandas as pd
import torch
from torch.utils.data import DataLoader

from benchmarks import timing
from benchmarks.baseline import BaselineDataset
from benchmarks.material import prepared_archive
from configs import Config
from dataset import Key, WaveformDataset
from training.batches import Loader, build_loader

CPU = torch.device("cpu")


def main() -> None:
    """Measure and report."""
    options = timing.parse_options(
        "loader", __doc__ or "", root=None, batches=12, batch_size=16, rows=1_000_000
    )
    with prepared_archive(options.root) as (config, df):
        n_clips = options.batches * options.batch_size
        df = pd.concat([df] * (1 + n_clips // len(df)), ignore_index=True)[:n_clips]
        config = replace(config, train_bs=options.batch_size)
        with (
            timing.one_core()
        ):  # so that 0 workers compare with 1; CPU time is that of this process alone
            rows, facts = compare_workers(df, config, options.repeats)
        facts |= machine_limit(df, config, options.repeats)
        facts |= epoch_start(df, config, options.repeats) | row_cost(df, config, options.rows)
    timing.report("loader", rows, facts)


def compare_workers(
    df: pd.DataFrame, config: Config, repeats: int
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Time whole epochs with persistent workers, and with the baseline and torch's own loader."""
    epochs: dict[str, Callable[[], None]] = {}
    for workers in (0, 1, 2):
        dataset = WaveformDataset(df, config, "train")
        epochs[f"ours, {workers} workers"] = whole_epoch(
            *build_loader(dataset, with_workers(config, workers), CPU)
        )
    baseline = BaselineDataset(df, config, "train", n_pink=20)
    usual = DataLoader(
        baseline, config.batch_size, shuffle=True, num_workers=2, persistent_workers=True
    )
    epochs["baseline, 2 workers"] = whole_epoch(usual)
    rows = timing.summarise(
        timing.alternate(epochs, repeats), len(df), "clip", ours="ours, 2 workers"
    )
    one, two = rows[1]["ms/clip"], rows[2]["ms/clip"]
    return rows, {"two workers against one, times": one / two}


def with_workers(config: Config, num_workers: int) -> Config:
    """Copy the settings with another number of loader processes."""
    return replace(config, num_workers=num_workers)


def whole_epoch(loader: Loader, sampler: Any = None) -> Callable[[], None]:
    """Return a function that goes through the next epoch."""
    epoch = 0

    def run() -> None:
        nonlocal epoch
        epoch += 1
        if sampler is not None:
            sampler.set_position(epoch)
        for _ in loader:
            pass

    return run


def machine_limit(df: pd.DataFrame, config: Config, repeats: int) -> dict[str, float]:
    """Time items in one and two processes that hand nothing over: the most two workers can do."""
    dataset = WaveformDataset(df, config, "train")
    keys = [(1, index) for index in range(len(dataset))]
    with ProcessPoolExecutor(
        2, mp_context=get_context("fork"), initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:

        def make(parts: int) -> None:
            list(
                pool.map(
                    make_items, [dataset] * parts, [keys[part::parts] for part in range(parts)]
                )
            )

        runs = timing.alternate({"one": lambda: make(1), "two": lambda: make(2)}, repeats)
    walls = {name: median(run.wall_s for run in some) for name, some in runs.items()}
    return {"two processes that only make items against one, times": walls["one"] / walls["two"]}


def make_items(dataset: WaveformDataset, keys: list[Key]) -> None:
    """Make items and drop them."""
    for key in keys:
        dataset[key]


def epoch_start(df: pd.DataFrame, config: Config, repeats: int) -> dict[str, Any]:
    """Time from the start of an epoch to its first batch, of a single clip."""
    config = replace(config, train_bs=1, num_workers=2)
    loader, sampler = build_loader(WaveformDataset(df, config, "train"), config, CPU)
    starts = []
    for epoch in range(repeats + 1):
        sampler.set_position(epoch)
        started = time.perf_counter()
        batches = iter(loader)
        next(batches)
        starts.append(1e3 * (time.perf_counter() - started))
        for _ in batches:
            pass
    return {
        "first batch of one clip in the first epoch, which starts 2 workers, ms": starts[0],
        "first batch of one clip in the epochs after it, ms": median(starts[1:]),
    }


def row_cost(df: pd.DataFrame, config: Config, n_rows: int) -> dict[str, Any]:
    """Count bytes and Python objects that a data set of n_rows holds."""
    many = pd.concat([df] * (1 + n_rows // len(df)), ignore_index=True)[:n_rows]
    gc.collect()
    objects = len(gc.get_objects())
    started = time.perf_counter()
    dataset = WaveformDataset(many, config, "train")
    seconds = time.perf_counter() - started
    gc.collect()
    arrays = [value for value in vars(dataset).values() if hasattr(value, "nbytes")]
    return {
        "rows": n_rows,
        "bytes a row": sum(array.nbytes for array in arrays) / n_rows,
        "Python objects of all rows together": len(gc.get_objects()) - objects,
        "construction, s": seconds,
    }


if __name__ == "__main__":
    main()
