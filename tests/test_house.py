"""The house: which files stand at the top, who may import whom, and what an import may not do.

Every rule is a function from a folder to a list of complaints. It is asked about this project,
where it may find nothing, and about a small house with one fault in it, which it has to find.
"""

import ast
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# What stands in one line may import what stands in the lines above it, and a room its own modules.
LEVELS = [
    {"settings", "losses"},
    {"configs", "metrics", "files"},
    {"audio"},
    {"transforms", "catalog"},
    {"images"},
    {"network"},
    {"dataset", "model", "scheduler"},
    {"checkpoint"},
    {"training", "inference"},
    {"planning"},
]
ROOMS = {
    *("settings", "losses", "audio", "images", "catalog", "network", "training", "inference"),
    "planning",
}
SCRIPTS = {
    *("prepare_audios", "split_data", "train", "plot_loss_metric", "predict", "export"),
    *("evaluate", "compare", "probe", "embed", "pseudo_label", "plan", "find_best", "average"),
}
NOUNS = {name for level in LEVELS for name in level} - ROOMS

MODULE_LINES = 450
FUNCTION_LINES = 60  # without the docstring

# Modules of the system that Windows lacks: they may be imported inside functions only.
POSIX_MODULES = {"fcntl", "grp", "pty", "pwd", "resource", "termios"}


def modules(root: Path) -> list[Path]:
    """All modules of the project proper, as paths below its folder."""
    found = [*root.glob("*.py"), *(path for room in ROOMS for path in root.glob(f"{room}/**/*.py"))]
    return sorted(path.relative_to(root) for path in found)


def tree(root: Path, module: Path) -> ast.Module:
    return ast.parse((root / module).read_text(encoding="utf-8"))


# The top level ------------------------------------------------------------------------------------


def strangers_at_the_top(root: Path) -> list[str]:
    names = {path.stem for path in root.glob("*.py")}
    return [f"{name}.py: neither a stage nor a noun" for name in sorted(names - NOUNS - SCRIPTS)]


def rooms_that_say_nothing(root: Path) -> list[str]:
    rooms = [module.parent for module in modules(root) if module.parent != Path(".")]
    silent = []
    for room in sorted(set(rooms)):
        entrance = root / room / "__init__.py"
        if not entrance.exists() or not ast.get_docstring(ast.parse(entrance.read_text())):
            silent.append(f"{room}: __init__.py does not say what the room is for")
    return silent


# Imports ------------------------------------------------------------------------------------------


def place(module: Path) -> str:
    """The room that a module stands in, or the module itself at the top level."""
    return module.parts[0] if len(module.parts) > 1 else module.stem


def level(name: str) -> int:
    found = [number for number, names in enumerate(LEVELS) if name in names]
    return found[0] if found else len(LEVELS)  # a script


def imported_names(tree: ast.AST) -> Iterator[str]:
    """The first part of every imported name, inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]


def forbidden_imports(root: Path) -> list[str]:
    ours = NOUNS | ROOMS | SCRIPTS | {path.stem for path in root.glob("*.py")}
    found = []
    for module in modules(root):
        here = place(module)
        for name in sorted(set(imported_names(tree(root, module))) & ours - {here}):
            if level(name) >= level(here):
                found.append(f"{module} imports {name}")
            elif here == "plot_loss_metric" and name != "files":
                found.append(f"{module} imports {name}; it may import files alone")
    return found


def circles(root: Path) -> list[str]:
    """Modules of one room that import each other, directly or through others."""
    names = {dotted(module): module for module in modules(root)}
    arrows = {
        name: imported_modules(tree(root, module)) & names.keys() for name, module in names.items()
    }
    n_before = 0
    while len(arrows) != n_before:
        n_before = len(arrows)
        needed = set().union(*arrows.values())
        arrows = {
            name: after & arrows.keys()
            for name, after in arrows.items()
            if name in needed and after & arrows.keys()
        }
    return [f"{' and '.join(sorted(arrows))} import each other"] if arrows else []


def dotted(module: Path) -> str:
    return ".".join(module.with_suffix("").parts)


def imported_modules(tree: ast.AST) -> set[str]:
    """Dotted names of every imported module, `room.module`, inside functions too."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def relative_imports(root: Path) -> list[str]:
    return [
        f"{module}:{node.lineno}: a relative import"
        for module in modules(root)
        for node in ast.walk(tree(root, module))
        if isinstance(node, ast.ImportFrom) and node.level
    ]


