"""What a run checks of its recordings before it trains on them."""

import logging
import math
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from audio.prepared import open_recording
from audio.recording import samples_crc32
from configs import Config, UserError

logger = logging.getLogger("birdclef.train")

PEAK_TOLERANCE = 1e-4  # of full scale; the report rounds a peak to six digits


def check_folds(table: pd.DataFrame, config: Config) -> None:
    """Check that every fold that is asked for is in the table.

    Raises:
        UserError: one is not; the message lists those that are.
    """
    known = sorted(set(table["kfold"]))
    missing = [number for number in config.folds if number not in known]
    if missing:
        raise UserError(
            f"folds: there is no fold {missing[0]} in {config.train_dataframe_path}; it has {known}"
        )


def verify_prepared(table: pd.DataFrame, report: pd.DataFrame, train_np_dir: Path) -> None:
    """Read every prepared recording in full and compare it with the report of prepare_audios.py.

    Args:
        table: rows with a `filepath` below train_np_dir.
        report: `filename`, `crc32` and `peak` of each recording, as catalog reads them.
        train_np_dir: folder of the prepared recordings.

    Raises:
        UserError: some are damaged; the message counts them and names the first.
    """
    written = dict(
        zip(
            report["filename"] + ".npy",
            zip(report["crc32"], report["peak"], strict=True),
            strict=True,
        )
    )
    faults = []
    for filepath in tqdm(table["filepath"], "verifying", leave=False, disable=None, unit="file"):
        path = train_np_dir / filepath
        crc32, peak = written.get(filepath, ("", math.nan))
        try:
            fault = describe_change(open_recording(path), crc32, peak)
        except (OSError, ValueError) as error:
            fault = str(error)

        if fault:
            faults.append(f"{path}: {fault}")

    if faults:
        raise UserError(
            f"{len(faults)} of {len(table)} prepared recordings are damaged; {faults[0]}; "
            "delete them and run prepare_audios.py again"
        )
    logger.info("verified %d prepared recordings", len(table))


def describe_change(samples: np.ndarray, crc32: str, peak: float) -> str:
    """Say how samples (n,) differ from what was written, "" if they do not.

    Reports of older versions have no check sum (""). Then samples must be finite and as loud as
    `peak`, or finite alone where the peak is NaN.
    """
    if crc32:
        is_same = samples_crc32(samples) == crc32
        return "" if is_same else "its samples are not those that were written"

    full_scale = 32767 if samples.dtype == np.int16 else 1
    found = float(np.abs(samples.astype(np.float32)).max()) / full_scale
    if full_scale > 1:
        peak = min(peak, 1.0)  # int16 holds no more
    expected = found if math.isnan(peak) else peak

    if abs(found - expected) < PEAK_TOLERANCE:  # NaN is near nothing
        return ""
    return f"its peak is {found:g}, and was {expected:g} when it was made"
