"""Files written by a thread while training goes on: one set at a time, from a copy, in order."""

import contextlib
import copy
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch

logger = logging.getLogger("birdclef.train")


class Writer:
    """Runs jobs one after the other in a thread that ends with them.

    No thread is left waiting, because the processes of a loader are forked: call `wait` before.
    """

    def __init__(self) -> None:
        self._last: threading.Thread | None = None
        self._error: BaseException | None = None

    def start(self, job: Callable[[], object]) -> None:
        """Wait for the jobs before, then start one.

        Raises:
            Whatever a job before it has failed with, such as files.CannotWriteError.
        """
        self.wait()
        self.add(job)

    def add(self, job: Callable[[], object]) -> None:
        """Let a job follow those that run; it is left out if one of them fails."""
        before = self._last

        def run() -> None:
            if before is not None:
                before.join()
            if self._error is None:
                try:
                    job()
                except BaseException as error:  # it is for the thread that waits
                    self._error = error

        self._last = threading.Thread(target=run, name="writer")
        self._last.start()

    def wait(self) -> None:
        """Wait for all jobs.

        Raises:
            Whatever one of them has failed with, once.
        """
        if self._last is not None:
            self._last.join()
        self._last, error, self._error = None, self._error, None
        if error is not None:
            raise error

    @contextlib.contextmanager
    def finishing(self) -> Iterator[None]:
        """Wait for all jobs at the end of the block, however it ends.

        Raises:
            What a job has failed with; where the block fails too, that is logged.
        """
        try:
            yield
        except BaseException:
            try:
                self.wait()
            except Exception as error:
                logger.error("%s", error)
            raise
        self.wait()


def snapshot(value: Any) -> Any:
    """Copy a state, so that training can go on while it is written.

    Args:
        value: tensors on any device, and plain types in dicts, lists and tuples.

    Returns:
        The same, with tensors on the CPU that share no memory with those of the run.
    """
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        copied = copy.copy(value)  # a state_dict has a note of its version, too
        for name, item in value.items():
            copied[name] = snapshot(item)
        return copied
    if isinstance(value, list | tuple):
        return type(value)(map(snapshot, value))
    return value
