"""Recordings to measure with: a folder that someone prepared, or one made up here."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from configs import Config
from dataset import check_prepared, check_table, read_train_table


@contextlib.contextmanager
def prepared_archive(
    root: Path | None, *, n_recordings: int = 64, seconds: float = 30.0
) -> Iterator[tuple[Config, pd.DataFrame]]:
    """Yield settings and the table of `root`, or of a temporary folder with made-up recordings.

    Args:
        root: holds train.csv and train_np; None makes `n_recordings` of `seconds` each, float32,
            with a tone in noise.
        n_recordings: of a made-up archive, of 8 species.
        seconds: length of each.
    """
    if root is not None:
        config = Config(root=root)
        df = check_table(
            read_train_table(config.train_dataframe_path), str(config.train_dataframe_path)
        )
        check_prepared(df, config.train_np_dir)
        yield config, df
        return
    with tempfile.TemporaryDirectory() as folder:
        config = Config(root=Path(folder))
        yield config, make_up(config, n_recordings, seconds)


def make_up(config: Config, n_recordings: int, seconds: float) -> pd.DataFrame:
    """Write recordings under `train_np_dir` and train.csv beside it; return its table."""
    rng, rows = np.random.default_rng(config.seed), []
    time = np.arange(round(seconds * config.sample_rate)) / config.sample_rate
    for number in range(n_recordings):
        label = f"bird{number % 8}"
        waveform = 0.3 * np.sin(2 * np.pi * (800 + 150 * number) * time) * (time % 1 < 0.3)
        waveform += 0.01 * rng.standard_normal(len(time))
        path = config.train_np_dir / label / f"XC{number}.ogg.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, waveform.astype(np.float32))
        row = {
            "primary_label": label,
            "labels": f"{label} bird{(number + 1) % 8}",
            "kfold": number // 8 % 5,
        }
        rows.append(
            row | {"filepath": f"{label}/{path.name}", "filename": f"{label}/XC{number}.ogg"}
        )
    df = pd.DataFrame(rows)
    df.to_csv(config.train_dataframe_path, index=False)
    return df
