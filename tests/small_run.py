"""A small training run: recordings, and a fold of them that is built and not yet trained."""

import numpy as np
import pandas as pd
import torch
from torch.utils.data import DataLoader

import dataset as data
import train
from configs import Config
from training.fold import Fold

CPU = torch.device("cpu")
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
    parts = data.split_fold(df, 0, [])
    return train.build_fold(*parts, 0, SPECIES, config, CPU)


def weights(fold: Fold) -> dict[str, torch.Tensor]:
    """Copy the weights of a fold's model."""
    return {name: value.clone() for name, value in fold.parts.model.state_dict().items()}


def positioned(fold: Fold, epoch: int) -> DataLoader:
    """Return the training loader, at the start of an epoch."""
    fold.train_sampler.set_position(epoch)
    return fold.train_loader
