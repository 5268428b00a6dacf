"""Training steps on a batch in memory: ours against a bare loop, memory formats, torch.compile.

    python -m benchmarks.step [--model NAME] [--batch-size 4] [--repeats 41] [--compile 0]

The bare loop is forward, loss, backward and AdamW with nothing around them. A turn is one step, so
that both of a pair meet the same machine. --compile 1 adds torch.compile, whose first step takes
minutes on a CPU.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from benchmarks import timing
from benchmarks.material import prepared_archive
from configs import Config
from metrics import AverageMeter, get_loss
from model import build_model, compile_model
from train import build_fold, train_one_epoch
from training.fold import Fold

MODEL_PARTS = ("forward", "backward", "optimizer step")
Batches = list[dict[str, torch.Tensor]]


def main() -> None:
    """Measure and report."""
    options = timing.parse_options(
        "step", __doc__ or "", model="tf_efficientnet_b0", batch_size=4, repeats=41, compile=0
    )
    with prepared_archive(None, n_recordings=max(16, options.batch_size), seconds=5.0) as (
        config,
        df,
    ):
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
        fold = build_fold(df[: options.batch_size], df[:8], 0, names, config, torch.device("cpu"))
        batches = list(fold.train_loader)
        formats = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
        candidates = {"ours": ours(fold, batches)}
        for name, memory_format in formats.items():
            candidates[f"bare, {name}"] = bare_loop(config, len(names), batches, memory_format)
            if options.compile:
                compiled = bare_loop(config, len(names), batches, memory_format, compiled=True)
                candidates[f"bare, {name}, compiled"] = compiled
        with (
            timing.one_core()
        ):  # several threads wait for each other by spinning, which CPU time counts as work
            timing.alternate(candidates, 3)  # plans and compiled code are made here
            fold.watch.restart()
            runs = timing.alternate(candidates, options.repeats, warm_up=0)
    rows = timing.summarise(runs, options.batch_size, "clip", ours="bare, channels_last")
    timing.report("step", rows, overhead(runs) | pieces(fold, runs["ours"]))


def overhead(runs: timing.Runs) -> dict[str, Any]:
    """Compare ours with the bare loop pair by pair."""
    pairs = list(zip(runs["ours"], runs["bare, channels_last"], strict=True))
    wall = [100 * (a.wall_s / b.wall_s - 1) for a, b in pairs]
    cpu = [100 * (a.cpu_s / b.cpu_s - 1) for a, b in pairs]
    name = "overhead of ours, %, median of the pairs and its 95 % interval"
    if len(pairs) < 6:
        return {name: wall}
    return {name: timing.median_interval(wall), "the same in CPU time": timing.median_interval(cpu)}


def pieces(fold: Fold, steps: list[timing.Run]) -> dict[str, float]:
    """Give the mean time of each part of our step, and the share that a bare loop lacks."""
    seconds, whole = fold.watch.seconds(), sum(step.wall_s for step in steps)
    found = {f"ours, ms a step: {part}": 1e3 * seconds[part] / len(steps) for part in MODEL_PARTS}
    return found | {
        "ours, outside of these, %": 100 * (1 - sum(seconds[part] for part in MODEL_PARTS) / whole)
    }


def ours(fold: Fold, batches: Batches) -> Callable[[], Any]:
    """Return a function that trains an epoch on the batches by train.py's own loop."""
    fold.train_loader = batches  # type: ignore[assignment]

    def epoch() -> None:
        train_one_epoch(fold)
        next_epoch(fold)

    return epoch


def next_epoch(fold: Fold) -> None:
    """Go to the next epoch without validation."""
    progress = fold.progress
    progress.epoch, progress.batch, progress.train_loss = progress.epoch + 1, 0, AverageMeter()


def bare_loop(
    config: Config,
    n_classes: int,
    batches: Batches,
    memory_format: torch.memory_format,
    *,
    compiled: bool = False,
) -> Callable[[], None]:
    """Return a function that trains an epoch: forward, loss, backward and step, no more."""
    model = build_model(config, n_classes).to(memory_format=memory_format).train()
    forward = compile_model(model) if compiled else model
    criterion = get_loss(
        config.loss_name,
        alpha=config.focal_alpha,
        gamma=config.focal_gamma,
        weights=config.loss_weights,
    )
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.lr, weight_decay=config.weight_decay
    )

    batches = [
        {**batch, "image": batch["image"].expand(-1, 3, -1, -1).contiguous()} for batch in batches
    ]

    def epoch() -> None:
        for batch in batches:
            optimizer.zero_grad()
            criterion(forward(batch["image"]), batch["targets"]).backward()
            optimizer.step()

    return epoch


if __name__ == "__main__":
    main()
