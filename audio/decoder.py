"""One recording decoded block by block: its samples, and what is wrong with it.

prepare_audios.py and predict.py both read recordings with this, so that a model hears in the field
what it was trained on. It loads nothing heavy: a process that does nothing else is there in a tenth
of a second.
"""

import math
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, BinaryIO, NamedTuple

import numpy as np
import soundfile
import soxr

from audio.damage import UNKNOWN_FRAMES, describe_damage

BLOCK_VALUES = (
    2**15
)  # float32 values decoded at a time, all channels together: all that a decoding error costs
MARGIN_S = 0.1  # decoded beyond max_seconds, so that the resampler sees no edge there

# For what it cannot read mpg123 plays silence, and tells stderr alone; errors in tags stand in
# other files.
MUTED = re.compile(rb"libmpg123/(?:layer\d\.c|getbits\.h):\S+ error: ([^\n]{1,100})")
_stderr: list[IO[bytes]] = []  # of a process that listens, the file that its stderr goes to


class Decoder:
    """The samples of a recording, mono and at one rate, as an iterable of (n,) float32 to go through once.

    It ends with the recording, a little beyond `max_seconds`, or at the first fault: samples that
    are not finite, or that cannot be read. No fault is raised.

    Args:
        path: the recording.
        sample_rate: Hz.
        max_seconds: how much of it is wanted.

    Attributes:
        native_rate: Hz, or None before it is opened.
        channels: their number, or None.
        container: libsndfile's name of the file's format, or "".
        expected: samples of the whole recording as its header promises, or 0.
        fault: (status, reason) of what is wrong with it, or empty texts; known at the end.
    """

    def __init__(self, path: Path, sample_rate: int, max_seconds: float = math.inf) -> None:
        self.path, self.sample_rate, self.max_seconds = path, sample_rate, max_seconds
        self.native_rate: int | None = None
        self.channels: int | None = None
        self.container, self.expected, self.fault = "", 0.0, ("", "")

    def __iter__(self) -> Iterator[np.ndarray]:
        try:
            if not self.path.is_file():  # opening a FIFO would wait for ever
                self.fault = ("unreadable", "no file: a folder, a FIFO, a device or a broken link")
            elif not self.path.stat().st_size:
                self.fault = ("empty", "0 bytes")
            else:
                yield from self._open()
        except (
            Exception
        ) as error:  # whatever a decoder raises on a stranger's file costs that file, not the run
            reason = (
                getattr(error, "strerror", "")
                or getattr(error, "error_string", "")
                or str(error)
                or repr(error)
            )
            self.fault = ("unreadable", reason)

    def _open(self) -> Iterator[np.ndarray]:
        _forget()
        with (
            open(self.path, "rb") as file,
            soundfile.SoundFile(file.fileno(), closefd=False) as sound,
        ):
            rate = self.native_rate = sound.samplerate
            self.channels, self.container = sound.channels, sound.format
            self.expected = (
                0.0 if sound.frames == UNKNOWN_FRAMES else sound.frames * self.sample_rate / rate
            )
            native = self._native(file, sound)
            yield from (
                native if rate == self.sample_rate else _resample(native, rate, self.sample_rate)
            )

    def _native(self, file: BinaryIO, sound: soundfile.SoundFile) -> Iterator[np.ndarray]:
        """Blocks at the native rate, channels averaged."""
        n_frames, error, rate = 0, "", sound.samplerate
        wanted = (
            UNKNOWN_FRAMES
            if math.isinf(self.max_seconds)
            else math.ceil((self.max_seconds + MARGIN_S) * rate)
        )
        average = np.full(
            sound.channels, 1 / sound.channels, np.float32
        )  # times a block: 20 x as fast as its mean
        size = max(1, BLOCK_VALUES // sound.channels)
        while True:
            try:
                block = sound.read(
                    min(size, wanted - n_frames), "float32", always_2d=True
                )  # (frames, channels)
            except RuntimeError as fault:  # soundfile's own
                error = str(fault)
                break
            if not len(block):
                break
            mono = block[:, 0] if sound.channels == 1 else block @ average  # (frames,)
            if not (finite := np.isfinite(mono)).all():
                mono = mono[: int(np.argmin(finite))]
                at_s = (n_frames + len(mono)) / rate
                self.fault = ("non_finite", f"holds NaN or infinite samples from {at_s:.3f} s on")
                yield mono
                return
            n_frames += len(mono)
            yield mono
        if damage := describe_damage(file, sound, n_frames, wanted=wanted, error=error or _heard()):
            self.fault = ("unreadable", damage)


def _resample(blocks: Iterable[np.ndarray], rate: int, sample_rate: int) -> Iterator[np.ndarray]:
    """Resample block by block; soxr gives the same samples for any division into blocks, to the bit."""
    resampler = soxr.ResampleStream(rate, sample_rate, 1, dtype="float32", quality="HQ")
    n_in, n_out = 0, 0
    for block in blocks:
        n_in += len(block)
        resampled = resampler.resample_chunk(np.ascontiguousarray(block))
        n_out += len(resampled)
        yield resampled
    if n_in:
        yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)[
            : round(n_in * sample_rate / rate) - n_out
        ]


class Block(NamedTuple):
    """Samples (n,) float32, mono, at the rate asked for; of a recording the last block has none.

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
    """Decode a recording up to its end or its first fault."""
    decoder = Decoder(path, sample_rate)
    for samples in decoder:
        yield Block(samples, decoder.expected, ("", ""))
    yield Block(NOTHING, decoder.expected, decoder.fault)


# What a decoder says on stderr --------------------------------------------------------------------


def listen_to_stderr() -> None:
    """Send what this process writes to stderr into a file, where `Decoder` looks for complaints of mpg123."""
    _stderr.append(tempfile.TemporaryFile(buffering=0))  # noqa: SIM115 - for the life of the process
    os.dup2(_stderr[-1].fileno(), 2)


def _forget() -> None:
    if _stderr:
        _stderr[-1].seek(0)  # where both go on
        _stderr[-1].truncate()


def _heard() -> str:
    """Say what mpg123 could not read since `_forget`, if this process listens."""
    found = MUTED.search(os.pread(_stderr[-1].fileno(), 2**16, 0)) if _stderr else None
    return f"part of it is muted ({found[1].decode(errors='replace').strip()})" if found else ""
