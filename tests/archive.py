"""Small made-up archives, and the scripts run on them."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd

import split_data
from catalog.tables import read_table
from configs import Config

SCRIPT = Path(split_data.__file__)


def make_archive(root: Path, recordings: dict[str, int], author: str = "Ann") -> Config:
    """Write a metadata table and a prepared recording of its own content for each row."""
    rows = [
        (label, "[]", author, f"{label}/XC{label}{i}.ogg")
        for label, n in recordings.items()
        for i in range(n)
    ]
    config = Config(root=root)
    config.metadata_path.parent.mkdir(parents=True)
    table = pd.DataFrame(rows, columns=["primary_label", "secondary_labels", "author", "filename"])
    table.to_csv(config.metadata_path, index=False)
    for number, name in enumerate(table["filename"]):
        save(config, name, np.full(100, number, dtype=np.float32))
    return config


def save(config: Config, name: str, samples: np.ndarray) -> None:
    path = config.train_np_dir / f"{name}.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, samples)


def split(config: Config):
    return split_data.split(read_table(config.metadata_path), config)


def run_script(config: Config, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        str(SCRIPT),
        "--root",
        str(config.metadata_path.parent.parent),
        *flags,
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def frame(*rows: tuple[str, str, str]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["primary_label", "secondary_labels", "filename"], dtype=str)
    return table.set_index(pd.RangeIndex(2, len(rows) + 2, name="row"))
