"""The notebooks are those of their source, and run from the first cell to the last.

All run in one kernel, which is the only one of these processes that loads torch.
"""

import csv
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
import yaml

from configs import UserError
from notebooks.make import FOLDER, SOURCE, dump, make_notebooks

ROOT = FOLDER.parent
NAMES = ["kaggle_training", "kaggle_inference", "colab", "tutorial"]
SMALL = "--base-model-name test_efficientnet --n-mels 32 --period 1 --device cpu".split()
SMALL += ["--num-workers", "0"]
PLAN = "--no-trial --listen 4 --no-pretrained --folds 0 --epochs 1".split()

# Scripts in the kernel itself, so that torch is imported once. The one that writes synthetic
# recordings is a process, as shown, the first time.
IN_ONE_PROCESS = """
import importlib
in_a_process = run
def run(script, *flags):
    module = script.removesuffix(".py").replace("/", ".")
    if script.startswith("examples/") and module not in sys.modules:
        sys.modules[module] = None
        return in_a_process(script, *flags)
    if sys.modules.get(module, "") is None:
        del sys.modules[module]
    if str(PROJECT) not in sys.path:
        sys.path.insert(0, str(PROJECT))
    sys.argv = [str(PROJECT / script), *map(str, flags)]
    if status := importlib.import_module(module).main():
        raise RuntimeError(f"{script} ended with status {status}")
"""

# An empty namespace, as of a new kernel. %reset does the same and takes seconds where torch is.
FORGET = """
for _name in [name for name in globals() if not name.startswith("_")]:
    if _name not in ("In", "Out", "get_ipython", "exit", "quit", "open"):
        del globals()[_name]
"""


# As they are committed ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_committed_notebook_is_what_the_source_gives(name):
    made = make_notebooks(SOURCE.read_text(encoding="utf-8"))
    assert list(made) == NAMES
    committed = (FOLDER / f"{name}.ipynb").read_text(encoding="utf-8")
    assert committed == dump(made[name]), "run: python notebooks/make.py"

    cells = made[name]["cells"]
    assert all(not cell["outputs"] for cell in cells if cell["cell_type"] == "code")
    assert [cell["metadata"] for cell in cells if cell["metadata"]] == [{"tags": ["parameters"]}]
    assert cells[0]["source"][0].startswith("# ")


def test_they_are_notebooks_to_jupyter():
    nbformat = pytest.importorskip("nbformat", reason="requirements-dev.txt has it")
    for name in NAMES:
        notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
        nbformat.validate(notebook)
        assert len(notebook.cells) > 8


def test_text_code_and_parts_become_cells_in_their_order():
    source = """<!-- part: common -->
```python
import os
```
<!-- notebook: one -->
# Title

Two lines
of text.

```python parameters
A = 1

B = 2
```
<!-- use: common -->
The end.
"""
    (notebook,) = make_notebooks(source).values()
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in notebook["cells"]]
    assert cells == [
        ("markdown", "# Title\n\nTwo lines\nof text."),
        ("code", "A = 1\n\nB = 2"),
        ("code", "import os"),
        ("markdown", "The end."),
    ]
    assert notebook["cells"][1]["metadata"] == {"tags": ["parameters"]}
    assert [cell["id"] for cell in notebook["cells"]] == ["one-0", "one-1", "one-2", "one-3"]


def test_a_part_that_is_not_there_is_named():
    with pytest.raises(UserError, match="no part wheels"):
        make_notebooks("<!-- notebook: one -->\n<!-- use: wheels -->\n")


# As the notebook for training writes them, where there is a network.
MAKE_WEIGHTS = """
import timm
from safetensors.torch import save_file
save_file(timm.create_model("test_efficientnet", pretrained=False).state_dict(), {path!r})
"""
MAKE_MODEL = """
import pathlib, sys
sys.path.insert(0, {root!r})
from tests.predicting import save_model, tiny
save_model(pathlib.Path({path!r}), tiny(period=5.0), class_names={labels!r})
"""


# As they run --------------------------------------------------------------------------------------


def with_values(name: str, values: dict[str, Any]) -> list[dict[str, Any]]:
    """Cells of a notebook in an empty kernel, with other values for its parameters."""
    cells = json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    found = [code(FORGET)]
    for cell in cells:
        found.append(cell)
        if cell["metadata"].get("tags") == ["parameters"]:
            text = "".join(cell["source"])
            assert all(re.search(rf"^(\w+, )*{key}\b.* = ", text, re.M) for key in values), values
            found.append(code("\n".join(f"{key} = {value!r}" for key, value in values.items())))
        if any(line.startswith("def run(") for line in cell["source"]):
            found.append(code(IN_ONE_PROCESS))
    return found


