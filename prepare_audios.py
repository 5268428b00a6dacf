"""Decode every recording once into an array that training can memory-map, and report on each.

    python prepare_audios.py --train-audio-dir my/recordings

`train_audio/<label>/<file>` becomes `train_np/<label>/<file>.npy`, with a row in
`train_np/prepare_report.csv`. Each recording is decoded in a process of its own: one that crashes
or hangs its decoder costs itself only.
"""

import contextlib
import logging
import math
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import files
from audio.decoder_pool import DecoderPool
from audio.kinds import Listing, list_recordings
from audio.recording import NPY_HEADER_BYTES, UNREADABLE, array_name
from audio.voice import find_weights
from catalog import report
from catalog.outlook import describe_outlook
from catalog.plain_paths import RENAME, is_plain_path
from catalog.report import GOOD, WITH_AUDIO, Row, read_report
from configs import (
    Config,
    UserError,
    configure_logger,
    load_config,
    next_command,
    run_main,
    settings_where,
    some,
)

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger("birdclef.prepare_audios")

_decoders = DecoderPool()  # of this process; a process of a joblib backend has its own


def main() -> int:
    """Prepare the recordings and say what became of them; return 1 if too many are bad."""
    config = load_config(
        description="Decode the recordings into .npy files and report on each.",
        script="prepare_audios",
    )
    configure_logger(config)

    began = time.monotonic()
    table = prepare(config)
    return print_summary(table, config, time.monotonic() - began)


def prepare(config: Config) -> "pd.DataFrame":
    """Prepare what is new or has changed, write the report and return it.

    joblib shares the recordings out: to `config.num_workers` threads that each wait for a decoder
    process, or to the backend that the caller has chosen by `joblib.parallel_config`. The report
    has a row for each recording and for each one that only the metadata name. Damaged recordings
    keep their status when this is run again.

    Raises:
        UserError: no recordings, metadata that cannot be read, a folder that cannot be read or
            written.
    """
    from tqdm import tqdm

    listing = find_recordings(config)
    if swept := files.sweep_parts(config.train_np_dir):
        logger.info("%d unfinished files of a killed run are deleted", len(swept))

    previous = report.read_rows(config.report_path)
    rows, jobs = plan(listing.recordings, previous, config)
    try:
        _decoders.start(min(len(jobs), max(1, config.num_workers)))
        rows |= {name: _unread(reason) for name, reason in listing.unread.items()}
        rows |= {name: _missing(config) for name in _only_in_metadata(config, rows)}
        set_orphans_aside(rows, previous, config)
        done_before = {name: rows[name] for name in rows.keys() - jobs.keys()}
        report.write_rows(config.report_path, done_before)
        for line in describe_outlook(listing.recordings, jobs, config, _decoders):
            logger.info("%s", line)

        done = run_jobs(jobs, config)
        for name, row in tqdm(done, total=len(jobs), unit="file", disable=None):
            rows[name] |= row
            report.append_row(config.report_path, name, rows[name])
    finally:
        close_decoders()
    report.write_rows(config.report_path, rows)
    return read_report(config.report_path)


# What there is to do ------------------------------------------------------------------------------


def find_recordings(config: Config) -> Listing:
    """List what lies in the audio folder, and say what is left out.

    Raises:
        UserError: no recordings, or a folder that cannot be read.
    """
    folder = config.train_audio_dir
    try:
        listing = list_recordings(folder, follow_links=config.follow_links)
    except OSError as error:
        raise UserError(f"no recordings: {error.filename}: {error.strerror}") from None
    if listing.links:
        logger.warning(
            "%d links lead out of %s and are not followed: %s; --follow-links reads what is there",
            len(listing.links), folder, some(listing.links),
        )  # fmt: skip
    if listing.others:
        kinds = (f"{count} {suffix}" for suffix, count in listing.others.most_common())
        logger.info("left out as no recordings: %s", some(list(kinds)))
    if odd := [name for name in listing.recordings if not is_plain_path(name)]:
        logger.warning(
            "%d recordings cannot be used: %s; %s", len(odd), some([*map(repr, odd)]), RENAME
        )
        listing.unread |= dict.fromkeys(odd, RENAME)
        listing.recordings = [name for name in listing.recordings if is_plain_path(name)]
    if not listing.recordings and not listing.unread:
        raise UserError(f"no recordings: nothing in {folder.resolve()} or below is one")
    return listing


def plan(
    recordings: Iterable[str], previous: dict[str, Row], config: Config
) -> tuple[dict[str, Row], dict[str, Row]]:
    """Find out which recordings are new or have changed since the `previous` report.

    Returns:
        A row of the report for each recording, and the jobs of those that are to be prepared, both
        by filename.
    """
    rows, jobs = {}, {}
    recipe = choose_recipe(config)
    for name in recordings:
        made_from = _fingerprint(config.train_audio_dir / name, list(recipe.values()))
        target = config.train_np_dir / array_name(name)
        old = previous.get(name, {})
        if is_done(old, made_from, target, config):
            rows[name] = old | ({"status": "skipped"} if old["status"] in GOOD else {})
            continue

        rows[name] = {"made_from": made_from}
        source = config.train_audio_dir / name
        jobs[name] = {"source": str(source), "target": str(target)} | recipe
    return rows, jobs


