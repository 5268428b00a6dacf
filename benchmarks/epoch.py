"""Whole training epochs through the loader: train.py's against a plain loop of the same model.

    python -m benchmarks.epoch [--root FOLDER] [--model NAME] [--clips 64] [--batch-size 16]
    [--workers 2] [--repeats 3]

The plain loop is torch's usual loader over the same data set, forward, loss, backward and AdamW,
with nothing around them. Both run in one process, in turns, with the allocator that train.py sets,
so neither pays for memory that the other has. User and system seconds are those of this process;
loader processes are not in them.
"""

import resource
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pandas as pd
import torch
from torch.utils.data import DataLoader

from benchmarks import timing
from benchmarks.material import prepared_archive
from benchmarks.step import next_epoch
from configs import Config
from dataset import WaveformDataset
from metrics import get_loss
from model import build_model
from train import build_fold, train_one_epoch
from training.batches import collate, leave_signals_to_the_main_process
from training.devices import set_up_device
from training.fold import Fold
from training.stopwatch import WAITING

CPU = torch.device("cpu")


def main() -> None:
    """Measure and report."""
    options = timing.parse_options(
        "epoch",
        __doc__ or "",
        root=None,
        model="tf_efficientnet_b0",
        clips=64,
        batch_size=16,
        workers=2,
        repeats=3,
    )
    with prepared_archive(options.root) as (config, df):
        df = pd.concat([df] * (1 + options.clips // len(df)), ignore_index=True)[: options.clips]
        config = replace(
            config,
            base_model_name=options.model,
            pretrained=False,
            train_bs=options.batch_size,
            num_workers=options.workers,
            p_mixup=0.0,  # the plain loop mixes nothing
            p_cutmix=0.0,
            train_dir=config.fold_dir(0),
        )
        names = sorted(df["primary_label"].unique())
        set_up_device(CPU, config, n_rows=len(df))
        fold = build_fold(df, df[:1], 0, names, config, CPU)
        candidates = {"ours": our_epoch(fold), "plain loop": plain_epoch(df, names, config)}

        for epoch in candidates.values():
            epoch()  # the first steps make plans and workers that later ones use
        rows = [
            measure(name, epoch, len(df))
            for _ in range(options.repeats)
            for name, epoch in candidates.items()
        ]
    facts = {"clips": options.clips, "model": options.model, "workers": options.workers}
    facts["ours, s of the last epoch waiting for data"] = fold.watch.seconds()[WAITING]
    timing.report("epoch", rows, facts | {"ours / plain, clips/s": ratio(rows)})


def our_epoch(fold: Fold) -> Callable[[], None]:
    """Return a function that trains an epoch as train.py does, without validation."""

    def epoch() -> None:
        fold.watch.restart()
        train_one_epoch(fold)
        next_epoch(fold)

    return epoch


def plain_epoch(df: pd.DataFrame, names: list[str], config: Config) -> Callable[[], None]:
    """Return a function that trains an epoch with nothing but a loader and the step."""
    loader: DataLoader = DataLoader(
        WaveformDataset(df, config, "train", names),
        config.batch_size,
        shuffle=True,
        collate_fn=collate,
        num_workers=config.num_workers,
        persistent_workers=config.num_workers > 0,
        worker_init_fn=leave_signals_to_the_main_process,
    )
    model = build_model(config, len(names)).to(memory_format=torch.channels_last).train()
    criterion = get_loss(config.loss_name)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr)

    def epoch() -> None:
        for batch in loader:
            optimizer.zero_grad()
            output = model(batch["image"].expand(-1, 3, -1, -1))
            criterion(output, batch["targets"]).backward()
            optimizer.step()

    return epoch


def measure(name: str, epoch: Callable[[], None], n_clips: int) -> dict[str, Any]:
    """Time an epoch; return a row."""
    before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    epoch()
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
    return {
        "candidate": name,
        "seconds": seconds,
        "clips/s": n_clips / seconds,
        "user s": after.ru_utime - before.ru_utime,
        "system s": after.ru_stime - before.ru_stime,
    }


def ratio(rows: list[dict[str, Any]]) -> float:
    """Compare the fastest epochs of both, which other programs have disturbed least."""
    ours = max(row["clips/s"] for row in rows if row["candidate"] == "ours")
    plain = max(row["clips/s"] for row in rows if row["candidate"] == "plain loop")
    return ours / plain


if __name__ == "__main__":
    main()
