"""probe.py from prepared recordings to what predict.py takes."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import checkpoint as ckpt
import dataset as data
import probe
import train
from catalog.pseudo_labels import PSEUDO_COLUMNS, write_pseudo_labels
from configs import UserError
from inference.scorers import open_models
from tests.small_run import SPECIES, same
from training.floor import HEAD


def test_tones_are_told_apart_and_the_files_are_those_of_a_fold(df, config, caplog):
    config = replace(config, folds=[0, 2], valid_clips=2)
    summary = probe.run(df, config)
    folder = config.models_dir / "Exp_47_probe"
    assert summary["mean"]["macro_ap"] == pytest.approx(1.0)
    assert sorted(path.name for path in folder.iterdir()) == ["fold_0", "fold_2", "summary.json"]
    written = sorted(path.name for path in (folder / "fold_2").iterdir())
    assert [name for name in written if not name.startswith((".", "Exp_"))] == [
        "classes.json", "config.yaml", "history.csv", "train.log", "valid_predictions.npz",
    ]  # fmt: skip

    row = pd.read_csv(folder / "fold_2/history.csv").iloc[0]
    assert row["macro_ap"] == summary["folds"]["2"]["macro_ap"]
    assert row["probe_c"] in config.probe_c
    assert row["probe_shrinkage"] in config.probe_shrinkage


def test_train_with_all_frozen_leaves_what_the_probe_leaves(df, config, caplog):
    config = replace(config, folds=[0])
    probe.run(df, config)
    summary = train.run(df, replace(config, freeze="all"))
    folder, other = config.models_dir / "Exp_47_probe/fold_0", config.fold_dir(0)
    for name in ("history.csv", "valid_predictions.npz", "classes.json"):
        assert (other / name).read_bytes() == (folder / name).read_bytes()
    ours, theirs = (ckpt.read_checkpoint(next(one.glob("Exp_47_fold_0_*"))) for one in
                    (other, folder))  # fmt: skip
    assert same(ours["model"], theirs["model"]) and ours["config"]["head"] == "linear"
    assert summary["mean"]["macro_ap"] == pytest.approx(1.0)

    # It is complete, and no start of a training.
    caplog.clear()
    train.run(df, replace(config, freeze="all"))
    assert "frozen features" not in caplog.text
    with pytest.raises(UserError, match="freeze='all'"):
        train.run(df, replace(config, **HEAD))


@pytest.mark.parametrize("other", ["refit", "find_lr", "soup"])
def test_what_is_fitted_in_one_go_has_no_use_for_other_modes(df, config, other):
    with pytest.raises(UserError, match=f"leave out --{other.replace('_', '-')}"):
        train.run(df, replace(config, freeze="all", **{other: True}))


def test_predict_scores_clips_as_the_probe_did(df, config):
    config = replace(config, folds=[0])
    probe.run(df, config)
    folder = config.models_dir / "Exp_47_probe/fold_0"
    stored = np.load(folder / "valid_predictions.npz")
    models = open_models(folder, config)
    assert list(stored["class_names"]) == models.class_names == SPECIES

    _, valid_part = data.split_fold(df, 0, [])
    images = [
        models.prepare(np.load(config.train_np_dir / path)[:32_000])
        for path in valid_part["filepath"]
    ]
    clipwise, _, _ = models.score(images, frames=False)
    np.testing.assert_allclose(clipwise[0], stored["scores"], atol=1e-5)
    assert [f"{name}.npy" for name in stored["filenames"]] == list(valid_part["filepath"])


def test_a_class_for_no_bird_has_no_score(df, backgrounds):
    config = replace(backgrounds, no_bird_class=True)
    probe.run(df, config)
    folder = config.models_dir / "Exp_47_probe/fold_0"
    stored = np.load(folder / "valid_predictions.npz")
    assert stored["scores"].shape[1] == 3
    models = open_models(folder, config)
    noise = 0.1 * np.random.default_rng(3).standard_normal(32_000).astype("f4")
    clipwise, _, _ = models.score([models.prepare(noise)], frames=False)
    assert clipwise[0].sum() < 0.5 < stored["scores"].sum(1).min()


def test_scores_by_sigmoid_are_those_of_each_class_alone(df, config):
    head = {"head": "linear", "head_input": "rows", "loss_name": "bce"}
    summary = probe.run(df, replace(config, **head))
    scores = np.load(config.models_dir / "Exp_47_probe/fold_0/valid_predictions.npz")["scores"]
    assert summary["mean"]["macro_ap"] == pytest.approx(1.0)
    assert np.abs(scores.sum(axis=1) - 1).max() > 1e-3


def test_debug_takes_a_few_recordings(df, config):
    summary = probe.run(df, replace(config, debug=True))
    assert 0 < summary["mean"]["macro_ap"] <= 1


def test_a_fold_that_is_not_there_is_refused(df, config):
    with pytest.raises(UserError, match="fold"):
        probe.run(df, replace(config, folds=[9]))


# Pseudo-labelled windows --------------------------------------------------------------------------


def write_windows(config, labels: list[tuple[str, ...]], hertz: float) -> None:
    """Two recordings of one tone, a window a second, with these labels."""
    rng, rows = np.random.default_rng(9), []
    time = np.arange(len(labels) * 32_000) / 32_000
    for name in ("dawn_0.wav", "dawn_1.wav"):
        waveform = np.sin(2 * np.pi * hertz * time) * (np.sin(7 * time) > 0)
        path = config.root / f"pseudo/np/{name}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, (waveform + 0.05 * rng.standard_normal(len(time))).astype("f4") / 2)
        rows += [
            (name, f"np/{name}.npy", second, second + 1, own, (0.9,) * len(own), (0,) * len(own), 1)
            for second, own in enumerate(labels)
        ]
    write_pseudo_labels(config.pseudo_labels, pd.DataFrame(rows, columns=PSEUDO_COLUMNS))


def score_of_tone(config, hertz: float) -> np.ndarray:
    models = open_models(config.models_dir / "Exp_47_probe/fold_0", config)
    time = np.arange(32_000) / 32_000
    tone = (np.sin(2 * np.pi * hertz * time) * (np.sin(7 * time) > 0) / 2).astype("f4")
    return models.score([models.prepare(tone)], frames=False)[0][0, 0]


@pytest.mark.parametrize("loss_name", ["cross_entropy", "bce"])
def test_a_species_is_learnt_from_windows_that_another_model_labelled(df, config, loss_name):
    config = replace(config, head="linear", loss_name=loss_name, head_input="rows")
    config.pseudo_labels = config.root / "pseudo/one.csv"
    write_windows(config, [("bird0",)] * 4, hertz=9000)
    probe.run(df, replace(config, pseudo_share=0.0))
    before = score_of_tone(config, 9000)

    probe.run(df, replace(config, models_dir=config.root / "after"))
    after = score_of_tone(replace(config, models_dir=config.root / "after"), 9000)
    assert after[0] > before[0] + 0.3
