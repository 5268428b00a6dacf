"""A small training run: recordings, and a fold of them that is built and not yet trained."""

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from torch.utils.data import DataLoader

import checkpoint as ckpt
import train
from catalog import train_table
from configs import Config
from training.fold import Fold

CPU = torch.device("cpu")
ROOT = Path(train.__file__).resolve().parent
SPECIES = ["bird0", "bird1", "bird2"]


def make_recordings(config: Config, n: int = 24) -> pd.DataFrame:
    """Write tones in noise, of one pitch a species; every third row has a background bird too."""
    rng = np.random.default_rng(1)
    rows = []
    for number in range(n):
        label = SPECIES[number % 3]
        time = np.arange(80_000) / 32_000
        waveform = np.sin(2 * np.pi * (1000 + 2500 * (number % 3)) * time) * (np.sin(7 * time) > 0)

        path = config.train_np_dir / label / f"{number}.ogg.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, (waveform + 0.05 * rng.standard_normal(80_000)).astype(np.float32) / 2)

        labels = f"{label} {SPECIES[(number + 1) % 3]} other" if number % 3 == 0 else label
        row = {"primary_label": label, "labels": labels, "filepath": f"{label}/{path.name}"}
        rows.append(row | {"kfold": number // 3 % 4})
    return pd.DataFrame(rows)


def build(df: pd.DataFrame, config: Config) -> Fold:
    """Build fold 0 as train.py does."""
    config.train_dir = config.fold_dir(0)
    config.train_dir.mkdir(parents=True, exist_ok=True)
    parts = train_table.split_fold(df, 0, [])
    return train.build_fold(*parts, 0, SPECIES, config, CPU)


def weights(fold: Fold) -> dict[str, torch.Tensor]:
    """Copy the weights of a fold's model."""
    return {name: value.clone() for name, value in fold.parts.model.state_dict().items()}


def positioned(fold: Fold, epoch: int) -> DataLoader:
    """Return the training loader, at the start of an epoch."""
    fold.train_sampler.set_position(epoch)
    return fold.train_loader


def tiny_config(root: Path, **changes) -> Config:
    """Settings of a run of a few seconds."""
    settings = {
        "root": root,
        "base_model_name": "test_efficientnet",
        "pretrained": False,
        "n_mels": 32,
        "period": 1.0,
        "train_bs": 7,
        "valid_bs": 4,
        "epochs": 2,
        "folds": [0],
        "num_workers": 0,
        "device": "cpu",
        "worst_clips": 0,
    }
    return Config(**settings | changes)


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, second[name]) for name, value in first.items())


class Linear(torch.nn.Module):
    """A model without statistics over the batch: its gradient is the mean over clips."""

    def __init__(self) -> None:
        super().__init__()
        self.head = torch.nn.Linear(32, 3)

    def forward(self, images):
        framewise = self.head(images.mean(dim=1))
        return {"logit": framewise.mean(dim=1), "framewise_logit": framewise,
                "clipwise_output": framewise.mean(dim=1).float().sigmoid()}  # fmt: skip


def with_linear_model(fold: Fold, lr: float = 0.1) -> Fold:
    torch.manual_seed(0)
    model = Linear()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    return replace(fold, parts=replace(fold.parts, model=model, optimizer=optimizer))


class Stopped(Exception):
    """Stands for whatever ends a run."""


def copy_of(config: Config, **changes) -> Config:
    return Config(**{**config.to_dict(), **changes})


def run_until(df, config, monkeypatch, *, step: int) -> None:
    """Train and stop like a pulled plug, just before optimizer step `step` + 1."""
    original = train.train_step

    def step_or_stop(fold, batch):
        if fold.progress.step >= step:
            raise Stopped
        return original(fold, batch)

    monkeypatch.setattr(train, "train_step", step_or_stop)
    with pytest.raises(Stopped):
        train.run(df, config)
    monkeypatch.setattr(train, "train_step", original)


def assert_same_end(first: Config, second: Config) -> None:
    ours, theirs = first.fold_dir(0), second.fold_dir(0)
    assert (ours / "history.csv").read_bytes() == (theirs / "history.csv").read_bytes()
    states = [ckpt.read_checkpoint(folder / "last.pth") for folder in (ours, theirs)]
    for part in ("model", "ema"):
        for name, tensor in states[0][part].items():
            assert torch.equal(tensor, states[1][part][name]), f"{part} {name}"
    for part in (
        "scheduler",
        "scaler",
        "step",
        "best_loss",
        "best_epoch",
        "history",
        "skipped_steps",
    ):
        assert states[0][part] == states[1][part], part
    moments = [state["optimizer"]["state"] for state in states]
    assert all(
        torch.equal(moments[0][key]["exp_avg"], moments[1][key]["exp_avg"]) for key in moments[0]
    )
    with (
        np.load(ours / "valid_predictions.npz") as one,
        np.load(theirs / "valid_predictions.npz") as two,
    ):
        assert np.array_equal(one["scores"], two["scores"]) and np.array_equal(
            one["labels"], two["labels"]
        )
    names = [
        [item.path.name for item in ckpt.named_checkpoints(folder)] for folder in (ours, theirs)
    ]
    assert names[0] == names[1]


def start(config: Config, df: pd.DataFrame, *flags: str) -> subprocess.Popen:
    """Start `python train.py` in a process group of its own."""
    df.to_csv(config.train_dataframe_path, index=False)
    settings = config.root / "settings.yaml"
    settings.write_text(yaml.safe_dump(config.to_dict()))
    return subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), "--config", str(settings), *flags],
        start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def wait_for(path: Path, process: subprocess.Popen) -> None:
    until = time.monotonic() + 120
    while not path.exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    assert path.exists(), process.communicate()[1]
