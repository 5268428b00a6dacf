"""Processes that decode recordings: a file that crashes or hangs libsndfile costs itself alone.

`DecoderPool` starts them as they are needed; `serve` is what each of them runs.
"""

import contextlib
import faulthandler
import json
import mmap
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

import files
from audio.decoder import BLOCK_VALUES, NOTHING, Block, Header, decode, listen_to_stderr, look
from audio.recording import UNREADABLE, Row, prepare_recording

SERVE = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); "
    "sys.path.insert(0, sys.argv[1]); from audio.decoder_pool import serve; serve()"
)
COMMAND = (sys.executable, "-c", SERVE, str(Path(__file__).resolve().parent.parent))
# A BLAS that shares out work to threads keeps them spinning for a tenth of a second, and here is
# none to share.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
DECODER_DIED = "its decoder"  # begins the reason given then
TIMED_OUT, FAILED = (
    1,
    70,
)  # exit statuses: faulthandler's, and that of any error of Python, which would have been 1 too

# Blocks go from process to process in shared memory, and neither wakes the other more often than it
# must: through a pipe, with a clock wound up for each block, that took 0.4 of the decoding's own
# time.
N_SLOTS = 32  # blocks that a process may be ahead of who takes them
AT_ONCE = N_SLOTS // 2  # slots that are handed back together
RING_BYTES = 4 * BLOCK_VALUES * N_SLOTS


def _slots(file: int) -> np.ndarray:
    """Map a file of RING_BYTES: (N_SLOTS, BLOCK_VALUES) float32."""
    return np.frombuffer(mmap.mmap(file, RING_BYTES), np.float32).reshape(N_SLOTS, BLOCK_VALUES)


# In the process that decodes ----------------------------------------------------------------------


