"""Every switch of training: resumed, on the device front end, with --debug, in two processes."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

import checkpoint as ckpt
import train
from configs import Config, UserError, settings
from inference.scorers import open_models
from tests.small_run import (
    assert_same_end,
    copy_of,
    make_recordings,
    run_until,
    tiny_config,
)
from tests.switches import BASE, ELSEWHERE, SWITCHES, make_material
from training import rate_finder
from training.floor import compare_with_floor
from training.fold import Progress, rank

ROOT = Path(train.__file__).resolve().parent
PROBE = {
    "head": "linear", "head_input": "rows", "head_block": -1, "mel_statistics": 8,
    "probe_start": True, "loss_name": "cross_entropy", "smoothing": 0.1,
    "frozen_statistics": "always", "head_lr": 1e-4, "monitor": "last",
}  # fmt: skip


def test_every_setting_of_training_is_switched_on_somewhere():
    """A new one belongs into a group of tests/switches.py, or into a test of its own."""
    used = {name for name, setting in settings().items() if "train" in setting.used_by}
    switched = set().union(*SWITCHES.values())
    assert switched | BASE | ELSEWHERE.keys() == used
    for name, file in ELSEWHERE.items():
        assert name in (ROOT / "tests" / file).read_text(), f"{file} does not speak of {name}"
    assert not switched & ELSEWHERE.keys()


def test_each_switch_is_on_in_one_group_at_least():
    plain = Config()
    for name in set().union(*SWITCHES.values()):
        values = [group[name] for group in SWITCHES.values() if name in group]
        own = getattr(plain, name)
        own = list(own) if isinstance(own, tuple) else own
        assert any(value != own for value in values), name


@pytest.fixture(scope="module")
def material(tmp_path_factory) -> tuple[Config, pd.DataFrame]:
    return make_material(tmp_path_factory.mktemp("switches"))


def switched_on(config: Config, name: str, **changes) -> Config:
    return copy_of(config, **{**SWITCHES[name], **changes})


@pytest.mark.slow
@pytest.mark.parametrize("name", SWITCHES)
def test_a_stopped_run_goes_on_as_if_it_had_not(material, tmp_path, monkeypatch, name):
    config, df = material
    config = switched_on(config, name, checkpoint_every_steps=1, models_dir=tmp_path / "whole")
    train.run(df, config)
    n_steps = int(pd.read_csv(config.fold_dir(0) / "history.csv")["step"][0])
    broken = copy_of(config, models_dir=tmp_path / "broken")
    for step in (1, n_steps + 1):  # inside the first epoch, and inside the second
        run_until(df, broken, monkeypatch, step=step)
    train.run(df, broken)
    assert_same_end(config, broken)


@pytest.mark.slow
@pytest.mark.parametrize("name", SWITCHES)
def test_debug_and_the_device_front_end_train_what_predict_takes(material, tmp_path, name):
    config, df = material
    config = switched_on(config, name, debug=True, frontend="device", models_dir=tmp_path)
    train.run(df, config)
    history = pd.read_csv(config.fold_dir(0) / "history.csv")
    assert len(history) == 2 + (config.average_epochs > 0)
    assert np.isfinite(history["train_loss"][:2]).all()

    models = open_models(config.fold_dir(0), config)
    stored = np.load(config.fold_dir(0) / "valid_predictions.npz")
    images = [
        models.prepare(np.load(config.train_np_dir / f"{recording}.npy")[start:][:32_000])
        for recording in stored["filenames"]
        for start in range(0, config.valid_clips * 32_000, 32_000)
    ]
    scores, _, _ = models.score(images, frames=False)
    shape = (len(stored["filenames"]), config.valid_clips, -1)
    np.testing.assert_allclose(scores[0].reshape(shape).mean(1), stored["scores"], atol=1e-4)


# What is trained in place of a fold's epochs, or with more than its weights. The last batch has one
# clip, of which the second process has no share, and nothing is drawn that differs by process.
ALIKE = {
    "train_bs": 9, "n_mels": 64, "period": 2.0, "ema_decay": None, "keep_checkpoints": 9,
    "monitor": "last", "amp": False, "dropout": 0.0, "p_mixup": 0.0, "p_cutmix": 0.0,
    "p_spec_augment": 0.0,
}  # fmt: skip
MODES: dict[str, dict[str, object]] = {
    "averaged": {"average_epochs": 1, "compile_model": "on"},
    "soup": {"soup": 2},  # of the two epochs before it
    "refit": {"refit": True},
    "find_lr": {"find_lr": True},
    "frozen": {"freeze": "all", "channels": "floor", "exp_id": 48},
    "taught": {"teacher_embeddings": "vectors.npz", "distill_weight": 0.5, "distill_epochs": 1,
               "channels": "floor", "exp_id": 49},
}  # fmt: skip
N_RATES = 4

# train.run for each file of settings, one after the other in the same two processes; each writes a
# digest of the weights that it ends with. The second may be on a machine without the folder of
# models, so it is given one that is not there.
IN_TWO = f"""
import hashlib, os, sys
from pathlib import Path
import pandas, torch, yaml
import train
from configs import Config
from training import rate_finder
rate_finder.N_RATES = {N_RATES}
build_fold, folds = train.build_fold, []
def kept(*parts, **how):
    folds[:] = [build_fold(*parts, **how)]
    return folds[0]
