"""The switches of training items: what each does to waveforms, images and targets."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
import torch

import train
from configs import Config
from dataset import WaveformDataset
from images.clips import windows_of
from images.device_frontend import DeviceFrontend
from images.recipe import clip_image
from images.view import View
from tests.small_run import assert_same_end, run_until
from training.batches import build_loader, collate

CPU = torch.device("cpu")
RATE = 32_000
HERTZ = [500, 1000, 2000, 4000, 8000, 12_000]  # of the tone in each recording
# The seed's recipe, off as a whole.
PLAIN = {
    "max_mixed_birds": 1,
    "p_bird_contrast": 0.0,
    "p_bird_gain": 0.0,
    "p_white_noise_image": 0.0,
    "p_pink_noise_image": 0.0,
    "p_band_noise_image": 0.0,
    "p_frequency_shaping": 0.0,
    "p_contrast": 0.0,
    "label_smoothing": False,
}
SWITCHES = [
    {"p_time_shift": 1.0},
    {"p_background": 0.7},
    {"p_background": 1.0, "p_second_background": 0.7},
    {"p_waveform_mixup": 0.7},
    {"p_or_mix": 0.7},
    {"p_speed": 0.7},
    {"p_gain": 0.7, "db_reference": "full_scale"},
    {"p_low_pass": 0.7},
    {"p_equaliser": 0.7},
    {"p_filter_augment": 0.7},
    {"p_resized_crop": 0.7},
    {"p_stripes": 0.7, "time_stripe_frames": 12, "band_stripe_bands": 8},
    {"negative_share": 0.3},
    {"sampling": "balanced"},
    {"sampling": "square_root", "rating_weights": True, "clips_per_recording": 2},
    {"clip_position": "loudest"},
    {"clip_position": "active"},
    {"secondary_targets": "positive"},
    {"secondary_targets": "soft", "secondary_value": 0.8},
    {"smoothing": 0.1},
    {"no_bird_class": True, "negative_share": 0.3},
    {"p_contrast": 0.0, "p_bird_contrast": 0.0, "p_bird_gain": 0.5},
    {"p_contrast": 0.0, "p_frequency_shaping": 1.0, "normalisation": "fixed"},
    {"power": 1},
    {"compression": "pcen", "normalisation": "standard"},
    {"channels": "differences", "normalisation": "standard"},
    {"channels": "floor", "normalisation": "fixed"},
    {"image_size": (40, 24), "in_channels": 1},
]


@pytest.fixture
def config(tmp_path) -> Config:
    """Two backgrounds of noise, from which the loader's processes cut."""
    rng = np.random.default_rng(5)
    (tmp_path / "rain").mkdir()
    for name in "ab":
        sf.write(tmp_path / f"rain/{name}.wav", 0.1 * rng.standard_normal(3 * RATE), RATE)
    return Config(
        root=tmp_path, period=1.0, n_mels=40, num_workers=0, background_dir="rain", train_bs=4
    )


@pytest.fixture
def df(config) -> pd.DataFrame:
    """Six tones of three species, one clip long and longer, and a recording without a bird."""
    rows = []
    for number, hertz in enumerate([*HERTZ, 100]):
        seconds = 1 if number < 4 else 4
        label = "nocall" if hertz == 100 else "aabbbc"[number]
        time = np.arange(seconds * RATE) / RATE
        loud = np.where(time % 4 > 2.5, 1.0, 0.1) if seconds == 4 else 1.0
        waveform = (loud * 0.3 * np.sin(2 * np.pi * hertz * time)).astype(np.float32)
        path = config.train_np_dir / f"{label}/{number}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, waveform)
        labels = {"nocall": ""}.get(label, label + " c" * (number == 0))
        rows.append({"primary_label": label, "labels": labels, "kfold": 0, "rating": number,
                     "filepath": f"{label}/{number}.npy"})  # fmt: skip
    return pd.DataFrame(rows)


def changed(config: Config, *changes: dict) -> Config:
    settings = config.to_dict()
    for change in changes:
        settings |= change
    return Config(**settings)


def waveforms_of(df: pd.DataFrame, config: Config, keys: list) -> list[np.ndarray]:
    """The waveforms that items are made of, each with a peak of 1."""
    dataset = WaveformDataset(df, replace(config, frontend="device"), "train")
    found = (dataset[key]["waveforms"][0].numpy() for key in keys)
    return [waveform / np.abs(waveform).max() for waveform in found]


