"""Items of annotated recordings: targets of steps follow the sound, wherever a switch moves it."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import train
from catalog.annotated import LENGTH_COLUMN, expand_windows, spans_path
from configs import Config
from dataset import WaveformDataset
from files import csv_text, write_file
from inference.out_of_fold import read_out_of_fold
from tests.small_run import tiny_config
from training.batches import build_loader

RATE = 8000
CLASSES = ["high", "low"]
HERTZ = {"high": 3000, "low": 800}
SECONDS = 5.1  # its last window is short, and repeated
CALLS = {
    "a.wav": [("low", 0.31, 0.62), ("high", 2.27, 2.61)],
    "b.wav": [("high", 1.13, 1.38), ("low", 4.18, 4.55)],
}
QUIET = {
    "max_mixed_birds": 1, "p_bird_contrast": 0.0, "p_bird_gain": 0.0, "p_contrast": 0.0,
    "p_white_noise_image": 0.0, "p_pink_noise_image": 0.0, "p_band_noise_image": 0.0,
    "p_frequency_shaping": 0.0, "label_smoothing": False,
}  # fmt: skip


@pytest.fixture
def config(tmp_path) -> Config:
    """Two prepared recordings in which a tone sounds for as long as its label says."""
    config = tiny_config(
        tmp_path, sample_rate=RATE, fmax=RATE / 2, hop_length=64, n_fft=512, period=2.0,
        annotations=tmp_path / "labels", rare_birds=[],
    )  # fmt: skip
    rng = np.random.default_rng(0)
    rows = [["filename", "start_s", "end_s", "label"]]
    time = np.arange(round(SECONDS * RATE)) / RATE
    for name, calls in CALLS.items():
        waveform = 1e-4 * rng.standard_normal(len(time))
        for label, begin, end in calls:
            tone = 0.5 * np.sin(2 * np.pi * HERTZ[label] * time)
            waveform += tone * ((time >= begin) & (time < end))
            rows.append([name, begin, end, label])
        path = config.train_np_dir / f"{name}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, waveform.astype(np.float32))
    write_file(spans_path(config), csv_text(rows))
    return config


@pytest.fixture
def table(config) -> pd.DataFrame:
    """Their rows in train.csv."""
    columns = {"primary_label": "low", "labels": "low high", "len_labels": 2, "kfold": [0, 1]}
    names = list(CALLS)
    paths = [f"{name}.npy" for name in names]
    return pd.DataFrame({"filename": names, "filepath": paths, **columns, LENGTH_COLUMN: SECONDS})


def with_calls(windows: pd.DataFrame) -> pd.DataFrame:
    """Leave out windows of noise alone, whose peak would count as sound."""
    return windows[windows["spans"].map(len) > 0]


def heard(image: torch.Tensor, n_steps: int) -> np.ndarray:
    """Find in an image (1, T, F) which tone sounds in the middle of each step: (S, C) bool."""
    plane = image[0].numpy()
    n_frames, n_bands = plane.shape
    middles = ((np.arange(n_steps) + 0.5) * n_frames / n_steps).astype(int)
    halves = {"low": plane[:, : n_bands // 2], "high": plane[:, n_bands // 2 :]}
    loud = {label: half.max(axis=1) > 0.75 for label, half in halves.items()}
    return np.stack([loud[label][middles] for label in CLASSES], axis=1)


def assert_they_follow(dataset: WaveformDataset, epochs: int = 1) -> None:
    """Steps whose middle is well inside or outside of a tone have its target."""
    n_right = n_all = 0
    for epoch in range(1, 1 + epochs):
        for index in range(len(dataset)):
            item = dataset[epoch, index]
            steps = item["targets"][1:].numpy()
            sounds = heard(item["image"], len(steps))
            n_right += int((sounds == (steps >= 0.5)).sum())
            n_all += sounds.size
    assert n_right / n_all > 0.97  # a step that a tone begins or ends in may differ


@pytest.mark.parametrize("mode", ["train", "valid"])
def test_steps_hold_what_sounds_in_them(config, table, mode):
    windows = with_calls(expand_windows(table, config))
    dataset = WaveformDataset(windows, replace(config, **QUIET), mode, CLASSES)
    assert dataset.is_timed and dataset[1, 0]["targets"].shape == (1 + 32, 2)
    assert_they_follow(dataset)


def test_steps_are_rolled_with_their_clip(config, table):
    windows = with_calls(expand_windows(table, config))
    short = windows[windows["start_s"] == 4.0]  # 1.1 s of b.wav's low tone, shorter than a clip
    dataset = WaveformDataset(short, replace(config, **QUIET, p_time_shift=1.0), "train", CLASSES)
    assert_they_follow(dataset, epochs=12)


@pytest.mark.parametrize("switch", [{"p_or_mix": 1.0}, {"max_mixed_birds": 3, "p_stop_mixing": 0}])
def test_birds_of_several_windows_are_all_in_their_steps(config, table, switch):
    windows = with_calls(expand_windows(table, config))
    settings = QUIET | {"or_mix_snr_db": (0.0, 0.0), "p_time_shift": 1.0} | switch
    dataset = WaveformDataset(windows, replace(config, **settings), "train", CLASSES)
    for index in range(len(dataset)):
        item = dataset[1, index]
        steps = item["targets"][1:].numpy()
        sounds = heard(item["image"], len(steps))
        # A sum may push a fainter tone below the peak; none sounds where no label is.
        outside = sounds & ~(steps >= 0.5)
        assert outside.mean() < 0.05


def test_mixup_of_waveforms_blends_the_targets_of_steps(config, table):
    windows = expand_windows(table, config)
    settings = replace(config, **QUIET, p_waveform_mixup=1.0)
    dataset = WaveformDataset(windows, settings, "train", CLASSES)
    plain = WaveformDataset(windows, replace(config, **QUIET), "train", CLASSES)
    for index in range(len(dataset)):
        own, partner = dataset.birds_of((1, index))
        mixed = dataset[1, index]["targets"]
        first, second = plain[1, own]["targets"], plain[1, partner]["targets"]
        lam = dataset._draw_mixing((1, index)).lam
        torch.testing.assert_close(mixed, lam * first + (1 - lam) * second)


@pytest.mark.parametrize("switch", [{"loss_name": "bce"}, {"frame_labels": "never"}])
def test_without_use_for_them_items_have_the_targets_of_clips_alone(config, table, switch):
    windows = expand_windows(table, config)
    dataset = WaveformDataset(windows, replace(config, **switch), "train", CLASSES)
    assert not dataset.is_timed and dataset[1, 0]["targets"].shape == (2,)
    timed = WaveformDataset(windows, config, "train", CLASSES)
    for index in range(3):  # what is drawn for an item does not depend on it
        item, other = dataset[1, index], timed[1, index]
        assert torch.equal(item["image"], other["image"])
        assert torch.equal(item["targets"], other["targets"][0])


def test_a_fold_trains_on_steps_and_is_scored_on_clips(config, table):
    settings = replace(config, p_cutmix=0.5, p_mixup=0.5, epochs=1, train_bs=3)
    summary = train.run(table, settings)
    assert np.isfinite(summary["folds"]["0"]["valid_loss"])

    fold = settings.fold_dir(0)
    stored = np.load(fold / "valid_predictions.npz")
    assert stored["labels"].shape == stored["scores"].shape == (3, 2)
    assert json.loads((fold / "classes.json").read_text()) == CLASSES
    assert stored["starts_s"].tolist() == [0.0, 2.0, 4.0] and set(stored["filenames"]) == {"a.wav"}
    assert read_out_of_fold(fold).starts_s.tolist() == [0.0, 2.0, 4.0]
    assert stored["labels"].tolist() == [[0, 1], [1, 0], [0, 0]]  # a.wav from 0, 2 and 4 s


def test_one_step_of_training_moves_the_frames_of_a_call_up_and_others_down(config, table):
    windows = expand_windows(table, config)
    dataset = WaveformDataset(windows, replace(config, **QUIET), "valid", CLASSES)
    loader, _ = build_loader(dataset, config, torch.device("cpu"), rank=0, world_size=1)
    batch = next(iter(loader))
    assert batch["targets"].shape[1:] == (33, 2)
    logits = torch.zeros(len(batch["targets"]), dataset.config.n_frames, 2, requires_grad=True)
    output = {"logit": torch.zeros(len(logits), 2), "framewise_logit": logits}
    train.build_loss(config, is_timed=True)(output, batch["targets"]).backward()

    middles = ((torch.arange(32) + 0.5) * logits.shape[1] / 32).long()
    gradient = logits.grad[:, middles]
    assert torch.equal(gradient < 0, batch["targets"][:, 1:] > 0.5)
    assert torch.equal(gradient > 0, batch["targets"][:, 1:] < 0.5)
