"""A file that grows while a run goes on, and that a killed run leaves for the next one."""

import contextlib
from pathlib import Path

from files import CannotWriteError


class GrowingFile:
    """A binary file to append to and to read back.

    What is appended has reached the system when `append` returns: it survives this process.

    Args:
        path: the file; it is made, with its folder, if it is missing.

    Raises:
        CannotWriteError: the disk refuses.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.file = open(path, "a+b")  # noqa: SIM115 - closed by close
        except OSError as error:
            raise CannotWriteError(path, error) from None

    def append(self, content: bytes) -> None:
        """Write at the end of the file.

        Raises:
            CannotWriteError: the disk refuses.
        """
        try:
            self.file.write(content)
            self.file.flush()
        except OSError as error:
            raise CannotWriteError(self.path, error) from None

    def size(self) -> int:
        """Go to the end of the file and return its size in bytes."""
        return self.file.seek(0, 2)

    def truncate(self, n_bytes: int) -> None:
        """Drop all but the first bytes."""
        self.file.truncate(n_bytes)

    def close(self) -> None:
        """Close the file, which stays; what a full disk refused before is lost."""
        with contextlib.suppress(OSError):
            self.file.close()
