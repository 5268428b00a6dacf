"""Pseudo-labelled windows in training: which items show them, with which targets, and resuming."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import checkpoint as ckpt
import train
from catalog.pseudo_labels import PSEUDO_COLUMNS, read_rows, write_pseudo_labels
from configs import Config, UserError
from dataset import WaveformDataset
from tests.small_run import assert_same_end, copy_of, run_until
from training.refit import refit_folder
from training.resuming import split_digest

N_WINDOWS = 6


@pytest.fixture
def pseudo(config) -> Config:
    """A small run with six windows of two soundscapes, the last two of them empty."""
    rng, rows = np.random.default_rng(4), []
    for number in range(2):
        path = config.root / f"pseudo/np/dawn_{number}.wav.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, (0.1 * rng.standard_normal(3 * 32_000)).astype(np.float32))
    for number in range(N_WINDOWS):
        name, start_s = f"dawn_{number % 2}.wav", float(number // 2)
        labels, scores = (("bird1", "bird2"), (0.75, 0.5)) if number < 4 else ((), ())
        rows.append((name, f"np/{name}.npy", start_s, start_s + 1, labels, scores,
                     (0,) * len(labels), sum(scores)))  # fmt: skip
    write_pseudo_labels(config.root / "pseudo/one.csv", pd.DataFrame(rows, columns=PSEUDO_COLUMNS))
    return replace(config, pseudo_labels=config.root / "pseudo/one.csv", label_smoothing=False)


def items(df: pd.DataFrame, config: Config, epoch: int = 1) -> list[dict[str, torch.Tensor]]:
    dataset = WaveformDataset(df, config, "train")
    return [dataset[epoch, index] for index in range(len(dataset))]


def shown(df: pd.DataFrame, config: Config, epochs: int = 20) -> np.ndarray:
    """The own row of each item of some epochs."""
    dataset = WaveformDataset(df, config, "train")
    keys = [(epoch, index) for epoch in range(epochs) for index in range(len(dataset))]
    return np.array([dataset.birds_of(key)[0] for key in keys])


def same_items(first, second) -> bool:
    pairs = zip(first, second, strict=True)
    return all(torch.equal(one[name], other[name]) for one, other in pairs for name in one)


def test_without_a_share_every_item_is_what_it_was(df, config, pseudo):
    plain = replace(config, label_smoothing=False)
    few = df.head(5)
    assert same_items(items(few, plain), items(few, replace(pseudo, pseudo_share=0.0)))


def test_windows_take_the_place_of_a_share_of_the_clips(df, pseudo):
    rows = shown(df, replace(pseudo, pseudo_share=0.3, pseudo_empty=0.25))
    is_window = rows >= len(df)
    assert is_window.mean() == pytest.approx(0.3, abs=0.08)
    assert np.mean(rows[is_window] >= len(df) + 4) == pytest.approx(0.25, abs=0.12)
    clips = np.tile(np.arange(len(df)), 20)
    assert (rows[~is_window] == clips[~is_window]).all()  # the others are where they were


def test_a_window_that_refutes_a_species_asks_nothing_of_the_others(df, pseudo):
    """Windows 4 and 5 say that bird1 is absent; a "no" is drawn by its weight, as labels are."""
    table = read_rows(pseudo.pseudo_labels)
    said = [()] * 4 + [("bird1",)] * 2
    write_pseudo_labels(pseudo.pseudo_labels, table.assign(refuted=said, weight=1.0))
    config = replace(pseudo, pseudo_share=1.0, max_mixed_birds=1)
    dataset = WaveformDataset(df, config, "train")
    assert dataset.has_masks and not WaveformDataset(df, pseudo, "valid").has_masks

    own, n_refuting = dataset.class_names.index("bird1"), 0
    for index in range(len(dataset)):
        (bird,) = dataset.birds_of((1, index))
        is_known = ~dataset[1, index]["targets"].isnan()
        if bird >= len(df) + 4:
            assert is_known.nonzero().flatten().tolist() == [own]
            n_refuting += 1
        else:
            assert is_known.all()
    assert n_refuting > 0


def test_a_window_brings_its_sound_and_its_scores(df, pseudo):
    config = replace(pseudo, pseudo_share=1.0, max_mixed_birds=1, pseudo_power=2.0)
    dataset = WaveformDataset(df, config, "train")
    for index in range(5):
        (bird,) = dataset.birds_of((1, index))
        window = bird - len(df)
        array = np.load(config.root / f"pseudo/np/dawn_{window % 2}.wav.npy")
        expected = array[window // 2 * 32_000 :][:32_000]
        np.testing.assert_array_equal(dataset._waveforms.open(bird), expected)
        targets = dataset[1, index]["targets"].numpy()
        np.testing.assert_allclose(targets, [0, 0.75**2, 0.25], atol=1e-6)


def test_a_labelled_clip_is_mixed_up_with_a_window(df, pseudo):
    config = replace(pseudo, pseudo_share=0.0, p_pseudo_mixup=1.0)
    dataset = WaveformDataset(df, config, "train")
    for index in range(6):
        own, partner = dataset.birds_of((2, index))
        assert own == index and partner >= len(df)
        lam = dataset._draw_mixing((2, index)).lam
        of_own, of_window = dataset.targets_of([own]), np.array([0, 0.75, 0.5])
        expected = lam * of_own + (1 - lam) * of_window
        np.testing.assert_allclose(dataset[2, index]["targets"].numpy(), expected, atol=1e-6)


def test_validation_knows_nothing_of_them(df, pseudo, config):
    one, other = (WaveformDataset(df, which, "valid") for which in (pseudo, config))
    assert len(one) == len(other) == len(df)
    capped = WaveformDataset(df, replace(pseudo, label_cap=0.1), "valid")
    assert torch.equal(capped[0]["targets"], other[0]["targets"])


# Runs ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_stopped_run_ends_as_an_unbroken_one(df, pseudo, monkeypatch):
    settings = {"p_pseudo_mixup": 0.3, "ema_decay": 0.9, "pseudo_cap": 0.75, "label_cap": 0.9}
    config = replace(pseudo, checkpoint_every_steps=1, **settings)
    train.run(df, config)
    broken = copy_of(config, models_dir=config.root / "other")
    run_until(df, broken, monkeypatch, step=4)
    train.run(df, broken)
    assert_same_end(config, broken)

    table = config.pseudo_labels
    table.write_text(table.read_text().replace("0.7500", "0.8500"))
    with pytest.raises(ckpt.CheckpointError, match="pseudo_labels"):
        train.run(df, copy_of(broken, epochs=3))


@pytest.mark.slow
def test_a_refit_trains_on_all_recordings_and_on_windows(df, pseudo):
    config = replace(pseudo, epochs=1)
    train.run(df, config)
    losses, splits = [], []
    for labels in (pseudo.pseudo_labels, None):
        refit = copy_of(config, refit=True, pseudo_labels=labels)
        train.run(df, refit)
        state = ckpt.read_checkpoint(refit_folder(config) / "last.pth")
        splits.append(state["split"])
        losses.append(state["history"][-1]["train_loss"])
        assert (
            f"fold 0: {len(df)} recordings to train, 0 to validate"
            in (refit_folder(config) / "train.log").read_text()
        )
        refit_folder(config).rename(config.root / f"refit_{labels is None}")
    assert splits[0] == split_digest(df, df.iloc[:0], pseudo.pseudo_labels) != splits[1]
    assert losses[0] != losses[1]  # the same recordings, and windows in the place of some


def test_a_soundscape_that_is_a_recording_of_the_table_is_refused(df, pseudo):
    copied = np.load(pseudo.root / "pseudo/np/dawn_1.wav.npy")
    np.save(pseudo.train_np_dir / df["filepath"][0], copied)
    with pytest.raises(
        UserError, match="dawn_1.wav is bird0/0.ogg of .*must not be pseudo-labelled"
    ):
        train.run(df, pseudo)


def test_a_missing_array_is_named(df, pseudo):
    (pseudo.root / "pseudo/np/dawn_1.wav.npy").unlink()
    with pytest.raises(UserError, match="dawn_1.wav.npy.*run pseudo_label.py again"):
        train.run(df, pseudo)


def test_soundscapes_of_another_rate_are_refused(df, pseudo):
    pseudo.pseudo_labels.with_suffix(".json").write_text('{"sample_rate": 16000}')
    with pytest.raises(UserError, match="prepared at 16000 Hz"):
        train.run(df, pseudo)


def test_empty_windows_lie_under_clips(df, pseudo):
    config = replace(pseudo, pseudo_share=0.0, p_background=1.0, pseudo_background=1.0)
    waveforms = WaveformDataset(df, config, "train")._waveforms
    rng = np.random.default_rng(6)
    drawn = {waveforms._draw_background(rng) - waveforms.first_window for _ in range(40)}
    assert drawn == {4, 5}  # the windows in which nothing was found
