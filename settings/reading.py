"""From defaults, a YAML file and flags to settings, and what a mistake in them is answered."""

import argparse
import contextlib
import difflib
import io
import re
import sys
from collections.abc import Sequence
from dataclasses import fields, make_dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from settings.help import format_help, negative_flag
from settings.kaggle import find_weights, kaggle_settings, wants_kaggle
from settings.running import UserError

SHOWN_MISTAKES = 5  # in one message


def read_settings(
    config_class: Any, args: Sequence[str] | None, *, description: str, script: str
) -> Any:
    """Read defaults, then `--config FILE.yaml`, then flags, into a Config.

    Args:
        config_class: Config.
        args: command line without the program; None takes `sys.argv`.
        description: what `--help` says above the settings.
        script: name of the script without .py; `--help` shows the settings that it uses. Flags of
            the other scripts are taken too, so that one set of flags serves every stage.

    Raises:
        UserError: a file that cannot be read, an unknown field or flag, or a value out of range.
        SystemExit: status 0, after `--help`.
    """
    args = sys.argv[1:] if args is None else list(args)
    if {"-h", "--help"} & set(args):
        print(format_help(config_class, script, description))
        sys.exit(0)

    names = [field.name for field in fields(config_class)]
    given, rest, path = _read_first(args)
    if wants_kaggle(given.get("kaggle")):
        given = kaggle_settings(has_root="root" in given) | given
    params, rest = _scheduler_flags(rest)
    try:
        config = _parse_flags(rest, config_class(**given))
        if config.scheduler_name != given.get("scheduler_name", config.scheduler_name):
            config = replace(config, scheduler_params={})  # YAML's were of another schedule
        return _find_attached(replace(config, scheduler_params=config.scheduler_params | params))
    except ValidationError as error:
        raise UserError(describe_mistakes(error, path or "command line", names)) from None


def _read_first(args: list[str]) -> tuple[dict[str, Any], list[str], str | None]:
    """Read the flags that decide what the defaults of the others are, and the file of --config.

    Returns:
        What the file and these flags say, the other words, and the file's path.
    """
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--config")
    early.add_argument("--root", default=argparse.SUPPRESS)
    early.add_argument("--kaggle", action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS)
    for flag in (flag for flag in ("--config", "--root") if args and args[-1] == flag):
        raise UserError(f"{flag} needs a value")
    first, rest = early.parse_known_args(args)

    given = read_yaml(Path(first.config)) if first.config else {}
    given |= {key: value for key, value in vars(first).items() if key != "config"}
    return given, rest, first.config


def _find_attached(config: Any) -> Any:
    """Take the backbone's weights from what is attached to a Kaggle notebook."""
    if not (config.kaggle and config.pretrained) or config.pretrained_path is not None:
        return config
    return replace(config, pretrained_path=find_weights(config.base_model_name))


def _scheduler_flags(args: list[str]) -> tuple[dict[str, Any], list[str]]:
    """Take `--scheduler-params.NAME VALUE ...` out of the flags; scheduler.py knows the names."""
    import yaml

    params: dict[str, Any] = {}
    rest: list[str] = []
    name = None
    for word in args:
        if match := re.fullmatch(r"--scheduler[-_]params\.([\w-]+)(?:=(.*))?", word):
            name = match[1].replace("-", "_")
            params[name] = [] if match[2] is None else [match[2]]
        elif name is None or word.startswith("--"):
            name = None
            rest.append(word)
        else:
            params[name].append(word)

    values = {key: [yaml.safe_load(word) for word in words] for key, words in params.items()}
    if empty := [key for key, words in values.items() if not words]:
        raise UserError(f"--scheduler-params.{empty[0]} needs a value")
    return {key: words[0] if len(words) == 1 else words for key, words in values.items()}, rest


def read_yaml(path: Path) -> dict[str, Any]:
    """Read settings from a YAML file; Config checks the keys."""
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text)):
            # A few aliases unfold into gigabytes.
            raise yaml.YAMLError("an alias (*name) stands for its value; write that out")
        found = yaml.safe_load(text)
        repr(found)  # a message may show any of it; Python prints no integer over 4300 digits
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: cannot be read as YAML: {reason}") from None

    if found is None:
        return {}
    if isinstance(found, dict) and "versions" in found:  # a run's own config.yaml
        found = found.get("config", found)
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise UserError(f"{path}: expected lines of the form 'field: value'")
    return found


