"""What README.md and docs/ say is so: commands run, links lead somewhere, names exist."""

import ast
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from configs import Config
from inference.listing import TABLE_COLUMNS
from tests.in_process import run_here
from tests.test_house import ROOMS

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md")])

# Pages whose commands are run, in this order and in one folder.
RUN_PAGES = ["README.md", "docs/settings.md", "docs/following.md", "docs/predicting.md"]
RUN_PAGES += ["docs/worked_example.md", "docs/reviewing.md"]
RUN_ELSEWHERE = ["docs/archives.md", "docs/field.md", "docs/scripts.md"]  # by tests of their own
SCRIPT_PAGES = [path.read_text(encoding="utf-8") for path in ROOT.glob("docs/scripts/*.md")]
NOT_RUN = "*The commands of this page are not run by a test; one checks that"

# Later flags win: these make each command small.
SMALL = {
    "train.py": "--epochs 1 --base-model-name test_efficientnet --n-mels 32 --period 1 "
    "--no-pretrained --folds 0 --device cpu --num-workers 0 --lr 1e-4 --worst-clips 2",
    "probe.py": "--base-model-name test_efficientnet --n-mels 32 --period 1 --no-pretrained "
    "--folds 0 --device cpu --num-workers 0",
    "evaluate.py": "--draws 100 --no-page",
    "dataset.py": "--n-mels 32 --period 1",
    "prepare_audios.py": "--max-bad-fraction 0.2",
    "plan.py": "--no-trial --listen 4 --sample-rate 32000",  # one folder holds two archives
    "examples/make_soundscapes.py": "--count 2 --seconds 30",
    "examples/suggested_labels.py": "--pool 40 --test 30 --batch 10 --rounds 1 --repeats 1",
}


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def commands(text: str) -> list[str]:
    """All lines `python <script>.py ...` of code blocks, and those in running text."""
    blocks = "\n".join(re.findall(r"```bash\n(.*?)```", text, re.S))
    inline = re.findall(r"`(python [^`]+)`", re.sub(r"```.*?```", "", text, flags=re.S))
    lines = [" ".join(line.split(" #")[0].split()) for line in blocks.splitlines() + inline]
    # export.py needs packages of its own; tests/test_export.py runs it where they are.
    return [line for line in lines if line.startswith("python ") and "export.py" not in line]


def test_the_readme_shows_each_stage():
    shown = {command.split()[1] for command in commands(README)}
    stages = "prepare_audios split_data train plot_loss_metric dataset predict".split()
    assert shown >= {f"{stage}.py" for stage in stages}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_and_picture_of_ours_is_there(page):
    targets = re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8"))
    ours = [target for target in targets if not target.startswith("http")]
    for target in ours:
        assert (page.parent / target).exists(), target
        if target.endswith(".png"):
            assert (page.parent / target).read_bytes().startswith(b"\x89PNG")


def test_every_page_is_linked_from_the_readme():
    linked = set(re.findall(r"\]\((docs/[^)#]+\.md)", README))
    assert {page.relative_to(ROOT).as_posix() for page in ROOT.glob("docs/*.md")} == linked


def test_every_setting_in_the_table_exists():
    rows = re.findall(r"^\| (`[^|]+) \|", read("docs/settings.md").split("## Days")[0], re.M)
    names = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert len(names) > 15 and set(names) <= set(Config.__dataclass_fields__)


def spoken_texts() -> str:
    """Every text constant of the scripts and rooms, a line each."""
    paths = [*ROOT.glob("*.py"), *(path for room in ROOMS for path in ROOT.glob(f"{room}/*.py"))]
    nodes = [node for path in paths for node in ast.walk(ast.parse(path.read_text()))]
    constants = [node.value for node in nodes if isinstance(node, ast.Constant)]
    return "\n".join(text for text in constants if isinstance(text, str))


def test_every_message_that_is_explained_is_one_that_is_said():
    tables = [read("docs/troubleshooting.md")]
    tables += [page.partition("\n| it says |")[2].partition("\n\n")[0] for page in SCRIPT_PAGES]
    rows = re.findall(r"^\| (`[^|]+) \|", "\n".join(tables), re.M)
    messages = [message for row in rows for message in re.findall(r"`([^`]+)`", row)]
    assert len(messages) > 40
    said = spoken_texts()
    for message in messages:
        for part in message.split("..."):
            words = re.sub(r"^\d+ %", "%", part).strip(" =")
            assert words in said, message


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    """A reader's folder: Kaggle's layout in data/, an archive of one's own in my/."""
    folder = tmp_path_factory.mktemp("reader")
    make = "--output data --species 4 --recordings 14 --seconds 4".split()
    assert run_here(folder, "examples/make_sample_data.py", *make) == 0

    shutil.copytree(folder / "data" / "train_audio", folder / "my" / "recordings")
    shutil.copy(folder / "data" / "train_metadata.csv", folder / "my" / "table.csv")

    (folder / "data" / "test_soundscapes").mkdir()
    copied = sorted((folder / "data" / "train_audio").glob("*/*.ogg"))[0]
    shutil.copy(copied, folder / "data" / "test_soundscapes" / "soundscape_1.ogg")

    write_labelled_recordings(folder / "field")
    species = pd.read_csv(folder / "data" / "train_metadata.csv")["primary_label"][0]
    rows = [f"site_{n}/morning_{n}.wav,0,5,,no,{species},0.9," for n in range(4)]
    rows += [f"site_{n}/morning_{n}.wav,7,12,{species},yes,{species},0.9," for n in range(4)]
    (folder / "found_review.csv").write_text("\n".join([",".join(TABLE_COLUMNS), *rows]) + "\n")
    (folder / "data" / "background").mkdir()
    for number in range(2):
        noise = 0.1 * np.random.default_rng(number).standard_normal(5 * 32_000)
        soundfile.write(folder / "data" / "background" / f"{number}.flac", noise, 32_000)

    (folder / "experiment.yaml").write_text("exp_id: 5\n")
    return folder


