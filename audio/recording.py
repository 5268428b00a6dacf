"""One recording made a `.npy` that training can memory-map."""

import io
import math
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np

import files
from audio import signals
from audio.decoder import NOTHING, Decoder
from audio.kinds import USUAL_SUFFIXES
from audio.voice import find_voice

Row = dict[str, Any]  # of the report
NPY_HEADER_BYTES = 128  # numpy's, for any 1-D array
STEP = 2.0**-15  # of 16 bits, full scale 1
LEAST_LEFT_S = 1.0  # seconds that cutting voice out must leave
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
    cut_still: bool = True,
    voice: str = "off",
) -> Row:
    """Decode one recording, mix its channels, resample it and write it.

    The target is (n,) float32, full scale 1, which lossy decoders may pass, or int16. It is written
    with the status `ok`, or `truncated` where audio was lost and the rest is kept. A `silent`
    recording is not written: nothing can be learned from it.

    Args:
        source: the recording.
        target: the .npy file.
        sample_rate: Hz.
        max_seconds: how much of it is kept; of infinity see `prepare_whole`.
        audio_dtype: float32 or int16.
        trim_db: see `trim_silence`; None does not trim.
        cut_still: cut out seconds of zeros; not for recordings whose labels have a time.
        voice: "flag" says in the reason how long people speak, "cut" cuts that out, "off" does
            not listen for it.

    Returns:
        status, seconds (written), native_rate (Hz), channels, peak (mono, full scale 1) and reason;
        crc32, of the samples, if they were written.

    Raises:
        OSError: the target cannot be written. A source that cannot be read is a row instead.
    """
    if math.isinf(max_seconds):
        return prepare_whole(source, target, sample_rate=sample_rate, audio_dtype=audio_dtype)

    decoder, n_wanted = Decoder(source, sample_rate, max_seconds), round(max_seconds * sample_rate)
    waveform = np.concatenate([NOTHING, *decoder])[:n_wanted]  # (n,)
    row = UNREADABLE | _judge(waveform, decoder)
    if row["status"] not in ("ok", "truncated"):
        return row

    remarks = [row["reason"], *decoder.remarks]
    waveform, remark = signals.scale_to_unity(waveform, row["peak"])
    if remark:
        row["peak"] = round(float(np.abs(waveform).max()), 6)
    remarks.append(remark)
    if cut_still:
        waveform, remark = signals.cut_still(waveform, sample_rate)
        remarks.append(remark)
    remarks.append(signals.describe_quality(waveform, row["peak"], decoder.subtype))
    if voice != "off":
        waveform, remark = treat_voice(waveform, sample_rate, is_cut=voice == "cut")
        remarks.append(remark)
    if trim_db is not None:
        waveform = trim_silence(waveform, sample_rate=sample_rate, trim_db=trim_db)

    row["crc32"] = save_npy(target, waveform, audio_dtype)
    row["seconds"] = round(len(waveform) / sample_rate, 6)
    if source.suffix.lower() not in USUAL_SUFFIXES.get(decoder.container, ()):
        remarks.insert(0, f"holds {decoder.container}")
    row["reason"] = "; ".join(filter(None, remarks))
    return row


def _judge(waveform: np.ndarray, decoder: Decoder) -> Row:
    """Say what became of a recording: status, reason, native_rate, channels and peak."""
    fault, reason = decoder.fault
    row: Row = {"native_rate": decoder.native_rate, "channels": decoder.channels, "reason": reason}
    if fault in ("empty", "non_finite"):
        return row | {"status": fault}
    if not len(waveform):
        return row | {"status": fault or "empty", "reason": reason or "no samples"}

    low, high = float(waveform.min()), float(waveform.max())
    if not math.isfinite(high - low):  # they were finite before they were resampled
        return row | {"status": "non_finite", "reason": "holds samples beyond what float32 can"}
    row["peak"] = round(max(-low, high), 6)
    if high - low < STEP:
        silent = "moves by less than 1/32768"
        return row | {"status": "silent", "reason": f"{silent}; {reason}" if reason else silent}
    return row | {"status": "truncated" if fault else "ok"}


def treat_voice(waveform: np.ndarray, sample_rate: int, *, is_cut: bool) -> tuple[np.ndarray, str]:
    """Find where people speak in (n,) float32, and cut it out if asked to and something is left.

    Returns:
        The waveform, (m,) float32, and a remark.
    """
    spans = find_voice(waveform, sample_rate)
    if not len(spans):
        return waveform, ""

    keep = np.ones(len(waveform), bool)
    for start, stop in spans:
        keep[start:stop] = False
    said = f"{(~keep).sum() / sample_rate:.1f} s of human voice"
    if not is_cut:
        return waveform, said
    if keep.sum() < LEAST_LEFT_S * sample_rate:
        return waveform, f"{said}: nearly all of it, and not cut out"
    return waveform[keep], f"{said} are cut out"