def _parse_flags(args: Sequence[str], defaults: Any) -> Any:
    """Read flags into settings; tyro is shown those that they name, for each costs it time."""
    if not args:
        return defaults
    import tyro

    names = [field.name for field in fields(defaults)]
    args = _with_plain_negatives(args, names)
    named = _named(args, names)
    shown = [
        (field.name, field.type)
        for field in fields(defaults)
        if field.name in named or not named <= set(names)  # a mistyped one is compared with all
    ]
    flags = make_dataclass("Flags", shown, kw_only=True)
    before = flags(**{name: getattr(defaults, name) for name, _ in shown})
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            found = tyro.cli(flags, args=args, default=before)
    except SystemExit:
        raise UserError(_unbox(said.getvalue(), names)) from None
    try:
        return replace(defaults, **vars(found))
    except ValidationError as error:
        raise UserError(describe_mistakes(error, "command line", names)) from None


def named_settings(config_class: Any, args: Sequence[str] | None) -> set[str]:
    """List the settings that a command line or its `--config` speaks of, as defaults or not.

    Args:
        config_class: Config.
        args: command line without the program, which `read_settings` took; None takes `sys.argv`.
    """
    names = [field.name for field in fields(config_class)]
    given, rest, _ = _read_first(sys.argv[1:] if args is None else list(args))
    named = {name.partition(".")[0] for name in _named(_with_plain_negatives(rest, names), names)}
    return (named | given.keys()) & set(names)


def _with_plain_negatives(args: Sequence[str], names: Sequence[str]) -> list[str]:
    """Write `--without-...` flags as the only negatives that tyro knows, `--no-NAME`."""
    negatives = {negative_flag(name): f"--no-{name.replace('_', '-')}" for name in names}
    return [negatives.get(word, word) for word in args]


def _named(args: Sequence[str], names: Sequence[str]) -> set[str]:
    """List what flags name; a mistyped one is among them."""
    named = {word[2:].partition("=")[0].replace("-", "_") for word in args if word[:2] == "--"}
    return {name if name in names else name.removeprefix("no_") for name in named}


def describe_mistakes(error: ValidationError, source: str, names: Sequence[str]) -> str:
    """Put pydantic's findings on one line, as `field: message`, without its web addresses."""
    found, lines = error.errors(include_url=False), []
    for item in found[:SHOWN_MISTAKES]:
        name = ".".join(map(str, item["loc"])) or "settings"
        if item["type"] == "unexpected_keyword_argument":
            close = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {close[0]}?" if close else f"choose from {', '.join(names)}"
            lines.append(f"{name}: no such field; {hint}")
        else:
            message = item["msg"].removeprefix("Value error, ")
            lines.append(f"{name}: {message} (got {repr(item['input'])[:80]})")

    more = f"; and {len(found) - SHOWN_MISTAKES} more" if len(found) > SHOWN_MISTAKES else ""
    return f"{source}: " + "; ".join(lines) + more


def _unbox(text: str, names: Sequence[str]) -> str:
    """Put tyro's framed error message on one line; a mistyped flag gets the nearest real one."""
    inside = [line for line in text.splitlines() if not line.startswith(("╭", "╰", "+", "-"))]
    lines = [line for line in (line.strip("│| \t") for line in inside) if line]
    words = " ".join("; see" if set(line) <= {"─", "-"} else line for line in lines)
    # The title stands apart where the frame is ASCII.
    words = re.sub(r"^[A-Z][\w ]+ ; see ", "", words)
    if unknown := re.match(r"Unrecognized options: (--[^\s,=]+)", words):
        flags = ["--" + name.replace("_", "-") for name in names]
        close = difflib.get_close_matches(unknown[1].replace("_", "-"), flags, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]}?" if close else "--help lists the settings"
        return f"there is no setting {unknown[1]}; {hint}"
    ending = r" ; see (Argument helptext: .*? ; see )?For full helptext.*"
    return re.sub(ending, "; --help lists the settings", words)
