"""A short trial of planned settings on this device: how many clips a second."""

import logging
import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from configs import Config
from dataset import WaveformDataset
from model import build_model, pick_amp_dtype, pick_device
from network.memory_format import torch_format
from planning.facts import Pace
from training.criterion import build_loss

logger = logging.getLogger("birdclef.plan")

N_FILES = 8  # recordings of noise that the trial reads
TRIAL_S = 2.0  # of each measurement, at least one turn
TARGET = 0.1  # of every class, in the trial


def try_out(config: Config, n_classes: int) -> Pace:
    """Train and score batches of noise for some seconds.

    Args:
        config: the planned settings; weights are random, which costs the same.
        n_classes: species.

    Returns:
        The pace, with the largest batch up to `train_bs` that the device has memory for.
    """
    device = pick_device(config.device)
    config = replace(config, pretrained=False, pretrained_checkpoint=None, background_dir=None)
    config = replace(config, p_background=0.0, negative_share=0.0, no_bird_class=False)
    item_s = time_items(config, n_classes)

    model = build_model(config, n_classes).to(device)
    is_last = config.channels_last != "off"
    model = model.to(memory_format=torch_format(is_last))
    batch = config.batch_size
    while True:
        try:
            train_s = time_training(model, config, batch, n_classes, device)
            break
        except torch.OutOfMemoryError:
            batch //= 2
            logger.info("memory is short: a batch of %d is tried", batch)
            if not batch:
                raise
    score_s = time_scoring(model, config, batch, device)

    makers = max(1, config.num_workers) if device.type != "cpu" else 1
    make_s = item_s / makers  # on a CPU the makers and the model share its cores
    if device.type == "cpu":
        return Pace(batch, 1 / (train_s + make_s), 1 / (score_s + make_s))
    return Pace(batch, 1 / max(train_s, make_s), 1 / max(score_s, make_s))


def time_items(config: Config, n_classes: int) -> float:
    """Seconds that one training image takes on one core."""
    rng = np.random.default_rng(config.seed)
    with tempfile.TemporaryDirectory() as folder:
        names = [f"{number}.npy" for number in range(N_FILES)]
        for name in names:
            noise = 0.1 * rng.standard_normal(2 * config.n_samples, np.float32)
            np.save(Path(folder) / name, noise)
        classes = [f"s{number}" for number in range(n_classes)]
        labels = [classes[number % n_classes] for number in range(N_FILES)]
        table = pd.DataFrame({"primary_label": labels, "labels": labels, "filepath": names})

        config = replace(config, train_np_dir=Path(folder), sampling="rows")
        items = WaveformDataset(table, config, "train", classes)
        items[0]  # makes tables that later items share
        numbers = iter(range(1, 10**9))
        return _seconds_a_turn(lambda: items[next(numbers) % len(items)])


def time_training(
    model: torch.nn.Module, config: Config, batch: int, n_classes: int, device: torch.device
) -> float:
    """Seconds that a clip takes forward and backward."""
    model.train()
    images, targets = _batch(config, batch, device), torch.full((batch, n_classes), TARGET)
    targets = targets.to(device)
    criterion, amp_dtype = build_loss(config), pick_amp_dtype(config, device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, dtype=amp_dtype, enabled=amp_dtype is not None):
            output = model(images)
        criterion(output, targets).backward()
        optimizer.step()

    return _seconds_a_turn(step, device) / batch


@torch.inference_mode()
def time_scoring(model: torch.nn.Module, config: Config, batch: int, device: torch.device) -> float:
    """Seconds that a clip takes forward."""
    model.eval()
    images = _batch(config, batch, device)
    return _seconds_a_turn(lambda: model(images), device) / batch


def _batch(config: Config, batch: int, device: torch.device) -> torch.Tensor:
    shape = (batch, config.in_channels, config.image_frames, config.image_bands)
    return torch.rand(shape, device=device)


def _seconds_a_turn(turn: Callable[[], object], device: torch.device | None = None) -> float:
    """Run once to warm up, then for TRIAL_S seconds; the median turn."""

    def timed() -> float:
        began = time.perf_counter()
        turn()
        if device is not None and device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - began

    timed()
    taken: list[float] = []
    while math.fsum(taken) < TRIAL_S and len(taken) < 50:
        taken.append(timed())
    return float(np.median(taken))
