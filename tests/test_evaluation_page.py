"""The commands of docs/evaluation.md run, in the order shown and in one folder."""

import re
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import compare
import evaluate
from inference.formats import write as write_form
from tests.inference.written import one, selection
from tests.made_up_scores import made_up, write

PAGE = (Path(evaluate.__file__).parent / "docs/evaluation.md").read_text(encoding="utf-8")
SCRIPTS = {"evaluate.py": evaluate.main, "compare.py": compare.main}


@pytest.fixture
def reader(tmp_path, rng, monkeypatch) -> Path:
    """A reader's folder: two experiments, their table, and a table of windows with its labels."""
    oof = made_up(rng, n=60, noise=0.9)
    write(tmp_path / "models" / "Exp_47", oof)
    write(tmp_path / "models" / "Exp_48", made_up(rng, n=60, noise=0.95))
    table = {"filename": oof.filenames, "kfold": oof.folds, "author": np.repeat(["a", "b"], 30)}
    pd.DataFrame(table | {"type": "song"}).to_csv(tmp_path / "train.csv", index=False)

    write_form(tmp_path / "windows.csv", "long", [one("a.ogg"), one("b.ogg")], selection())
    rows = "".join(f"{name}.ogg,0,4,bird0\n{name}.ogg,5,9,NA\n" for name in "ab")
    (tmp_path / "labels.csv").write_text("file,start_s,end_s,label\n" + rows)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_commands_of_the_page_run(reader, capsys):
    blocks = "\n".join(re.findall(r"```bash\n(.*?)```", PAGE, re.S)).splitlines()
    commands = [shlex.split(line) for line in blocks if line]
    assert len(commands) == 3 and "`python " not in PAGE  # all stand in the block
    for python, script, *flags in commands:
        assert python == "python"
        assert SCRIPTS[script]([*flags, "--draws", "20"]) == 0
    groups = pd.read_csv(reader / "models" / "Exp_47" / "evaluation" / "groups.csv")
    assert set(groups["column"]) == {"fold", "author", "type"}
    assert (reader / "evaluation" / "species.csv").is_file()
    assert (reader / "differences.csv").is_file() and (reader / "blend.yaml").is_file()
