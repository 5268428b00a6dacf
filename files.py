"""The one way this project writes a file: whole or not at all, however the run ends.

A new file is written beside its name, flushed to the disk and renamed over it, so that a reader, a
crash or a full disk sees the old content or the new one and never a part. A table that grows gets
whole rows. A cell that a spreadsheet would run as a formula is made text.

This module imports nothing of ours; every other module may import it.
"""

import contextlib
import csv
import hashlib
import io
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import filelock

PART = re.compile(r".*\.(?P<pid>\d+)\.part")
MAX_NAME = 255  # bytes of a file's name, on nearly every file system
ROOM_FOR_SUFFIXES = 24  # bytes that ".npy" and ".<process id>.part" may add to a name

# A spreadsheet runs a cell as a formula by its first character (OWASP, CSV injection).
FORMULA = re.compile(r"^'*[=+\-@\t]")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


class CannotWriteError(OSError):
    """A file that cannot be written; its message names the file and the reason."""

    is_for_users = True  # configs.run_main prints the message in place of a traceback

    def __init__(self, path: Path, error: OSError, consequence: str = "") -> None:
        ending = f"; {consequence}" if consequence else ""
        super().__init__(f"{path}: cannot be written: {error.strerror or error}{ending}")
        self.filename, self.strerror = str(path), error.strerror

    def __str__(self) -> str:
        """Say it in one line; an OSError with a file name would say it in its own words."""
        return str(self.args[0])


class LockedError(OSError):
    """A file that another process holds."""


# Whole files --------------------------------------------------------------------------------------


def write_file(path: Path, content: bytes | str) -> None:
    """Replace a file as a whole.

    Args:
        path: where to; its folder is made if it is missing.
        content: bytes, or text that is written as UTF-8 with its line ends unchanged.

    Raises:
        CannotWriteError: the disk refuses; what was there before is unchanged.
    """
    with replacing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[IO[bytes]]:
    """Open a file beside `path` for the block to write; rename it over `path` when the block ends.

    Args:
        path: where to; its folder is made if it is missing.
        durable: wait until the disk has the content, so that a power cut cannot take it back. False
            saves some milliseconds a file, for files that can be made again and are checked when
            they are read.

    Yields:
        A binary file, open for reading and writing.

    Raises:
        CannotWriteError: the disk refuses, in the block too; what was there before is unchanged.
    """
    part = part_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "w+b") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())

        os.replace(part, path)
        if durable:
            flush_folder(path.parent)
    except OSError as error:
        _remove(part)
        raise CannotWriteError(path, error, "what was there before is unchanged") from None
    except BaseException:
        _remove(part)
        raise


def _remove(part: Path) -> None:
    with contextlib.suppress(OSError):
        part.unlink(missing_ok=True)


def flush_folder(folder: Path) -> None:
    """Wait until the disk has a folder's new names; Windows needs and allows no such call."""
    if os.name == "nt":
        return

    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def part_path(path: Path, pid: int | None = None) -> Path:
    """Name the file that a process (None: this one) writes before it takes the name `path`."""
    ending = f".{os.getpid() if pid is None else pid}.part"
    return path.with_name(shorten(path.name, MAX_NAME - len(ending)) + ending)


def sweep_parts(folder: Path) -> list[Path]:
    """Delete what killed processes left half-written below a folder; return the paths.

    A part whose process still runs is left alone.
    """
    parts = [path for path in folder.rglob("*.part") if path.is_file()]
    swept = []
    for path in parts:
        match = PART.fullmatch(path.name)
        if match and _is_running(int(match["pid"])):
            continue
        _remove(path)
        swept.append(path)
    return swept


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True


# Tables -------------------------------------------------------------------------------------------


def append_rows(path: Path, rows: Iterable[Sequence[Any]], header: Sequence[str] = ()) -> None:
    """Add whole rows to a CSV file in a single write; a new or empty file gets the header first.

    A last line that a killed process left unfinished is ended first, so that it spoils no other row.

    Raises:
        CannotWriteError: the disk refuses.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a+b", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            text = csv_text(rows) if size else csv_text([header] * bool(header)) + csv_text(rows)
            if size:
                file.seek(size - 1)
                text = text if file.read(1) == b"\n" else "\n" + text
            file.write(text.encode(errors="surrogateescape"))
    except OSError as error:
        raise CannotWriteError(path, error) from None


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
    r"""Write rows as CSV lines that end in "\n", every text cell safe in a spreadsheet."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for row in rows:
        writer.writerow([safe_cell(cell) if isinstance(cell, str) else cell for cell in row])
    return text.getvalue()


def safe_cell(text: str) -> str:
    r"""Put an apostrophe before text that a spreadsheet would run as a formula: `=cmd` is `'=cmd`.

    Numbers stay as they are. Text that begins with apostrophes and then as a formula gets one more,
    so that `original_cell` gives every text back. Carriage returns become line feeds: alone they
    would end the row.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if FORMULA.match(text) and not NUMBER.fullmatch(text):
        return "'" + text
    return text


def original_cell(text: str) -> str:
    """Undo `safe_cell`."""
    return text[1:] if text.startswith("'") and FORMULA.match(text) else text


# Names and locks ----------------------------------------------------------------------------------


def shorten(name: str, n_bytes: int = MAX_NAME - ROOM_FOR_SUFFIXES) -> str:
    """Return a file name of at most `n_bytes`; a longer one keeps its start and ends in a digest."""
    raw = os.fsencode(name)
    if len(raw) <= n_bytes:
        return name

    digest = hashlib.blake2b(raw, digest_size=6).hexdigest()
    return raw[: n_bytes - len(digest) - 1].decode(errors="ignore") + "~" + digest


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file for the length of the block; the system frees that of a killed process.

    Processes that are forked from this one do not hold it.

    Raises:
        LockedError: another process holds it.
        CannotWriteError: the lock file cannot be made.
    """
    lock = filelock.FileLock(path, blocking=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except filelock.Timeout:
        raise LockedError(f"{path}: another process holds this lock") from None
    except OSError as error:
        raise CannotWriteError(path, error) from None

    try:
        yield
    finally:
        lock.release()
