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

from audio import signals
from audio.damage import UNKNOWN_FRAMES, describe_damage

BLOCK_VALUES = 2**15  # float32 values decoded at a time, of all channels; an error costs so many
MARGIN_S = 0.1  # decoded beyond max_seconds, so that the resampler sees no edge there
GUESSED_LENGTH = ("MP3", "OGG")  # libsndfile's formats whose header may promise too little
MOST_BAD = 0.01  # share of samples that are not finite from which a recording is not used

# For what it cannot read mpg123 plays silence, and tells stderr alone; errors in tags stand in
# other files.
MUTED = re.compile(rb"libmpg123/(?:layer\d\.c|getbits\.h):\S+ error: ([^\n]{1,100})")
_stderr: list[IO[bytes]] = []  # of a process that listens, the file that its stderr goes to


class OnePass(soundfile.SoundFile):
    """A file that is read once, from its start to its end, and never sought in.

    `SoundFile.read` seeks to where it already stands after every block of a seekable file. A seek
    costs an MP3 decoder its bit reservoir, what earlier frames hold of the next ones, so that the
    samples behind it are wrong: of a low-bit-rate MP3 7 % of them, by up to half of full scale.
    """

    def seekable(self) -> bool:
        """Say no, whatever the file could do."""
        return False


class Decoder:
    """The samples of a recording, mono and at one rate, as an iterable of (n,) float32.

    It is gone through once and ends with the recording, a little beyond `max_seconds`, or where
    samples cannot be read. No fault is raised. Samples that are not finite become 0.

    Args:
        path: the recording.
        sample_rate: Hz.
        max_seconds: how much of it is wanted.

    Attributes:
        native_rate: Hz, or None before it is opened.
        channels: their number, or None.
        container: libsndfile's name of the file's format, or "".
        subtype: libsndfile's name of how its samples are stored, or "".
        expected: samples of the whole recording as its header promises, or 0.
        fault: (status, reason) of what is wrong with it, or empty texts; known at the end.
        remarks: what was noticed about the signal and mended.
    """

    def __init__(self, path: Path, sample_rate: int, max_seconds: float = math.inf) -> None:
        self.path, self.sample_rate, self.max_seconds = path, sample_rate, max_seconds
        self.native_rate: int | None = None
        self.channels: int | None = None
        self.container = self.subtype = ""
        self.expected, self.fault = 0.0, ("", "")
        self.remarks: list[str] = []
        self._mixer = _Mixer()

    def __iter__(self) -> Iterator[np.ndarray]:
        try:
            if not self.path.is_file():  # opening a FIFO would wait for ever
                self.fault = ("unreadable", "no file: a folder, a FIFO, a device or a broken link")
            elif not self.path.stat().st_size:
                self.fault = ("empty", "0 bytes")
            else:
                yield from self._open()
        except Exception as error:  # a stranger's file costs itself, whatever its decoder raises
            self.fault = ("unreadable", _describe(error))

    def _open(self) -> Iterator[np.ndarray]:
        _forget()
        with (
            open(self.path, "rb") as file,
            OnePass(file.fileno(), closefd=False) as sound,
        ):
            rate = self.native_rate = sound.samplerate
            self.channels, self.container, self.subtype = (
                sound.channels,
                sound.format,
                sound.subtype,
            )
            if sound.frames != UNKNOWN_FRAMES:
                self.expected = sound.frames * self.sample_rate / rate

            native = self._native(file, sound)
            if rate == self.sample_rate:
                yield from native
            else:
                yield from _resample(native, rate, self.sample_rate)

    def _native(self, file: BinaryIO, sound: OnePass) -> Iterator[np.ndarray]:
        """Give blocks at the native rate, mixed to one channel."""
        wanted = UNKNOWN_FRAMES
        if not math.isinf(self.max_seconds):
            wanted = math.ceil((self.max_seconds + MARGIN_S) * sound.samplerate)
        kept = self.max_seconds * sound.samplerate
        promised = UNKNOWN_FRAMES if sound.format in GUESSED_LENGTH else sound.frames
        size = max(1, BLOCK_VALUES // sound.channels)

        n_frames, error = 0, ""
        while True:
            try:
                n_next = min(size, wanted - n_frames, promised - n_frames)
                block = sound.read(n_next, "float32", always_2d=True)  # (frames, channels)
            except RuntimeError as fault:  # soundfile's own
                error = str(fault)
                break
            if not len(block):
                break
            yield self._mixer.mix(block, n_kept=max(0, kept - n_frames))
            n_frames += len(block)

        self.remarks += self._mixer.remarks(n_frames)
        if self._mixer.is_broken(n_frames):
            self.fault = ("non_finite", self.remarks.pop())
        damage = describe_damage(file, sound, n_frames, wanted=wanted, error=error or _heard())
        if damage:
            self.fault = ("unreadable", damage)


def _describe(error: Exception) -> str:
    """Say what an exception says, whatever library it comes from."""
    for name in ("strerror", "error_string"):
        if text := getattr(error, name, ""):
            return str(text)
    return str(error) or repr(error)


class _Mixer:
    """Makes the channels of a recording one, block by block, and mends what signals.py knows of."""

    def __init__(self) -> None:
        self._weights: np.ndarray | None = None  # (channels,), once there is something to hear
        self._offset = 0.0
        self._remarks: list[str] = []
        self._is_first = True
        self._n_bad = 0  # samples that are not finite, of those that are kept

    def mix(self, block: np.ndarray, *, n_kept: float) -> np.ndarray:
        """Mix a block (frames, channels) to (frames,) float32, of which the first `n_kept` are kept."""
        is_mono = block.shape[1] == 1
        mono = (
            block[:, 0] if is_mono else block @ self._channels(block)
        )  # 20 times its mean's speed

        finite = np.isfinite(mono)
        if not finite.all():
            n_kept = min(n_kept, len(mono))  # which may be infinite
            self._n_bad += int((~finite[: math.ceil(n_kept)]).sum())
            mono = np.where(finite, mono, np.float32(0))
        if self._is_first:
            self._is_first = False
            self._offset, remark = signals.find_offset(mono)
            self._remarks += [remark] if remark else []
        return mono - np.float32(self._offset) if self._offset else mono

    def _channels(self, block: np.ndarray) -> np.ndarray:
        if self._weights is not None:
            return self._weights
        weights, remark = signals.choose_channels(block)
        if signals.has_sound(block):
            self._weights = weights
            self._remarks += [remark] if remark else []
        return weights

    def remarks(self, n_frames: int) -> list[str]:
        """Say what was mended in a recording of `n_frames`; samples that are not finite come last."""
        if not self._n_bad:
            return self._remarks
        share = f"{self._n_bad / n_frames:.1%} of its samples" if self.is_broken(n_frames) else ""
        what = share or f"{self._n_bad} samples"
        return [*self._remarks, f"{what} are NaN or infinite and were set to 0"]

    def is_broken(self, n_frames: int) -> bool:
        """Say whether so many samples are not finite that the recording cannot be used."""
        return self._n_bad > MOST_BAD * n_frames


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
        fault: (status, reason) of what is wrong with the recording, known with its last block; a
            reason without a status is a remark.
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
    status, reason = decoder.fault
    yield Block(NOTHING, decoder.expected, (status, reason or "; ".join(decoder.remarks)))


def look(path: Path) -> float:
    """Return the length that a recording's header promises, in seconds; 0 where it promises none."""
    try:
        with open(path, "rb") as file, OnePass(file.fileno(), closefd=False) as sound:
            return 0.0 if sound.frames == UNKNOWN_FRAMES else sound.frames / sound.samplerate
    except Exception:  # preparing the recording will say what ails it
        return 0.0


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
