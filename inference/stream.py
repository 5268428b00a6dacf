"""Recordings as streams: decoded block by block, cut into clips, and made ready in threads ahead of who needs them."""

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from audio.decoder import Block, decode
from configs import UserError

SUFFIXES = (
    *(".ogg", ".oga", ".opus", ".mp3", ".wav", ".flac"),
    *(".aif", ".aiff", ".au", ".caf", ".w64", ".rf64"),
)

S = TypeVar("S")
T = TypeVar("T")


def find_recordings(path: Path) -> dict[str, Path]:
    """Find a recording, or those in a folder and its subfolders: paths by name (below the folder), in order.

    Raises:
        UserError: there is none; the message says where it looked.
    """
    if path.is_file():
        return {path.name: path}
    if not path.is_dir():
        raise UserError(f"{path}: no such recording or folder")
    found = {
        one.relative_to(path).as_posix(): one
        for one in path.rglob("*")
        if one.suffix.lower() in SUFFIXES
    }
    found = {
        name: one for name, one in found.items() if one.is_file() and not f"/{name}".count("/.")
    }
    if not found:
        raise UserError(
            f"no recordings in {path.resolve()} or below: nothing ends in {' '.join(SUFFIXES)}"
        )
    return dict(sorted(found.items()))


class Stream:
    """The samples of a recording, mono float32 at `sample_rate`, decoded as far as they are asked for.

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
    """Samples (n,) from `begin` on, for the window that starts at `start`; of several the first has begin == start."""

    start: int
    begin: int
    samples: np.ndarray


def cut(stream: Stream, n_samples: int, stride: int, shifts: Sequence[int] = ()) -> Iterator[Clip]:
    """Cut a stream into windows, with the shifted clips of each after its own.

    Windows start every `stride` samples until one reaches the end of the recording; that last one
    may be shorter. A shifted clip stays inside the recording, or where its own window already
    passes the end, goes no further.
    """
    start, reached = 0, 0
    while stream.has(max(start, reached)):
        stream.has(start + n_samples + max(0, *shifts, 0) - 1)
        latest = max(start, stream.end - n_samples)
        for shift in (0, *shifts):
            begin = min(max(0, start + shift), latest)
            yield Clip(start, begin, stream.take(begin, n_samples))
        reached, start = start + n_samples, start + stride
        stream.drop(start + min(0, *shifts, 0))


# Ahead of the one who asks ------------------------------------------------------------------------


class _Stopped(Exception):
    """The one who asked for items is gone."""


def in_order(
    sources: Iterable[Callable[[], Iterable[T]]],
    n_threads: int,
    depth: int,
    enter_thread: Callable[[], None],
) -> Generator[T, None, None]:
    """Go through sources in threads, a thread each and ahead by at most `depth` items, and give the items in order.

    What a source raises is raised here, in its place.
    """
    stop, boxes, remaining = threading.Event(), deque[queue.Queue[Any]](), iter(sources)

    def put(box: queue.Queue[Any], item: Any) -> None:
        while not stop.is_set():
            try:
                return box.put(item, timeout=0.1)
            except queue.Full:
                continue
        raise _Stopped

    def fill(source: Callable[[], Iterable[T]], box: queue.Queue[Any]) -> None:
        try:
            for item in source():
                put(box, item)
            put(box, None)
        except _Stopped:
            return
        except BaseException as error:
            put(box, error)

    def begin() -> None:
        if (source := next(remaining, None)) is not None:
            boxes.append(queue.Queue(depth))
            pool.submit(fill, source, boxes[-1])

    with ThreadPoolExecutor(n_threads, initializer=enter_thread) as pool:
        try:
            for _ in range(n_threads):
                begin()
            while boxes:
                item = boxes[0].get()
                if isinstance(item, BaseException):
                    raise item
                if item is None:
                    boxes.popleft()
                    begin()
                else:
                    yield item
        finally:
            stop.set()


def apply_in_order(
    function: Callable[[S], T], items: Iterable[S], n_threads: int, enter_thread: Callable[[], None]
) -> Generator[T, None, None]:
    """Apply a function to items in threads, ahead by at most two items a thread, and give the results in order.

    What the function or the items raise is raised here.
    """
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(n_threads, initializer=enter_thread) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > 2 * n_threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