def power_at(waveform: np.ndarray, hertz: int) -> float:
    return float(np.abs(np.fft.rfft(waveform.astype(np.float64))[hertz]) ** 2)


# Every switch


@pytest.mark.parametrize("changes", SWITCHES, ids=str)
def test_items_follow_from_seed_epoch_and_index_alone(df, config, changes):
    config = changed(config, changes)
    first, second = (WaveformDataset(df, config, "train") for _ in range(2))
    for index in (3, len(first) - 1, 0):  # in another order than the next time
        first[2, index]
    for index in range(len(second)):
        one, other = first[2, index], second[2, index]
        assert torch.equal(one["image"], other["image"])
        assert one["targets"].tolist() == other["targets"].tolist()
        assert one["image"].isfinite().all()


@pytest.mark.parametrize("changes", SWITCHES, ids=str)
def test_the_device_makes_the_same_images(df, config, changes):
    config = changed(config, changes)
    here = WaveformDataset(df, config, "train")
    there = WaveformDataset(df, replace(config, frontend="device"), "train")
    items = [there[1, index] for index in range(len(there))]
    made = DeviceFrontend(config, there.pink, CPU)(collate(items))

    for index in range(len(here)):
        expected = here[1, index]
        scale = max(1.0, expected["image"].abs().max().item())
        np.testing.assert_allclose(made[index], expected["image"], atol=2e-3 * scale, rtol=0)
        assert expected["targets"].tolist() == items[index]["targets"].tolist()


@pytest.mark.parametrize("changes", SWITCHES, ids=str)
def test_each_changes_training_and_leaves_validation_what_it_is(df, config, changes):
    config = replace(config, **PLAIN)
    plain, switched = (
        WaveformDataset(df, changed(config, change), "train") for change in ({}, changes)
    )
    items = [switched[1, index] for index in range(len(switched))]
    before = [plain[1, index] for index in range(len(plain))]
    is_same = len(items) == len(before) and all(
        torch.equal(one[name], other[name])
        for one, other in zip(items, before, strict=False)
        for name in ("image", "targets")
        if one[name].shape == other[name].shape
    )
    assert not is_same or items[0]["image"].shape != before[0]["image"].shape

    ours, theirs = (WaveformDataset(df, one.config, "valid") for one in (plain, switched))
    for index in range(len(ours)):
        image = clip_image(np.load(ours.path(index)), View(switched.config))
        assert np.array_equal(theirs[index]["image"][: len(image)].numpy(), image)
        assert torch.equal(ours[index]["targets"], theirs[index]["targets"][:3])


def test_workers_make_the_same_batches(df, config):
    everything: dict = {}
    for switch in SWITCHES[:16]:
        everything |= switch

    def batches(num_workers: int) -> list[dict[str, torch.Tensor]]:
        settings = changed(config, everything, {"num_workers": num_workers})
        loader, sampler = build_loader(WaveformDataset(df, settings, "train"), settings, CPU)
        found = []
        for epoch in (1, 2):
            sampler.set_position(epoch)
            found += list(loader)
        return found

    for ours, theirs in zip(batches(0), batches(2), strict=True):
        assert torch.equal(ours["image"], theirs["image"])
        assert torch.equal(ours["targets"], theirs["targets"])


# The recipe and its parts


def test_with_the_recipe_off_a_training_image_is_that_of_validation(df, config):
    config = replace(config, **PLAIN)
    train, valid = (WaveformDataset(df, config, mode) for mode in ("train", "valid"))
    for index in range(4):  # recordings of one clip, which are not cut
        made, expected = train[1, index], valid[index]
        np.testing.assert_allclose(made["image"], expected["image"], atol=1e-4)
        assert torch.equal(made["targets"], expected["targets"])


