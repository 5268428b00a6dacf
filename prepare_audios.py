"""Decode every recording once into a `.npy` that training can memory-map, and report on each file.

`train_audio/<label>/<file>` becomes `train_np/<label>/<file>.npy`, with a row in `train_np/prepare_report.csv`.
Decoding happens in processes of its own: a file that crashes or hangs its decoder costs that file only.
"""

import contextlib
import csv
import faulthandler
import functools
import json
import math
import mmap
import os
import signal
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile
import soxr

from configs import Config, UserError, configure_logger, load_config, next_command, run_main

if TYPE_CHECKING:
    import pandas as pd

Row = dict[str, Any]  # of the report
SUFFIXES = (".ogg", ".mp3", ".wav", ".flac")
GOOD = ("ok", "skipped")  # every other status counts as bad
WITH_AUDIO = ("ok", "skipped", "truncated")  # these have a .npy
COLUMNS = ("filename", "status", "seconds", "native_rate", "channels", "peak", "reason", "made_from")
NUMBERS = ["seconds", "native_rate", "channels", "peak"]
UNREADABLE: Row = {"status": "unreadable", "seconds": 0.0, "native_rate": None, "channels": None, "peak": None}
BLOCK_VALUES = 2**15  # float32 values decoded at a time, all channels together: all that a decoding error costs
MARGIN_S = 0.1  # decoded beyond max_seconds, so that the resampler sees no edge there
CHECKED_BYTES = 2**24  # of a longer file the kept part and the end are checked, not all between
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
        status, seconds (written), native_rate (Hz), channels, peak (mono, full scale 1) and reason.

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
    save_npy(target, waveform, audio_dtype)
    row["seconds"] = round(len(waveform) / sample_rate, 6)
    return row | ({"status": "truncated", "reason": damage} if damage else {"status": "ok"})


