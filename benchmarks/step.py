"""Training steps on batches in memory: ours against the bare loop of the same model, and memory formats.

    python -m benchmarks.step [--model NAME] [--batch-size 8] [--batches 4] [--repeats 5] [--compile 0]

The bare loop is forward, loss, backward and AdamW with nothing around them. --compile 1 adds torch.compile, whose first
step takes minutes on a CPU.
"""

from collections.abc import Callable
from dataclasses import replace
from statistics import median
from typing import Any

import torch

from benchmarks import timing
from benchmarks.material import prepared_archive
from configs import Config
from fold_run import FoldRun, build_fold_run
from metrics import AverageMeter, get_loss
from model import build_model
from train import train_one_epoch

Batches = list[dict[str, torch.Tensor]]


def main() -> None:
    """Measure and report."""
    options = timing.parse_options(
        "step", __doc__ or "", model="tf_efficientnet_b0", batch_size=8, batches=4, repeats=5, compile=0
    )
    n_clips = options.batches * options.batch_size
    with prepared_archive(None, n_recordings=max(16, n_clips), seconds=5.0) as (config, df):
        config = replace(
            config,
            base_model_name=options.model,
            pretrained=False,
            train_bs=options.batch_size,
            num_workers=0,
            p_mixup=0.0,  # the bare loop mixes nothing
            p_cutmix=0.0,
            train_dir=config.fold_dir(0),
        )
        names = sorted(df["primary_label"].unique())
        run = build_fold_run(df[:n_clips], df[:8], 0, names, config, torch.device("cpu"))
        batches = list(run.train_loader)
        bare = {"bare, channels_last": torch.channels_last, "bare, contiguous": torch.contiguous_format}
        candidates = {"ours": ours(run, batches)}
        candidates |= {name: bare_loop(config, len(names), batches, how) for name, how in bare.items()}
        if options.compile:
            compiled = bare_loop(config, len(names), batches, torch.channels_last, compiled=True)
            candidates["bare, channels_last, compiled"] = compiled
        with timing.one_core():  # several threads wait for each other by spinning, which CPU time counts as work
            runs = timing.alternate(candidates, options.repeats)
    rows = timing.summarise(runs, n_clips, "clip", ours="bare, channels_last")
    pairs = list(zip(runs["ours"], runs["bare, channels_last"], strict=True))
    facts = {
        "overhead of ours in each repeat, %": [round(100 * (a.wall_s / b.wall_s - 1), 1) for a, b in pairs],
        "the same in CPU time, %": [round(100 * (a.cpu_s / b.cpu_s - 1), 1) for a, b in pairs],
        "CPU ms a step, median": 1e3 * median(a.cpu_s - b.cpu_s for a, b in pairs) / options.batches,
    }
    timing.report("step", rows, facts)


def ours(run: FoldRun, batches: Batches) -> Callable[[], Any]:
    """Return a function that trains an epoch on the batches by train.py's own loop."""
    run.train_loader = batches  # type: ignore[assignment]

    def epoch() -> None:
        train_one_epoch(run)
        run.epoch, run.batch, run.train_loss = run.epoch + 1, 0, AverageMeter()

    return epoch


def bare_loop(
    config: Config, n_classes: int, batches: Batches, memory_format: torch.memory_format, *, compiled: bool = False
) -> Callable[[], None]:
    """Return a function that trains an epoch with nothing but forward, loss, backward and optimizer step."""
    model = build_model(config, n_classes).to(memory_format=memory_format).train()
    forward = torch.compile(model) if compiled else model
    criterion = get_loss(
        config.loss_name, alpha=config.focal_alpha, gamma=config.focal_gamma, weights=config.loss_weights
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=config.weight_decay)

    def epoch() -> None:
        for batch in batches:
            optimizer.zero_grad()
            images = batch["image"].contiguous(memory_format=memory_format)
            criterion(forward(images), batch["targets"]).backward()
            optimizer.step()

    return epoch


if __name__ == "__main__":
    main()