@pytest.mark.parametrize("part", [name for name in PLAIN if name != "label_smoothing"])
def test_each_part_of_the_recipe_can_be_left_out_alone(df, config, part):
    config = replace(config, p_stop_mixing=0.0)
    whole, without = (
        WaveformDataset(df, changed(config, change), "train")
        for change in ({}, {part: PLAIN[part]})
    )
    pairs = [(whole[epoch, 0]["image"], without[epoch, 0]["image"]) for epoch in range(6)]
    assert not all(torch.equal(one, other) for one, other in pairs)
    if part.startswith("p_"):  # what is certain draws nothing: the other parts stay as they were
        draws = [
            WaveformDataset(df, replace(one.config, frontend="device"), "train")[1, 0]
            for one in (whole, without)
        ]
        assert torch.equal(draws[0]["waveforms"], draws[1]["waveforms"])


def test_contrast_gain_and_bird_contrast_by_their_draws(df, config):
    config = replace(config, frontend="device", max_mixed_birds=1)

    def draws(**changes) -> tuple[torch.Tensor, torch.Tensor]:
        dataset = WaveformDataset(df, replace(config, **changes), "train")
        items = [dataset[epoch, 0] for epoch in range(200)]
        birds = torch.cat([item["bird_draws"] for item in items])
        return birds, torch.stack([item["draws"] for item in items])[:, 11]

    birds, contrast = draws(p_bird_contrast=0.0, p_bird_gain=0.0, p_contrast=0.0)
    assert not contrast.any() and not birds[:, 0].any() and (birds[:, 1] == 1).all()
    birds, contrast = draws(p_bird_contrast=0.5, p_bird_gain=0.25, p_contrast=0.75)
    assert (birds[:, 0] == 0).float().mean().item() == pytest.approx(0.5, abs=0.1)
    assert (birds[:, 1] == 1).float().mean().item() == pytest.approx(0.75, abs=0.1)
    assert (contrast == 0).float().mean().item() == pytest.approx(0.25, abs=0.1)
    birds, _ = draws(p_bird_gain=0.0, p_gain=1.0, gain_db=(-12.0, 6.0))
    gain_db = 10 * birds[:, 1].log10()
    assert -12 <= gain_db.min() < -11.5 and 5.5 < gain_db.max() <= 6


def test_a_gain_is_seen_where_full_scale_is_the_reference(df, config):
    config = changed(
        config, PLAIN, {"db_reference": "full_scale", "normalisation": "fixed", "top_db": 100.0}
    )
    louder = changed(config, {"p_gain": 1.0, "gain_db": (-10.0, -10.0)})
    before, after = (WaveformDataset(df, one, "train")[1, 0]["image"] for one in (config, louder))
    np.testing.assert_allclose(after, (before - 10 / 100).clamp(min=0), atol=1e-4)


# Mixing of waveforms


def test_mixup_weighs_waveforms_of_one_peak_and_their_targets(df, config):
    config = changed(config, PLAIN, {"p_waveform_mixup": 1.0, "waveform_mixup_alpha": 1.0})
    dataset = WaveformDataset(df, config, "train")
    lams = []
    for epoch in range(1, 150):
        own, partner = dataset.birds_of((epoch, 0))
        (waveform,) = waveforms_of(df, config, [(epoch, 0)])
        if own == partner or partner > 3:
            continue
        amplitudes = [math.sqrt(power_at(waveform, HERTZ[bird])) for bird in (own, partner)]
        lam = amplitudes[0] / sum(amplitudes)
        expected = lam * dataset.targets_of([own]) + (1 - lam) * dataset.targets_of([partner])
        np.testing.assert_allclose(dataset[epoch, 0]["targets"], expected, atol=1e-3)
        lams.append(lam)
    assert len(lams) > 40  # uniform for alpha 1: mean 1/2, variance 1/12
    assert np.mean(lams) == pytest.approx(0.5, abs=0.15)
    assert np.var(lams) == pytest.approx(1 / 12, abs=0.04)


def test_or_mixing_adds_at_an_snr_and_takes_the_birds_of_both(df, config):
    config = changed(config, PLAIN, {"p_or_mix": 1.0, "or_mix_snr_db": (-3.0, 6.0)})
    dataset = WaveformDataset(df, config, "train")
    snrs = []
    for epoch in range(1, 150):
        own, partner = dataset.birds_of((epoch, 1))
        expected = np.maximum(dataset.targets_of([own]), dataset.targets_of([partner]))
        assert dataset[epoch, 1]["targets"].tolist() == expected.tolist()
        if own == partner or partner > 3:
            continue
        (waveform,) = waveforms_of(df, config, [(epoch, 1)])
        powers = [power_at(waveform, HERTZ[bird]) for bird in (own, partner)]
        snrs.append(10 * math.log10(powers[0] / powers[1]))
    assert len(snrs) > 40 and -3.01 < min(snrs) < -2 and 5 < max(snrs) < 6.01


