"""docs/reliability.md: every test that it names is there, in the file that it names."""

import ast
import re
from pathlib import Path

TESTS = Path(__file__).resolve().parent
TEXT = (TESTS.parent / "docs" / "reliability.md").read_text(encoding="utf-8")


def test_every_test_that_is_named_exists():
    tests = {
        path.name: {
            node.name
            for node in ast.parse(path.read_text()).body
            if isinstance(node, ast.FunctionDef)
        }
        for path in TESTS.glob("test_*.py")
    }
    found = re.findall(r"(?:(?:tests/)?(test_\w+\.py)::)?(test_\w+)`", TEXT)
    assert len(found) > 60
    for file, name in found:
        assert name in (tests[file] if file else set.union(*tests.values())), f"{file} {name}"
    assert set(re.findall(r"tests/(test_\w+\.py)", TEXT)) <= set(tests)
