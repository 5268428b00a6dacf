"""One recording made a `.npy` that training can memory-map."""

import math
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from audio.decoder import NOTHING, Decoder

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
) -> Row:
    """Decode one recording, average its channels, resample to `sample_rate` (Hz) and write it.

    The first `max_seconds` are read, then trimmed (`trim_silence`; None: not). The target is (n,)
    float32, full scale 1, which lossy decoders may pass, or int16. It is written with the status
    `ok` or `truncated` (audio was lost, the rest is kept). A `silent` recording is not: nothing can
    be learned from it.

    Returns:
        status, seconds (written), native_rate (Hz), channels, peak (mono, full scale 1) and reason;
        crc32, of the samples, if they were written.

    Raises:
        OSError: the target cannot be written. A source that cannot be read is a row instead.
    """
    decoder, n_wanted = Decoder(source, sample_rate, max_seconds), round(max_seconds * sample_rate)
    waveform = np.concatenate([NOTHING, *decoder])[:n_wanted]  # (n,)
    status, reason = decoder.fault
    if status == "non_finite" and len(waveform) == n_wanted:  # behind what is kept
        status = reason = ""
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
        return row | {
            "status": "silent",
            "reason": "moves by less than 1/32768" + f"; {reason}" * bool(reason),
        }
    if trim_db is not None:
        waveform = trim_silence(waveform, sample_rate=sample_rate, trim_db=trim_db)
    row["crc32"] = save_npy(target, waveform, audio_dtype)
    row["seconds"] = round(len(waveform) / sample_rate, 6)
    if status:
        return row | {"status": "truncated"}
    odd_name = not decoder.container.startswith(source.suffix[1:].upper())
    return row | {"status": "ok", "reason": f"holds {decoder.container}" if odd_name else ""}


def trim_silence(waveform: np.ndarray, *, sample_rate: int, trim_db: float) -> np.ndarray:
    """(n,) float32 without the frames of 10 ms at both ends that peak `trim_db` dB below the waveform's peak."""
    frame = max(1, sample_rate // 100)
    starts = np.arange(0, len(waveform), frame)
    peaks = np.maximum.reduceat(np.abs(waveform), starts)  # (n_frames,)
    loud = np.flatnonzero(peaks >= peaks.max() * 10 ** (-trim_db / 20))
    return waveform[starts[loud[0]] : starts[loud[-1]] + frame]


def save_npy(target: Path, waveform: np.ndarray, audio_dtype: str) -> str:
    """Write (n,) float32 `as_stored`; never half a file under its name.

    Returns:
        samples_crc32 of what was written.
    """
    waveform = np.ascontiguousarray(as_stored(waveform, audio_dtype))
    target.parent.mkdir(parents=True, exist_ok=True)
    part = part_path(target, os.getpid())
    with open(part, "wb") as file:
        np.save(file, waveform, allow_pickle=False)
    os.replace(part, target)
    return samples_crc32(waveform)


def as_stored(waveform: np.ndarray, audio_dtype: str) -> np.ndarray:
    """Give (n,) float32 as it is, or for "int16" as such, `round(32767 x)` clipped."""
    if audio_dtype != "int16":
        return waveform
    return np.clip(np.rint(waveform * np.float32(32767)), -32767, 32767).astype(np.int16)


def part_path(target: Path, pid: int) -> Path:
    """Return where a process writes a target before it is whole."""
    return target.with_name(f"{target.name}.{pid}.part")


def samples_crc32(samples: np.ndarray) -> str:
    """Eight hexadecimal digits that tell any accidental change of (n,) samples, but for one in four thousand million.

    A quarter of SHA-256's time, which would be noticed: half a millisecond for 30 s of float32.
    """
    return f"{zlib.crc32(samples.data):08x}"
