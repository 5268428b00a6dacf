"""SIGTERM and SIGINT: the step in hand is finished, all is saved, and the log says how to go on."""

import contextlib
import logging
import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

from checkpoint import LAST_NAME
from training import processes
from training.fold import Fold
from training.resuming import save
from training.run_clock import OutOfTimeError

logger = logging.getLogger("birdclef.train")


class StopRequest:
    """The first signal is noted and the step finished; the second leaves at once."""

    def __init__(self) -> None:
        self.signal_number = 0

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """Note both signals in the block, where Python allows it: in the main thread."""
        self.signal_number = 0
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        numbers = (signal.SIGTERM, signal.SIGINT)
        before = {number: signal.signal(number, self.note) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def note(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal; nothing that holds a lock may be called here."""
        if self.signal_number:
            os._exit(128 + number)

        self.signal_number = number
        os.write(2, b"\nstopping after this step; a second signal stops at once and loses it\n")


STOP = StopRequest()


def stop_if_asked(fold: Fold) -> None:
    """Save and leave, if this or another process was told to stop, or --max-hours is over.

    Raises:
        SystemExit: it was told to; the status is 128 plus the signal's number.
        OutOfTimeError: the time is over.
    """
    is_told, is_over = processes.total(bool(STOP.signal_number), fold.clock.is_over())
    if not is_told and not is_over:
        return

    save(fold)
    if not is_told:
        logger.info("--max-hours is over; all is saved in %s", fold.dir / LAST_NAME)
        raise OutOfTimeError
    number = STOP.signal_number or signal.SIGTERM
    logger.warning(
        "stopped by %s; all is saved in %s; to go on: %s",
        signal.Signals(number).name,
        fold.dir / LAST_NAME,
        resume_command(),
    )
    raise SystemExit(128 + number)


def resume_command() -> str:
    """Return the command that goes on with this run: the same one, without --no-resume."""
    flags = [flag for flag in sys.argv[1:] if flag not in ("--no-resume", "--no_resume")]
    return shlex.join([*_start(), "train.py", *flags])


def _start() -> list[str]:
    """Return what stands before the script: on several machines, what this one was given."""
    if processes.world_size() == 1:
        return ["python"]

    n_here = os.environ.get("LOCAL_WORLD_SIZE", str(processes.world_size()))
    machines = os.environ.get("GROUP_WORLD_SIZE", "1")
    if machines == "1":
        return ["torchrun", f"--nproc-per-node={n_here}"]
    given = {
        "nnodes": machines,
        "node-rank": os.environ["GROUP_RANK"],
        "nproc-per-node": n_here,
        "master-addr": os.environ["MASTER_ADDR"],
        "master-port": os.environ["MASTER_PORT"],
    }
    return ["torchrun", *(f"--{name}={value}" for name, value in given.items())]
