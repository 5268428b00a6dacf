"""The one way this project writes a file: whole or not at all, however the run ends.

A new file is written beside its name, flushed to the disk and renamed over it, so that a reader, a
crash or a full disk sees the old content or the new one and never a part. A table that grows gets
whole rows. A cell that a spreadsheet would run as a formula is made text.

This module imports nothing of ours; every other module may import it.
"""

import contextlib
import csv
import errno
import hashlib
import io
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

PART = re.compile(r".*\.(?P<pid>\d+)\.part")
EXPERIMENT = re.compile(r"Exp_(\d+)")  # its folder, by its number
EXPERIMENT_NOTE = "experiment.json"  # in that folder: its name, and what people wrote of it
MODELS = Path("models")  # where a bare name is looked for
MAX_NAME = 255  # bytes of a file's name, on nearly every file system
ROOM_FOR_SUFFIXES = 24  # bytes that ".npy" and ".<process id>.part" may add to a name

# A spreadsheet runs a cell as a formula by its first character (OWASP, CSV injection).
FORMULA = re.compile(r"^'*[=+\-@\t]")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
LINE_END = re.compile(r"\r\n|\r|\n")

# Some network file systems flush no folder, and a folder may be closed to readers.
CANNOT_FLUSH = {errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EPERM}

# A file name that is no UTF-8 is text with surrogates in Python; this writes its own bytes back.
ENCODING: dict[str, str] = {"encoding": "utf-8", "errors": "surrogateescape"}

_open_parts: set[str] = set()  # those that this process is writing


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


class AmbiguousNameError(OSError):
    """A name that two experiments have."""

    is_for_users = True


class LockedError(OSError):
    """A file that another process holds."""

    is_for_users = True


# Whole files --------------------------------------------------------------------------------------


def write_file(path: Path, content: bytes | str) -> None:
    """Replace a file as a whole.

    Args:
        path: where to; its folder is made if it is missing.
        content: bytes, or text that is written as UTF-8 with its line ends unchanged. File names
            that are no UTF-8, as Python spells them, pass unchanged too.

    Raises:
        CannotWriteError: the disk refuses; what was there before is unchanged.
    """
    with replacing(path) as file:
        file.write(content.encode(**ENCODING) if isinstance(content, str) else content)


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
        CannotWriteError: the disk refuses, in the block too; what was there before is unchanged. An
            error of the block that names another file passes as it is.
    """
    part = part_path(path)
    _open_parts.add(os.path.abspath(part))
    consequence = "what was there before is unchanged"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "w+b") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())

        os.replace(part, path)
        consequence = "it is complete, but a power cut may take it back"
        if durable:
            flush_folder(path.parent)
    except OSError as error:
        _remove(part)
        if _is_of_another_file(error, part):
            raise
        raise CannotWriteError(path, error, consequence) from None
    except BaseException:
        _remove(part)
        raise
    finally:
        _open_parts.discard(os.path.abspath(part))


def _remove(part: Path) -> bool:
    """Delete a part; say whether it is gone."""
    try:
        part.unlink(missing_ok=True)
    except OSError:  # Windows keeps a file that is open
        return False
    return True


def _is_of_another_file(error: OSError, part: Path) -> bool:
    if isinstance(error, (CannotWriteError, LockedError)):
        return True
    if error.filename is None:  # an error of an open file: the disk is full, say
        return False
    return Path(os.fsdecode(error.filename)) not in (part, *part.parents)


def flush_folder(folder: Path) -> None:
    """Wait until the disk has a folder's new names, where the system can be asked to."""
    if os.name == "nt":
        return

    try:
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
    except OSError as error:
        if error.errno not in CANNOT_FLUSH:
            raise


def part_path(path: Path, pid: int | None = None) -> Path:
    """Name the file that a process (None: this one) writes before it takes the name `path`."""
    ending = f".{os.getpid() if pid is None else pid}.part"
    return path.with_name(shorten(path.name, MAX_NAME - len(ending)) + ending)


def sweep_parts(folder: Path) -> list[Path]:
    """Delete what killed processes left half-written below a folder; return the paths.

    A part that a living process is writing is left alone.
    """
    parts = [path for path in folder.rglob("*.part") if path.is_file()]
    return [path for path in parts if not _is_being_written(path) and _remove(path)]


def _is_being_written(part: Path) -> bool:
    match = PART.fullmatch(part.name)
    if not match:  # those of earlier versions name no process
        return False

    pid = int(match["pid"])
    if pid == os.getpid():  # or an earlier process had this number, as in a container
        return os.path.abspath(part) in _open_parts
    return _is_running(pid)


