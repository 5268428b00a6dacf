"""Decode every recording once into a `.npy` that training can memory-map, and report on each file.

`train_audio/<label>/<file>` becomes `train_np/<label>/<file>.npy`, with a row in `train_np/prepare_report.csv`.
Decoding happens in processes of its own: a file that crashes or hangs its decoder costs that file only.
"""

import contextlib
import csv
import faulthandler
import json
import math
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import soundfile
import soxr

from configs import Config, UserError, configure_logger, load_config, next_command, run_main
from damage import describe_damage

if TYPE_CHECKING:
    import pandas as pd

Row = dict[str, Any]  # of the report
SUFFIXES = (".ogg", ".mp3", ".wav", ".flac")
GOOD = ("ok", "skipped")  # every other status counts as bad
WITH_AUDIO = ("ok", "skipped", "truncated")  # these have a .npy
COLUMNS = ("filename", "status", "seconds", "native_rate", "channels", "peak", "reason", "crc32", "made_from")
LATER_COLUMNS = {"crc32"}  # which older reports do not have
NUMBERS = ["seconds", "native_rate", "channels", "peak"]
UNREADABLE: Row = {"status": "unreadable", "seconds": 0.0, "native_rate": None, "channels": None, "peak": None}
BLOCK_VALUES = 2**15  # float32 values decoded at a time, all channels together: all that a decoding error costs
MARGIN_S = 0.1  # decoded beyond max_seconds, so that the resampler sees no edge there
NPY_HEADER_BYTES = 128  # numpy's, for any 1-D array


# One recording -------------------------------------------------------------------------------------------


def prepare_recording(
    source: Path, target: Path, *, sample_rate: int, max_seconds: float, audio_dtype: str, trim_db: float | None
) -> Row:
    """Decode one recording, average its channels, resample to `sample_rate` (Hz) and write it.

    The first `max_seconds` are read, then trimmed (`trim_silence`; None: not). The target is (n,) float32, full
    scale 1, which lossy decoders may pass, or int16. It is written with the status `ok` or `truncated` (audio
    was lost, the rest is kept). A `silent` recording is not: nothing can be learned from it.

    Returns:
        status, seconds (written), native_rate (Hz), channels, peak (mono, full scale 1) and reason; crc32, of the
        samples, if they were written.

    Raises:
        OSError: the target cannot be written. A source that cannot be read is a row instead.
    """
    try:
        if not source.is_file():  # opening a FIFO would wait for ever
            return UNREADABLE | {"reason": "no file: a folder, a FIFO, a device or a broken link"}
        if not source.stat().st_size:
            return UNREADABLE | {"status": "empty", "reason": "0 bytes"}
        waveform, facts, damage = _decode(source, max_seconds)
    except Exception as error:  # whatever a decoder raises on a stranger's file costs that file, not the run
        reason = getattr(error, "strerror", "") or getattr(error, "error_string", "") or repr(error)
        return UNREADABLE | {"reason": reason}
    row, rate = UNREADABLE | facts, facts["native_rate"]
    if rate != sample_rate and len(waveform):
        n_samples = round(len(waveform) * sample_rate / rate)
        waveform = soxr.resample(waveform, rate, sample_rate, quality="HQ")[:n_samples]
    waveform = waveform[: round(max_seconds * sample_rate)]
    if not len(waveform):
        return row | ({"reason": damage} if damage else {"status": "empty", "reason": "no samples"})
    low, high = float(waveform.min()), float(waveform.max())  # NaN, where there is one, comes out of both
    if not math.isfinite(high - low):
        return row | {"status": "non_finite", "reason": "holds NaN or infinite samples"}
    row["peak"] = round(max(-low, high), 6)
    if high - low < 2**-15:  # one step of 16 bits
        return row | {"status": "silent", "reason": "moves by less than 1/32768" + f"; {damage}" * bool(damage)}
    if trim_db is not None:
        waveform = trim_silence(waveform, sample_rate=sample_rate, trim_db=trim_db)
    row["crc32"] = save_npy(target, waveform, audio_dtype)
    row["seconds"] = round(len(waveform) / sample_rate, 6)
    return row | ({"status": "truncated", "reason": damage} if damage else {"status": "ok"})


