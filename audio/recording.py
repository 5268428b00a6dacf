"""One recording made a `.npy` that training can memory-map."""

import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np

import files
from audio import signals
from audio.decoder import NOTHING, Decoder
from audio.kinds import USUAL_SUFFIXES

Row = dict[str, Any]  # of the report
UNREADABLE: Row = {
    "status": "unreadable",
    "seconds": 0.0,
    "native_rate": None,
    "channels": None,
    "peak": None,
}


def prepare_recording(
    source: Path,
    target: Path,
    *,
    sample_rate: int,
    max_seconds: float,
    audio_dtype: str,
    trim_db: float | None,
    cut_zeros: bool = True,
) -> Row:
    """Decode one recording, mix its channels, resample it and write it.

    The target is (n,) float32, full scale 1, which lossy decoders may pass, or int16. It is written
    with the status `ok`, or `truncated` where audio was lost and the rest is kept. A `silent`
    recording is not written: nothing can be learned from it.

    Args:
        source: the recording.
        target: the .npy file.
        sample_rate: Hz.
        max_seconds: how much of it is kept.
        audio_dtype: float32 or int16.
        trim_db: see `trim_silence`; None does not trim.
        cut_zeros: cut out seconds of exact zeros; not for recordings whose labels have a time.

    Returns:
        status, seconds (written), native_rate (Hz), channels, peak (mono, full scale 1) and reason;
        crc32, of the samples, if they were written.

    Raises:
        OSError: the target cannot be written. A source that cannot be read is a row instead.
    """
    decoder, n_wanted = Decoder(source, sample_rate, max_seconds), round(max_seconds * sample_rate)
    waveform = np.concatenate([NOTHING, *decoder])[:n_wanted]  # (n,)
    status, reason = decoder.fault
    row = UNREADABLE | {
        "native_rate": decoder.native_rate,
        "channels": decoder.channels,
        "reason": reason,
    }
    if status in ("empty", "non_finite"):
        return row | {"status": status}
    if not len(waveform):
        return row | ({} if status else {"status": "empty", "reason": "no samples"})

    low, high = float(waveform.min()), float(waveform.max())
    if not math.isfinite(high - low):  # they were finite before they were resampled
        return row | {"status": "non_finite", "reason": "holds samples beyond what float32 can"}
    row["peak"] = round(max(-low, high), 6)
    if high - low < 2**-15:  # one step of 16 bits
        silent = "moves by less than 1/32768"
        return row | {"status": "silent", "reason": _join([silent, reason])}

    remarks = [*decoder.remarks]
    waveform, remark = signals.scale_to_unity(waveform, row["peak"])
    remarks.append(remark)
    if cut_zeros:
        waveform, remark = signals.cut_zeros(waveform, sample_rate)
        remarks.append(remark)
    remarks.append(
        signals.describe_quality(waveform, float(np.abs(waveform).max()), decoder.subtype)
    )
    if trim_db is not None:
        waveform = trim_silence(waveform, sample_rate=sample_rate, trim_db=trim_db)

    row["crc32"] = save_npy(target, waveform, audio_dtype)
    row["seconds"] = round(len(waveform) / sample_rate, 6)
    if status:
        return row | {"status": "truncated", "reason": _join([reason, *remarks])}
    if source.suffix.lower() not in USUAL_SUFFIXES.get(decoder.container, ()):
        remarks.insert(0, f"holds {decoder.container}")
    return row | {"status": "ok", "reason": _join(remarks)}


def _join(remarks: list[str]) -> str:
    return "; ".join(filter(None, remarks))


def trim_silence(waveform: np.ndarray, *, sample_rate: int, trim_db: float) -> np.ndarray:
    """(n,) float32 without the frames of 10 ms at both ends that peak `trim_db` dB below the waveform's peak."""
    frame = max(1, sample_rate // 100)
    starts = np.arange(0, len(waveform), frame)
    peaks = np.maximum.reduceat(np.abs(waveform), starts)  # (n_frames,)
    loud = np.flatnonzero(peaks >= peaks.max() * 10 ** (-trim_db / 20))
    return waveform[starts[loud[0]] : starts[loud[-1]] + frame]


def save_npy(target: Path, waveform: np.ndarray, audio_dtype: str) -> str:
    """Write (n,) float32 `as_stored`; never half a file under its name.

    It is not flushed to the disk: it can be made again, and its size is checked at each start.

    Returns:
        samples_crc32 of what was written.
    """
    waveform = np.ascontiguousarray(as_stored(waveform, audio_dtype))
    with files.replacing(target, durable=False) as file:
        np.save(file, waveform, allow_pickle=False)
    return samples_crc32(waveform)


def as_stored(waveform: np.ndarray, audio_dtype: str) -> np.ndarray:
    """Return (n,) float32 as it is, or for "int16" as round(32767 x); a peak above 1 becomes 1."""
    if audio_dtype != "int16":
        return waveform
    peak = float(max(waveform.max(initial=0), -waveform.min(initial=0)))
    scale = np.float32(32767 / max(1.0, peak))
    return np.rint(waveform * scale).astype(np.int16)


def array_name(filename: str) -> str:
    """Name the array of a recording, below the folder of arrays; an overlong name is shortened."""
    folder, slash, name = filename.rpartition("/")
    return folder + slash + files.shorten(name) + ".npy"


def samples_crc32(samples: np.ndarray) -> str:
    """Check sum of (n,) samples, eight hexadecimal digits.

    A quarter of SHA-256's time, which would be noticed: half a millisecond for 30 s of float32.
    """
    return f"{zlib.crc32(samples.data):08x}"
