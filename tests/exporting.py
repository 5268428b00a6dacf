"""Two trained folds with their recordings, for every test of export.py and its parts."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import checkpoint as ckpt
import export
from configs import Config
from inference.comparison import Comparison
from inference.model_files import find_checkpoints
from inference.scorers import TorchModels
from model import SED

INSTALL = "python -m pip install -r requirements-export.txt"
CLASSES = ["NA", "22961", "bird"]
ROW = {
    "epoch": 3,
    "step": 30,
    "valid_loss": 0.125,
    "cmap_pad_5": 0.75,
    "cmap_pad_5_floor": 0.5,
    "macro_ap": 0.625,
    "macro_ap_floor": 0.25,
    "macro_roc_auc": 0.875,
}


def need_onnx() -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason=f"no {name}: {INSTALL}")


def save_fold(
    config: Config, fold: int, class_names: list[str], *, ema: bool = False, seed: int = 0
) -> Path:
    """Save an untrained network with spread-out scores; with `ema`, wrong weights beside it."""
    torch.manual_seed(seed)
    network = SED(config.base_model_name, num_classes=len(class_names), n_mels=config.n_mels)
    for block in network.att_blocks:
        block.cla.weight.data *= 20
    weights = network.state_dict()
    wrong = {name: torch.zeros_like(tensor) for name, tensor in weights.items()}
    folder = config.fold_dir(fold)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ckpt.checkpoint_name(
        exp_id=config.exp_id, fold=fold, epoch=3, loss=0.125, cmap=0.75
    )
    state = {
        "model": wrong if ema else weights,
        "ema": weights if ema else None,
        "fold": fold,
        "epoch": 3,
        "step": 30,
        "history": [{**ROW, "epoch": 1}, ROW],
        "class_names": class_names,
        "config": config.to_dict(),
        "versions": {"torch": "2.10.0"},
    }
    ckpt.save_checkpoint(path, state)
    return path


def make_folds(root: Path) -> Config:
    """Recordings of two folds and an experiment with a network for each."""
    config = Config(
        root=root,
        exp_id=5,
        base_model_name="test_efficientnet",
        n_mels=32,
        period=1.0,
        n_folds=2,
        device="cpu",
        num_workers=0,
    )
    rng, rows = np.random.default_rng(2), []
    for number in range(24):
        label = CLASSES[number % 3]
        time = np.arange(20_000 + 1000 * number) / 32_000
        waveform = np.sin(
            2 * np.pi * (1000 + 2500 * (number % 3)) * time
        ) + 0.05 * rng.standard_normal(len(time))
        path = config.train_np_dir / label / f"{number}.ogg.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, (waveform * 8000).astype(np.int16))
        rows.append({"primary_label": label, "labels": label, "filepath": f"{label}/{path.name}",
                     "kfold": number // 3 % 2, "license": "CC BY 4.0"})  # fmt: skip
    pd.DataFrame(rows).to_csv(config.train_dataframe_path, index=False)
    save_fold(config, 0, CLASSES)
    save_fold(config, 1, CLASSES, ema=True, seed=1)
    return config


def export_with(config: Config, *flags: str | Path) -> tuple[Path, Comparison]:
    return export.export(*export.read_command_line([*map(str, flags), "--root", str(config.root)]))


def expected_scores(path: Path, clips: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Clipwise and framewise scores as validation gives them, the mean of the folds."""
    models = TorchModels(find_checkpoints(path), Config(device="cpu", amp=False))
    clipwise, _, framewise = models.score([models.prepare(clip) for clip in clips], frames=True)
    return clipwise.mean(axis=0), framewise.mean(axis=0)
