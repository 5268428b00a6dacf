"""docs/reliability.md: every test that it names is in the file that it names."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")


def named_tests(text: str) -> list[tuple[str, str]]:
    """Pairs of file and test; a test without a file is in the one named before it in its paragraph.

    A row of a table is a paragraph of its own.
    """
    found = []
    for paragraph in re.split(r"\n\n|\|\n", text):
        file = ""
        for path, name in re.findall(r"`(?:(tests/[\w/]+\.py)::)?(test_\w+)`", paragraph):
            file = path or file
            found.append((file, name))
    return found


def functions_of(file: str) -> set[str]:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_names_are_found_with_their_files():
    text = "| a | `tests/x.py::test_a`, `test_b` |\n| b | `test_c` |\n\n(`tests/y.py::test_d`)"
    expected = [("tests/x.py", "test_a"), ("tests/x.py", "test_b"), ("", "test_c")]
    assert named_tests(text) == [*expected, ("tests/y.py", "test_d")]


def test_there_are_many_promises():
    assert len(named_tests(TEXT)) > 60


@pytest.mark.parametrize("file", sorted({file for file, _ in named_tests(TEXT)}))
def test_every_test_that_is_named_exists(file):
    named = {name for its_file, name in named_tests(TEXT) if its_file == file}
    assert named - functions_of(file) == set()


def test_every_other_file_that_is_named_exists():
    for name in re.findall(r"`((?:tests|examples)/[\w./]+)`", TEXT):
        assert (ROOT / name).exists(), name