class _Clock:
    """Ends this process if a `with` block takes too long, even in C code that never returns."""

    def __init__(self, seconds: float, silence: int) -> None:
        self._seconds, self._silence, self._wound_up = seconds, silence, 0.0

    def __enter__(self) -> "_Clock":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Give what comes next its time."""
        faulthandler.dump_traceback_later(
            self._seconds, exit=True, file=self._silence
        )  # starts a thread in C
        self._wound_up = time.monotonic()

    def stop(self) -> None:
        """Wait for `start`."""
        faulthandler.cancel_dump_traceback_later()

    def begin_anew(self) -> None:
        """Give what comes next its time, or up to an eighth less.

        Starting a thread for each block would cost too much.
        """
        if time.monotonic() - self._wound_up > self._seconds / 8:
            self.start()


class _Asked:
    """The process that asks, as the one that decodes sees it."""

    def __init__(self) -> None:
        self._said, self._answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
        self._slots = _slots(int(sys.argv[2]))
        self.silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(self.silence, 1)  # what a library prints is no answer

    def jobs(self) -> Iterator[dict[str, Any]]:
        """Give jobs until the one who asks is gone."""
        return map(json.loads, iter(self._said.readline, b""))

    def answer(self, answer: object) -> None:
        """Send an answer."""
        self._answers.write(json.dumps(answer).encode() + b"\n")
        self._answers.flush()

    def send(self, path: Path, sample_rate: int, timeout_s: float) -> None:
        """Decode a recording into the slots.

        Answers [n, expected, fault] for each slot that is filled, then "end".

        The clock stands still while all of them wait to be taken.
        """
        n_sent = n_freed = 0
        with _Clock(timeout_s * 8 / 7, self.silence) as clock:  # less an eighth of that, timeout_s
            for piece in _pieces(decode(path, sample_rate)):
                if n_sent == n_freed + N_SLOTS:
                    clock.stop()
                    n_freed += self._wait_for_slots()
                    clock.start()
                self._slots[n_sent % N_SLOTS, : len(piece.samples)] = piece.samples
                self.answer([len(piece.samples), piece.expected, piece.fault])
                n_sent += 1
                clock.begin_anew()
        self.answer("end")
        while n_freed + AT_ONCE <= n_sent:
            n_freed += self._wait_for_slots()

    def _wait_for_slots(self) -> int:
        if not self._said.readline():
            raise BrokenPipeError
        return AT_ONCE


def _pieces(blocks: Iterator[Block]) -> Iterator[Block]:
    """Divide blocks that do not fit into a slot, as resampled ones may."""
    for block in blocks:
        for start in range(0, max(1, len(block.samples)), BLOCK_VALUES):
            yield block._replace(samples=block.samples[start : start + BLOCK_VALUES])


def serve() -> None:
    """Do the jobs that come on stdin, a line of JSON each, until it ends.

    {"timeout_s": s, "decode": [path, sample_rate]} is answered as in `_Asked.send`; {"timeout_s":
    s, "prepare": the arguments of prepare_recording} with its row, or {"cannot_write": why};
    {"timeout_s": s, "look": path} with what `decoder.look` says.
    """
    asked = _Asked()
    try:
        asked.answer("ready")
        listen_to_stderr()
        for job in asked.jobs():
            _do(asked, job)
    except BrokenPipeError:  # the one who asked is gone
        return
    except Exception:
        os._exit(FAILED)


def _do(asked: _Asked, job: dict[str, Any]) -> None:
    if "decode" in job:
        path, sample_rate = job["decode"]
        asked.send(Path(path), sample_rate, job["timeout_s"])
        return
    if "look" in job:
        with _Clock(job["timeout_s"], asked.silence):
            asked.answer(look(Path(job["look"])))
        return

    recipe = job["prepare"]
    source, target = Path(recipe.pop("source")), Path(recipe.pop("target"))
    try:
        with _Clock(job["timeout_s"], asked.silence):
            answer = prepare_recording(source, target, **recipe)
    except OSError as error:
        answer = {"cannot_write": str(error)}
    asked.answer(answer)


# In the process that asks -------------------------------------------------------------------------


class _Process:
    """A process that runs `serve`, started and not waited for."""

    def __init__(self) -> None:
        with _shared_file() as file:
            os.truncate(file.fileno(), RING_BYTES)
            self.slots = _slots(file.fileno())
            how: dict[str, Any] = {"pass_fds": [file.fileno()], "env": os.environ | ONE_THREAD}
            command = [*COMMAND, str(file.fileno())]
            with _interrupts_blocked():
                self.popen = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **how
                )
        self._is_ready, self._timeout_s = False, 0.0
        self.n_closings = 0  # of its pool, before it was given its job

    def ask(self, job: dict[str, Any], timeout_s: float) -> None:
        """Give it a job.

        Raises:
            RuntimeError: it did not start.
        """
        if not self._is_ready and self.answer() != "ready":
            raise RuntimeError(f"this decoder process does not start: {' '.join(COMMAND)}")
        self._is_ready, self._timeout_s = True, timeout_s
        self.say(json.dumps(job | {"timeout_s": timeout_s}).encode() + b"\n")

    def say(self, line: bytes) -> None:
        """Write a line to its stdin; what becomes of it shows in its answers."""
        with contextlib.suppress(BrokenPipeError):
            self.popen.stdin.write(line)  # type: ignore[union-attr]
            self.popen.stdin.flush()  # type: ignore[union-attr]

    def answer(self) -> Any:
        """Wait for an answer; None says that it died."""
        line = self.popen.stdout.readline()  # type: ignore[union-attr]
        return json.loads(line) if line.endswith(b"\n") else None

    def reason(self, timed_out: str) -> str:
        """Say of what it died: a signal, a status, or `timed_out`."""
        code = self.popen.wait()
        if code == TIMED_OUT:
            return f"{timed_out} {self._timeout_s:g} s (file_timeout_s)"
        how = signal.Signals(-code).name if code < 0 else f"status {code}"
        return f"{DECODER_DIED} crashed ({how})"

    def end(self) -> None:
        """Kill it."""
        self.popen.kill()
        self.popen.wait()
        for pipe in (self.popen.stdin, self.popen.stdout):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()  # type: ignore[union-attr]


@contextlib.contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Block SIGINT, which a process that is started in the block inherits.

    Ctrl-C goes to all processes of a terminal. It is for the one that asks; a decoder that starts
    would answer it with a traceback. Where there are no such masks, it still may.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return

    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _shared_file() -> IO[bytes]:
    """Open a file without a name, in memory where the system has such."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("birdclef"), "w+b")
    return tempfile.TemporaryFile()


