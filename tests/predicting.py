"""Small models and recordings, for every test of predict.py and its parts."""

from pathlib import Path

import numpy as np
import soundfile
import torch

import checkpoint as ckpt
import predict
from configs import Config
from inference import scorers
from inference.detections import Recording
from inference.partial import PartialResults
from inference.results import Results
from inference.windows import Plan
from model import build_model

SPECIES = ["NA", "bird1", "bird2"]
RATE = 8000


def tiny(**settings) -> Config:
    given = {
        "base_model_name": "test_efficientnet",
        "pretrained": False,
        "sample_rate": RATE,
        "fmax": 4000.0,
        "period": 1.0,
        "n_mels": 32,
        "n_fft": 512,
        "hop_length": 128,
        "valid_bs": 4,
        "num_workers": 2,
        "device": "cpu",
    }
    return Config(**given | settings)


def save_model(
    path: Path,
    config: Config,
    *,
    seed: int = 0,
    class_names: list[str] = SPECIES,
    ema: bool = False,
) -> Path:
    """An untrained checkpoint whose scores spread widely."""
    torch.manual_seed(seed)
    model = build_model(config, len(class_names))
    with torch.no_grad():
        for block in model.att_blocks:
            block.cla.weight *= 200
    weights = model.state_dict()
    other = {name: torch.zeros_like(value) for name, value in weights.items()}
    state = {
        **{
            "model": other if ema else weights,
            "ema": weights if ema else None,
            "history": [],
            "fold": 0,
        },
        **{
            "epoch": 1,
            "batch": 0,
            "step": 1,
            "skipped_steps": 0,
            "bad_steps": 0,
            "best_loss": 0.1,
            "best_epoch": 1,
        },
        **{"optimizer": {}, "scheduler": {}, "scaler": {}, "rng": {}, "versions": {}},
        **{"class_names": list(class_names), "config": config.to_dict()},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    ckpt.save_checkpoint(path, state)
    return path


def song(seconds: float, rate: int = RATE, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    pitch = 500 + 1000 * np.sin(2 * np.pi * 0.3 * time + seed)
    return (
        0.3 * np.sin(2 * np.pi * np.cumsum(pitch) / rate) + 0.02 * rng.standard_normal(len(time))
    ).astype("f4")


def write_wav(path: Path, samples: np.ndarray, rate: int = RATE, **how) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, **{"subtype": "FLOAT"} | how)
    return path


def score(models, recordings: dict[str, Path], plan: Plan, folder: Path) -> dict[str, Recording]:
    """All recordings, with scores averaged over models."""
    folder.mkdir(exist_ok=True)
    partial = PartialResults(folder / "partial", {})
    predict.score_recordings(models, recordings, plan, partial)
    results = {one.name: one for one in Results(partial, list(recordings), plan.average)}
    partial.close(delete=True)
    return results


def raw(models, samples: np.ndarray) -> dict[str, np.ndarray]:
    image = torch.from_numpy(models.prepare(samples))[None].expand(-1, 3, -1, -1)
    with torch.inference_mode():
        return {name: value.numpy()[0] for name, value in models.models[0](image).items()}


class Breaking(scorers.TorchModels):
    """Stops, as if interrupted, after some batches."""

    batches_left = 10**9
    n_images = 0

    def score(self, images, *, frames):
        if not self.batches_left:
            raise KeyboardInterrupt
        self.batches_left -= 1
        self.n_images += len(images)
        return super().score(images, frames=frames)


def named(folder: Path, epoch: int) -> Path:
    return folder / ckpt.checkpoint_name(exp_id=1, fold=0, epoch=epoch, loss=0.1, cmap=0.5)