def _decode(source: Path, max_seconds: float) -> tuple[np.ndarray, Row, str]:
    """The first `max_seconds` and a little more: (n,) float32 at the native rate, facts for the row, and damage."""
    blocks, n_frames, error = [np.zeros(0, np.float32)], 0, ""
    with open(source, "rb") as file, soundfile.SoundFile(file.fileno(), closefd=False) as sound:
        rate, channels, container = sound.samplerate, sound.channels, sound.format
        average = np.full(channels, 1 / channels, np.float32)  # times a block: 20 x as fast as mean(axis=1)
        wanted = math.ceil((max_seconds + MARGIN_S) * rate)
        try:
            while len(block := sound.read(min(BLOCK_VALUES // channels, wanted - n_frames), "float32", always_2d=True)):
                blocks.append(block[:, 0] if channels == 1 else block @ average)  # (frames, channels) to (frames,)
                n_frames += len(block)
        except RuntimeError as fault:
            error = str(fault)
        damage = describe_damage(file, sound, n_frames, wanted=wanted, error=error or _heard_on_stderr())
    note = "" if container.startswith(source.suffix[1:].upper()) else f"holds {container}"
    return np.concatenate(blocks), {"native_rate": rate, "channels": channels, "reason": note}, damage


def trim_silence(waveform: np.ndarray, *, sample_rate: int, trim_db: float) -> np.ndarray:
    """(n,) float32 without the frames of 10 ms at both ends that peak `trim_db` dB below the waveform's peak."""
    frame = max(1, sample_rate // 100)
    starts = np.arange(0, len(waveform), frame)
    peaks = np.maximum.reduceat(np.abs(waveform), starts)  # (n_frames,)
    loud = np.flatnonzero(peaks >= peaks.max() * 10 ** (-trim_db / 20))
    return waveform[starts[loud[0]] : starts[loud[-1]] + frame]


def save_npy(target: Path, waveform: np.ndarray, audio_dtype: str) -> str:
    """Write (n,) float32 as such or as int16, `round(32767 x)` clipped; never half a file under its name.

    Returns:
        samples_crc32 of what was written.
    """
    if audio_dtype == "int16":
        waveform = np.clip(np.rint(waveform * np.float32(32767)), -32767, 32767).astype(np.int16)
    target.parent.mkdir(parents=True, exist_ok=True)
    waveform = np.ascontiguousarray(waveform)
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    with open(part, "wb") as file:
        np.save(file, waveform, allow_pickle=False)
    os.replace(part, target)
    return samples_crc32(waveform)


def samples_crc32(samples: np.ndarray) -> str:
    """Eight hexadecimal digits that tell any accidental change of (n,) samples, but for one in four thousand million.

    A quarter of SHA-256's time, which would be noticed: half a millisecond for 30 s of float32.
    """
    return f"{zlib.crc32(samples.data):08x}"


# Many recordings -----------------------------------------------------------------------------------------

SERVE = "import sys; sys.path.insert(0, sys.argv[1]); from prepare_audios import serve; serve()"
DECODER_COMMAND = (sys.executable, "-c", SERVE, str(Path(__file__).resolve().parent))
_idle_decoders: list[Any] = []
_stderr: list[IO[bytes]] = []  # of a decoder process, the file that its stderr goes to
# For what it cannot read mpg123 plays silence, and tells stderr alone; errors in tags stand in other files.
MUTED = re.compile(rb"libmpg123/(?:layer\d\.c|getbits\.h):\S+ error: ([^\n]{1,100})")


def serve() -> None:
    """Answer each line of stdin, the arguments of `prepare_recording` as JSON, with a line of JSON."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks
    answers, silence = os.fdopen(os.dup(1), "w", buffering=1), os.open(os.devnull, os.O_WRONLY)
    print("ready", file=answers)
    os.dup2(silence, 1)  # what a library prints is no answer
    _stderr.append(tempfile.TemporaryFile(buffering=0))  # noqa: SIM115 - for the life of the process
    os.dup2(_stderr[0].fileno(), 2)
    for job in map(json.loads, sys.stdin):
        _stderr[0].seek(0)  # where both go on
        _stderr[0].truncate()
        # The clock is a thread in C, which ends the process even if a decoder never comes back.
        faulthandler.dump_traceback_later(job.pop("timeout_s"), exit=True, file=silence)
        try:
            answer = prepare_recording(Path(job.pop("source")), Path(job.pop("target")), **job)
        except OSError as error:
            answer = {"cannot_write": str(error)}
        faulthandler.cancel_dump_traceback_later()
        print(json.dumps(answer), file=answers)


def _heard_on_stderr() -> str:
    """Say what mpg123 could not read of the recording, where this process hears it."""
    found = MUTED.search(os.pread(_stderr[0].fileno(), 2**16, 0)) if _stderr else None
    return f"part of it is muted ({found[1].decode(errors='replace').strip()})" if found else ""


def _prepare_safely(name: str, job: Row, command: tuple[str, ...]) -> tuple[str, Row]:
    """Prepare one recording in a process that runs `serve`, and keep that for the next one unless it died."""
    process: Any  # Popen
    try:
        process = _idle_decoders.pop()
    except IndexError:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if process.stdout.readline() != "ready\n":
            process.communicate()
            raise RuntimeError(f"this decoder process does not start: {' '.join(command)}") from None
    target, limit, began = Path(job["target"]), job["timeout_s"], time.monotonic()
    with contextlib.suppress(BrokenPipeError):
        print(json.dumps(job), file=process.stdin, flush=True)
    if answer := process.stdout.readline():
        row = json.loads(answer)
        _idle_decoders.append(process)
    else:
        process.communicate()
        code = process.returncode
        died = f"its decoder crashed ({signal.Signals(-code).name if code < 0 else f'status {code}'})"
        slow = f"not done after {limit:g} s (file_timeout_s)" if time.monotonic() - began >= limit else ""
        row = UNREADABLE | {"reason": slow or died}
    if row.get("status") not in WITH_AUDIO:
        for path in (target, target.with_name(f"{target.name}.{process.pid}.part")):
            with contextlib.suppress(OSError):
                path.unlink()  # from an earlier state of the recording; half written
    if "cannot_write" in row:
        raise UserError(f"cannot write {target}: {row['cannot_write']}")
    return name, row


def close_decoders() -> int:
    """End the decoder processes that this process keeps for its next recording, and return their number.

    `prepare` does so where it runs; the processes of a joblib backend keep theirs until they end themselves.
    """
    closed = 0
    while _idle_decoders:
        _idle_decoders.pop().communicate()  # closes its stdin, at which it ends
        closed += 1
    return closed


def prepare(config: Config) -> "pd.DataFrame":
    """Prepare what is new or has changed, write the report and return it.

    joblib shares the files out: to `config.num_workers` threads that each wait for a decoder process, or
    to the backend that the caller has chosen by `joblib.parallel_config`. The report has a row for each
    recording and each one that only the metadata name; damaged ones keep their status when this is rerun.

    Raises:
        UserError: no recordings, metadata that cannot be read, a folder that cannot be read or written.
    """
    import joblib
    from tqdm import tqdm

    rows, jobs = _plan(config)
    _write_report(config.report_path, {name: row for name, row in rows.items() if name not in jobs})
    backend, n_jobs = joblib.parallel.get_active_backend()  # asked what it prefers, it would answer 1 for nothing said
    if n_jobs is None and backend.default_n_jobs == 1:  # the caller has not said
        n_jobs = max(1, config.num_workers)
    as_they_come = "generator_unordered" if backend.supports_return_generator else "list"
    parallel = joblib.Parallel(n_jobs=n_jobs, prefer="threads", return_as=as_they_come)
    calls = (joblib.delayed(_prepare_safely)(name, job, DECODER_COMMAND) for name, job in jobs.items())
    try:
        for name, row in tqdm(parallel(calls), total=len(jobs), unit="file", disable=None):
            rows[name] |= row
            _write_report(config.report_path, {name: rows[name]}, mode="a")  # at once, in case this is killed
    finally:
        close_decoders()
    _write_report(config.report_path, rows)
    return read_report(config.report_path)


def _plan(config: Config) -> tuple[dict[str, Row], dict[str, Row]]:
    """Rows by filename: what is done or missing, and of the rest what it will be made from; and the jobs to do."""
    import pandas as pd

    rows, jobs, previous = {}, {}, _report_rows(config.report_path)
    recipe = {name: getattr(config, name) for name in ("sample_rate", "max_seconds", "audio_dtype", "trim_db")}
    for name in find_recordings(config.train_audio_dir):
        source, target = config.train_audio_dir / name, config.train_np_dir / f"{name}.npy"
        old, made_from, done = previous.get(name, {}), "", False
        with contextlib.suppress(OSError, ValueError):
            info = source.stat()
            made_from = f"{info.st_size} bytes, {info.st_mtime_ns} ns, {', '.join(map(str, recipe.values()))}"
            if made_from == old.get("made_from") and old["status"] != "unreadable":  # that may have been cured
                n_bytes = round(float(old["seconds"]) * config.sample_rate) * np.dtype(config.audio_dtype).itemsize
                done = old["status"] not in WITH_AUDIO or target.stat().st_size == NPY_HEADER_BYTES + n_bytes
        rows[name] = (
            old | ({"status": "skipped"} if old["status"] in GOOD else {}) if done else {"made_from": made_from}
        )
        if not done:
            jobs[name] = {"source": str(source), "target": str(target), "timeout_s": config.file_timeout_s} | recipe
    if config.metadata_path.exists():
        try:
            how: Any = {"dtype": str, "keep_default_na": False, "encoding_errors": "replace"}
            listed = pd.read_csv(config.metadata_path, usecols=["filename"], **how)["filename"]
        except (ValueError, OSError) as error:
            raise UserError(f"{config.metadata_path}: {' '.join(str(error).split())}") from None
        missing = UNREADABLE | {"status": "missing", "reason": f"in {config.metadata_path} only"}
        rows |= dict.fromkeys(set(listed) - rows.keys(), missing)
    return rows, jobs


def find_recordings(train_audio_dir: Path) -> list[str]:
    """Sorted `<label>/<file>` of all Ogg, MP3, WAV and FLAC files; hidden ones and deeper folders are left out."""
    try:
        labels = [entry for entry in os.scandir(train_audio_dir) if entry.is_dir()]
        found = [f"{label.name}/{file.name}" for label in labels for file in os.scandir(label) if file.name[0] != "."]
    except OSError as error:
        raise UserError(f"no recordings: {error.filename}: {error.strerror}") from None
    found = sorted(name for name in found if name.lower().endswith(SUFFIXES))
    if not found:
        raise UserError(f"no recordings: no <label>/*{' or *'.join(SUFFIXES)} in {train_audio_dir.resolve()}")
    return found


def read_report(path: Path) -> "pd.DataFrame":
    """Read a report: (n, 9), sorted by filename, numbers as such and the rest text."""
    import pandas as pd

    rows = _report_rows(path)
    with pd.option_context("mode.string_storage", "python"):  # pyarrow's strings cannot hold names that are no UTF-8
        table = pd.DataFrame([rows[name] | {"filename": name} for name in sorted(rows)], columns=list(COLUMNS))
    table[NUMBERS] = table[NUMBERS].apply(pd.to_numeric, errors="coerce")
    return table.astype({"native_rate": "Int64", "channels": "Int64"})


def _report_rows(path: Path) -> dict[str, Row]:
    """Rows by filename, all cells text; of two the later, and none half written."""
    if not path.exists():
        return {}
    with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = (dict.fromkeys(LATER_COLUMNS, "") | row for row in csv.DictReader(file))
        whole = (row for row in rows if set(row) == set(COLUMNS) and None not in row.values())
        return {row["filename"].removeprefix("'"): row for row in whole}


def _write_report(path: Path, rows: dict[str, Row], mode: str = "w") -> None:
    """Write or append rows; an apostrophe goes before what a spreadsheet would take for a formula."""
    part = path.with_name(f"{path.name}.part") if mode == "w" else path
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        with open(part, mode, newline="", encoding="utf-8", errors="surrogateescape") as file:
            writer = csv.DictWriter(file, COLUMNS)
            if mode == "w":
                writer.writeheader()
            for name, row in sorted(rows.items()):
                writer.writerow(row | {"filename": f"'{name}" if name[0] in "=+-@\t\r'" else name})
        os.replace(part, path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error}") from None


def main() -> int:
    """Prepare the recordings and say what became of them; 1 if too many are bad."""
    config = load_config(description="Decode the recordings into .npy files and report on each.")
    configure_logger(config)
    began = time.monotonic()
    table = prepare(config)
    took = time.monotonic() - began
    seconds = table.loc[table["status"] != "skipped", "seconds"].sum()
    counts = ", ".join(f"{n} {status}" for status, n in sorted(table["status"].value_counts().items()))
    print(f"{len(table)} recordings: {counts}; report: {config.report_path}")
    print(f"{seconds:,.0f} s of audio prepared in {took:.1f} s, {seconds / took:,.0f} x real time")
    bad = len(table) - int(table["status"].isin(GOOD).sum())
    if bad > config.max_bad_fraction * len(table):
        print(f"error: {bad} of {len(table)} recordings are bad: more than max_bad_fraction allows", file=sys.stderr)
        return 1
    print(f"next: {next_command('split_data.py')}")
    return 0


if __name__ == "__main__":
    run_main(main)
