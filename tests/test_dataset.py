"""Items, targets, orders and the table: what the model is given, recomputed another way."""

import logging
import pickle

import librosa
import numpy as np
import pandas as pd
import pytest
import torch

import dataset as data
from configs import Config, UserError
from images.contact_sheet import describe_targets
from images.recipe import draw_steps
from training.batches import EpochSampler, build_loader

CPU = torch.device("cpu")
LABELS = ["NA", "22961", "zebra"]


@pytest.fixture
def config(tmp_path):
    return Config(root=tmp_path, n_mels=64, period=2.0, train_bs=2, num_workers=0)


@pytest.fixture
def df(config, rng):
    """Nine recordings of three species; lengths from half a clip to three; one int16."""
    rows = []
    for number in range(9):
        label = LABELS[number % 3]
        n_samples = [32_000, 96_000, 192_000][number // 3]
        tone = np.sin(2 * np.pi * (500 + 700 * number) * np.arange(n_samples) / 32_000)
        waveform = (0.5 * tone + 0.01 * rng.standard_normal(n_samples)).astype(np.float32)
        path = config.train_np_dir / label / f"XC{number}.ogg.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.round(waveform * 32767).astype(np.int16) if number == 8 else waveform)
        background = {1: ["zebra"], 2: ["NA", "elsewhere"]}.get(number, [])
        rows.append({"primary_label": label, "labels": " ".join([label, *background]),
                     "filepath": f"{label}/XC{number}.ogg.npy", "kfold": number // 3})  # fmt: skip
    return pd.DataFrame(rows)


def off(config, **changes):
    """Switch every augmentation of the image off."""
    for name in (
        "p_white_noise_image",
        "p_pink_noise_image",
        "p_band_noise_image",
        "p_frequency_shaping",
    ):
        setattr(config, name, 0.0)
    for name, value in changes.items():
        setattr(config, name, value)
    return config


# Windows of recordings whose labels have a time ------------------------------------------------


def test_a_window_is_the_clip_at_its_start_with_all_its_birds_as_primary(config, df):
    path = config.train_np_dir / df["filepath"][6]
    samples = np.load(path)
    np.save(path.with_name("cut.npy"), samples[64_000:128_000])
    row = {"kfold": 0, "labels": "NA zebra", "primary_label": "NA"}
    window = pd.DataFrame([{**row, "filepath": df["filepath"][6], "start_s": 2.0}])
    cut = pd.DataFrame([{**row, "filepath": "NA/cut.npy"}])

    found = data.WaveformDataset(window, config, "valid", LABELS)[0]
    assert torch.equal(
        found["image"], data.WaveformDataset(cut, config, "valid", LABELS)[0]["image"]
    )
    assert found["targets"].tolist() == [1.0, 0.0, 1.0]  # without times: of the clip alone
    train = data.WaveformDataset(window, off(config, max_mixed_birds=1), "train", LABELS)
    of_cut = data.WaveformDataset(cut, config, "train", LABELS)
    assert torch.equal(train[1, 0]["image"], of_cut[1, 0]["image"])
    assert train[1, 0]["targets"].tolist() == pytest.approx([0.995, 0.0025, 0.995])


def test_a_window_without_a_bird_has_none_in_its_targets(config, df):
    row = {"kfold": 0, "labels": "", "primary_label": "nocall", "filepath": df["filepath"][6]}
    window = pd.DataFrame([{**row, "start_s": 0.0}])
    assert data.WaveformDataset(window, config, "valid", LABELS)[0]["targets"].tolist() == [0, 0, 0]


# Items --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["train", "valid"])
def test_an_item_is_an_image_with_time_on_axis_1_and_targets(df, config, mode):
    item = data.WaveformDataset(df, config, mode)[1, 4]
    assert item["image"].shape == (3, config.n_frames, config.n_mels) == (3, 126, 64)
    assert item["image"].dtype == item["targets"].dtype == torch.float32
    assert (item["image"].min(), item["image"].max()) == (0.0, 1.0)
    assert torch.equal(item["image"][0], item["image"][2])
    assert item["targets"].shape == (3,)


def test_a_validation_image_is_librosas_log_mel_of_the_first_seconds(df, config):
    item = data.WaveformDataset(df, config, "valid")[7]
    waveform = np.load(config.train_np_dir / df["filepath"][7])[: config.n_samples]
    mel = librosa.feature.melspectrogram(
        y=waveform / np.abs(waveform).max(),
        sr=32_000,
        n_fft=2048,
        hop_length=512,
        n_mels=64,
        fmin=20,
        fmax=16_000,
    )
    decibels = librosa.power_to_db(mel, ref=np.max, top_db=80.0)  # [-80, 0]
    image = (decibels + 80) / 80
    image = (image - image.min()) / (image.max() - image.min())
    assert item["image"][0].numpy() == pytest.approx(image.T, abs=1e-3 / 80)


def test_validation_never_draws_and_a_short_recording_is_repeated(df, config):
    dataset = data.WaveformDataset(df, config, "valid")
    assert torch.equal(dataset[1, 0]["image"], dataset[2, 0]["image"])
    # Recording 0 lasts half a clip and its tone has whole periods: the two halves of the image are
    # alike.
    image = dataset[0]["image"][0]
    assert torch.allclose(image[10:50], image[73:113], atol=0.1)


def test_a_training_image_is_the_linear_sum_of_its_birds(df, config):
    """Every draw is made again from (seed, epoch, index), every number with librosa."""
    dataset = data.WaveformDataset(df, off(config, p_stop_mixing=0.0), "train")
    rng = np.random.default_rng((config.seed, 3, 5))
    birds = [5]
    while len(birds) < 3:
        rng.random()
        birds.append(int(rng.integers(9)))
    assert dataset.birds_of((3, 5)) == birds
    powers = []
    for bird in birds:
        recording = np.load(config.train_np_dir / df["filepath"][bird]).astype(np.float64)
        start = (
            rng.integers(len(recording) - 64_000, endpoint=True) if len(recording) > 64_000 else 0
        )
        clip = recording[start : start + 64_000]
        clip = np.tile(clip, 64_000 // len(clip))
        mel = librosa.feature.melspectrogram(
            y=(clip / np.abs(clip).max()).astype(np.float32),
            sr=32_000, n_fft=2048, hop_length=512, n_mels=64, fmin=20, fmax=16_000,
        )  # fmt: skip
        powers.append((mel - mel.min()) / (mel.max() - mel.min()))
    power = sum(unit ** (rng.random() * 3 + 0.5) * rng.uniform(1, 101) for unit in powers)
    decibels = librosa.power_to_db(power, ref=np.max, top_db=80.0)
    unit = (decibels + 80) / 80
    contrast = draw_steps(config, 32, rng).contrast
    image = ((unit - unit.min()) / (unit.max() - unit.min())) ** contrast
    image = (image - image.min()) / (image.max() - image.min())
    assert dataset[3, 5]["image"][0].numpy() == pytest.approx(image.T, abs=2e-4)


def test_mixing_stops_with_the_given_chance(df, config):
    dataset = data.WaveformDataset(df, config, "train")
    counts = np.bincount([len(dataset.birds_of((epoch, 0))) for epoch in range(2000)], minlength=4)
    # 0.3 stop after the first, 0.7 * 0.3 after the second; three standard deviations are 0.031
    assert counts[1:] / 2000 == pytest.approx([0.3, 0.21, 0.49], abs=0.035)


def test_the_same_item_for_any_worker_another_for_each_epoch_and_index(df, config):
    dataset = data.WaveformDataset(df, config, "train")
    first = dataset[1, 7]["image"]
    assert torch.equal(first, dataset[1, 7]["image"])
    assert torch.equal(first, data.WaveformDataset(df, config, "train")[1, 7]["image"])
    assert not torch.equal(first, dataset[2, 7]["image"])
    assert not torch.equal(first, dataset[1, 6]["image"])
    assert not torch.equal(
        first, data.WaveformDataset(df, off(config, seed=9), "train")[1, 7]["image"]
    )


def test_global_generators_play_no_part(df, config):
    dataset = data.WaveformDataset(df, config, "train")
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = dataset[1, 3]["image"]
    assert torch.equal(state, torch.get_rng_state())
    np.random.seed(3)  # noqa: NPY002 - must not matter
    assert torch.equal(first, dataset[1, 3]["image"])


def test_every_waveform_augmentation_is_reachable_and_keeps_the_item_exact(df, config):
    plain = data.WaveformDataset(df, config, "train")[1, 7]["image"]
    for name in (
        "noise_injection",
        "gaussian_noise",
        "pink_noise",
        "time_stretch",
        "random_volume",
        "cosine_volume",
    ):
        changed = Config(**{**config.to_dict(), f"p_{name}": 1.0})
        dataset = data.WaveformDataset(df, changed, "train")
        item = dataset[1, 7]["image"]
        assert item.shape == plain.shape and not torch.equal(item, plain), name
        assert torch.equal(item, dataset[1, 7]["image"]), name
        valid = data.WaveformDataset(df, changed, "valid")[7]["image"]
        assert torch.equal(valid, data.WaveformDataset(df, config, "valid")[7]["image"]), name


@pytest.mark.parametrize(
    "samples", [np.zeros(100_000, np.float32), np.full(100_000, 0.3, np.float32)]
)
@pytest.mark.parametrize("mode", ["train", "valid"])
def test_silent_and_constant_recordings_make_no_nan(df, config, samples, mode):
    for path in df["filepath"]:
        np.save(config.train_np_dir / path, samples)
    image = data.WaveformDataset(df, config, mode)[1, 2]["image"]
    assert image.isfinite().all()
    if not samples.any():
        assert image.max() == 0.0


# Targets ------------------------------------------------------------------------------------------


def test_targets_smoothed_and_hard(df, config):
    dataset = data.WaveformDataset(df, config, "train")
    assert dataset.class_names == ["22961", "NA", "zebra"]
    assert dataset.targets_of([0]).tolist() == pytest.approx([0.0025, 0.995, 0.0025])
    assert dataset.targets_of([1]).tolist() == pytest.approx([0.995, 0.0025, 0.3])
    assert dataset.targets_of([1, 2]).tolist() == pytest.approx([0.995, 0.3, 0.995])  # primary wins
    assert dataset.targets_of([2, 1]).tolist() == pytest.approx([0.995, 0.3, 0.995])
    for hard in (
        data.WaveformDataset(df, off(config, label_smoothing=False), "train"),
        data.WaveformDataset(df, off(config, label_smoothing=True), "valid"),
    ):
        assert hard.targets_of([2, 3]).tolist() == pytest.approx([0.0, 1.0, 1.0])
        assert hard.targets_of([1]).tolist() == pytest.approx([1.0, 0.0, 0.3])


def test_labels_outside_the_classes_are_counted_and_unknown_primary_refused(df, config, caplog):
    with caplog.at_level(logging.INFO):
        data.WaveformDataset(df, config, "train")
    assert "1 background labels of 1 species outside the classes are ignored" in caplog.messages
    with pytest.raises(UserError, match="primary_label zebra is not among the 2 classes"):
        data.WaveformDataset(df, config, "train", class_names=["22961", "NA"])


def test_the_callers_table_is_left_alone(df, config):
    before = df.copy(deep=True)
    dataset = data.WaveformDataset(df, config, "train")
    _ = dataset[1, 0]
    data.check_table(df)
    data.split_fold(df, 0, ["zebra"])
    pd.testing.assert_frame_equal(df, before)


# Cost ---------------------------------------------------------------------------------------------


def test_construction_makes_no_noise_and_opens_no_file(df, config, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("work at construction")

    monkeypatch.setattr(data, "open_recording", refuse)
    monkeypatch.setattr("images.noise.PinkNoiseImages.log_mel", refuse)
    dataset = data.WaveformDataset(df, config, "train")
    with pytest.raises(AssertionError, match="work at construction"):
        _ = dataset[1, 0]


def test_a_row_costs_bytes_not_objects(df, config):
    small = data.WaveformDataset(df, config, "train")
    many = data.WaveformDataset(pd.concat([df] * 1000, ignore_index=True), config, "train")
    per_row = (len(pickle.dumps(many)) - len(pickle.dumps(small))) / (9000 - 9)
    assert per_row < 64
    assert not any(isinstance(value, list) and len(value) > 3 for value in vars(many).values())


# Order and loader ---------------------------------------------------------------------------------


def test_each_epoch_shows_every_row_once_in_another_order():
    sampler = EpochSampler(10, 4, seed=8, shuffle=True)
    orders = []
    for epoch in (1, 2):
        sampler.set_position(epoch)
        batches = list(sampler)
        assert [len(batch) for batch in batches] == [4, 4, 2] and len(sampler) == 3
        assert {key[0] for batch in batches for key in batch} == {epoch}
        orders.append([index for batch in batches for _, index in batch])
        assert sorted(orders[-1]) == list(range(10))
    assert orders[0] != orders[1]
    assert list(EpochSampler(3, 2, seed=8, shuffle=False)) == [[(0, 0), (0, 1)], [(0, 2)]]


def test_a_resumed_epoch_goes_on_at_its_next_batch():
    sampler = EpochSampler(10, 3, seed=8, shuffle=True)
    sampler.set_position(5)
    whole = list(sampler)
    sampler.set_position(5, 2)
    assert list(sampler) == whole[2:]
    assert sampler.keys(1) == whole[1]


def test_workers_and_epochs_give_the_same_batches_as_none(df, config):
    def batches(num_workers):
        config.num_workers = num_workers
        loader, sampler = build_loader(data.WaveformDataset(df, config, "train"), config, CPU)
        found = []
        for epoch in (1, 2):  # the second one through workers that persist
            sampler.set_position(epoch)
            found += [batch["image"] for batch in loader]
        return found

    alone, two = batches(0), batches(2)
    assert len(alone) == len(two) == 10
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(alone, two, strict=True))
    assert not torch.equal(alone[0], alone[5])


def test_the_loader_leaves_torchs_random_state_alone(df, config):
    loader, _ = build_loader(data.WaveformDataset(df, config, "train"), config, CPU)
    state = torch.get_rng_state()
    next(iter(loader))
    assert torch.equal(state, torch.get_rng_state())


# The table ----------------------------------------------------------------------------------------


def test_labels_stay_text(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text(
        "primary_label,labels,filepath,kfold,rating\n"
        "NA,NA,NA/a.npy,0,0.0\n"
        "007,007 NA,007/b.npy,1,\n"
    )
    df = data.check_table(data.read_train_table(path))
    assert df["primary_label"].tolist() == ["NA", "007"] and data.load_class_names(df) == [
        "007",
        "NA",
    ]
    assert df["kfold"].tolist() == [0, 1]


def test_numbers_read_without_care_become_text_and_lost_labels_are_refused(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text("primary_label,labels,filepath,kfold\n22961,22961,22961/a.npy,0\n")
    assert data.check_table(pd.read_csv(path))["primary_label"].tolist() == ["22961"]
    path.write_text(
        "primary_label,labels,filepath,kfold\nzebra,zebra,z/a.npy,0\nNA,NA,NA/a.npy,0\n"
    )
    with pytest.raises(UserError, match="row 3: primary_label is empty.*keep_default_na=False"):
        data.check_table(pd.read_csv(path))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (
            "primary_label,labels,filepath\na,a,a/x.npy\n",
            r"no column kfold \(it has primary_label, labels, filepath\)",
        ),
        (
            "primary_label,labels,filepath,kfold\na,a,a/x.npy,\n",
            "row 2: kfold .* is not a whole number",
        ),
        ("primary_label,labels,filepath,kfold\na,a,a/x.npy,0.5\n", "row 2: kfold"),
        ("", "cannot be read as CSV"),
    ],
)
def test_a_table_that_cannot_be_trained_on(tmp_path, text, wanted):
    path = tmp_path / "train.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=wanted):
        data.check_table(data.read_train_table(path), str(path))


def test_no_table_at_all(tmp_path):
    with pytest.raises(UserError, match="train.csv: no such file; run split_data.py first"):
        data.read_train_table(tmp_path / "train.csv")


def test_missing_and_damaged_recordings_are_found_before_training(df, config):
    data.check_prepared(df, config.train_np_dir)
    first, second, third = (config.train_np_dir / path for path in df["filepath"][:3])
    content = second.read_bytes()
    for damage in (content[:-1], content[:50], b"", content + b"\0"):
        second.write_bytes(damage)
        with pytest.raises(
            UserError, match=r"1 of 9 prepared recordings cannot be used; .*XC1.ogg.npy is damaged"
        ):
            data.check_prepared(df, config.train_np_dir)
    np.save(third, np.zeros((2, 5)))
    first.unlink()
    with pytest.raises(UserError, match=r"3 of 9 .*XC0.ogg.npy is missing; run prepare_audios.py"):
        data.check_prepared(df, config.train_np_dir)


def test_a_recording_that_vanishes_during_training_is_named(df, config):
    dataset = data.WaveformDataset(df, config, "valid")
    dataset.path(4).unlink()
    with pytest.raises(
        UserError, match="no prepared audio for 22961/XC4.ogg; run prepare_audios.py"
    ):
        _ = dataset[4]


def test_rare_and_otherwise_unseen_species_are_never_held_back():
    labels = ["a", "a", "b", "b", "rare", "rare", "single"]
    df = pd.DataFrame({"primary_label": labels, "kfold": [0, 1, 0, 1, 0, 1, 0], "row": range(7)})
    train, valid = data.split_fold(df, 0, ["rare"])
    assert valid["row"].tolist() == [0, 2]
    assert train["row"].tolist() == [1, 3, 4, 5, 6]
    with pytest.raises(UserError, match="fold 0: there is nothing to validate on"):
        data.split_fold(df[6:], 0, [])


# The contact sheet --------------------------------------------------------------------------------


def test_the_contact_sheet_is_a_picture_of_the_items(df, config, tmp_path):
    from matplotlib.image import imread

    dataset = data.WaveformDataset(df, config, "train")
    one = imread(data.draw_contact_sheet(dataset, 1, tmp_path / "one.png"))
    four = imread(data.draw_contact_sheet(dataset, 4, tmp_path / "four.png"))
    assert (
        four.shape[1] > 2.5 * one.shape[1] and four.shape[0] > 1.5 * one.shape[0]
    )  # three columns, two rows
    assert (
        len(np.unique(one.reshape(-1, one.shape[2]), axis=0)) > 200
    )  # an image, not an empty frame
    assert describe_targets(np.array([0.3, 0.0025, 0.995]), LABELS) == "zebra 0.995,  NA 0.3"
