"""Recordings as streams: found, decoded block by block as far as needed, cut into clips."""

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from audio.decoder import Block, decode
from audio.kinds import list_recordings
from audio.windows import window_starts
from configs import UserError, some

logger = logging.getLogger("birdclef.stream")


class Found(NamedTuple):
    """The recordings of a folder, by name: the path below the folder, with slashes.

    Attributes:
        paths: of those that can be read, in order.
        unread: why others cannot be read, and what to do.
    """

    paths: dict[str, Path]
    unread: dict[str, str]


def find_recordings(path: Path, *, follow_links: bool = False) -> Found:
    """Find a recording, or those in a folder and its subfolders; say it if there is none.

    Args:
        path: the recording or the folder.
        follow_links: whether to read what lies behind links that lead out of it.

    Raises:
        UserError: there is no such path, or a folder that cannot be read.
    """
    if path.is_file():
        return Found({path.name: path}, {})
    if not path.is_dir():
        raise UserError(f"{path}: no such recording or folder")

    try:
        listing = list_recordings(path, follow_links=follow_links)
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be read: {error.strerror}") from None
    for name, reason in listing.unread.items():
        logger.warning("%s is left out: %s", name, reason)
    if listing.links:
        message = "%d links lead out of %s and are not followed: %s; --follow-links reads them"
        logger.warning(message, len(listing.links), path, some(listing.links))
    if not listing.recordings and not listing.unread:
        logger.warning("no recordings in %s or below", path.resolve())
    return Found({name: path / name for name in listing.recordings}, listing.unread)


class Stream:
    """The samples of a recording, mono float32, decoded as far as they are asked for.

    Args:
        path: the recording.
        sample_rate: Hz.
        decode: what decodes it: `decoder.decode`, or the same in a process of its own,
            `DecoderPool.decode`.

    Attributes:
        end: samples decoded.
        expected: samples promised by the header, or 0.
        fault: (status, reason) of what is wrong with it, or empty texts; known at its end.
    """

    def __init__(
        self, path: Path, sample_rate: int, decode: Callable[[Path, int], Iterator[Block]] = decode
    ) -> None:
        self.end, self.expected, self.fault = 0, 0.0, ("", "")
        self._begin = 0  # sample that the buffer begins with
        self._buffer = np.zeros(0, np.float32)
        self._blocks = decode(path, sample_rate)

    def has(self, position: int) -> bool:
        """Decode up to a sample, and say whether there is one."""
        blocks = [self._buffer]
        while position >= self.end and (block := next(self._blocks, None)) is not None:
            blocks.append(block.samples)
            self.end += len(block.samples)
            self.expected, self.fault = block.expected, block.fault
        if len(blocks) > 1:
            self._buffer = np.concatenate(blocks)
        return position < self.end

    def take(self, begin: int, n_samples: int) -> np.ndarray:
        """Copy the samples from `begin`, `n_samples` or as many as are decoded."""
        return self._buffer[begin - self._begin : begin - self._begin + n_samples].copy()

    def drop(self, before: int) -> None:
        """Forget the samples before a position."""
        n = min(max(0, before - self._begin), len(self._buffer))
        self._buffer, self._begin = self._buffer[n:], self._begin + n


class Clip(NamedTuple):
    """Samples (n,) from `begin` on, for the window that starts at `start`.

    The first clip of a window has begin == start; shifted clips follow it.
    """

    start: int
    begin: int
    samples: np.ndarray


def cut(stream: Stream, n_samples: int, stride: int, shifts: Sequence[int] = ()) -> Iterator[Clip]:
    """Cut a stream into windows (see audio.windows), each window's shifted clips after its own.

    The last window may be shorter than the others. A shifted clip stays inside the recording; where
    its own window already passes the end, it goes no further than that.
    """
    for start in window_starts(stream.has, n_samples, stride):
        stream.has(start + n_samples + max(0, *shifts, 0) - 1)  # decodes what the clips need
        latest = max(start, stream.end - n_samples)
        for shift in (0, *shifts):
            begin = min(max(0, start + shift), latest)
            yield Clip(start, begin, stream.take(begin, n_samples))

        stream.drop(start + stride + min(0, *shifts, 0))
