"""Recordings to measure with: a prepared folder, or one that is made up here."""

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
        path = config.train_dataframe_path
        df = check_table(read_train_table(path), str(path))
        check_prepared(df, config.train_np_dir)
        yield config, df
        return

    with tempfile.TemporaryDirectory() as folder:
        config = Config(root=Path(folder))
        yield config, make_up(config, n_recordings, seconds)


def make_up(config: Config, n_recordings: int, seconds: float) -> pd.DataFrame:
    """Write recordings under `train_np_dir` and train.csv beside it; return its table."""
    rng = np.random.default_rng(config.seed)
    time = np.arange(round(seconds * config.sample_rate)) / config.sample_rate
    rows = []
    for number in range(n_recordings):
        label = f"bird{number % 8}"
        waveform = 0.3 * np.sin(2 * np.pi * (800 + 150 * number) * time) * (time % 1 < 0.3)
        waveform += 0.01 * rng.standard_normal(len(time))

        path = config.train_np_dir / label / f"XC{number}.ogg.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, waveform.astype(np.float32))

        labels = f"{label} bird{(number + 1) % 8}"
        row = {"primary_label": label, "labels": labels, "kfold": number // 8 % 5}
        files = {"filepath": f"{label}/{path.name}", "filename": f"{label}/XC{number}.ogg"}
        rows.append(row | files)

    df = pd.DataFrame(rows)
    df.to_csv(config.train_dataframe_path, index=False)
    return df
