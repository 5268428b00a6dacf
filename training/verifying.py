"""What a run checks of its recordings before it trains on them."""

import json
import logging
import math
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from audio.prepared import open_recording
from audio.recording import samples_crc32
from catalog.pseudo_labels import read_rows, refuse_labelled
from catalog.report import WITH_AUDIO, read_report
from catalog.train_table import check_prepared
from configs import Config, UserError
from model import find_backbone
from scheduler import find_schedule
from training.criterion import build_loss
from training.loggers import check_loggers

logger = logging.getLogger("birdclef.train")

PEAK_TOLERANCE = 1e-4  # of full scale; the report rounds a peak to six digits


def check_names(config: Config) -> None:
    """Refuse an unknown backbone, schedule or loss, and list the known ones (UserError).

    A logger whose package is not installed is refused with the command that installs it.
    """
    find_backbone(config.base_model_name)
    find_schedule(config.scheduler_name)
    build_loss(config)
    check_loggers(config.log)


def check_recordings(table: pd.DataFrame, config: Config) -> None:
    """Check folds, prepared files and the report of prepare_audios.py before training starts.

    Raises:
        UserError: something is missing, damaged, or made with other settings.
    """
    check_folds(table, config)
    check_prepared(table, config.train_np_dir)
    check_report(table, read_report(config.report_path), config)


def check_pseudo_labels(table: pd.DataFrame, config: Config) -> None:
    """Refuse pseudo-labelled windows of recordings that are labelled, and missing arrays.

    Raises:
        UserError: see read_rows and refuse_labelled; an array is missing or damaged.
    """
    path = config.pseudo_labels
    if path is None:
        return

    rate = _sample_rate_of(path, config)
    if rate != config.sample_rate:
        raise UserError(f"{path}: its soundscapes were prepared at {rate} Hz; label them again")

    rows = read_rows(path).drop_duplicates("filepath")
    soundscapes = {
        name: path.parent / file
        for name, file in zip(rows["filename"], rows["filepath"], strict=True)
    }
    for array in soundscapes.values():
        try:
            open_recording(array)
        except (OSError, ValueError) as error:
            raise UserError(f"{array}: {error}; run pseudo_label.py again") from None

    names = [Path(name).with_suffix("").as_posix() for name in table["filepath"]]
    labelled = {
        name: config.train_np_dir / file
        for name, file in zip(names, table["filepath"], strict=True)
    }
    refuse_labelled(soundscapes, labelled, where=str(config.train_dataframe_path))


def _sample_rate_of(path: Path, config: Config) -> int:
    """Return the rate that a table's soundscapes were prepared at; what is not said fits."""
    try:
        about = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # a table of one's own
        return config.sample_rate
    return int(about.get("sample_rate", config.sample_rate))


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


def check_report(table: pd.DataFrame, report: pd.DataFrame, config: Config) -> None:
    """Compare what is trained on with the report of prepare_audios.py.

    Args:
        table: rows with a `filepath` below the folder of the prepared recordings.
        report: `filename`, `status` and `seconds` of each recording; without rows, nothing is
            compared.
        config: its sample rate and paths.

    Raises:
        UserError: recordings were prepared at another sample rate, or have no audio by now.
    """
    if report.empty:
        return

    rows = table[["filepath"]].merge(
        report.assign(filepath=report["filename"] + ".npy"), on="filepath", how="left"
    )
    lost = rows[rows["status"].notna() & ~rows["status"].isin(WITH_AUDIO)]
    if len(lost):
        first = lost.iloc[0]
        raise UserError(
            f"{len(lost)} of {len(table)} recordings of {config.train_dataframe_path} have no "
            f"audio any more ({first['filename']} is {first['status']} in {config.report_path}); "
            "run split_data.py again"
        )

    unknown = int(rows["status"].isna().sum())
    if unknown:
        logger.warning(
            "%d of %d recordings are not in %s: prepare_audios.py did not see them when it last "
            "ran; where they were deleted on purpose, run split_data.py again",
            unknown,
            len(table),
            config.report_path,
        )
    check_sample_rate(rows[rows["seconds"] > 0], config)


def check_sample_rate(rows: pd.DataFrame, config: Config) -> None:
    """Compare the prepared samples of each recording with the seconds that they last.

    Args:
        rows: `filepath` and `seconds` > 0 of prepared recordings.
        config: its sample rate and folder of prepared recordings.

    Raises:
        UserError: they were prepared at another sample rate.
    """
    for filepath, seconds in zip(rows["filepath"], rows["seconds"], strict=True):
        n_samples = len(open_recording(config.train_np_dir / filepath))
        if abs(n_samples - seconds * config.sample_rate) > 1:
            rate = round(n_samples / seconds)
            raise UserError(
                f"{config.train_np_dir / filepath} was prepared at {rate} Hz, training is set to "
                f"sample_rate={config.sample_rate}; run prepare_audios.py with --sample-rate "
                f"{config.sample_rate}, or train with --sample-rate {rate}"
            )


def warn_of_one_species(class_names: list[str], config: Config) -> None:
    """Warn where every clip that training sees has the same species in it."""
    if len(class_names) == 1 and config.background_dir is None:
        logger.warning(
            "%s is the only species and there are no negatives: the model learns to find it in "
            "every clip; give recordings without it, in a folder of their own (--background-dir "
            "FOLDER) or as another label of the table",
            class_names[0],
        )


def verify_prepared(table: pd.DataFrame, config: Config) -> None:
    """Read every prepared recording in full and compare it with the report of prepare_audios.py.

    Raises:
        UserError: some are damaged; the message counts them and names the first.
    """
    report = read_report(config.report_path)
    written = dict(
        zip(
            report["filename"] + ".npy",
            zip(report["crc32"], report["peak"], strict=True),
            strict=True,
        )
    )
    faults = []
    for filepath in tqdm(table["filepath"], "verifying", leave=False, disable=None, unit="file"):
        path = config.train_np_dir / filepath
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
