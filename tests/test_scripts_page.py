"""docs/scripts.md: every script has a section, its commands run in order, and print what it says.

They are also those of the demo, on fewer and shorter recordings with less training.
"""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from tests.in_process import run_here
from tests.test_house import SCRIPTS

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs/scripts.md").read_text(encoding="utf-8")
DEMO = (ROOT / "examples/demo.sh").read_text(encoding="utf-8")

# Later flags win: these make fewer and shorter recordings.
SMALL = {
    "examples/make_sample_data.py": "--species 3 --recordings 8 --seconds 4",
    "plan.py": "--listen 4",
}
SMALL_SETTINGS = {"epochs": 1, "period": 2.0, "n_mels": 32, "num_workers": 0, "worst_clips": 0}
SMALL_SETTINGS |= {"device": "cpu", "max_bad_fraction": 0.2}
ELSEWHERE = {"export.py", "embed.py", "find_best.py"}  # run by tests of their own


def examples(page: str) -> list[tuple[str, list[str]]]:
    """Commands of a page in their order, each with the lines that are shown to follow from it."""
    found = []
    for code, shown in re.findall(r"```bash\n(.*?)```\n(?:\n```text\n(.*?)```)?", page, re.S):
        *others, last = [line.split(" #")[0].strip() for line in code.splitlines()]
        found += [(command, []) for command in others]
        found.append(
            (last, [line for line in shown.splitlines() if line.strip() not in ("", "...")])
        )
    return found


def masked(line: str) -> str:
    """A line without its numbers and widths, which are other ones with other recordings."""
    return " ".join(re.sub(r"[+-]?\d[\d.,:]*", "#", line).split())


def test_commands_are_read_with_what_they_print():
    page = "```bash\npython a.py  # first\npython b.py\n```\n\n```text\n12 rows\n...\n```\n"
    assert examples(page) == [("python a.py", []), ("python b.py", ["12 rows"])]
    assert masked("fold 0:  best  -0.31 [0.2, 0.4]") == "fold # best # [# #]"


def test_every_script_has_a_section_and_a_row_that_leads_there():
    sections = set(re.findall(r"^## (\w+)\.py", PAGE, re.M))
    there = {name for name in SCRIPTS if (ROOT / f"{name}.py").exists()}
    assert sections == there | {"dataset"}
    rows = re.findall(r"^\| \[(\w+)\.py\]\(#(\w+)py\) \|", PAGE, re.M)
    assert {name for name, _ in rows} == sections
    assert all(name == anchor for name, anchor in rows)


def test_the_commands_of_the_demo_are_on_the_page():
    wanted = re.findall(r"^run (python .*)$", DEMO, re.M)
    assert len(wanted) > 9
    assert set(wanted) <= {command for command, _ in examples(PAGE)}


@pytest.mark.slow
def test_the_commands_run_and_print_what_is_shown(tmp_path, capsys):
    settings = yaml.safe_load((ROOT / "examples/demo.yaml").read_text()) | SMALL_SETTINGS
    (tmp_path / "examples").mkdir()
    (tmp_path / "examples/demo.yaml").write_text(yaml.safe_dump(settings))

    n_lines = 0
    for command, shown in examples(PAGE):
        _, script, *flags = shlex.split(command)
        if script in ELSEWHERE:
            continue
        status = run_here(tmp_path, script, *flags, *SMALL.get(script, "").split())
        said = capsys.readouterr()
        assert status == 0, f"{command}\n{said.err}"
        text = (said.out + said.err).replace(f"{tmp_path}/", "")
        lines = {masked(line) for line in text.splitlines()}
        missing = [line for line in shown if masked(line) not in lines]
        assert not missing, f"{command} prints\n{text}"
        n_lines += len(shown)
    assert n_lines > 20