def write_labelled_recordings(folder: Path) -> None:
    """One recording for each of five sites, with two birds at times that Audacity's labels name."""
    time = np.arange(12 * 32_000) / 32_000
    (folder / "labels").mkdir(parents=True)
    for number in range(5):
        waveform = 0.01 * np.random.default_rng(number).standard_normal(len(time))
        for start, hertz in ((2, 2000), (7, 4500)):
            sings = (time >= start) & (time < start + 3)
            waveform += 0.3 * np.sin(2 * np.pi * hertz * time) * sings

        path = folder / "data" / "train_audio" / f"site_{number}" / f"morning_{number}.wav"
        path.parent.mkdir(parents=True)
        soundfile.write(path, waveform, 32_000)
        labels = folder / "labels" / f"morning_{number}.txt"
        labels.write_text("2.0\t5.0\trobin\n7.0\t10.0\twren\n")

    rows = [f"site_{n}/morning_{n}.wav,0,5,robin,yes,robin,0.9," for n in range(5)]
    (folder / "review.csv").write_text("\n".join([",".join(TABLE_COLUMNS), *rows]) + "\n")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_whose_commands_no_test_runs_says_so(page):
    text = page.read_text(encoding="utf-8")
    name = page.relative_to(ROOT).as_posix()
    is_run = name in [*RUN_PAGES, *RUN_ELSEWHERE] or name.startswith("docs/scripts/")
    blocks = "".join(re.findall(r"```bash\n(.*?)```", text, re.S))
    if re.search(r"^python (?!-m)", blocks, re.M):
        assert is_run != (NOT_RUN in text)
    else:
        assert NOT_RUN not in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_script_and_flag_of_a_page_exists(page):
    fields = {"--" + name.replace("_", "-") for name in Config.__dataclass_fields__}
    known = {*fields, *("--no-" + name[2:] for name in fields), "--config", "--help"}
    for command in commands(page.read_text(encoding="utf-8")):
        _, script, *flags = shlex.split(command)
        if script in ("-m", "-c"):
            continue
        source = (ROOT / script).read_text(encoding="utf-8")
        if script == "predict.py":
            source += (ROOT / "inference/command_line.py").read_text(encoding="utf-8")
        for flag in flags:
            if not flag.startswith("--") or flag == "--" or flag.startswith("--scheduler-params."):
                continue
            assert flag.replace("_", "-") in known or f'"{flag}"' in source, command


def test_every_script_can_be_run_from_the_shell():
    """The tests of commands call what the last lines of a script call."""
    for path in ROOT.glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        if "main" in names:
            last = ast.unparse(tree.body[-1])
            assert last.startswith("if __name__ == '__main__':"), path
            assert "run_main(main)" in last or "sys.exit(main())" in last, path


@pytest.mark.slow
def test_every_command_runs_in_the_order_shown(archive, capsys):
    shown = list(dict.fromkeys(line for page in RUN_PAGES for line in commands(read(page))))
    assert len(shown) > 18
    for command in shown:
        _, script, *flags = shlex.split(command)
        if "--help" not in flags:
            flags += SMALL.get(script, "").split()
        status = run_here(archive, script, *flags)
        assert status == 0, f"{command}\n{capsys.readouterr().err}"


@pytest.mark.slow
def test_the_python_of_the_settings_page_runs(archive):
    (code,) = re.findall(r"```python\n(.*?)```", read("docs/settings.md"), re.S)
    small = "exp_id=8, folds=[0], epochs=1, n_mels=32, period=1.0, pretrained=False, device='cpu'"
    code = code.replace("Config()", f"Config({small}, base_model_name='test_efficientnet')")
    for script in ("prepare_audios.py --max-bad-fraction 0.2", "split_data.py"):
        assert run_here(archive, *script.split()) == 0

    answer = subprocess.run(
        [sys.executable, "-c", code],
        cwd=archive,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    assert (archive / "models/Exp_8/summary.json").exists()


def test_the_table_of_ones_own_needs_two_columns_only(tmp_path, archive, capsys):
    table = pd.read_csv(archive / "my" / "table.csv", dtype=str, keep_default_na=False)
    table[["primary_label", "filename"]].to_csv(tmp_path / "table.csv", index=False)
    audio = archive / "my" / "recordings"
    flags = f"--root {tmp_path} --train-audio-dir {audio} --metadata-path table.csv".split()
    for script in ("prepare_audios.py", "split_data.py"):
        small = SMALL.get(script, "").split()
        status = run_here(archive, script, *flags, *small)
        assert status == 0, capsys.readouterr().err
    assert {"labels", "filepath", "kfold"} <= set(pd.read_csv(tmp_path / "train.csv").columns)