def posix_imports(root: Path) -> list[str]:
    found = []
    for module in modules(root):
        outside = [node for node in tree(root, module).body if isinstance(node, ast.stmt)]
        functions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        for node in outside:
            if not isinstance(node, functions):
                names = set(imported_names(node)) & POSIX_MODULES
                found += [f"{module} imports {name}, which Windows lacks" for name in sorted(names)]
    return found


# Sizes and names ----------------------------------------------------------------------------------


def long_modules(root: Path) -> list[str]:
    lines = {module: len((root / module).read_text().splitlines()) for module in modules(root)}
    return [f"{module}: {n} lines" for module, n in lines.items() if n > MODULE_LINES]


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its docstring."""
    n_lines = (function.end_lineno or 0) - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function):
        n_lines -= (first.end_lineno or 0) - first.lineno + 1
    return n_lines


def long_functions(root: Path) -> list[str]:
    return [
        f"{module}: {node.name} has {length(node)} lines"
        for module in modules(root)
        for node in ast.walk(tree(root, module))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and length(node) > FUNCTION_LINES
    ]


def constants(tree: ast.Module) -> Iterator[str]:
    """Names in capitals that a module gives a value."""
    for node in tree.body:
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign) and node.value:
            targets = [node.target]
        else:
            continue
        names = [name for target in targets for name in ast.walk(target)]
        yield from (one.id for one in names if isinstance(one, ast.Name) and one.id.isupper())


def constants_defined_twice(root: Path) -> list[str]:
    homes = defaultdict(list)
    for module in modules(root):
        for name in set(constants(tree(root, module))):
            homes[name].append(str(module))
    twice = {name: places for name, places in homes.items() if len(places) > 1 and len(name) > 1}
    return [f"{name} is defined in {' and '.join(places)}" for name, places in twice.items()]


# Tests --------------------------------------------------------------------------------------------


def modules_without_tests(root: Path) -> list[str]:
    found = []
    for module in modules(root):
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        has_logic = any(isinstance(node, kinds) for node in tree(root, module).body)
        tests = (root / "tests" / module.parent).glob(f"test_{module.stem}*.py")
        if has_logic and not any(tests):
            found.append(f"{module} has no tests/{module.parent}/test_{module.stem}.py")
    return found


def imported_fixtures(root: Path) -> list[str]:
    files = sorted((root / "tests").rglob("test_*.py"))
    shadowed = "F" + "811"
    return [
        f"{path.relative_to(root)}: a fixture is imported; it belongs in a conftest.py"
        for path in files
        if f"noqa: {shadowed}" in path.read_text(encoding="utf-8")
    ]


# This project, and a house with a fault -----------------------------------------------------------

Rule = Callable[[Path], list[str]]
RULES: list[Rule] = [
    *(strangers_at_the_top, rooms_that_say_nothing),
    *(forbidden_imports, circles, relative_imports, posix_imports),
    *(long_modules, long_functions, constants_defined_twice),
    *(modules_without_tests, imported_fixtures),
]


@pytest.mark.parametrize("rule", RULES)
def test_this_project_keeps_to_the_rule(rule):
    assert rule(ROOT) == []


SOUND = {
    "configs.py": "from settings.help import show\n",
    "settings/__init__.py": '"""What a setting is."""\n',
    "settings/help.py": "HELP = 'help'\n",
    "audio/__init__.py": '"""Sound."""\n',
    "audio/mel.py": "import configs\nSIZE = 3\n\n\ndef mel():\n    return SIZE\n",
    "audio/decoder.py": "from audio.mel import mel\n",
    "training/__init__.py": '"""Around the loop."""\n',
    "training/loggers.py": "import audio.mel\n",
    "inference/__init__.py": '"""Scores."""\n',
    "inference/windows.py": "from audio.mel import mel\n",
    "train.py": "import training.loggers\n",
    "plot_loss_metric.py": "import csv\n",
    "tests/audio/test_mel.py": "from audio.mel import mel\n",
}
LONG_FUNCTION = "def long():\n    '''Say\n    much.'''\n" + "    pass\n" * 60
FAULTS = [
    (strangers_at_the_top, "step.py", "", "step.py: neither a stage nor a noun"),
    (rooms_that_say_nothing, "audio/__init__.py", "", "audio: __init__.py does not say"),
    (forbidden_imports, "audio/mel.py", "import training.step", "audio/mel.py imports training"),
    (forbidden_imports, "audio/mel.py", "def f():\n    import train", "audio/mel.py imports train"),
    (forbidden_imports, "configs.py", "from audio import mel", "configs.py imports audio"),
    (forbidden_imports, "metrics.py", "import configs", "metrics.py imports configs"),
    (forbidden_imports, "settings/help.py", "import files", "settings/help.py imports files"),
    (forbidden_imports, "catalog/x.py", "import images.y", "catalog/x.py imports images"),
    (forbidden_imports, "training/a.py", "import inference.b", "training/a.py imports inference"),
    (forbidden_imports, "checkpoint.py", "import training", "checkpoint.py imports training"),
    (forbidden_imports, "predict.py", "from train import run", "predict.py imports train"),
    (forbidden_imports, "plot_loss_metric.py", "import metrics", "it may import files alone"),
    (circles, "audio/mel.py", "import audio.decoder", "audio.decoder and audio.mel import each"),
    (relative_imports, "audio/mel.py", "from . import decoder", "audio/mel.py:1: a relative"),
    (posix_imports, "files.py", "try:\n    import fcntl\nexcept ImportError:\n    pass", "fcntl"),
    (long_modules, "train.py", "\n" * 451, "train.py: 451 lines"),
    (long_functions, "train.py", LONG_FUNCTION, "train.py: long has 61 lines"),
    (constants_defined_twice, "train.py", "SIZE: int = 4", "SIZE is defined in audio/mel.py and t"),
    (modules_without_tests, "audio/x.py", "def f(): ...", "audio/x.py has no tests/audio/test_x"),
    (modules_without_tests, "train.py", "class A: ...", "train.py has no tests/./test_train.py"),
    (imported_fixtures, "tests/test_a.py", "# noqa: F" + "811", "tests/test_a.py: a fixture"),
]


def build(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize("rule", RULES)
def test_a_sound_house_has_no_faults(rule, tmp_path):
    assert rule(build(tmp_path, SOUND)) == []


@pytest.mark.parametrize(("rule", "file", "text", "complaint"), FAULTS)
def test_a_planted_fault_is_found(rule, file, text, complaint, tmp_path):
    found = rule(build(tmp_path, SOUND | {file: text}))
    assert len(found) == 1 and complaint in found[0]


def test_every_rule_has_its_planted_fault():
    assert {rule for rule, *_ in FAULTS} == set(RULES)


# What an import may not do ------------------------------------------------------------------------

IMPORT_ALL = """
import importlib, json, os, random, signal, sys
import logging