train.build_fold = kept
torch.distributed.init_process_group("gloo")
for path in map(Path, sys.argv[1:]):
    folds.clear()
    config = Config(**yaml.safe_load(path.read_text()))
    if os.environ["RANK"] == "1":
        config.models_dir = config.models_dir / "of the second"
    train.run(pandas.read_csv(config.train_dataframe_path), config)
    state = [value for fold in folds for value in fold.parts.scored_model.state_dict().values()]
    digest = hashlib.sha256(b"".join(value.numpy().tobytes() for value in state)).hexdigest()
    path.with_suffix("." + os.environ["RANK"]).write_text(digest)
torch.distributed.destroy_process_group()
"""


@pytest.fixture(scope="module")
def in_two(material, tmp_path_factory) -> Path:
    """A folder in which two processes have run every group of switches, and then every mode."""
    config, _ = material
    folder = tmp_path_factory.mktemp("in_two")
    runs = {name: switched_on(config, name, epochs=1, exp_id=number, models_dir=folder / "groups")
            for number, name in enumerate(SWITCHES)}  # fmt: skip
    runs |= {name: of_mode(config, name, folder / "modes") for name in MODES}
    paths = []
    for name, one in runs.items():
        paths.append(folder / f"{name}.yaml")
        paths[-1].write_text(yaml.safe_dump(one.to_dict()))

    script = folder / "in_two.py"
    script.write_text(IN_TWO)
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone",
         str(script), *map(str, paths)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not list(folder.glob("*/of the second"))  # the first reads and writes for all
    return folder


def of_mode(config: Config, name: str, models_dir: Path, **changes) -> Config:
    return copy_of(config, **{**ALIKE, **MODES[name], "models_dir": models_dir, **changes})


@pytest.mark.slow
@pytest.mark.parametrize("name", [*SWITCHES, *MODES])
def test_two_processes_end_with_one_model(in_two, name):
    first, second = ((in_two / f"{name}.{rank_}").read_text() for rank_ in (0, 1))
    assert first == second
    if name in SWITCHES:
        number = list(SWITCHES).index(name)
        history = pd.read_csv(in_two / f"groups/Exp_{number}/fold_0/history.csv")
        assert np.isfinite(history["train_loss"][0])


@pytest.mark.slow
def test_two_processes_do_in_every_mode_what_one_does(material, in_two, tmp_path, monkeypatch):
    config, df = material
    two, one = in_two / "modes", tmp_path
    monkeypatch.setattr(rate_finder, "N_RATES", N_RATES)
    for name in MODES:
        # Adam makes a whole step of a gradient of nearly nothing, whatever its sign, so that a soup
        # is compared with one of the same ingredients.
        sources = {"soup_from": [two / "Exp_47"]} if name == "soup" else {}
        train.run(df, of_mode(config, name, one, compile_model="off", **sources))

    def table(root: Path, name: str) -> pd.DataFrame:
        return pd.read_csv(root / name)

    def state(root: Path, folder: str) -> dict:
        return ckpt.read_checkpoint(ckpt.named_checkpoints(root / folder)[-1].path)

    for name in ("Exp_47/fold_0", "Exp_47/refit", "Exp_49/fold_0"):
        ours, theirs = (table(root, f"{name}/history.csv") for root in (one, two))
        assert list(ours["epoch"]) == list(theirs["epoch"]) and len(ours) >= 2
        assert theirs["train_loss"][0] == pytest.approx(ours["train_loss"][0], rel=1e-3), name
    ours, theirs = (table(root, "find_lr/Exp_47/fold_0/learning_rates.csv") for root in (one, two))
    assert len(ours) == N_RATES
    np.testing.assert_allclose(ours, theirs, rtol=1e-3)

    for folder in ("Exp_47_soup/fold_0", "Exp_48/fold_0"):
        ours, theirs = (state(root, folder) for root in (one, two))
        for name, value in ours["model"].items():
            torch.testing.assert_close(value, theirs["model"][name], rtol=1e-4, atol=1e-5)
        scores = [row["macro_ap"] for row in (ours["history"][0], theirs["history"][0])]
        assert scores[0] == pytest.approx(scores[1], abs=1e-6)


@pytest.fixture
def config(tmp_path) -> Config:
    return tiny_config(tmp_path, train_bs=3, epochs=2, keep_checkpoints=9, ema_decay=0.9)


@pytest.fixture
def df(config) -> pd.DataFrame:
    return make_recordings(config, 16)


def test_a_training_that_starts_from_the_probe_has_its_scores_at_once(df, config, monkeypatch):
    config = copy_of(config, epochs=1, lr=1e-12, weight_decay=0.0, **PROBE)
    config = copy_of(config, ema_decay=None, head_lr=1e-12)
    train.run(df, config)
    row = pd.read_csv(config.fold_dir(0) / "history.csv").iloc[0]
    assert row["macro_ap"] == pytest.approx(row["probe_macro_ap"], abs=1e-6)
    assert row["valid_loss"] == pytest.approx(row["probe_valid_loss"], rel=1e-4)


def test_a_sed_head_cannot_start_from_the_probe(df, config):
    with pytest.raises(UserError, match="give head: linear, too"):
        train.run(df, copy_of(config, probe_start=True))


def test_the_probe_changes_nothing_of_a_training_beside_it(df, config):
    train.run(df, copy_of(config, epochs=1))
    plain = np.load(config.fold_dir(0) / "valid_predictions.npz")["scores"]
    beside = copy_of(config, epochs=1, probe_below=100, models_dir=config.root / "other")
    train.run(df, beside)
    scores = np.load(beside.fold_dir(0) / "valid_predictions.npz")["scores"]
    np.testing.assert_array_equal(plain, scores)


@pytest.mark.parametrize(("reached", "warned"), [(0.5, True), (0.6, True), (0.61, False)])
def test_training_that_does_not_beat_the_probe_is_warned_of(caplog, reached, warned):
    progress = Progress(probe={"probe_macro_ap": 0.6})
    progress.end_epoch({"epoch": 1, "valid_loss": 1.0, "macro_ap": reached})
    compare_with_floor(0, progress)
    assert ("did not beat" in caplog.text) == warned


def test_the_best_epoch_is_the_best_in_what_is_monitored():
    rows = [
        {"epoch": 1, "valid_loss": 0.3, "macro_ap": 0.5},
        {"epoch": 2, "valid_loss": 0.2, "macro_ap": 0.4},
        {"epoch": 3, "valid_loss": 0.4, "macro_ap": float("nan")},
    ]
    best = {}
    for monitor in ("valid_loss", "macro_ap", "last"):
        progress = Progress()
        for row in rows:
            progress.end_epoch(row, monitor)
        best[monitor] = progress.best_epoch
        assert progress.best_epoch == min(rows, key=lambda row: rank(row, monitor))["epoch"]
    assert best == {"valid_loss": 2, "macro_ap": 1, "last": 3}