def test_mixing_happens_as_often_as_asked_and_not_twice(df, config):
    config = replace(config, p_waveform_mixup=0.4, p_or_mix=0.5, p_stop_mixing=0.0)
    dataset = WaveformDataset(df, config, "train")
    kinds = []
    for epoch in range(600):
        mixing = dataset._draw_mixing((epoch, 0))
        kinds.append("" if mixing is None else "or" if math.isnan(mixing.lam) else "mixup")
        assert len(dataset.birds_of((epoch, 0))) == (3 if mixing is None else 2)
    assert kinds.count("mixup") / 600 == pytest.approx(0.4, abs=0.06)
    assert kinds.count("or") / 600 == pytest.approx(0.6 * 0.5, abs=0.06)


# Choice of clips


def test_several_clips_a_recording_in_an_epoch(df, config):
    config = changed(config, PLAIN, {"clips_per_recording": 3})
    dataset = WaveformDataset(df, config, "train")
    rows = [dataset.birds_of((1, index))[0] for index in range(len(dataset))]
    assert len(dataset) == 21 and np.bincount(rows).tolist() == [3] * 7
    first, second = (index for index, row in enumerate(rows) if row == 5 and index < 14)
    assert not torch.equal(dataset[1, first]["image"], dataset[1, second]["image"])


def test_balanced_epochs_show_every_species_alike_and_rows_in_turn(df, config):
    config = changed(config, PLAIN, {"sampling": "balanced", "clips_per_recording": 4})
    dataset = WaveformDataset(df, config, "train")
    labels = df["primary_label"].to_numpy()
    orders = []
    for epoch in (1, 2):
        rows = [dataset.birds_of((epoch, index))[0] for index in range(len(dataset))]
        counts = pd.Series(labels[rows]).value_counts()
        assert counts.to_dict() == pytest.approx({"a": 7, "b": 7, "c": 7, "nocall": 7}, abs=1)
        orders.append(rows)
    assert orders[0] != orders[1]


def test_the_loudest_part_is_taken(df, config):
    config = changed(config, PLAIN, {"clip_position": "loudest"})
    (waveform,) = waveforms_of(df, config, [(1, 5)])
    spread = np.abs(waveform).reshape(10, -1).max(axis=1)
    assert spread.min() > 0.9  # loud from 2.5 to 4 s, quiet before


def test_backgrounds_alone_are_a_share_of_the_epoch(df, config):
    config = changed(config, PLAIN, {"negative_share": 0.5, "no_bird_class": True})
    dataset = WaveformDataset(df, config, "train")
    assert len(dataset) == 14
    for epoch in (1, 2):
        shown = [dataset.birds_of((epoch, index)) for index in range(14)]
        assert [birds[0] for birds in shown[:7]] == list(range(7))
        extra = [birds[0] for birds in shown[7:]]
        assert set(extra) == {7, 8} and abs(extra.count(7) - extra.count(8)) == 1
    assert dataset[1, 13]["targets"].tolist() == [0, 0, 0, 1]
    assert dataset[1, 6]["targets"].tolist() == [0, 0, 0, 1]  # the row without a bird
    assert dataset[1, 0]["targets"].tolist() == pytest.approx([1, 0, 0.3, 0])
    assert dataset.filename(7) == "a.wav"


def test_negatives_are_not_summed_with_birds(df, config):
    config = replace(config, negative_share=0.5, p_stop_mixing=0.0)
    dataset = WaveformDataset(df, config, "train")
    for index in (6, *range(7, 14)):
        assert len(dataset.birds_of((1, index))) == 1
        assert dataset[1, index]["targets"].max() < 0.003
    assert len(dataset.birds_of((1, 0))) == 3


def test_masked_secondary_birds_are_nan_in_training_alone(df, config):
    config = changed(config, PLAIN, {"secondary_targets": "masked"})
    dataset = WaveformDataset(df, config, "train")
    targets = dataset[1, 0]["targets"]
    assert targets[:2].tolist() == [1, 0] and targets[2].isnan() and dataset.has_masks
    assert WaveformDataset(df, config, "valid")[0]["targets"].isfinite().all()