class _NothingToKeepError(Exception):
    """A recording without anything to learn from; its row says why."""


def prepare_whole(source: Path, target: Path, *, sample_rate: int, audio_dtype: str) -> Row:
    """Decode a recording of any length in constant memory and write all of it.

    Nothing is cut out of it, so that times in it stay what they are; as int16, what is louder than
    full scale is clipped. Floats on the scale of integers show by their peak, which is known at the
    end: then they are decoded once more and divided.

    Returns:
        As prepare_recording.

    Raises:
        OSError: the target cannot be written.
    """
    dtype = np.dtype(audio_dtype)
    row, peak = _write_whole(source, target, _Written(sample_rate, dtype))
    factor, remark = signals.factor_to_unity(peak)
    if remark:
        row, _ = _write_whole(source, target, _Written(sample_rate, dtype, factor))
        row["reason"] = "; ".join(filter(None, [row["reason"], remark]))
    return row


def _write_whole(source: Path, target: Path, written: "_Written") -> tuple[Row, float]:
    """Decode a recording block by block into a file; return its row, and its peak as decoded."""
    decoder = Decoder(source, written.sample_rate)
    row = dict(UNREADABLE)
    try:
        with files.replacing(target, durable=False) as file:
            file.write(bytes(NPY_HEADER_BYTES))
            for block in decoder:
                written.add(file, block)
            row |= _describe(decoder)
            row |= written.row() if written.n_samples else _without_samples(decoder)
            if row["status"] not in ("ok", "truncated"):
                raise _NothingToKeepError
            file.seek(0)
            file.write(written.header())
    except _NothingToKeepError:
        return row | {"seconds": 0.0}, 0.0
    return row | {"crc32": f"{written.crc32:08x}"}, row["peak"]


def _without_samples(decoder: Decoder) -> Row:
    status, reason = decoder.fault
    return {"status": status or "empty", "reason": reason or "no samples"}


class _Written:
    """Counts what is written of a recording, block by block, each multiplied by a factor."""

    def __init__(self, sample_rate: int, dtype: np.dtype, factor: float = 1.0) -> None:
        self.sample_rate, self.dtype, self.factor = sample_rate, dtype, factor
        self.n_samples, self.crc32, self.low, self.high = 0, 0, math.inf, -math.inf

    def add(self, file: IO[bytes], block: np.ndarray) -> None:
        """Write a block (n,) float32."""
        if not len(block):
            return
        if self.factor != 1:
            block = block * np.float32(self.factor)
        self.low, self.high = min(self.low, float(block.min())), max(self.high, float(block.max()))
        if self.dtype == np.int16:
            block = np.rint(np.clip(block, -1, 1) * np.float32(32767)).astype(np.int16)
        block = np.ascontiguousarray(block)
        self.n_samples += len(block)
        self.crc32 = zlib.crc32(block.data, self.crc32)
        file.write(block.data)

    def row(self) -> Row:
        """Say how long and loud it is."""
        row: Row = {"peak": round(max(-self.low, self.high), 6)}
        if self.high - self.low < STEP:
            return row | {"status": "silent", "reason": "moves by less than 1/32768"}
        return row | {"seconds": round(self.n_samples / self.sample_rate, 6)}

    def header(self) -> bytes:
        """Make the header of a .npy file of what was written."""
        return npy_header(self.dtype, self.n_samples)


def _describe(decoder: Decoder) -> Row:
    """Say what a decoder that has come to its end found."""
    status, reason = decoder.fault
    status = {"": "ok", "unreadable": "truncated"}.get(status, status)
    return {
        "status": status,
        "reason": "; ".join(filter(None, [reason, *decoder.remarks])),
        "native_rate": decoder.native_rate,
        "channels": decoder.channels,
    }


def trim_silence(waveform: np.ndarray, *, sample_rate: int, trim_db: float) -> np.ndarray:
    """Cut off both ends of (n,) float32 where 10 ms stay `trim_db` dB below its peak."""
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
        file.write(npy_header(waveform.dtype, len(waveform)))
        file.write(waveform.data)  # np.save would copy it first, for such a file
    return samples_crc32(waveform)


def npy_header(dtype: np.dtype, n_samples: int) -> bytes:
    """Make the NPY_HEADER_BYTES that a .npy file of (n_samples,) begins with."""
    text = io.BytesIO()
    about = {"descr": dtype.str, "fortran_order": False, "shape": (n_samples,)}
    np.lib.format.write_array_header_1_0(text, about)
    assert len(text.getvalue()) == NPY_HEADER_BYTES
    return text.getvalue()


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
