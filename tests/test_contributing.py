"""What a contributor is told: targets, versions and jobs exist and agree with each other."""

import re
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from configs import versions

ROOT = Path(__file__).resolve().parent.parent
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([a-z]+):", MAKEFILE, re.M))
REQUIREMENTS = sorted(ROOT.glob("requirements*.txt"))

WITHOUT_A_TEST = {"atheris"}  # only `python -m tests.fuzz` needs it, on Linux


def requirements(path: Path) -> list[Requirement]:
    lines = [line.split("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines()]
    return [Requirement(line) for line in lines if line and not line.startswith("-r")]


def name_of(text: str) -> str:
    """The normalised name of a package (PEP 503)."""
    return re.sub(r"[-_.]+", "-", text).lower()


def constraints() -> dict[str, str]:
    found = {}
    for one in requirements(ROOT / "constraints.txt"):
        (exactly,) = one.specifier
        assert exactly.operator == "==" and "+" not in exactly.version, one
        assert one.url is None and one.marker is None, one
        found[name_of(one.name)] = exactly.version
    return found


@pytest.mark.parametrize("path", REQUIREMENTS, ids=lambda path: path.name)
def test_the_versions_tested_are_those_allowed(path):
    tested = constraints()
    for one in requirements(path):
        operators = {part.operator for part in one.specifier}
        assert operators in ({">=", "<"}, {"=="}), f"{one} has no upper bound"
        if one.name in WITHOUT_A_TEST:
            continue
        assert one.specifier.contains(tested[name_of(one.name)]), one


def test_the_constraints_are_sorted_and_name_each_package_once():
    names = [one.name for one in requirements(ROOT / "constraints.txt")]
    assert names == sorted(set(names), key=str.lower)


def test_every_target_stands_in_phony():
    (line,) = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.M)
    assert set(line.split()) == TARGETS >= {"demo", "quick", "test", "lint", "format"}


@pytest.mark.parametrize(
    "name", ["README.md", "CONTRIBUTING.md", ".ci/run", ".github/workflows/ci.yml"]
)
def test_every_target_that_is_named_exists(name):
    named = re.findall(
        r"(?:^|`|run: )make ([a-z]+)", (ROOT / name).read_text(encoding="utf-8"), re.M
    )
    assert named and set(named) <= TARGETS


def test_every_install_is_held_to_the_versions_tested():
    for name in ("Makefile", ".ci/run", ".github/workflows/ci.yml"):
        lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
        installs = [line for line in lines if "pip install" in line]
        assert all("constraints.txt" in line for line in installs), installs


def test_the_jobs_cover_both_versions_of_python_and_a_nightly_run():
    # YAML 1.1 reads the key `on` as true.
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    assert "schedule" in workflow[True]
    jobs = workflow["jobs"]
    for name in ("tests", "nightly"):
        assert jobs[name]["strategy"]["matrix"]["python"] == ["3.11", "3.12"]
    assert jobs["nightly"]["steps"][-1]["run"] == ".ci/run"
    others = jobs["not-yet-run"]
    assert others["if"] == "github.event_name == 'workflow_dispatch'"
    assert "not yet run" in others["name"]


def test_the_hooks_use_the_tools_of_the_environment():
    text = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    (source,) = yaml.safe_load(text)["repos"]
    assert source["repo"] == "local"
    assert all(hook["entry"].startswith(".venv/bin/") for hook in source["hooks"])


def test_the_version_stands_in_one_place_and_in_the_changelog():
    version = versions()["project"]
    homes = [
        path.relative_to(ROOT).as_posix()
        for path in [*ROOT.glob("*.py"), *ROOT.glob("*/*.py"), ROOT / "pyproject.toml"]
        if f'"{version}"' in path.read_text(encoding="utf-8")
    ]
    assert homes == ["settings/version.py"]
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert version in headings
