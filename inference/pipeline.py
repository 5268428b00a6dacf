"""Work in threads, ahead of whoever needs the results, with the results in order."""

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

S = TypeVar("S")
T = TypeVar("T")


class _Stopped(Exception):
    """Nobody asks for items any more."""


def in_order(
    sources: Iterable[Callable[[], Iterable[T]]],
    n_threads: int,
    depth: int,
    enter_thread: Callable[[], None],
) -> Generator[T, None, None]:
    """Go through sources in threads and give their items in order.

    Args:
        sources: functions that each give items.
        n_threads: sources gone through at the same time, one a thread.
        depth: items that a source may be ahead of whoever asks.
        enter_thread: called first in each thread.

    Raises:
        What a source raises, in its place.
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
    """Apply a function to items in threads, at most two items a thread ahead, results in order.

    Raises:
        What the function or the items raise, in its place.
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