root, names = sys.argv[1], sys.argv[2:]
sys.path.insert(0, root)
read = []

def note(event, arguments):
    if event == "open" and isinstance(arguments[0], str):
        path = os.path.abspath(arguments[0])
        is_code = path.endswith((".py", ".pyc")) or "__pycache__" in path
        is_here = path.startswith((root + os.sep, os.getcwd() + os.sep))
        if is_here and not is_code and not path.startswith(sys.prefix):
            read.append(path)

import numpy, torch
random.seed(1); numpy.random.seed(1); torch.manual_seed(1)

def state():
    return [
        str(random.getstate()), str(numpy.random.get_state()), torch.get_rng_state().tolist(),
        torch.get_num_threads(), torch.cuda.is_initialized(), torch.get_default_device().type,
        str(signal.getsignal(signal.SIGTERM)), str(signal.getsignal(signal.SIGINT)),
        len(logging.getLogger().handlers), len(logging.getLogger("birdclef").handlers),
    ]

before = state()
sys.addaudithook(note)
for name in names:
    importlib.import_module(name)
print(json.dumps({"read": read, "is_unchanged": state() == before}))
"""


def import_all(root: Path, cwd: Path, names: list[str]) -> dict[str, object]:
    import json

    answer = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, str(root), *names],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout)


def test_importing_every_module_reads_no_file_seeds_nothing_and_picks_no_device(tmp_path):
    names = [dotted(module) for module in modules(ROOT) if module.name != "__init__.py"]
    assert len(names) > 40
    found = import_all(ROOT, tmp_path, names)
    assert found == {"read": [], "is_unchanged": True}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text",
    ["import random\nrandom.seed(3)", "import logging\nlogging.basicConfig()"],
)
def test_an_import_that_changes_something_is_found(text, tmp_path):
    build(tmp_path / "house", {"loud.py": text})
    assert import_all(tmp_path / "house", tmp_path, ["loud"])["is_unchanged"] is False


def test_an_import_that_reads_a_file_is_found(tmp_path):
    classes = tmp_path / "house" / "classes.csv"
    text = f"CLASSES = open({str(classes)!r}).read()"
    build(tmp_path / "house", {"loud.py": text, "classes.csv": "robin"})
    assert import_all(tmp_path / "house", tmp_path, ["loud"])["read"] == [str(classes)]