class DecoderPool:
    """Processes that decode, started as they are needed and used by any number of threads."""

    def __init__(self) -> None:
        self._idle: list[_Process] = []
        self.alive: list[_Process] = []
        self._lock, self._is_closed, self._n_closings = threading.Lock(), False, 0

    def __enter__(self) -> "DecoderPool":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all processes, whatever they do."""
        with self._lock:
            self._is_closed = True
        for process in list(self.alive):
            process.end()

    def start(self, n_processes: int) -> None:
        """Start processes before they are needed; nothing waits for them."""
        self._idle += [self._new() for _ in range(n_processes)]

    def close_idle(self) -> int:
        """End the idle processes and return their number; the others end after their job.

        Later jobs start new ones.
        """
        self._n_closings += 1
        n_closed = 0
        with contextlib.suppress(IndexError):
            while True:
                self._end(self._idle.pop())
                n_closed += 1
        return n_closed

    def decode(self, path: Path, sample_rate: int, timeout_s: float) -> Iterator[Block]:
        """Give what `decoder.decode` gives.

        A crash, or a block that takes `timeout_s`, ends the recording as a fault.
        """
        process = self._ask({"decode": [str(path), sample_rate]}, timeout_s)
        expected, n_taken = 0.0, 0
        while answer := process.answer():
            if answer == "end":
                self._give_back(process)
                return
            n_samples, expected, fault = answer
            samples = process.slots[n_taken % N_SLOTS, :n_samples].copy()
            n_taken += 1
            if n_taken % AT_ONCE == 0:
                process.say(b"\n")  # those slots are free
            yield Block(samples, expected, tuple(fault))
        reason = process.reason(f"{DECODER_DIED} was stuck for")
        self._end(process)
        yield Block(NOTHING, expected, ("unreadable", reason))

    def prepare(self, job: dict[str, Any], timeout_s: float) -> Row:
        """Give what `recording.prepare_recording` gives for a job; a crash is a row too.

        A target that cannot be written is {"cannot_write": why}.
        """
        process = self._ask({"prepare": job}, timeout_s)
        row: Row | None = process.answer()
        if row is not None:
            self._give_back(process)
        else:
            row = UNREADABLE | {"reason": process.reason("not done after")}
            self._end(process)
        if "crc32" not in row:  # nothing was written, or not to its end
            with contextlib.suppress(OSError):
                files.part_path(Path(job["target"]), process.popen.pid).unlink()
        return row

    def look(self, path: Path, timeout_s: float) -> Header:
        """Return what `decoder.look` says of a recording; no header where its decoder dies."""
        process = self._ask({"look": str(path)}, timeout_s)
        answer = process.answer()
        if answer is None:
            self._end(process)
            return Header(0.0, 0, 0, "")
        self._give_back(process)
        return Header(*answer)

    def _ask(self, job: dict[str, Any], timeout_s: float) -> _Process:
        """Give a job to a process that waits for one, or to a new one."""
        try:
            process = self._idle.pop()
        except IndexError:
            process = self._new()
        process.n_closings = self._n_closings
        try:
            process.ask(job, timeout_s)
        except RuntimeError:
            self._end(process)
            raise
        return process

    def _give_back(self, process: _Process) -> None:
        if process.n_closings == self._n_closings:
            self._idle.append(process)
        else:
            self._end(process)

    def _new(self) -> _Process:
        with self._lock:
            if self._is_closed:
                raise RuntimeError("the decoders are closed")
            self.alive.append(_Process())
            return self.alive[-1]

    def _end(self, process: _Process) -> None:
        process.end()
        with self._lock:
            self.alive.remove(process)