# Several clips of a recording in validation


def test_windows_are_whole_clips_and_a_rest_of_a_second(config):
    config = replace(config, period=5.0, valid_clips=4)
    seconds = np.array([0.2, 5.0, 5.9, 6.0, 6.1, 11.5, 16.0, 60.0])
    lengths = (seconds * RATE).astype(int)
    assert windows_of(lengths, config).tolist() == [1, 1, 1, 1, 2, 3, 3, 4]


def test_a_recording_is_validated_by_several_clips_and_their_average(df, config):
    config = changed(config, PLAIN, {"valid_clips": 3})
    dataset = WaveformDataset(df, config, "valid")
    assert len(dataset) == 4 + 3 * 3 and dataset.n_rows == len(dataset.filenames()) == 7
    shown = [dataset.birds_of(index)[0] for index in range(len(dataset))]
    assert shown == [0, 1, 2, 3, 4, 4, 4, 5, 5, 5, 6, 6, 6]
    recording = np.load(dataset.path(5))
    expected = clip_image(recording[2 * RATE :], View(config))
    np.testing.assert_array_equal(dataset[9]["image"][:1], expected)

    scores = np.arange(len(dataset), dtype=np.float32)[:, None] * np.float32([1, 10])
    mean = dataset.average_windows(scores)
    assert mean.dtype == np.float32 and mean[3:6, 0].tolist() == [3.0, 5.0, 8.0]
    one_each = WaveformDataset(df, replace(config, valid_clips=1), "valid")
    assert one_each.average_windows(scores) is scores


# A whole training


@pytest.mark.parametrize("frontend", ["cpu", "device"])
def test_a_run_with_all_switches_that_is_stopped_goes_on_exactly(df, config, monkeypatch, frontend):
    everything: dict = {}
    for switch in SWITCHES[:16]:
        everything |= switch
    small = {"base_model_name": "test_efficientnet", "pretrained": False, "device": "cpu"}
    run = {"epochs": 2, "folds": [0], "ema_decay": 0.9, "checkpoint_every_steps": 1}
    view = {"channels": "differences", "image_size": [40, 32], "normalisation": "standard"}
    unbroken = changed(config, everything, small, run, view, {"frontend": frontend})
    df = df.assign(kfold=[0, 1, 0, 1, 0, 1, 1])

    train.run(df, unbroken)
    broken = replace(unbroken, models_dir="broken")
    run_until(df, broken, monkeypatch, step=3)
    train.run(df, broken)
    assert_same_end(unbroken, broken)


def test_an_empty_window_has_a_second_background_under_it(df, config):
    config = changed(config, PLAIN, {"negative_share": 0.5, "p_background": 1.0})
    with_second = waveforms_of(df, config, [(1, 12)])[0]
    without = waveforms_of(df, replace(config, p_background=0.0), [(1, 12)])[0]
    assert not np.array_equal(with_second, without)
    correlation = np.corrcoef(with_second, without)[0, 1]
    assert 0.5 < correlation < 0.99  # the same place of the same recording, and another


@pytest.mark.parametrize(
    "changes",
    [
        {"secondary_targets": "masked", "p_waveform_mixup": 0.5},
        {"no_bird_class": True, "negative_share": 0.3},
        {"valid_clips": 3, "in_channels": 1},
    ],
    ids=str,
)
def test_training_takes_masked_targets_a_class_for_no_bird_and_several_windows(df, config, changes):
    small = {"base_model_name": "test_efficientnet", "pretrained": False, "device": "cpu"}
    config = changed(config, small, changes, {"epochs": 1, "folds": [0]})
    df = df.assign(kfold=[0, 1, 0, 1, 0, 1, 1])
    train.run(df, config)

    history = pd.read_csv(config.fold_dir(0) / "history.csv")
    assert np.isfinite(history[["train_loss", "valid_loss"]].to_numpy()).all()
    with np.load(config.fold_dir(0) / "valid_predictions.npz") as found:
        assert found["scores"].shape == found["labels"].shape == (3, 3)  # a row a recording
        assert found["labels"].tolist() == [[1, 0, 0], [0, 1, 0], [0, 1, 0]]