def _decode(source: Path, max_seconds: float) -> tuple[np.ndarray, Row, str]:
    """The first `max_seconds` and a little more: (n,) float32 at the native rate, facts for the row, and damage."""
    blocks, n_frames, damage = [np.zeros(0, np.float32)], 0, ""
    with open(source, "rb") as file, soundfile.SoundFile(file.fileno(), closefd=False) as sound:
        rate, channels, container = sound.samplerate, sound.channels, sound.format
        average = np.full(channels, 1 / channels, np.float32)  # times a block: 20 x as fast as mean(axis=1)
        wanted = math.ceil((max_seconds + MARGIN_S) * rate)
        try:
            while len(block := sound.read(min(BLOCK_VALUES // channels, wanted - n_frames), "float32", always_2d=True)):
                blocks.append(block[:, 0] if channels == 1 else block @ average)  # (frames, channels) to (frames,)
                n_frames += len(block)
        except RuntimeError as error:
            damage = str(error)
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            if not damage and container in CHECKS:
                damage = CHECKS[container](data, sound, n_frames, wanted)
    promised = min(wanted, sound.frames)
    if damage or (n_frames < promised and container != "MP3"):  # whose length may be a guess
        of = f" of {promised / rate:.2f}" * (n_frames < promised)
        damage = f"{n_frames / rate:.2f}{of} s decoded" + f"; {damage}" * bool(damage)
    note = "" if container.startswith(source.suffix[1:].upper()) else f"holds {container}"
    return np.concatenate(blocks), {"native_rate": rate, "channels": channels, "reason": note}, damage


def trim_silence(waveform: np.ndarray, *, sample_rate: int, trim_db: float) -> np.ndarray:
    """(n,) float32 without the frames of 10 ms at both ends that peak `trim_db` dB below the waveform's peak."""
    frame = max(1, sample_rate // 100)
    starts = np.arange(0, len(waveform), frame)
    peaks = np.maximum.reduceat(np.abs(waveform), starts)  # (n_frames,)
    loud = np.flatnonzero(peaks >= peaks.max() * 10 ** (-trim_db / 20))
    return waveform[starts[loud[0]] : starts[loud[-1]] + frame]


def save_npy(target: Path, waveform: np.ndarray, audio_dtype: str) -> None:
    """Write (n,) float32 as such or as int16, `round(32767 x)` clipped; never half a file under its name."""
    if audio_dtype == "int16":
        waveform = np.clip(np.rint(waveform * np.float32(32767)), -32767, 32767).astype(np.int16)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    with open(part, "wb") as file:
        np.save(file, np.ascontiguousarray(waveform), allow_pickle=False)
    os.replace(part, target)


# Was audio lost? -----------------------------------------------------------------------------------------

REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
MP3_TAGS = (b"TAG", b"APETAGEX", b"LYRICSBEGIN", b"ID3")
MP3_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}  # Hz, by MPEG version
MP3_KBPS = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0)  # layer III of MPEG 1
MP3_KBPS_LOW = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0)  # of MPEG 2 and 2.5
WAV_UNKNOWN = (0, 0x7FFFFFFF - 36, 0xFFFFFFFF)  # lengths that ffmpeg and sox write into a pipe


def _ogg_damage(data: mmap.mmap, sound: soundfile.SoundFile, n_decoded: int, wanted: int) -> str:
    """Check sums, numbers and end-of-stream flag of the pages (RFC 3533)."""
    position, granule, n_gaps, n_links, beginning = 0, 0, 0, 0, False
    next_page: dict[int, int] = {}  # of the streams that have begun and not ended, by serial number
    while position < len(data) and not (position > CHECKED_BYTES and granule > wanted):
        start = data.find(b"OggS", position)
        size = _ogg_page_size(data, start) if start >= 0 else 0
        if not size:
            position = start + 4 if start >= 0 else len(data)
            continue
        flags, granule, serial, number = struct.unpack_from("<BqII", data, start + 5)
        if flags & 2:  # a stream begins; several may at once, before any of them goes on
            n_links += not beginning
            next_page[serial] = number
        n_gaps += next_page.get(serial) != number
        next_page[serial] = number + 1
        if flags & 4:  # it ends
            del next_page[serial]
        position, beginning = start + size, bool(flags & 2)
    start = data.rfind(b"OggS", -(2**17))
    if position < len(data) and start >= 0 and _ogg_page_size(data, start) and data[start + 5] & 4:  # a long file's end
        next_page.clear()
    found = [
        f"pages are missing or damaged in {n_gaps} places" if n_gaps else "",
        f"{n_links} recordings are chained and only the first is read" if n_links > 1 and n_decoded < wanted else "",
        "no end-of-stream mark: the file was cut, or its recorder never wrote one" if next_page else "",
    ]
    return "; ".join(filter(None, found))


def _ogg_page_size(data: mmap.mmap, start: int) -> int:
    """Bytes of the page at `start`; 0 if it is cut or its check sum is wrong."""
    if start + 27 > len(data):
        return 0
    n_segments = data[start + 26]
    size = 27 + n_segments + sum(data[start + 27 : start + 27 + n_segments])
    page = data[start : start + size].translate(REVERSED)
    # Ogg's CRC-32 is zlib's with the bits of a byte in the other order, not inverted, and zeros in its own place.
    crc = zlib.crc32(page[26:], zlib.crc32(bytes(4), zlib.crc32(page[:22], 0xFFFFFFFF))) ^ 0xFFFFFFFF
    return size if len(page) == size and page[22:26] == crc.to_bytes(4, "big") else 0


def _mp3_damage(data: mmap.mmap, sound: soundfile.SoundFile, n_decoded: int, wanted: int) -> str:
    """Walk from frame to frame; compare their number with the Xing header's, if there is one."""
    position, n_frames, n_gaps, stated, synced, first = 0, 0, 0, 0, False, b""
    while position < len(data) and not (skipped := position > CHECKED_BYTES and n_frames * 576 > wanted):
        header = data[position : position + 4]
        size = _mp3_frame_size(header, first)
        if size and (synced or _mp3_frame_size(data[position + size : position + size + 4], header)):
            if not first:
                first, head = header, data[position : position + 64]
                if (xing := max(head.find(b"Xing"), head.find(b"Info"))) > 0:
                    n_frames = -1  # this one holds no audio
                    stated = int.from_bytes(head[xing + 8 : xing + 12], "big") if head[xing + 7] & 1 else 0
            position, n_frames, synced = position + size, n_frames + 1, True
            continue
        if synced:
            rest = data[position : position + 2**16].strip(b"\0")
            if not rest or rest.startswith(MP3_TAGS):
                break
            n_gaps += 1
        position, synced = data.find(b"\xff", position + 1) % (len(data) + 1), False  # -1, not found: to the end
    n_gaps += position > len(data)  # the last frame is cut
    due = (n_frames - 4) * (1152 if first and first[1] & 8 else 576)  # 4: more than encoders add and decoders trim
    found = [
        f"frames are missing or damaged in {n_gaps} places" if n_gaps else "",
        f"{n_frames} of {stated} frames are there" if n_frames < stated and not skipped else "",
        "the decoder stopped early" if n_decoded < min(wanted, due) else "",
    ]
    return "; ".join(filter(None, found))


@functools.lru_cache(maxsize=4096)  # few headers differ
def _mp3_frame_size(header: bytes, first: bytes) -> int:
    """Bytes of the layer III frame with this 4-byte header; 0 if it is none, or unlike the first of its file."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE6 != 0xE2:
        return 0
    if first and ((header[1] ^ first[1]) & 0xFE or (header[2] ^ first[2]) & 0x0C):  # version, layer, rate
        return 0
    version, rate = header[1] >> 3 & 3, header[2] >> 2 & 3
    if version not in MP3_RATES or rate == 3:
        return 0
    kbps = (MP3_KBPS if version == 3 else MP3_KBPS_LOW)[header[2] >> 4]
    size = (144_000 if version == 3 else 72_000) * kbps // MP3_RATES[version][rate]
    return size and size + (header[2] >> 1 & 1)  # padding


def _wav_damage(data: mmap.mmap, sound: soundfile.SoundFile, n_decoded: int, wanted: int) -> str:
    """Compare the sizes in the header with each other and with the file's."""
    position, found = 12, []
    while position + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, position)
        there = len(data) - position - 8
        position += 8 + size + size % 2
        if name == b"data" and size not in WAV_UNKNOWN:
            found += [f"{there} of {size} bytes of audio are there"] * (there < size)
            if not data[position : position + 4].strip(b"\0").isascii():  # neither a chunk's name nor padding
                found.append("there is more audio than its header counts")
    return "; ".join(found)


