"""Write the notebooks from source.md, which is their one source.

    python notebooks/make.py

A `<!-- notebook: NAME -->` begins NAME.ipynb, a `<!-- part: NAME -->` cells that several notebooks
take by `<!-- use: NAME -->`. A block of Python is a cell of code, what stands between two blocks a
cell of text. The word `parameters` behind the block's language tags the cell whose values others
may replace, as papermill does. Notebooks hold no outputs.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the modules of the project

from configs import UserError, run_main
from files import write_file

FOLDER = Path(__file__).resolve().parent
SOURCE = FOLDER / "source.md"
MARK = re.compile(r"^<!-- (notebook|part|use): (\w+) -->$", re.M)
CODE = re.compile(r"^```python(?: (\w+))?\n(.*?)^```$", re.M | re.S)
FORMAT = {"nbformat": 4, "nbformat_minor": 5}
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}

Cell = dict[str, Any]


def main() -> int:
    """Write every notebook of source.md beside it."""
    for name, notebook in make_notebooks(SOURCE.read_text(encoding="utf-8")).items():
        path = FOLDER / f"{name}.ipynb"
        write_file(path, dump(notebook))
        print(f"wrote {path}")
    return 0


def make_notebooks(source: str) -> dict[str, dict[str, Any]]:
    """Make notebooks by name.

    Raises:
        UserError: a part that is used and not there.
    """
    parts: dict[str, list[Cell]] = {}
    notebooks: dict[str, list[Cell]] = {}
    cells: list[Cell] = []
    for kind, name, text in _sections(source):
        if kind == "use":
            if name not in parts:
                raise UserError(f"{SOURCE.name}: there is no part {name}; write it further above")
            cells += [dict(cell) for cell in parts[name]]
        else:
            cells = []
            (parts if kind == "part" else notebooks)[name] = cells
        cells += _cells(text)
    return {name: _notebook(name, found) for name, found in notebooks.items()}


def _sections(source: str) -> Iterator[tuple[str, str, str]]:
    """Yield kind and name of each mark, and what stands between it and the next."""
    marks = list(MARK.finditer(source))
    ends = [mark.start() for mark in marks[1:]] + [len(source)]
    for mark, end in zip(marks, ends, strict=True):
        yield mark[1], mark[2], source[mark.end() : end]


def _cells(text: str) -> Iterator[Cell]:
    """Yield the cells of a section: text and code in turn."""
    place = 0
    for block in CODE.finditer(text):
        yield from _text_cell(text[place : block.start()])
        metadata = {"tags": [block[1]]} if block[1] else {}
        yield _cell("code", block[2].rstrip("\n"), metadata)
        place = block.end()
    yield from _text_cell(text[place:])


def _text_cell(text: str) -> Iterator[Cell]:
    if text.strip():
        yield _cell("markdown", text.strip(), {})


def _cell(kind: str, text: str, metadata: dict[str, Any]) -> Cell:
    more: Cell = {"execution_count": None, "outputs": []} if kind == "code" else {}
    lines = text.splitlines(keepends=True)
    return {"cell_type": kind, "metadata": metadata, **more, "source": lines}


def _notebook(name: str, cells: list[Cell]) -> dict[str, Any]:
    numbered = [{"id": f"{name}-{number}", **cell} for number, cell in enumerate(cells)]
    metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    return {"cells": numbered, "metadata": metadata, **FORMAT}


def dump(notebook: dict[str, Any]) -> str:
    """Write a notebook as Jupyter does: JSON with an indent of 1, keys sorted."""
    return json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


if __name__ == "__main__":
    run_main(main)
