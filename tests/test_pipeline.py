"""The scripts one after another on a small synthetic archive, and what a trained model knows."""

import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import checkpoint as ckpt
import dataset as data
from configs import Config
from examples.sample_songs import SPECIES, render_clip
from images import recipe
from images.view import View
from inference.doctor import find_suspicious
from inference.out_of_fold import read_out_of_fold
from model import SED
from tests.in_process import run_here

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = (
    "--root . --exp-id 3 --folds 0 --n-folds 3 --n-mels 64 --no-pretrained "
    "--base-model-name test_efficientnet --epochs 20 --train-bs 16 --lr 3e-3 "
    "--scheduler-name one_cycle --p-mixup 0 --p-cutmix 0 --device cpu"
).split()


def run_script(folder: Path, script: str, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / script), *flags], cwd=folder, capture_output=True, text=True
    )


def run_stage(folder: Path, script: str, *flags: str) -> str:
    answer = run_script(folder, script, *flags)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    """A folder with an experiment: a sample set, prepared, split and trained."""
    folder = tmp_path_factory.mktemp("archive")
    sample = "--output data --species 4 --recordings 18 --seconds 8".split()
    said = run_stage(folder, "examples/make_sample_data.py", *sample)
    assert "next: python prepare_audios.py" in said
    assert "next: python split_data.py" in run_stage(folder, "prepare_audios.py", *SETTINGS)
    assert "then: python train.py" in run_stage(folder, "split_data.py", *SETTINGS)
    said = run_stage(folder, "train.py", *SETTINGS)
    assert "next: python plot_loss_metric.py models/Exp_3" in said and "(floor" in said
    return folder


@pytest.mark.slow
def test_each_stage_leaves_what_the_next_one_and_people_need(archive):
    report = pd.read_csv(archive / "train_np" / "prepare_report.csv")
    assert set(report["status"]) == {"ok", "silent", "truncated"} and len(report) == 3 * 18 + 1
    table = data.check_table(data.read_train_table(archive / "train.csv"))
    assert len(table) == 54  # all but the silent one

    copies = table[table["filename"].isin(["falsyn1/SYN100018.ogg", "falsyn1/SYN100034.ogg"])]
    folds = json.loads((archive / "train_folds.json").read_text())
    assert len(set(copies["kfold"])) <= 1 and folds["leakage"]["content"]["in_several_folds"] == []

    fold = archive / "models" / "Exp_3" / "fold_0"
    wanted = "config.yaml classes.json history.csv last.pth valid_predictions.npz train.log".split()
    assert set(wanted) <= {path.name for path in fold.iterdir()}
    assert len(pd.read_csv(fold / "history.csv")) == 20
    assert ckpt.named_checkpoints(fold)


@pytest.mark.slow
def test_the_model_has_learnt_far_above_the_floor(archive):
    best = json.loads((archive / "models" / "Exp_3" / "summary.json").read_text())["folds"]["0"]
    for score in ("macro_ap", "cmap_pad_5"):  # more than half of the way from guessing to perfect
        floor = best[f"{score}_floor"]
        assert best[score] > floor + 0.5 * (1 - floor), score
    assert best["macro_roc_auc"] > 0.85


@pytest.mark.slow
def test_a_wrong_label_is_among_the_first_three_of_the_doctor(archive):
    """The model never saw the label of a recording that was held back, so a wrong one is planted.

    In each recording, of each other species, also of one that no other held-back recording has.
    """
    oof = read_out_of_fold(archive / "models" / "Exp_3")
    places = []
    for row in range(len(oof.labels)):
        for species in np.flatnonzero(oof.labels[row] == 0):
            labels = oof.labels.copy()
            labels[row] = np.arange(labels.shape[1]) == species
            doctor = find_suspicious(replace(oof, labels=labels))
            places.append(doctor["filename"].tolist().index(oof.filenames[row]))
    assert np.mean(np.array(places) < 3) > 0.9, places


@pytest.mark.slow
@pytest.mark.parametrize("form", [["fold_0"], [".", "0"], [".", "0", "mine.png"]])
def test_the_plot_in_each_documented_form(archive, form, capsys):
    folder, *rest = form
    flags = [str(Path("models/Exp_3") / folder), *rest]
    if rest:
        assert run_here(archive, "plot_loss_metric.py", *flags) == 0
        said = capsys.readouterr().out
    else:
        said = run_stage(archive, "plot_loss_metric.py", *flags)
    picture = archive / said.strip().splitlines()[-1].removeprefix("wrote ")
    assert picture.read_bytes().startswith(b"\x89PNG") and picture.stat().st_size > 10_000


@pytest.mark.slow
def test_the_contact_sheet_from_the_shell(archive):
    said = run_stage(archive, "dataset.py", *SETTINGS, "--show", "3", "--save", "sheet.png")
    assert "wrote sheet.png" in said and (archive / "sheet.png").stat().st_size > 10_000


