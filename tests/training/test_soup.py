"""Soups: against an average made by hand, and refused where no average makes sense."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import checkpoint as ckpt
import compare
import train
from configs import Config, UserError
from inference.scorers import open_models
from tests.small_run import SPECIES, build, copy_of, make_recordings, tiny_config
from training import soup
from training.batches import collate
from training.ending import tell_ending


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[pd.DataFrame, Config]:
    """Three epochs of fold 0, all of whose checkpoints are kept."""
    root = tmp_path_factory.mktemp("soup")
    config = tiny_config(root, train_bs=6, epochs=3, keep_checkpoints=9, monitor="last")
    df = make_recordings(config, 16)
    train.run(df, config)
    return df, config


@pytest.fixture
def config(trained, tmp_path) -> Config:
    """The settings of that run, which lies in a folder of this test's own."""
    shutil.copytree(trained[1].models_dir, tmp_path / "models")
    return copy_of(trained[1], models_dir=tmp_path / "models")


@pytest.fixture
def df(trained) -> pd.DataFrame:
    return trained[0]


def states_of(config: Config) -> list[dict]:
    named = ckpt.named_checkpoints(config.fold_dir(0))
    return [ckpt.read_checkpoint(one.path) for one in named]


def by_hand(states: list[dict], df: pd.DataFrame, config: Config) -> dict[str, torch.Tensor]:
    """Average the weights in double precision, then the statistics of each training batch."""
    fold = build(df, replace(config))
    model = fold.parts.model
    for name, parameter in model.named_parameters():
        values = torch.stack([state["model"][name].double() for state in states])
        parameter.data.copy_(values.mean(dim=0))

    norms = [layer for layer in model.modules() if hasattr(layer, "running_mean")]
    seen: dict[torch.nn.Module, list] = {layer: [] for layer in norms}

    def note(layer, inputs):
        others = [0, *range(2, inputs[0].dim())]
        seen[layer].append((inputs[0].mean(others), inputs[0].var(others)))

    hooks = [layer.register_forward_pre_hook(note) for layer in norms]
    model.eval()
    for layer in norms:
        layer.train()
    fold.train_sampler.set_position(1)
    with torch.no_grad():
        for keys in fold.train_sampler:
            batch = collate([fold.train_set[key] for key in keys])
            model(batch["image"].expand(-1, 3, -1, -1))
    for hook in hooks:
        hook.remove()
    for layer, values in seen.items():
        layer.running_mean.copy_(torch.stack([mean for mean, _ in values]).mean(dim=0))
        layer.running_var.copy_(torch.stack([var for _, var in values]).mean(dim=0))
    return model.state_dict()


def test_a_soup_is_the_average_made_by_hand_and_a_model_like_a_folds(df, config, capsys):
    before = {path: path.read_bytes() for path in config.exp_dir.rglob("*.*")}
    soup_config = copy_of(config, soup=2)
    summary = train.run(df, soup_config)
    folder = config.models_dir / "Exp_47_soup/fold_0"
    assert {path: path.read_bytes() for path in before} == before

    state = ckpt.read_checkpoint(ckpt.named_checkpoints(folder)[0].path)
    expected = by_hand(states_of(config)[-2:], df, config)
    assert state["model"].keys() == expected.keys() and state["history"][0]["epoch"] == 3
    for name, value in expected.items():
        if "tracked" not in name:
            torch.testing.assert_close(state["model"][name], value, rtol=1e-4, atol=1e-6)

    # It is validated: the scores are those of the model, the row is of the scores.
    stored = np.load(folder / "valid_predictions.npz")
    models = open_models(folder, config)
    waveforms = [np.load(config.train_np_dir / f"{name}.npy") for name in stored["filenames"]]
    clipwise, _, _ = models.score([models.prepare(one) for one in waveforms], frames=False)
    np.testing.assert_allclose(clipwise[0], stored["scores"], atol=1e-4)
    row = pd.read_csv(folder / "history.csv").iloc[0]
    assert summary["folds"]["0"]["macro_ap"] == row["macro_ap"] and np.isfinite(row["valid_loss"])
    taken = pd.read_csv(folder / "ingredients.csv")
    assert list(taken["epoch"]) == [2, 3] and list(taken["is_taken"]) == [1, 1]

    tell_ending(summary, soup_config)
    assert f"next: python evaluate.py {folder.parent}" in capsys.readouterr().out

    # compare.py takes it beside its experiment; made again, the earlier one is set aside.
    assert compare.main([str(folder.parent), str(config.exp_dir), "--draws", "50"]) == 0
    assert "Exp_47_soup" in capsys.readouterr().out
    train.run(df, copy_of(config, soup=3))
    assert len(pd.read_csv(folder / "ingredients.csv")) == 3 and (folder / "replaced_1").is_dir()


