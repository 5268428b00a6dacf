"""docs/archives.md: every layout is built, and its commands are run."""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import soundfile as sf

ROOT = Path(__file__).resolve().parent.parent
RATE = 32_000
FORMATS = {".ogg": "OGG", ".mp3": "MP3", ".wav": "WAV"}


class Layout(NamedTuple):
    """A section of the page."""

    title: str
    files: list[str]
    tables: dict[str, str]
    commands: list[list[str]]


def read_page() -> list[Layout]:
    """Read the sections that have commands."""
    page = (ROOT / "docs/archives.md").read_text(encoding="utf-8")
    layouts = []
    for section in re.split(r"^## ", page, flags=re.MULTILINE)[1:]:
        blocks = re.findall(r"^```(\w+) ?(.*?)\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
        tree = [text for kind, _, text in blocks if kind == "text"]
        if not tree:
            continue
        tables = {name: text for kind, name, text in blocks if kind == "csv"}
        commands = [
            shlex.split(line)
            for kind, _, text in blocks
            if kind == "bash"
            for line in text.splitlines()
        ]
        layouts.append(Layout(section.partition("\n")[0], list_files(tree[0]), tables, commands))
    return layouts


def list_files(tree: str) -> list[str]:
    """List the files of a tree: folders end in a slash and hold what is indented below them."""
    files, folders = [], [""]
    for line in tree.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        folders = folders[: depth + 1]
        path = folders[depth] + line.strip()
        if path.endswith("/"):
            folders.append(path)
        else:
            files.append(path)
    return files


def build(layout: Layout, folder: Path) -> None:
    """Write the layout's tables, and noise of its own into every recording."""
    for number, name in enumerate(layout.files):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name in layout.tables:
            path.write_text(layout.tables[name], encoding="utf-8")
            continue
        noise = np.random.default_rng(number).normal(0, 0.1, 2 * RATE)
        sf.write(path, noise, RATE, format=FORMATS[path.suffix.lower()])


LAYOUTS = read_page()


def test_the_page_has_its_layouts():
    assert len(LAYOUTS) >= 8
    assert all(len(layout.commands) == 2 for layout in LAYOUTS)


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS, ids=[layout.title for layout in LAYOUTS])
def test_the_commands_of_a_layout_prepare_and_split_it(tmp_path, layout):
    build(layout, tmp_path)
    for (python, script, *flags), extra in zip(
        layout.commands, (["--num-workers", "1"], ["--n-folds", "2"]), strict=True
    ):
        assert python == "python"
        command = [sys.executable, str(ROOT / script), *flags, *extra]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr

    recordings = [name for name in layout.files if name not in layout.tables]
    species = [name for name in recordings if not re.search("Background|_trash", name)]
    table = pd.read_csv(tmp_path / "train.csv", dtype=str, keep_default_na=False)
    assert len(table) == len(species)
    assert set(table["kfold"]) == {"0", "1"}
    assert table["primary_label"].nunique() >= 2
    assert not {"Background", "_trash"} & set(table["primary_label"])