def _flac_damage(data: mmap.mmap, sound: soundfile.SoundFile, n_decoded: int, wanted: int) -> str:
    """Read the last sample, and see whether more follows; damage before that stops the decoder."""
    if sound.frames == 2**63 - 1:  # libsndfile's way to say that the header does not say
        return ""
    with contextlib.suppress(RuntimeError):
        if sound.frames == n_decoded or (sound.seek(sound.frames - 1) and len(sound.read(1))):
            unread = len(data) - os.lseek(sound.name, 0, os.SEEK_CUR)
            return "there is more audio than its header counts" if unread > 128 else ""  # an ID3v1 tag may
    return "its end is missing or damaged"


CHECKS = {"OGG": _ogg_damage, "MP3": _mp3_damage, "WAV": _wav_damage, "WAVEX": _wav_damage, "FLAC": _flac_damage}


# Many recordings -----------------------------------------------------------------------------------------

SERVE = "import sys; sys.path.insert(0, sys.argv[1]); from prepare_audios import serve; serve()"
DECODER_COMMAND = (sys.executable, "-c", SERVE, str(Path(__file__).resolve().parent))
_idle_decoders: list[Any] = []


def serve() -> None:
    """Answer each line of stdin, the arguments of `prepare_recording` as JSON, with a line of JSON."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks
    answers, silence = os.fdopen(os.dup(1), "w", buffering=1), os.open(os.devnull, os.O_WRONLY)
    print("ready", file=answers)
    os.dup2(silence, 1)  # what a library prints is no answer
    os.dup2(silence, 2)
    for job in map(json.loads, sys.stdin):
        # The clock is a thread in C, which ends the process even if a decoder never comes back.
        faulthandler.dump_traceback_later(job.pop("timeout_s"), exit=True, file=silence)
        try:
            answer = prepare_recording(Path(job.pop("source")), Path(job.pop("target")), **job)
        except OSError as error:
            answer = {"cannot_write": str(error)}
        faulthandler.cancel_dump_traceback_later()
        print(json.dumps(answer), file=answers)


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
    backend, n_jobs = joblib.parallel.get_active_backend(prefer="threads")
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
        while _idle_decoders:
            _idle_decoders.pop().communicate()  # closes its stdin, at which it ends
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
    """Read a report: (n, 8), sorted by filename, numbers as such and the rest text."""
    import pandas as pd

    rows = _report_rows(path)
    table = pd.DataFrame([rows[name] | {"filename": name} for name in sorted(rows)], columns=list(COLUMNS))
    table[NUMBERS] = table[NUMBERS].apply(pd.to_numeric, errors="coerce")
    return table.astype({"native_rate": "Int64", "channels": "Int64"})


def _report_rows(path: Path) -> dict[str, Row]:
    """Rows by filename, all cells text; of two the later, and none half written."""
    if not path.exists():
        return {}
    with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
        whole = (row for row in csv.DictReader(file) if set(row) == set(COLUMNS) and None not in row.values())
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