def code(text: str) -> dict[str, Any]:
    return {"cell_type": "code", "metadata": {}, "execution_count": None, "outputs": [],
            "source": text}  # fmt: skip


@pytest.fixture(scope="module")
def execute(tmp_path_factory) -> Iterator[Callable[[list[dict[str, Any]]], str]]:
    """Run cells in the one kernel; return what they printed."""
    for package in ("nbclient", "ipykernel"):
        pytest.importorskip(package, reason="requirements-dev.txt has it")
    import nbformat
    from nbclient import NotebookClient

    folder = str(tmp_path_factory.mktemp("kernel"))
    client = NotebookClient(
        nbformat.v4.new_notebook(),
        timeout=300,
        kernel_name="python3",
        resources={"metadata": {"path": folder}},
    )

    def run(cells: list[dict[str, Any]]) -> str:
        client.nb.cells = [
            nbformat.from_dict({**cell, "id": f"c{number}", "source": "".join(cell["source"])})
            for number, cell in enumerate(cells)
        ]
        for number, cell in enumerate(client.nb.cells):
            client.execute_cell(cell, number)
        outputs = [one for cell in client.nb.cells for one in cell.get("outputs", [])]
        return "".join(one.get("text", "") for one in outputs)

    with client.setup_kernel():
        yield run


@pytest.fixture
def archive(tmp_path) -> Path:
    """Eighteen recordings of three species in the layout of BirdCLEF, a tone a species."""
    rows, time = ["primary_label,secondary_labels,filename"], np.arange(4 * 32_000) / 32_000
    for number in range(18):
        label = f"bird{number % 3}"
        noise = np.random.default_rng(number).standard_normal(len(time))
        waveform = 0.3 * np.sin(2 * np.pi * (1000 + 2000 * (number % 3)) * time) + 0.03 * noise
        path = tmp_path / f"archive/train_audio/{label}/{number}.ogg"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, waveform, 32_000)
        rows.append(f"{label},[],{label}/{path.name}")
    (tmp_path / "archive/train_metadata.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "archive"


@pytest.fixture
def kaggle(tmp_path, archive) -> Path:
    """A folder in the place of /kaggle with competition, project and weights attached."""
    place = tmp_path / "kaggle"
    competition = place / "input/competitions/birdclef-2026"
    shutil.copytree(archive / "train_audio", competition / "train_audio")
    shutil.copy(archive / "train_metadata.csv", competition / "train.csv")
    (competition / "test_soundscapes").mkdir()
    (competition / "test_soundscapes/readme.txt").write_text("hidden until the notebook is run")
    labels = sorted(path.name for path in (archive / "train_audio").iterdir())
    with open(competition / "sample_submission.csv", "w", newline="") as file:
        rows = [f"soundscape_8358733_{second}" for second in (5, 10)]
        csv.writer(file).writerows(
            [["row_id", *labels], *([row, *[1 / len(labels)] * len(labels)] for row in rows)]
        )

    (place / "input/datasets/me").mkdir(parents=True)
    (place / "input/datasets/me/project").symlink_to(ROOT)
    (place / "input/datasets/me/made/weights").mkdir(parents=True)
    (place / "working").mkdir()
    return place


@pytest.mark.slow
def test_all_four_run_from_the_first_cell_to_the_last(execute, kaggle, archive, tmp_path):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="requirements-export.txt has it")

    drive, tutorial = tmp_path / "drive", tmp_path / "tutorial"
    shutil.copytree(archive / "train_audio", drive / "recordings")
    shutil.copytree(archive / "train_audio", drive / "field")
    (drive / "code").symlink_to(ROOT)
    values = {
        "kaggle_training": {
            "BACKBONE": "test_efficientnet", "PREPARED": str(tmp_path / "np"),
            "FLAGS": ["--exp-id", 1, "--folds", 0, "--epochs", 1, *SMALL],
        },
        "kaggle_inference": {"MODEL": str(kaggle / "working/birds.onnx")},
        "colab": {
            "DRIVE": str(drive), "LOCAL": str(tmp_path / "local"), "HOURS": 1,
            "FLAGS": [*SMALL, *PLAN],
        },
        "tutorial": {
            "PROJECT": str(ROOT), "FOLDER": str(tutorial), "RECORDINGS": 4, "SECONDS": 4,
            "EPOCHS": 1, "FLAGS": [*SMALL, "--max-bad-fraction", 0.2],
        },
    }  # fmt: skip
    weights = kaggle / "input/datasets/me/made/weights/test_efficientnet.safetensors"
    cells = [code(on_kaggle(kaggle)), code(MAKE_WEIGHTS.format(path=str(weights)))]
    said = execute([*cells, *(cell for name in NAMES for cell in with_values(name, values[name]))])
    assert said.count("compared on 4 of 4 validation clips") == 1
    assert "submission.csv: 2 rows, submission-2023\n2 rows, 3 columns of species" in said

    submission = kaggle / "working/submission.csv"
    sample = kaggle / "input/competitions/birdclef-2026/sample_submission.csv"
    made, wanted = pd.read_csv(submission), pd.read_csv(sample)
    assert list(made) == list(wanted) and list(made["row_id"]) == list(wanted["row_id"])

    settings = yaml.safe_load((kaggle / "working/models/Exp_1/fold_0/config.yaml").read_text())
    assert settings["config"]["pretrained_path"] == str(weights)

    assert {path.name for path in drive.glob("found.*")} >= {"found.csv", "found.html"}
    assert set(pd.read_csv(drive / "found.csv")["species"]) <= {"bird0", "bird1", "bird2"}
    review = pd.read_csv(tutorial / "review.csv")
    labels = {path.name for path in (tutorial / "data/train_audio").iterdir()}
    assert set(review["species"]) <= labels and len(labels) == 6
    assert ((review["file"].str.split("/").str[0] == review["species"])
            == (review["verdict"] == "yes")).all()  # fmt: skip
    assert review.groupby("species").size().max() <= 12 and len(review) > 6