@pytest.mark.slow
def test_from_python_as_documented(archive):
    code = """
import pandas as pd
from configs import Config, configure_logger
from train import run
small = {"n_mels": 64, "base_model_name": "test_efficientnet", "pretrained": False, "epochs": 1}
config = Config(exp_id=3, folds=[0], train_bs=16, device="cpu", scheduler_name="none", **small)
configure_logger(config)
config.exp_id = 4
print(run(pd.read_csv(config.train_dataframe_path), config)["exp_id"])
"""
    answer = subprocess.run(
        [sys.executable, "-c", code],
        cwd=archive,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert answer.stdout == "4\n", answer.stderr
    assert len(pd.read_csv(archive / "models" / "Exp_4" / "fold_0" / "history.csv")) == 1


@pytest.fixture(scope="module")
def trained(archive) -> tuple[SED, Config, list[str]]:
    """The best model of the experiment, its settings and its species."""
    path = ckpt.named_checkpoints(archive / "models" / "Exp_3" / "fold_0")[-1].path
    state = ckpt.read_checkpoint(path)
    config, names = Config(**state["config"]), state["class_names"]
    model = SED(config.base_model_name, num_classes=len(names), n_mels=config.n_mels).eval()
    model.load_state_dict(state["model"])
    return model, config, names


def seconds_of_peak(model: SED, config: Config, clip: np.ndarray, column: int) -> float:
    """The time at which the frames of a species score highest."""
    image = torch.from_numpy(recipe.clip_image(clip, View(config))).expand(3, -1, -1)
    with torch.inference_mode():
        frames = model(image[None])["framewise_output"][0, :, column]
    return int(frames.argmax()) * config.hop_length / config.sample_rate


@pytest.mark.slow
def test_the_frames_peak_where_the_only_bird_sings(archive, trained):
    """Each species sings alone in the first, a middle or the last second of a clip."""
    model, config, names = trained
    numbers = {species.label: number for number, species in enumerate(SPECIES)}
    counts = pd.read_csv(archive / "train.csv")["primary_label"].value_counts()
    taught = [name for name in names if counts[name] > 1]  # one recording teaches no song

    hits = []
    for name, start, seed in itertools.product(taught, (0.0, 2.0, 4.0), range(4)):
        rng = np.random.default_rng(seed)
        clip = render_clip(numbers[name], rng=rng, seconds=5.0, start=start, stop=start + 1.0)
        peak_s = seconds_of_peak(model, config, clip, names.index(name))
        hits.append(start - 0.5 <= peak_s <= start + 1.5)  # a segment lasts half a second

    assert len(hits) == 36
    assert np.mean(hits) > 0.8  # chance is 0.3 to 0.4


# People's mistakes, from the shell ----------------------------------------------------------------


@pytest.fixture
def mistake(capsys) -> Callable[..., str]:
    """Runs a script that has to end with one line and status 2, and returns the line."""

    def mistake(folder: Path, script: str, *flags: str) -> str:
        status = run_here(folder, script, *flags)
        said = capsys.readouterr().err
        assert status == 2 and len(said.strip().splitlines()) == 1, said
        assert said.startswith("error: ")
        return said

    return mistake


def test_nothing_there_yet(tmp_path, mistake):
    assert "data/train_audio" in mistake(tmp_path, "prepare_audios.py")
    assert "data/train_metadata.csv" in mistake(tmp_path, "split_data.py")
    assert "train.csv: no such file; run split_data.py first" in mistake(tmp_path, "train.py")
    answer = run_script(tmp_path, "plot_loss_metric.py", "nowhere")  # which has a main of its own
    assert answer.returncode == 2 and len(answer.stderr.strip().splitlines()) == 1, answer.stderr
    assert "nowhere" in answer.stderr


def write_tiny_table(folder: Path, **columns: str) -> None:
    path = folder / "train_np" / "a" / "x.ogg.npy"
    path.parent.mkdir(parents=True)
    np.save(path, np.zeros(1000, np.float32))
    row = {"primary_label": "a", "labels": "a", "filepath": "a/x.ogg.npy", "kfold": "0", **columns}
    pd.DataFrame([row, row | {"kfold": "1"}]).to_csv(folder / "train.csv", index=False)


def test_a_table_without_kfold(tmp_path, mistake):
    write_tiny_table(tmp_path)
    table = pd.read_csv(tmp_path / "train.csv").drop(columns="kfold")
    table.to_csv(tmp_path / "train.csv", index=False)
    assert "no column kfold" in mistake(tmp_path, "train.py")


def test_a_fold_that_does_not_exist(tmp_path, mistake):
    write_tiny_table(tmp_path)
    assert "there is no fold 9" in mistake(tmp_path, "train.py", "--folds", "9")


def test_prepared_files_missing(tmp_path, mistake):
    write_tiny_table(tmp_path, filepath="a/gone.ogg.npy")
    said = mistake(tmp_path, "train.py", "--folds", "0")
    assert "gone.ogg.npy is missing; run prepare_audios.py" in said


def test_a_backbone_with_a_typo(tmp_path, mistake):
    write_tiny_table(tmp_path)
    flags = "--folds 0 --no-pretrained --base-model-name tf_eficientnet_b0".split()
    said = mistake(tmp_path, "train.py", *flags)
    assert "tf_efficientnet_b0" in said
