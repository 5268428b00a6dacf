"""Recordings decoded block by block, in processes of their own: a file that crashes or hangs libsndfile costs itself.

`decode` does the work; `Decoders.decode` gives the same blocks out of a process that runs `serve`. This module loads
nothing heavy, so that such a process is there in a fraction of a second.
"""

import contextlib
import faulthandler
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import soundfile
import soxr

from damage import UNKNOWN_FRAMES, describe_damage

BLOCK_VALUES = 2**15  # float32 values decoded at a time, all channels together; as in prepare_audios.py
SERVE = "import sys; sys.path.insert(0, sys.argv[1]); from decoder import serve; serve()"
COMMAND = (sys.executable, "-c", SERVE, str(Path(__file__).resolve().parent))
DECODER_DIED = "its decoder"  # begins the reason given then
TIMED_OUT = 1  # the exit status that faulthandler gives a process


class Block(NamedTuple):
    """Samples (n,) float32, mono, at the rate asked for; of a recording the last one may have none.

    Attributes:
        samples: what was decoded.
        expected: samples of the whole recording as its header promises, or 0.
        fault: (status, reason) of what is wrong with the recording, known with its last block.
    """

    samples: np.ndarray
    expected: float
    fault: tuple[str, str]


NOTHING = np.zeros(0, np.float32)


def decode(path: Path, sample_rate: int) -> Iterator[Block]:
    """Decode a recording up to its end or its first fault: samples that are not finite, or that cannot be read.

    The samples equal those of prepare_audios.py to the bit: soxr gives the same for any division into blocks.
    """
    expected, fault = 0.0, ("", "")
    try:
        if not path.stat().st_size:
            yield Block(NOTHING, 0.0, ("empty", "0 bytes"))
            return
        with open(path, "rb") as file, soundfile.SoundFile(file.fileno(), closefd=False) as sound:
            rate = sound.samplerate
            expected = 0.0 if sound.frames == UNKNOWN_FRAMES else sound.frames * sample_rate / rate
            native = _Native(file, sound)
            for samples in native if rate == sample_rate else _resample(native, rate, sample_rate):
                yield Block(samples, expected, ("", ""))
            fault = native.fault
    except Exception as error:  # whatever a decoder raises on a stranger's file costs that file, not the run
        reason = getattr(error, "strerror", "") or getattr(error, "error_string", "") or str(error) or repr(error)
        fault = ("unreadable", reason)
    yield Block(NOTHING, expected, fault)


class _Native:
    """Blocks at the native rate, channels averaged; what ended them is in `fault` after the last one."""

    def __init__(self, file: BinaryIO, sound: soundfile.SoundFile) -> None:
        self.file, self.sound, self.fault = file, sound, ("", "")

    def __iter__(self) -> Iterator[np.ndarray]:
        sound, n_frames, error = self.sound, 0, ""
        average = np.full(sound.channels, 1 / sound.channels, np.float32)
        size = max(1, BLOCK_VALUES // sound.channels)
        while True:
            try:
                block = sound.read(size, "float32", always_2d=True)  # (frames, channels)
            except RuntimeError as fault:  # soundfile's own
                error = str(fault)
                break
            if not len(block):
                break
            mono = block[:, 0] if sound.channels == 1 else block @ average
            if not (finite := np.isfinite(mono)).all():
                mono = mono[: int(np.argmin(finite))]
                at_s = (n_frames + len(mono)) / sound.samplerate
                self.fault = ("non_finite", f"holds NaN or infinite samples from {at_s:.3f} s on")
                yield mono
                return
            n_frames += len(mono)
            yield mono
        if damage := describe_damage(self.file, sound, n_frames, error=error):
            self.fault = ("unreadable", damage)


def _resample(blocks: Iterable[np.ndarray], rate: int, sample_rate: int) -> Iterator[np.ndarray]:
    resampler = soxr.ResampleStream(rate, sample_rate, 1, dtype="float32", quality="HQ")
    n_in, n_out = 0, 0
    for block in blocks:
        n_in += len(block)
        resampled = resampler.resample_chunk(np.ascontiguousarray(block))
        n_out += len(resampled)
        yield resampled
    if n_in:
        yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)[: round(n_in * sample_rate / rate) - n_out]


# In processes of their own --------------------------------------------------------------------------------


def serve() -> None:
    """Answer each line of stdin, [path, sample_rate, timeout_s] as JSON, with the blocks of `decode`.

    A block is a line [n, expected, fault] and n float32; `null` ends a recording.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks
    answers, silence = os.fdopen(os.dup(1), "wb"), os.open(os.devnull, os.O_WRONLY)
    answers.write(b"ready\n")
    answers.flush()
    os.dup2(silence, 1)  # what a library prints is no answer
    os.dup2(silence, 2)
    with contextlib.suppress(BrokenPipeError):  # the process that asked is gone
        for path, sample_rate, timeout_s in map(json.loads, sys.stdin):
            blocks = decode(Path(path), sample_rate)
            while True:
                # The clock is a thread in C, which ends the process even if the decoder never comes back. It stands
                # still while a block waits to be taken.
                faulthandler.dump_traceback_later(timeout_s, exit=True, file=silence)
                block = next(blocks, None)
                faulthandler.cancel_dump_traceback_later()
                if block is None:
                    break
                samples = np.ascontiguousarray(block.samples, "<f4")
                answers.write(json.dumps([len(samples), block.expected, block.fault]).encode() + b"\n")
                answers.write(samples.data)
                answers.flush()
            answers.write(b"null\n")
            answers.flush()


class Decoders:
    """Processes that decode, started as they are needed and ended together; used by any number of threads.

    Args:
        timeout_s: seconds that a block of a recording may take.
    """

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._idle: list[Any] = []  # Popen
        self._all: list[Any] = []
        self._lock, self._is_closed = threading.Lock(), False

    def __enter__(self) -> "Decoders":
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._is_closed = True
        for process in self._all:
            process.kill()
        for process in self._all:
            process.wait()
            process.stdin.close()
            process.stdout.close()

    def decode(self, path: Path, sample_rate: int) -> Iterator[Block]:
        """Give what `decode` gives; a crash or a hang ends the recording as a fault."""
        process = self._take()
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps([str(path), sample_rate, self.timeout_s]).encode() + b"\n")
            process.stdin.flush()
        expected = 0.0
        while line := process.stdout.readline():
            if line == b"null\n":
                self._idle.append(process)
                return
            n_samples, expected, fault = json.loads(line)
            data = process.stdout.read(4 * n_samples)
            if len(data) < 4 * n_samples:
                break
            yield Block(np.frombuffer(data, "<f4"), expected, tuple(fault))
        code = process.wait()
        name = signal.Signals(-code).name if code < 0 else f"status {code}"
        how = f"was stuck for {self.timeout_s:g} s (file_timeout_s)" if code == TIMED_OUT else f"crashed ({name})"
        yield Block(NOTHING, expected, ("unreadable", f"{DECODER_DIED} {how}"))

    def _take(self) -> Any:
        """Return a process that waits for a recording."""
        with contextlib.suppress(IndexError):
            return self._idle.pop()
        with self._lock:
            if self._is_closed:
                raise RuntimeError("the decoders are closed")
            process: Any = subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            self._all.append(process)
        if process.stdout.readline() != b"ready\n":
            raise RuntimeError(f"this decoder process does not start: {' '.join(COMMAND)}")
        return process