# What Kaggle mounts, the table of recordings, and a hidden recording, by year.
YEARS = {
    2023: ("birdclef-2023", "train_metadata.csv", "soundscape_29201"),
    2024: ("birdclef-2024", "train_metadata.csv", "soundscape_1446779"),
    2025: ("competitions/birdclef-2025", "train.csv", "soundscape_8358733"),
    2026: ("competitions/birdclef-2026", "train.csv", "BC2026_Test_0001_S05_20250227_010002"),
}


@pytest.mark.slow
def test_the_submission_has_the_columns_and_rows_of_each_year(execute, tmp_path):
    labels, model = ["1139490", "bird1", "bird2"], str(tmp_path / "m.pth")
    execute([code(MAKE_MODEL.format(root=str(ROOT), path=model, labels=labels))])
    found = []
    for place, (year, (mount, table, name)) in enumerate(YEARS.items()):
        kaggle, columns = tmp_path / str(year), labels[place % 3 :] + labels[: place % 3]
        competition = kaggle / "input" / mount
        for folder in ("test_soundscapes", f"train_audio/{labels[0]}"):
            (competition / folder).mkdir(parents=True)
        write_two_recordings(competition, name, labels[0])
        (competition / table).write_text(f"primary_label,filename\n{labels[0]},{labels[0]}/a.ogg\n")
        sample = ",".join(["row_id", *columns]) + f"\n{name}_10,0,0,0\n"
        (competition / "sample_submission.csv").write_text(sample)
        (kaggle / "working").mkdir()
        attach_project(kaggle / "input/project")

        cells = with_values("kaggle_inference", {"MODEL": model})
        said = execute([code(on_kaggle(kaggle)), *cells])
        assert f"2 rows, {len(labels)} columns of species" in said
        made = pd.read_csv(kaggle / "working/submission.csv")
        assert list(made) == ["row_id", *columns]
        assert list(made["row_id"]) == [f"{name}_10", f"{name}_5"]
        found.append(made[labels])
    assert all(one.equals(found[0]) for one in found)
    assert found[0].nunique().min() == 2


def on_kaggle(place: Path) -> str:
    """Code after which the kernel is one of Kaggle, with a folder in the place of /kaggle."""
    variables = {"BIRDCLEF_KAGGLE": str(place), "KAGGLE_KERNEL_RUN_TYPE": "Batch"}
    return f"import os\nos.environ.update({variables!r})"


def attach_project(folder: Path) -> None:
    """Link the code alone: a demo beside it has recordings that a notebook would find."""
    folder.mkdir()
    for path in ROOT.iterdir():
        if path.suffix == ".py" or (path / "__init__.py").exists():
            (folder / path.name).symlink_to(path)


def write_two_recordings(competition: Path, name: str, label: str) -> None:
    """Write a hidden recording of two windows, and one to try the pace on."""
    hidden, known = competition / "test_soundscapes", competition / "train_audio" / label
    time = np.arange(10 * 32_000) / 32_000
    noise = 0.02 * np.random.default_rng(3).standard_normal(len(time))
    song = 0.3 * np.sin(2 * np.pi * (2000 + 200 * time) * time) + noise
    soundfile.write(hidden / f"{name}.ogg", song, 32_000)
    soundfile.write(known / "a.ogg", song[: len(song) // 2], 32_000)
