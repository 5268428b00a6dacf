"""`frontend="device"`: the images and the training of the data set, to float32's rounding."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import train
from configs import Config
from dataset import WaveformDataset
from images.device_frontend import DeviceFrontend, uniform
from images.noise import add_uniform
from tests.small_run import assert_same_end, make_recordings, run_until
from training.batches import build_loader, collate

CPU = torch.device("cpu")
NO_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, NO_CUDA])]
TOLERANCE = {"cpu": 1e-3, "cuda": 5e-3}  # largest difference of a pixel in [0, 1]


@pytest.fixture
def config(tmp_path) -> Config:
    return Config(
        root=tmp_path,
        base_model_name="test_efficientnet",
        pretrained=False,
        n_mels=32,
        period=1.0,
        train_bs=5,
        valid_bs=4,
        epochs=2,
        folds=[0],
        num_workers=0,
        device="cpu",
    )


@pytest.fixture
def df(config) -> pd.DataFrame:
    """Tones in noise; among them int16, silence, a constant, a click and a short recording."""
    df = make_recordings(config)
    odd = [
        np.zeros(40_000, np.float32),
        np.full(40_000, 0.3, np.float32),
        np.eye(1, 40_000, 20_000, dtype=np.float32)[0],
        np.sin(np.arange(9_000) / 5).astype(np.float32),
        (np.sin(np.arange(50_000) / 9) * 20_000).astype(np.int16),
    ]
    for path, waveform in zip(df["filepath"], odd, strict=False):
        np.save(config.train_np_dir / path, waveform)
    return df


def items(
    df: pd.DataFrame, config: Config, frontend: str, epoch: int
) -> list[dict[str, torch.Tensor]]:
    dataset = WaveformDataset(df, replace(config, frontend=frontend), "train")
    return [dataset[epoch, index] for index in range(len(df))]


def images(df: pd.DataFrame, config: Config, device: str, epoch: int) -> torch.Tensor:
    dataset = WaveformDataset(df, replace(config, frontend="device"), "train")
    batch = collate([dataset[epoch, index] for index in range(len(df))])
    frontend = DeviceFrontend(config, dataset.pink, torch.device(device))
    return frontend({name: value.to(device) for name, value in batch.items()}).cpu()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"p_masks": 0.7, "p_frequency_shaping": 1.0},
        {"p_time_stretch": 0.5, "p_gaussian_noise": 0.5, "p_random_volume": 0.5},
        {
            "p_white_noise_image": 0.0,
            "p_pink_noise_image": 0.0,
            "p_band_noise_image": 0.0,
            "max_mixed_birds": 1,
        },
        {
            "n_fft": 1000,
            "hop_length": 300,
            "n_mels": 40,
            "top_db": 60.0,
            "max_mixed_birds": 6,
            "p_stop_mixing": 0.1,
        },
    ],
)
def test_every_image_is_the_one_that_the_data_set_makes(df, config, changes, device):
    config = Config(**{**config.to_dict(), **changes})
    for epoch in (1, 2):
        expected = torch.stack([item["image"] for item in items(df, config, "cpu", epoch)])
        made = images(df, config, device, epoch)
        assert made.shape == expected.shape and made.dtype == torch.float32
        np.testing.assert_allclose(made.numpy(), expected.numpy(), atol=TOLERANCE[device], rtol=0)
        assert (made - expected).abs().mean() < TOLERANCE[device] / 50


def test_targets_are_the_same_and_another_image_would_have_shown(df, config):
    for ours, theirs in zip(
        items(df, config, "cpu", 1), items(df, config, "device", 1), strict=True
    ):
        assert torch.equal(ours["targets"], theirs["targets"])
    assert (images(df, config, "cpu", 1) - images(df, config, "cpu", 2)).abs().amax(
        (1, 2, 3)
    ).median() > 0.1


def test_an_image_does_not_depend_on_its_batch(df, config):
    dataset = WaveformDataset(df, replace(config, frontend="device"), "train")
    frontend = DeviceFrontend(config, dataset.pink, CPU)
    together = frontend(collate([dataset[1, index] for index in range(8)]))
    for index in range(8):
        np.testing.assert_allclose(
            frontend(collate([dataset[1, index]]))[0], together[index], atol=2e-5
        )


def test_waveforms_travel_as_they_are_stored(df, config):
    config = replace(config, frontend="device", max_mixed_birds=1)
    dataset = WaveformDataset(df, config, "train")
    assert (
        dataset[1, 4]["waveforms"].dtype == torch.int16
        and dataset[1, 5]["waveforms"].dtype == torch.float32
    )
    assert dataset[1, 4]["waveforms"].shape == (1, config.n_samples)
    assert "image" not in dataset[1, 4] and "masks" not in dataset[1, 4]


def test_validation_keeps_the_one_front_end_it_shares_with_predict(df, config):
    ours, theirs = (
        WaveformDataset(df, replace(config, frontend=name), "valid") for name in ("cpu", "device")
    )
    assert torch.equal(ours[7]["image"], theirs[7]["image"])


def test_uniform_numbers_are_those_of_the_other_side():
    keys = [0, 1, 77, 2**24 - 1]
    positions = torch.arange(60_000).reshape(200, 300)
    ours = uniform(torch.tensor(keys, dtype=torch.float32)[:, None, None], positions)
    for key, one in zip(keys, ours, strict=True):
        expected = np.zeros((200, 300), np.float32)
        add_uniform(expected, key, 0, 1)
        np.testing.assert_array_equal(one.numpy(), expected)


def test_workers_and_ragged_batches(df, config):
    def batches(num_workers):
        settings = replace(config, frontend="device", num_workers=num_workers)
        loader, sampler = build_loader(WaveformDataset(df, settings, "train"), settings, CPU)
        sampler.set_position(1)
        return list(loader)

    alone, two = batches(0), batches(2)
    assert len(alone) == len(two) == 5
    for ours, theirs in zip(alone, two, strict=True):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
        assert ours["n_birds"].sum() == len(ours["waveforms"]) == len(ours["bird_draws"])
        assert len(ours["n_birds"]) == len(ours["draws"]) == len(ours["targets"])


def test_training_gives_the_same_history_to_rounding(df, config):
    histories = []
    for exp_id, frontend in enumerate(["cpu", "device"]):
        settings = replace(config, frontend=frontend, exp_id=exp_id, p_mixup=0.5, amp=False)
        train.run(df, settings)
        histories.append(pd.read_csv(settings.fold_dir(0) / "history.csv"))
    np.testing.assert_allclose(histories[0]["train_loss"], histories[1]["train_loss"], rtol=2e-3)
    np.testing.assert_allclose(histories[0]["valid_loss"], histories[1]["valid_loss"], rtol=2e-2)


def test_a_stopped_run_goes_on_exactly(df, config, monkeypatch):
    unbroken = replace(
        config, frontend="device", exp_id=1, p_masks=0.3, ema_decay=0.9, checkpoint_every_steps=2
    )
    train.run(df, unbroken)
    broken = replace(unbroken, models_dir="broken")
    run_until(df, broken, monkeypatch, step=3)
    train.run(df, broken)
    assert_same_end(unbroken, broken)
