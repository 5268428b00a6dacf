"""The tables of flags in docs/scripts/, made from what each script's --help says.

`python docs/script_flags.py` writes them anew; a test compares them. Flags that are settings stand
in configs.py and not in these tables.
"""

import contextlib
import importlib
import io
import os
import re
import sys
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "docs" / "scripts"

# Scripts with flags of their own, as argparse lists them; the others have settings alone.
WITH_FLAGS = ["plan", "plot_loss_metric", "evaluate", "compare", "find_best", "predict"]
WITH_FLAGS += ["pseudo_label", "embed", "export"]

BEGIN = "<!-- made from --help by docs/script_flags.py -->"
END = "<!-- end of the flags -->"
ONE_LINE = "1000"  # columns of a terminal in which no help text is wrapped

OPTION = re.compile(r"^  (--\S.*?)(?:  +(.*))?$")
GOES_ON = re.compile(r"^ {10,}(\S.*)$")
GROUP = re.compile(r"^(\w.*):$")


def help_of(script: str) -> str:
    """Return what `python <script>.py --help` prints where no line is wrapped."""
    main = importlib.import_module(script).main
    said = io.StringIO()
    with (
        mock.patch.object(sys, "argv", [f"{script}.py", "--help"]),
        mock.patch.dict(os.environ, {"COLUMNS": ONE_LINE}),
        contextlib.redirect_stdout(said),
        contextlib.suppress(SystemExit),
    ):
        main()
    return said.getvalue()


def flag_table(help_text: str) -> str:
    """Turn the flags of a help text into tables of markdown, one a group.

    Args:
        help_text: of argparse, each help in one line.
    """
    lines: list[str] = []
    heading = ""
    for line in help_text.splitlines():
        if found := GROUP.match(line):
            heading = found[1]
        elif found := OPTION.match(line):
            lines += _head(heading)
            heading = ""
            lines.append(f"| `{found[1]}` | {_cell(found[2] or '')} |")
        elif lines and lines[-1].endswith("|  |") and (found := GOES_ON.match(line)):
            lines[-1] = lines[-1].removesuffix(" |") + f"{_cell(found[1])} |"
    return "\n".join(lines).strip()


def _head(heading: str) -> list[str]:
    """Begin a table below a group's heading; within a group there is none."""
    if not heading:
        return []
    named = [] if heading == "options" else [f"**{heading.capitalize()}**", ""]
    return ["", *named, "| flag | does |", "| --- | --- |"]


def _cell(text: str) -> str:
    """Write plain text for a cell of a table."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def with_flags(page: str, help_text: str) -> str:
    """Put the tables between a page's two marks.

    Raises:
        ValueError: the page lacks the marks.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page lacks {BEGIN} or {END}")
    return f"{before}{BEGIN}\n\n{flag_table(help_text)}\n\n{END}{after}"


def main() -> None:
    """Write the tables of all pages."""
    sys.path.insert(0, str(ROOT))
    for script in WITH_FLAGS:
        path = PAGES / f"{script}.md"
        path.write_text(with_flags(path.read_text("utf-8"), help_of(script)), "utf-8")


if __name__ == "__main__":
    main()