def _is_running(pid: int) -> bool:
    """Say whether a process runs; on Windows, where a part in use cannot be deleted, say no."""
    if os.name == "nt":
        return False  # there os.kill would interrupt it

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

    Each row is one line: line ends within a cell become spaces. Part of a row that a killed process
    left at the end of the file is cut off, and so are these rows if the disk takes only part of
    them. So a reader may take every line that ends in a line feed for a whole row. One process at a
    time may append.

    Raises:
        CannotWriteError: the disk refuses; the rows before are unchanged.
    """
    rows = [[_one_line(cell) for cell in row] for row in rows]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a+b", buffering=0) as file:
            end = _end_of_last_row(file)
            file.truncate(end)
            heading = [] if end or not header else [header]
            content = csv_text([*heading, *rows]).encode(**ENCODING)
            try:
                _write_all(file, content)
            except BaseException:
                file.truncate(end)
                raise
    except OSError as error:
        raise CannotWriteError(path, error, "the rows before are unchanged") from None


def _one_line(cell: Any) -> Any:
    return LINE_END.sub(" ", cell) if isinstance(cell, str) else cell


def _end_of_last_row(file: IO[bytes]) -> int:
    """Find where the last whole line ends, in bytes, from the end backwards."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - 4096)
        file.seek(start)
        line_feed = file.read(end - start).rfind(b"\n")
        if line_feed >= 0:
            return start + line_feed + 1
        end = start
    return 0


def _write_all(file: IO[bytes], content: bytes) -> None:
    """Write all of it: an unbuffered file takes less at once where the disk becomes full."""
    view = memoryview(content)
    while view:
        view = view[file.write(view) :]


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
    text = LINE_END.sub("\n", text)
    if FORMULA.match(text) and not NUMBER.fullmatch(text):
        return "'" + text
    return text


def original_cell(text: str) -> str:
    """Undo `safe_cell`."""
    return text[1:] if text.startswith("'") and FORMULA.match(text) else text


# Names and locks ----------------------------------------------------------------------------------


def shorten(name: str, n_bytes: int = MAX_NAME - ROOM_FOR_SUFFIXES) -> str:
    """Return a name of at most `n_bytes` (16 or more); a longer one ends in a digest of itself."""
    raw = os.fsencode(name)
    if len(raw) <= n_bytes:
        return name

    digest = hashlib.blake2b(raw, digest_size=6).hexdigest()
    return raw[: n_bytes - len(digest) - 1].decode(errors="ignore") + "~" + digest


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file for the length of the block; the system frees that of a killed process.

    Processes that this one forks do not hold it: filelock closes their copy (since 3.30). The file
    stays where it is.

    Raises:
        LockedError: another process holds it.
        CannotWriteError: the lock file cannot be made.
    """
    import filelock  # a twentieth of a second

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


# Experiments by name ------------------------------------------------------------------------------


def read_experiment_note(folder: Path) -> dict[str, str]:
    """Read the `name` and `notes` of an experiment's folder, those that it has."""
    try:
        found = json.loads((folder / EXPERIMENT_NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def experiments_in(models_dir: Path) -> dict[int, str]:
    """Name the experiments of a folder by their numbers; those without a name have an empty one."""
    folders = models_dir.glob("Exp_*") if models_dir.is_dir() else []
    found = [(EXPERIMENT.fullmatch(folder.name), folder) for folder in folders]
    return {
        int(match[1]): str(read_experiment_note(folder).get("name", ""))
        for match, folder in found
        if match
    }


def find_experiment(path: str | Path) -> Path:
    """Find a folder or file by a path in which an experiment's name may stand for its Exp_<number>.

    Args:
        path: `models/Exp_47`, `models/baseline/fold_0`, or `baseline` alone, which is looked for
            in models/. A path that is there, or holds no known name, is returned as it is.

    Raises:
        AmbiguousNameError: two experiments have this name.
    """
    path = Path(path)
    if path.exists():
        return path

    for place in (path, *path.parents):
        is_bare = place.parent == Path(".")
        for models_dir in (place.parent, MODELS) if is_bare else (place.parent,):
            named = _experiments_named(place.name, models_dir)
            if len(named) > 1:
                both = f"{named[0].name} and {named[1].name}"
                raise AmbiguousNameError(f"{place}: {both} have this name; give one by its number")
            if named:
                return named[0] / path.relative_to(place)
    return path


def _experiments_named(name: str, models_dir: Path) -> list[Path]:
    names = sorted(experiments_in(models_dir).items())
    return [models_dir / f"Exp_{number}" for number, other in names if name and other == name]


def experiment_title(folder: Path) -> str:
    """Call an experiment by its folder and its name: `Exp_47 (baseline)`."""
    name = read_experiment_note(folder).get("name")
    return f"{folder.name} ({name})" if name else folder.name
