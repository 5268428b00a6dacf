"""Every command that the README shows is run, on a tiny archive and with a tiny model."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
# Later flags win: these make each command of the README small.
SMALL = {
    "train.py": "--epochs 1 --base-model-name test_efficientnet --n-mels 32 --period 1 --no-pretrained --folds 0 "
    "--device cpu --num-workers 0 --lr 1e-4",
    "dataset.py": "--n-mels 32 --period 1",
    "prepare_audios.py": "--max-bad-fraction 0.2",
    "examples/make_soundscapes.py": "--count 2 --seconds 30",
}


def commands(text: str) -> list[str]:
    """All lines `python <script>.py ...` of code blocks, and those in running text."""
    blocks = "\n".join(re.findall(r"```bash\n(.*?)```", text, re.S))
    inline = re.findall(r"`(python [^`]+)`", re.sub(r"```.*?```", "", text, flags=re.S))
    lines = [" ".join(line.split(" #")[0].split()) for line in blocks.splitlines() + inline]
    # export.py needs packages of its own; tests/test_export.py runs it where they are.
    return [line for line in lines if line.startswith("python ") and "export.py" not in line]


def test_the_readme_shows_each_stage():
    shown = {command.split()[1] for command in commands(README)}
    assert shown >= {
        "prepare_audios.py",
        "split_data.py",
        "train.py",
        "plot_loss_metric.py",
        "dataset.py",
        "predict.py",
    }
    assert set(re.findall(r"make (\w+)", README)) <= set(
        re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M)
    )


def test_every_picture_and_setting_it_names_exists():
    from configs import Config

    for picture in re.findall(r"!\[[^]]*\]\(([^)]+)\)", README):
        assert (ROOT / picture).read_bytes().startswith(b"\x89PNG")
    table = README.split("## Settings")[1].split("##")[0]
    names = [
        name
        for row in re.findall(r"^\| (`[^|]+) \|", table, re.M)
        for name in re.findall(r"`(\w+)`", row)
    ]
    assert len(names) > 15 and set(names) <= set(Config.__dataclass_fields__)


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    """A folder as the README's reader has it: Kaggle's layout in data/, an archive of one's own in my/."""
    folder = tmp_path_factory.mktemp("reader")
    make = ("--output", "data", "--species", "4", "--recordings", "14", "--seconds", "4")
    script = str(ROOT / "examples/make_sample_data.py")
    subprocess.run([sys.executable, script, *make], cwd=folder, check=True, capture_output=True)
    shutil.copytree(folder / "data" / "train_audio", folder / "my" / "recordings")
    shutil.copy(folder / "data" / "train_metadata.csv", folder / "my" / "table.csv")
    (folder / "data" / "test_soundscapes").mkdir()
    copied = sorted((folder / "data" / "train_audio").glob("*/*.ogg"))[0]
    shutil.copy(copied, folder / "data" / "test_soundscapes" / "soundscape_1.ogg")
    (folder / "data" / "background").mkdir()
    for number in range(2):
        noise = 0.1 * np.random.default_rng(number).standard_normal(5 * 32_000)
        soundfile.write(folder / "data" / "background" / f"{number}.flac", noise, 32_000)
    (folder / "experiment.yaml").write_text("exp_id: 5\n")
    return folder


@pytest.mark.slow
def test_every_command_runs_in_the_order_shown(archive):
    shown = commands(README)
    assert len(shown) > 12
    for command in shown:
        program, script, *flags = shlex.split(command)
        if "--help" not in flags:
            flags += shlex.split(SMALL.get(script, ""))
        answer = subprocess.run(
            [sys.executable, str(ROOT / script), *flags],
            cwd=archive,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert answer.returncode == 0, f"{command}\n{answer.stderr}"


def test_the_table_of_ones_own_needs_two_columns_only(tmp_path, archive):
    import pandas as pd

    table = pd.read_csv(archive / "my" / "table.csv", dtype=str, keep_default_na=False)
    table[["primary_label", "filename"]].to_csv(tmp_path / "table.csv", index=False)
    flags = [
        "--root",
        str(tmp_path),
        "--train-audio-dir",
        str(archive / "my" / "recordings"),
        "--metadata-path",
        "table.csv",
    ]
    for script in ("prepare_audios.py", "split_data.py"):
        extra = shlex.split(SMALL.get(script, ""))
        answer = subprocess.run(
            [sys.executable, str(ROOT / script), *flags, *extra], capture_output=True, text=True
        )
        assert answer.returncode == 0, answer.stderr
    assert {"labels", "filepath", "kfold"} <= set(pd.read_csv(tmp_path / "train.csv").columns)
