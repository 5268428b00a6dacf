"""One recording decoded block by block: its samples, and what is wrong with it.

prepare_audios.py and predict.py both read recordings with this, so that a model hears in the field
what it was trained on. It loads nothing heavy: a process that does nothing else is there in a tenth
of a second.
"""

import io
import math
import mmap
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, BinaryIO, NamedTuple

import numpy as np
import soundfile
import soxr

from audio import mp3
from audio.damage import UNKNOWN_FRAMES, describe_damage
from audio.kinds import conversion
from audio.mixer import Mixer

BLOCK_VALUES = 2**15  # float32 values decoded at a time, of all channels; an error costs so many
MARGIN_S = 0.1  # decoded beyond max_seconds, so that the resampler sees no edge there
GUESSED_LENGTH = ("MP3", "OGG")  # libsndfile's formats whose header may promise too little
NO_END = 2**40  # bytes

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

    @property
    def frames(self) -> int:
        """Samples of each channel as the header promises, or UNKNOWN_FRAMES."""
        return UNKNOWN_FRAMES if isinstance(self.name, _Endless) else self._info.frames

    def read_block(self, n_frames: int) -> tuple[np.ndarray, str]:
        """Read up to (n_frames, channels) float32; an error comes with what was read before it."""
        block = np.empty((n_frames, self.channels), np.float32)
        # Of a cut file that seems endless libsndfile gives nothing of what an error interrupts.
        step = 1152 if isinstance(self.name, _Endless) else n_frames
        n_read = 0
        while n_read < n_frames:
            part = block[n_read : n_read + step]
            try:
                n_new = len(self.read(len(part), out=part))
            except RuntimeError as error:  # soundfile's own
                return block[:n_read], str(error)
            if not n_new:
                break
            n_read += n_new
        return block[:n_read], ""


class _Endless(io.FileIO):
    """A file that claims to go on for ever, and then ends as any other.

    libsndfile guesses the length of an MP3 whose header does not state it from the size of its
    first frame and of the file, and reads no further: of one whose bit rate varies perhaps a fifth.
    """

    _claimed = -1

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._claimed = NO_END + offset if whence == os.SEEK_END else -1
        return self._claimed if whence == os.SEEK_END else super().seek(offset, whence)

    def tell(self) -> int:
        return self._claimed if self._claimed >= 0 else super().tell()


def open_sound(file: BinaryIO) -> OnePass:
    """Open a recording, at the start of its file, to be read from its first sample to its last.

    Raises:
        RuntimeError: libsndfile cannot read it.
    """
    sound = OnePass(file.fileno(), closefd=False)
    if sound.format != "MP3":
        return sound

    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        is_length_known = mp3.states_length(data)
    if not is_length_known:
        sound.close()
        file.seek(0)
        sound = OnePass(_Endless(file.fileno(), closefd=False))
    # Before the first sample a seek does no harm. mpg123 rounds its last bit otherwise after one,
    # and soundfile.read begins with one.
    sound.seek(0)
    return sound


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
        self._mixer = Mixer()

    def __iter__(self) -> Iterator[np.ndarray]:
        try:
            if not self.path.is_file():  # opening a FIFO would wait for ever
                self.fault = ("unreadable", "no file: a folder, a FIFO, a device or a broken link")
            elif not self.path.stat().st_size:
                self.fault = ("empty", "0 bytes")
            else:
                yield from self._open()
        except soundfile.LibsndfileError as error:
            reason = error.error_string
            if self.native_rate is None:  # it cannot even be opened
                reason += f" If it is whole, convert it: {conversion(self.path)}"
            self.fault = ("unreadable", reason)
        except Exception as error:  # a stranger's file costs itself, whatever its decoder raises
            self.fault = ("unreadable", _describe(error))

    def _open(self) -> Iterator[np.ndarray]:
        _forget()
        with open(self.path, "rb") as file, open_sound(file) as sound:
            rate = self.native_rate = sound.samplerate
            self.channels = sound.channels
            self.container, self.subtype = sound.format, sound.subtype
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
        while not error:
            block, error = sound.read_block(min(size, wanted - n_frames, promised - n_frames))
            if not len(block):
                break
            yield self._mixer.mix(block, n_kept=max(0, kept - n_frames))
            n_frames += len(block)

        self.remarks += self._mixer.remarks()
        if self._mixer.is_broken():
            self.fault = ("non_finite", self.remarks.pop())
        damage = describe_damage(file, sound, n_frames, wanted=wanted, error=error or _heard())
        if damage:
            self.fault = ("unreadable", damage)


def _describe(error: Exception) -> str:
    """Say what an exception says, whatever library it comes from."""
    return getattr(error, "strerror", "") or str(error) or repr(error)


def _resample(blocks: Iterable[np.ndarray], rate: int, sample_rate: int) -> Iterator[np.ndarray]:
    """Resample; soxr gives the same samples, to the bit, however they are divided into blocks."""
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


class Header(NamedTuple):
    """What the header of a recording promises; zeros and "" where it cannot be read.

    Attributes:
        seconds: length; 0 where the header does not say.
        rate: Hz.
        channels: their number.
        container: libsndfile's name of the file's format.
    """

    seconds: float
    rate: int
    channels: int
    container: str


def look(path: Path) -> Header:
    """Read the header of a recording; preparing it will say what ails one that has none."""
    try:
        with open(path, "rb") as file, OnePass(file.fileno(), closefd=False) as sound:
            is_known = sound.frames != UNKNOWN_FRAMES
            seconds = sound.frames / sound.samplerate if is_known else 0.0
            return Header(seconds, sound.samplerate, sound.channels, sound.format)
    except Exception:
        return Header(0.0, 0, 0, "")


# What a decoder says on stderr --------------------------------------------------------------------


def listen_to_stderr() -> None:
    """Send this process's stderr into a file, where `Decoder` looks for complaints of mpg123."""
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
