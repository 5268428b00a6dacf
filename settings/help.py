"""What `--help` says: the settings that a script uses, by group."""

import sys
import textwrap
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from settings.about import Setting, settings_of

SAME_AS = {"probe": "train"}  # scripts that use the settings of another one


def format_help(config_class: Any, script: str, description: str) -> str:
    """Lay out the settings that a script uses, by group, for a terminal of 80 columns."""
    lines = [f"usage: python {_program(script)} [--config FILE.yaml] [--SETTING VALUE ...]", ""]
    lines += [*textwrap.wrap(" ".join(description.split()), 79), ""]
    lines += textwrap.wrap(
        "Settings come from configs.py, then from --config FILE.yaml, then from these flags. Flags "
        "of the other scripts are accepted too.",
        79,
    )

    defaults, group = config_class().to_dict(), ""
    for name, setting in settings_of(config_class).items():
        if SAME_AS.get(script, script) not in setting.used_by:
            continue
        if setting.group != group:
            group = setting.group
            lines += ["", f"{group}:"]

        annotation = config_class.__pydantic_fields__[name].annotation
        lines += _help_of(name, setting, defaults[name], annotation)
    return "\n".join(lines)


def _program(script: str) -> str:
    """Name the script that runs, which may use the settings of another one."""
    name = Path(sys.argv[0]).name
    return name if name.endswith(".py") and not name.startswith("_") else f"{script}.py"


def negative_flag(name: str) -> str:
    """Name the flag that switches a setting off: --no-amp, and --without-no-bird-class."""
    start = "without" if name.startswith("no_") else "no"
    return f"--{start}-{name.replace('_', '-')}"


def _help_of(name: str, setting: Setting, default: Any, annotation: Any) -> list[str]:
    flag = "--" + name.replace("_", "-")
    if isinstance(default, bool):
        flag += f", {negative_flag(name)}"
    if get_origin(annotation) is Literal:
        flag += " {" + ",".join(map(str, get_args(annotation))) + "}"

    shown = _shown(default)
    unit = f", in {setting.unit}" if setting.unit else ""
    text = f"{setting.help}{unit} (default: {shown})"
    return [
        f"  {flag}",
        *textwrap.wrap(text, 79, initial_indent=" " * 6, subsequent_indent=" " * 6),
    ]


def _shown(default: Any) -> str:
    """Write a default as a person would type it."""
    if isinstance(default, list):
        return " ".join(map(str, default))
    if isinstance(default, dict):
        return ", ".join(f"{key} {value}" for key, value in default.items()) or "none"
    if isinstance(default, bool):
        return "yes" if default else "no"
    return "none" if default is None else str(default)
