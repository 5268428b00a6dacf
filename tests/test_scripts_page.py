"""docs/scripts/: every script has a page, their commands run in order, and print what they say.

They are also those of the demo, on fewer and shorter recordings with less training.
"""

import re
import shlex
from pathlib import Path

import pytest
import yaml
from matplotlib.figure import Figure

from configs import Config
from docs.script_flags import WITH_FLAGS, flag_table, help_of, with_flags
from settings.help import format_help
from tests.in_process import run_here
from tests.test_house import SCRIPTS

ROOT = Path(__file__).resolve().parent.parent
INDEX = (ROOT / "docs/scripts.md").read_text(encoding="utf-8")
PAGES = {path.stem: path.read_text(encoding="utf-8") for path in ROOT.glob("docs/scripts/*.md")}
DEMO = (ROOT / "examples/demo.sh").read_text(encoding="utf-8")

# Later flags win: these make fewer and shorter recordings.
SMALL = {
    "examples/make_sample_data.py": "--species 3 --recordings 8 --seconds 4",
    "plan.py": "--listen 4",
    "dataset.py": "--show 1",
}
SMALL_SETTINGS = {"epochs": 1, "period": 2.0, "n_mels": 32, "num_workers": 0, "worst_clips": 0}
SMALL_SETTINGS |= {"device": "cpu", "max_bad_fraction": 0.2, "probe_c": [0.01]}
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
    """A line without numbers, widths and which of two experiments is better: recordings differ."""
    line = re.sub(r"^Exp_1(_probe)? - Exp_1(_probe)?", "one - other", line)
    return " ".join(re.sub(r"[+-]?\d[\d.,:]*", "#", line).split())


def test_commands_are_read_with_what_they_print():
    page = "```bash\npython a.py  # first\npython b.py\n```\n\n```text\n12 rows\n...\n```\n"
    assert examples(page) == [("python a.py", []), ("python b.py", ["12 rows"])]
    assert masked("fold 0:  best  -0.31 [0.2, 0.4]") == "fold # best # [# #]"
    assert (
        masked("Exp_1 - Exp_1_probe  +1") == masked("Exp_1_probe - Exp_1 -0.2") == "one - other #"
    )


def pages_in_order() -> list[str]:
    """The index, which makes the songs, and the pages as its table lists them."""
    return [INDEX, *(PAGES[name] for name in re.findall(r"\(scripts/(\w+)\.md\) \|", INDEX))]


def test_every_script_has_a_page_and_a_row_that_leads_there():
    there = {name for name in SCRIPTS if (ROOT / f"{name}.py").exists()}
    assert set(PAGES) == there | {"dataset"}
    rows = re.findall(r"^\| \[(\w+)\.py\]\(scripts/(\w+)\.md\) \|", INDEX, re.M)
    assert sorted(rows) == sorted((name, name) for name in PAGES)


@pytest.mark.parametrize("name", sorted(PAGES))
def test_a_page_answers_what_a_newcomer_asks(name):
    titles = re.findall(r"^##? (.*)", PAGES[name], re.M)
    assert titles[0].startswith(f"{name}.py: ")
    assert {"On the demo's songs", "Next", "When it goes wrong"} < set(titles)
    assert {"Its flags", "Flags that people change"} & set(titles)
    assert "\n| reads | |\n" in PAGES[name] and "\n| writes" in PAGES[name]


def test_the_commands_of_the_demo_are_on_the_pages():
    wanted = re.findall(r"^run (python .*)$", DEMO, re.M)
    assert len(wanted) > 9
    shown = {command for page in pages_in_order() for command, _ in examples(page)}
    assert set(wanted) <= shown


# Flags --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WITH_FLAGS)
def test_the_flags_of_a_page_are_those_of_its_help(name):
    assert with_flags(PAGES[name], help_of(name)) == PAGES[name], "python docs/script_flags.py"


def test_flags_that_are_settings_are_used_by_the_script():
    fields = {"--" + name.replace("_", "-") for name in Config.__dataclass_fields__}
    for name, page in PAGES.items():
        typed = page.partition("<!-- made")[0] + page.partition("<!-- end")[2]
        rows = re.findall(r"^\| (`--.*?) \|", typed, re.M)
        flags = {flag for row in rows for flag in re.findall(r"--[a-z-]+", row)} - {"--config"}
        flags -= set(re.findall(r'"(--[a-z]+)"', (ROOT / f"{name}.py").read_text("utf-8")))
        if name in WITH_FLAGS or name == "dataset":
            known = fields | {flag.replace("--", "--no-", 1) for flag in fields}
        else:
            known = set(re.findall(r"--[a-z0-9-]+", format_help(Config, name, "")))
        assert flags <= known, (name, flags - known)


def test_a_help_text_becomes_tables():
    text = """usage: python a.py [flags]

options:
  -h, --help  show this help message and exit
  --one N     the first | of <two>

where to:
  FILE        a place
  --a-flag-with-a-long-name {yes,no}
              said below

  python a.py --one 3
"""
    table = """| flag | does |
| --- | --- |
| `--one N` | the first \\| of &lt;two> |

**Where to**

| flag | does |
| --- | --- |
| `--a-flag-with-a-long-name {yes,no}` | said below |"""
    assert flag_table(text) == table


def test_a_page_without_marks_is_refused():
    with pytest.raises(ValueError, match="lacks"):
        with_flags("# A page", "")


# As they run --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_commands_run_and_print_what_is_shown(tmp_path, capsys, monkeypatch):
    draw = Figure.savefig  # a quarter of the time, at the resolution that people look at
    small = {"dpi": 20}
    monkeypatch.setattr(Figure, "savefig", lambda *args, **flags: draw(*args, **(flags | small)))
    settings = yaml.safe_load((ROOT / "examples/demo.yaml").read_text()) | SMALL_SETTINGS
    (tmp_path / "examples").mkdir()
    (tmp_path / "examples/demo.yaml").write_text(yaml.safe_dump(settings))

    n_lines = 0
    for command, shown in [one for page in pages_in_order() for one in examples(page)]:
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