def choose_recipe(config: Config) -> Row:
    """Collect the settings that an array depends on.

    Raises:
        UserError: finding voices needs a package that is not installed.
    """
    recipe = {name: getattr(config, name) for name in settings_where(makes_arrays=True)}
    if config.voice != "off":
        try:
            find_weights()
        except ModuleNotFoundError as error:
            raise UserError(f"voice={config.voice}: {error}") from None
        recipe["voice"] = config.voice
    if config.annotations is not None:  # labels have a time, so recordings are kept as they are
        recipe |= {"max_seconds": math.inf, "trim_db": None, "cut_still": False}
        recipe.pop("voice", None)
    return recipe


def _fingerprint(source: Path, recipe: list[object]) -> str:
    """Say what an array is made from: size and time of the recording, and the settings."""
    try:
        info = source.stat()
    except (OSError, ValueError):
        return ""
    return f"{info.st_size} bytes, {info.st_mtime_ns} ns, {', '.join(map(str, recipe))}"


def is_done(old: Row, made_from: str, target: Path, config: Config) -> bool:
    """Say whether a recording was prepared like this before, and its array is still whole.

    An unreadable recording is tried again: what ailed it may have been cured.
    """
    if not made_from or made_from != old.get("made_from") or old["status"] == "unreadable":
        return False
    if old["status"] not in WITH_AUDIO:
        return True

    n_samples = round(float(old["seconds"]) * config.sample_rate)
    n_bytes = NPY_HEADER_BYTES + n_samples * np.dtype(config.audio_dtype).itemsize
    with contextlib.suppress(OSError):
        return target.stat().st_size == n_bytes
    return False


def _unread(reason: str) -> Row:
    return UNREADABLE | {"reason": reason}


def _missing(config: Config) -> Row:
    return UNREADABLE | {"status": "missing", "reason": f"in {config.metadata_path} only"}


def _only_in_metadata(config: Config, rows: dict[str, Row]) -> list[str]:
    """List the recordings that the metadata name and that are not there."""
    from catalog.metadata import match_archive  # loads pandas while the decoders start
    from catalog.tables import read_table

    has_table = config.metadata_path.exists() and config.annotations is None
    if config.from_folders or not has_table:
        return []
    table = match_archive(read_table(config.metadata_path), config, sorted(rows))
    return sorted(set(table["filename"]) - rows.keys())


def set_orphans_aside(rows: dict[str, Row], previous: dict[str, Row], config: Config) -> None:
    """Rename the arrays of recordings that are gone: training would still learn from them.

    They are not deleted, for their recordings may lie on a disk that is not there today. Arrays
    that the `previous` report does not list are left alone: something else made them.
    """
    there = {name for name, row in rows.items() if row.get("status") != "missing"}
    orphans = []
    prepared = {name for name, row in previous.items() if row["status"] in WITH_AUDIO}
    for name in sorted(prepared - there):
        path = config.train_np_dir / array_name(name)
        with contextlib.suppress(OSError):
            path.rename(path.with_name(path.name.removesuffix(".npy") + ".orphan"))
            orphans.append(name)
    if orphans:
        logger.warning(
            "%d recordings are gone, and their arrays are set aside as *.orphan, which you may "
            "delete: %s", len(orphans), some(orphans),
        )  # fmt: skip


# Doing it -----------------------------------------------------------------------------------------


def run_jobs(jobs: dict[str, Row], config: Config) -> Iterator[tuple[str, Row]]:
    """Prepare recordings side by side; give each name and row as it is done."""
    import joblib

    # Asked what it prefers, a backend would answer 1 where nothing was said.
    backend, n_jobs = joblib.parallel.get_active_backend()
    if n_jobs is None and backend.default_n_jobs == 1:
        n_jobs = max(1, config.num_workers)
    as_they_come = "generator_unordered" if backend.supports_return_generator else "list"
    parallel = joblib.Parallel(n_jobs=n_jobs, prefer="threads", return_as=as_they_come)
    work = joblib.delayed(prepare_safely)
    return parallel(work(name, job, config.file_timeout_s) for name, job in jobs.items())


def prepare_safely(name: str, job: Row, timeout_s: float) -> tuple[str, Row]:
    """Prepare one recording in a process of its own; of a bad one no older array stays.

    Raises:
        UserError: its array cannot be written.
    """
    row = _decoders.prepare(job, timeout_s)
    if row.get("status") not in WITH_AUDIO:
        with contextlib.suppress(OSError):
            Path(job["target"]).unlink()
    if "cannot_write" in row:
        raise UserError(f"cannot write {job['target']}: {row['cannot_write']}")
    return name, row


def close_decoders() -> int:
    """End the decoder processes that wait for their next recording; return their number.

    `prepare` does so where it runs; the processes of a joblib backend keep theirs until they end
    themselves.
    """
    return _decoders.close_idle()


def print_summary(table: "pd.DataFrame", config: Config, took_s: float) -> int:
    """Print what became of the recordings; return the exit status."""
    seconds = table.loc[table["status"] != "skipped", "seconds"].sum()
    statuses = sorted(table["status"].value_counts().items())
    counts = ", ".join(f"{n} {status}" for status, n in statuses)
    print(f"{len(table)} recordings: {counts}; report: {config.report_path}")
    speed = seconds / took_s
    print(f"{seconds:,.0f} s of audio prepared in {took_s:.1f} s, {speed:,.0f} x real time")

    n_bad = len(table) - int(table["status"].isin(GOOD).sum())
    if n_bad > config.max_bad_fraction * len(table):
        print(
            f"error: {n_bad} of {len(table)} recordings are bad: more than "
            f"max_bad_fraction={config.max_bad_fraction:g} allows; read {config.report_path}",
            file=sys.stderr,
        )
        return 1
    print(f"next: {next_command('split_data.py')}")
    return 0


if __name__ == "__main__":
    run_main(main)
