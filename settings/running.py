"""Running a script: mistakes become one line and exit status 2, and the next command is named."""

import difflib
import errno
import logging
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

SHOWN = 5  # of many names or rows, those that a message gives
DISK_REFUSES = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}  # full, over quota, read-only


class UserError(ValueError):
    """A mistake in settings or data that the user can mend; it ends a script with exit status 2."""


def choose(name: str, known: Any, *, what: str) -> str:
    """Return a known name; refuse another with the closest and all known ones (UserError)."""
    if name in known:
        return name

    close = difflib.get_close_matches(str(name), list(map(str, known)), n=3)
    hint = f" (did you mean {' or '.join(close)}?)" if close else ""
    everything = ", ".join(sorted(map(str, known)))
    raise UserError(f"unknown {what} {name!r}{hint}; choose from {everything}")


def some(names: Sequence[str]) -> str:
    """Give the first names, as text for a message: "a, b, c, d, e, ..."."""
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def run_main(main: Callable[[], int | None]) -> NoReturn:
    """Run a script's main; a mistake or a full disk becomes one line on stderr and exit status 2.

    `--debug` logs the traceback.
    """
    try:
        sys.exit(main())
    except (UserError, OSError) as error:
        if isinstance(error, OSError) and not _is_for_users(error):
            raise
        logging.getLogger("birdclef").debug("where it happened", exc_info=True)
        message = str(error)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    stop(message)  # the error is gone by now, and with it the frames that hold loaders and workers


def _is_for_users(error: OSError) -> bool:
    """Say whether it is an error of files.py, which names file and reason, or a disk's refusal."""
    return getattr(error, "is_for_users", False) or error.errno in DISK_REFUSES


def stop(message: str) -> NoReturn:
    """Print a message as one line on stderr and exit with status 2."""
    # An error from a loader's worker carries its traceback above its last line.
    last_line = message.strip().splitlines()[-1]
    for prefix in ("configs.UserError: ", "settings.running.UserError: "):
        last_line = last_line.removeprefix(prefix)
    print(f"error: {last_line}", file=sys.stderr)
    sys.exit(2)


def next_command(script: str) -> str:
    """Return the command of the stage that follows, with the settings this one was given."""
    return shlex.join(["python", script, *sys.argv[1:]])


def configure_logger(config: Any) -> logging.Logger:
    """Log lines to stderr, DEBUG ones too when `config.debug`; calling it again adds no handler."""
    logger = logging.getLogger("birdclef")
    logger.setLevel(logging.DEBUG if config.debug else logging.INFO)

    console: Any = next((one for one in logger.handlers if getattr(one, "is_console", False)), None)
    if console is None:
        console = logging.StreamHandler()
        console.is_console = True
        console.setFormatter(
            logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")
        )
        logger.addHandler(console)

    console.stream = sys.stderr  # that of an earlier call may be closed
    return logger
