"""Decode every recording once into a `.npy` that training can memory-map, and report on each file.

`train_audio/<label>/<file>` becomes `train_np/<label>/<file>.npy`, with a row in
`train_np/prepare_report.csv`. Decoding happens in processes of its own: a file that crashes or
hangs its decoder costs that file only.
"""

import contextlib
import csv
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO

import numpy as np

from audio.decoder_pool import DecoderPool
from audio.recording import UNREADABLE, Row
from configs import (
    Config,
    UserError,
    configure_logger,
    load_config,
    next_command,
    run_main,
    settings_where,
)

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = (".ogg", ".mp3", ".wav", ".flac")
GOOD = ("ok", "skipped")  # every other status counts as bad
WITH_AUDIO = ("ok", "skipped", "truncated")  # these have a .npy
COLUMNS = (
    "filename",
    "status",
    "seconds",
    "native_rate",
    "channels",
    "peak",
    "reason",
    "crc32",
    "made_from",
)
LATER_COLUMNS = {"crc32"}  # which older reports do not have
NUMBERS = ["seconds", "native_rate", "channels", "peak"]
NPY_HEADER_BYTES = 128  # numpy's, for any 1-D array

_decoders = DecoderPool()  # of this process; a process of a joblib backend has its own


def close_decoders() -> int:
    """End the decoder processes that this process keeps for its next recording, and return their number.

    `prepare` does so where it runs; the processes of a joblib backend keep theirs until they end
    themselves.
    """
    return _decoders.close_idle()


def _prepare_safely(name: str, job: Row, timeout_s: float) -> tuple[str, Row]:
    """Prepare one recording in a process of its own, and take away what an earlier state of a bad one left."""
    row = _decoders.prepare(job, timeout_s)
    if row.get("status") not in WITH_AUDIO:
        with contextlib.suppress(OSError):
            Path(job["target"]).unlink()
    if "cannot_write" in row:
        raise UserError(f"cannot write {job['target']}: {row['cannot_write']}")
    return name, row


def prepare(config: Config) -> "pd.DataFrame":
    """Prepare what is new or has changed, write the report and return it.

    joblib shares the files out: to `config.num_workers` threads that each wait for a decoder
    process, or to the backend that the caller has chosen by `joblib.parallel_config`. The report
    has a row for each recording and each one that only the metadata name; damaged ones keep their
    status when this is rerun.

    Raises:
        UserError: no recordings, metadata that cannot be read, a folder that cannot be read or
            written.
    """
    import joblib
    from tqdm import tqdm

    (rows, jobs), report_path = _plan(config), config.report_path
    _write_report(report_path, {name: row for name, row in rows.items() if name not in jobs})
    backend, n_jobs = (
        joblib.parallel.get_active_backend()
    )  # asked what it prefers, it would answer 1 for nothing said
    if n_jobs is None and backend.default_n_jobs == 1:  # the caller has not said
        n_jobs = max(1, config.num_workers)
    as_they_come = "generator_unordered" if backend.supports_return_generator else "list"
    parallel = joblib.Parallel(n_jobs=n_jobs, prefer="threads", return_as=as_they_come)
    calls = (
        joblib.delayed(_prepare_safely)(name, job, config.file_timeout_s)
        for name, job in jobs.items()
    )
    try:
        with _open_report(report_path, "a") as report:
            for name, row in tqdm(parallel(calls), total=len(jobs), unit="file", disable=None):
                rows[name] |= row
                with _writing(report_path):
                    _append(report, {name: rows[name]})  # at once, in case this is killed
    finally:
        close_decoders()
    _write_report(report_path, rows)
    return read_report(report_path)


def _plan(config: Config) -> tuple[dict[str, Row], dict[str, Row]]:
    """Rows by filename: what is done or missing, and of the rest what it will be made from; and the jobs to do."""
    from catalog.metadata import match_archive
    from catalog.tables import read_table

    rows, jobs, previous = {}, {}, _report_rows(config.report_path)
    recipe = {name: getattr(config, name) for name in settings_where(makes_arrays=True)}
    for name in find_recordings(config.train_audio_dir):
        source, target = config.train_audio_dir / name, config.train_np_dir / f"{name}.npy"
        old, made_from, done = previous.get(name, {}), "", False
        with contextlib.suppress(OSError, ValueError):
            info = source.stat()
            made_from = f"{info.st_size} bytes, {info.st_mtime_ns} ns, {', '.join(map(str, recipe.values()))}"
            if (
                made_from == old.get("made_from") and old["status"] != "unreadable"
            ):  # that may have been cured
                n_bytes = (
                    round(float(old["seconds"]) * config.sample_rate)
                    * np.dtype(config.audio_dtype).itemsize
                )
                done = (
                    old["status"] not in WITH_AUDIO
                    or target.stat().st_size == NPY_HEADER_BYTES + n_bytes
                )
        rows[name] = (
            old | ({"status": "skipped"} if old["status"] in GOOD else {})
            if done
            else {"made_from": made_from}
        )
        if not done:
            jobs[name] = {"source": str(source), "target": str(target)} | recipe
    if config.metadata_path.exists() and not config.from_folders:
        table = read_table(config.metadata_path)
        listed = match_archive(table, config, sorted(rows))["filename"]
        missing = UNREADABLE | {"status": "missing", "reason": f"in {config.metadata_path} only"}
        rows |= dict.fromkeys(set(listed) - rows.keys(), missing)
    return rows, jobs


