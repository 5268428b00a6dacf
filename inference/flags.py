"""Command lines of scripts that have flags of their own beside the settings of configs.py."""

import argparse
import difflib
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any, NoReturn

from configs import Config, UserError
from settings.help import negative_flag


class FlagParser(argparse.ArgumentParser):
    """A parser that names the nearest flag for a mistyped one and leaves settings to configs.py.

    Args:
        usage: the shortest command, `script.py WHAT --output FILE`.
        description: what `--help` says first.
        epilog: what it says last.
    """

    def __init__(self, usage: str, description: str, epilog: str) -> None:
        super().__init__(
            usage=f"python {usage} [flags]",
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """Refuse a mistake (UserError)."""
        raise UserError(f"{message}; --help lists the flags")

    def parse_own(self, args: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
        """Read the script's own flags.

        Returns:
            Them, and the flags that are settings, for load_config.

        Raises:
            UserError: a flag that is neither.
        """
        flags, rest = self.parse_known_args(args)
        own = [name for action in self._actions for name in action.option_strings]
        settings = ["--" + field.name.replace("_", "-") for field in fields(Config)]
        settings += ["--no-" + name.removeprefix("--") for name in settings] + ["--config"]
        settings += [negative_flag(field.name) for field in fields(Config)]
        for word in rest:
            name = word.partition("=")[0].replace("_", "-")
            if not name.startswith("--") or name in settings or name.startswith("--scheduler-pa"):
                continue
            close = difflib.get_close_matches(name, [*own, *settings], n=1, cutoff=0.6)
            hint = f"did you mean {close[0]}?" if close else "--help lists the flags"
            raise UserError(f"there is no flag {word}; {hint}")
        return flags, rest


def number(low: float, high: float = float("inf"), kind: Any = float) -> Callable[[str], Any]:
    """Make a type of argparse for numbers from `low` to `high`."""

    def number(text: str) -> Any:
        value = kind(text)
        if not low <= value <= high:
            limits = f"between {low:g} and {high:g}" if high < float("inf") else f"{low:g} or more"
            raise argparse.ArgumentTypeError(f"{text} is not {limits}")
        return value

    return number