def test_a_soup_of_checkpoints_that_are_alike_is_that_checkpoint(df, config):
    best = ckpt.named_checkpoints(config.fold_dir(0))[-1].path
    again = config.root / "again.pth"
    shutil.copy(best, again)
    train.run(df, copy_of(config, soup=1, soup_from=[best, again]))
    made = ckpt.read_checkpoint(ckpt.named_checkpoints(copy_of(config, soup=1).fold_dir(0))[0].path)
    for name, value in ckpt.read_checkpoint(best)["model"].items():
        torch.testing.assert_close(made["model"][name], value, rtol=0, atol=0)


def test_a_greedy_soup_takes_what_does_not_make_it_worse(df, config, monkeypatch, caplog):
    config = copy_of(config, soup=3, soup_greedy=True, monitor="macro_ap")
    tried = []
    # Alone: epochs 1, 2 and 3; then the best with each next one; then the soup itself
    scores = iter([0.5, 0.8, 0.6, 0.8, 0.7, 0.8])

    class Scored:
        def compute(self):
            return {"macro_ap": next(scores)}

    fold = build(df, config)
    monkeypatch.setattr(soup, "pour", lambda fold, chosen: tried.append([o.epoch for o in chosen]))
    with caplog.at_level("WARNING", logger="birdclef.train"):
        soup.make_soup(fold, lambda fold: (0.1, Scored()))
    assert tried == [[1], [2], [3], [2, 3], [2, 3, 1], [2, 3]]
    assert fold.progress.epoch == 2 and "optimistic" in caplog.text
    written = pd.read_csv(fold.dir / "ingredients.csv")
    assert list(written["is_taken"]) == [0, 1, 1] and list(written["macro_ap"]) == [0.5, 0.8, 0.6]


def changed(config: Config, **parts) -> Path:
    """Write a copy of the newest checkpoint with other parts, and of its settings some."""
    path = ckpt.named_checkpoints(config.fold_dir(0))[-1].path
    state = ckpt.read_checkpoint(path)
    settings = {"config": state["config"] | parts.pop("settings", {})}
    (other := config.root / "other.pth").unlink(missing_ok=True)
    ckpt.save_checkpoint(other, state | settings | parts)
    return other


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ({"class_names": ["bird0", "bird1", "owl"]}, r"other classes \(bird2, owl\)"),
        ({"class_names": SPECIES[::-1]}, r"other classes \(their order\)"),
        ({"split": "of other recordings"}, "trained on another split"),
        ({"settings": {"n_mels": 64}}, "n_mels was 64 there, here it is 32"),
        ({"settings": {"pooling": "max"}}, "pooling was 'max' there"),
        ({"settings": {"refit": True}}, "trained on all folds"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused_by_name(df, config, parts, reason):
    best = ckpt.named_checkpoints(config.fold_dir(0))[-1].path
    other = changed(config, **parts)
    with pytest.raises(UserError, match=f"other.pth: cannot be averaged: .*{reason}"):
        train.run(df, copy_of(config, soup=1, soup_from=[best, other]))


def test_features_standardised_by_other_numbers_have_no_mean():
    one, other = (
        soup.Ingredient(Path(name), 1, 1, {"linear_head.std": torch.tensor([value])})
        for name, value in (("a.pth", 1.0), ("b.pth", 2.0))
    )
    with pytest.raises(UserError, match=r"b\.pth: .*started from another probe than a\.pth"):
        soup.check_buffers([one, other])


def test_what_a_soup_cannot_be_made_of_is_said(df, config, tmp_path):
    with pytest.raises(UserError, match="1 checkpoints in .*larger --keep-checkpoints"):
        train.run(df, copy_of(config, soup=1))
    with pytest.raises(UserError, match="no such checkpoint or folder"):
        train.run(df, copy_of(config, soup=2, soup_from=[tmp_path / "nothing.pth"]))
    with pytest.raises(UserError, match="leave out --refit"):
        train.run(df, copy_of(config, soup=2, refit=True))
    with pytest.raises(UserError, match="fold 1: 0 checkpoints"):
        train.run(df, copy_of(config, soup=2, folds=[1]))
