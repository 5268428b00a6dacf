"""The Dockerfile and the script that it runs; without Docker, the script's steps are read."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
INSTALL = ROOT / "docker/install.sh"


def install(*words: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(INSTALL), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("variant", "index"), [("cpu", "whl/cpu"), ("cuda", "whl/cu126")])
def test_the_steps_of_a_variant(variant, index, tmp_path):
    answer = install(variant, str(tmp_path / "venv"), "--dry")
    assert answer.returncode == 0, answer.stderr
    steps = answer.stdout.splitlines()
    assert steps[0] == f"python3 -m venv {tmp_path}/venv"
    assert f"--index-url https://download.pytorch.org/{index} torch torchvision" in steps[1]
    assert all("--constraint constraints.txt" in step for step in steps[1:4])
    for name in re.findall(r"--requirement (\S+)", answer.stdout):
        assert (ROOT / name).is_file()
    assert steps[4].endswith("train.py --help")
    assert not (tmp_path / "venv").exists()


@pytest.mark.parametrize(
    ("words", "said"), [(["rocm", "v"], "choose cpu or cuda"), (["cpu"], "name the folder")]
)
def test_a_mistake_is_said(words, said):
    answer = install(*words)
    assert answer.returncode == 2 and said in answer.stderr


def test_a_failed_step_ends_it(tmp_path):
    (tmp_path / "venv").write_text("a file in its way")
    assert install("cpu", str(tmp_path / "venv")).returncode != 0


def test_the_image_is_built_by_the_script_and_not_run_by_root():
    instructions = re.findall(r"^([A-Z]+) (.*)$", DOCKERFILE, re.M)
    names = [name for name, _ in instructions]
    runs = [text for name, text in instructions if name == "RUN"]
    assert runs[-1].startswith('bash docker/install.sh "$VARIANT" /opt/venv')
    assert ("ARG", "VARIANT=cpu") in instructions and ("USER", "birds") in instructions
    assert names.index("USER") > len(names) - 1 - names[::-1].index("RUN")
    assert "--shm-size" in DOCKERFILE
    for text in [text for name, text in instructions if name == "COPY" and text != ". ."]:
        assert all((ROOT / source).exists() for source in text.split()[:-1])


def test_what_the_image_leaves_out_is_nothing_that_is_committed():
    left_out = [line.rstrip("/") for line in (ROOT / ".dockerignore").read_text().splitlines()]
    if not (shutil.which("git") and (ROOT / ".git").exists()):
        pytest.skip("no git checkout")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout
    tops = {name.split("/")[0] for name in listed.splitlines()}
    assert not tops & set(left_out)