def find_recordings(train_audio_dir: Path) -> list[str]:
    """Sorted `<label>/<file>` of all Ogg, MP3, WAV and FLAC files; hidden ones and deeper folders are left out."""
    try:
        labels = [entry for entry in os.scandir(train_audio_dir) if entry.is_dir()]
        found = [
            f"{label.name}/{file.name}"
            for label in labels
            for file in os.scandir(label)
            if file.name[0] != "."
        ]
    except OSError as error:
        raise UserError(f"no recordings: {error.filename}: {error.strerror}") from None
    found = sorted(name for name in found if name.lower().endswith(SUFFIXES))
    if not found:
        raise UserError(
            f"no recordings: no <label>/*{' or *'.join(SUFFIXES)} in {train_audio_dir.resolve()}"
        )
    return found


def read_report(path: Path) -> "pd.DataFrame":
    """Read a report: (n, 9), sorted by filename, numbers as such and the rest text."""
    import pandas as pd

    rows = _report_rows(path)
    with pd.option_context(
        "mode.string_storage", "python"
    ):  # pyarrow's strings cannot hold names that are no UTF-8
        table = pd.DataFrame(
            [rows[name] | {"filename": name} for name in sorted(rows)], columns=list(COLUMNS)
        )
    table[NUMBERS] = table[NUMBERS].apply(pd.to_numeric, errors="coerce")
    return table.astype({"native_rate": "Int64", "channels": "Int64"})


def _report_rows(path: Path) -> dict[str, Row]:
    """Rows by filename, all cells text; of two the later, and none half written."""
    if not path.exists():
        return {}
    with _open_report(path, "r") as file:
        rows = (dict.fromkeys(LATER_COLUMNS, "") | row for row in csv.DictReader(file))
        whole = (row for row in rows if set(row) == set(COLUMNS) and None not in row.values())
        return {row["filename"].removeprefix("'"): row for row in whole}


def _write_report(path: Path, rows: dict[str, Row]) -> None:
    """Write a report anew."""
    part = path.with_name(f"{path.name}.part")
    with _writing(path):
        part.parent.mkdir(parents=True, exist_ok=True)
        with _open_report(part, "w") as file:
            csv.writer(file).writerow(COLUMNS)
            _append(file, dict(sorted(rows.items())))
        os.replace(part, path)


def _open_report(path: Path, mode: Literal["r", "w", "a"]) -> TextIO:
    return open(path, mode, newline="", encoding="utf-8", errors="surrogateescape")


def _append(file: TextIO, rows: dict[str, Row]) -> None:
    """Append rows at once; an apostrophe goes before what a spreadsheet would take for a formula."""
    writer = csv.DictWriter(file, COLUMNS)
    for name, row in rows.items():
        writer.writerow(row | {"filename": f"'{name}" if name[0] in "=+-@\t\r'" else name})
    file.flush()


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {path}: {error}") from None


def main() -> int:
    """Prepare the recordings and say what became of them; 1 if too many are bad."""
    config = load_config(
        description="Decode the recordings into .npy files and report on each.",
        script="prepare_audios",
    )
    configure_logger(config)
    began = time.monotonic()
    table = prepare(config)
    took = time.monotonic() - began
    seconds = table.loc[table["status"] != "skipped", "seconds"].sum()
    counts = ", ".join(
        f"{n} {status}" for status, n in sorted(table["status"].value_counts().items())
    )
    print(f"{len(table)} recordings: {counts}; report: {config.report_path}")
    print(f"{seconds:,.0f} s of audio prepared in {took:.1f} s, {seconds / took:,.0f} x real time")
    bad = len(table) - int(table["status"].isin(GOOD).sum())
    if bad > config.max_bad_fraction * len(table):
        print(
            f"error: {bad} of {len(table)} recordings are bad: more than max_bad_fraction allows",
            file=sys.stderr,
        )
        return 1
    print(f"next: {next_command('split_data.py')}")
    return 0


if __name__ == "__main__":
    run_main(main)
