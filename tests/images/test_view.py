"""What the network sees: every setting against librosa, and the same in each of the front ends."""

from dataclasses import replace

import librosa
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from audio.mel import check_bands, mel_power, mel_settings
from configs import Config, UserError
from images import view_torch
from images.recipe import clip_image
from images.view import (
    View,
    above_floor,
    difference_matrix,
    pcen,
    resize_matrix,
    smoothing_matrix,
)
from images.view_torch import TorchView
from inference.waveform_model import FrontEnd

RATE = 32_000
SETTINGS = [
    {},
    {"power": 1},
    {"compression": "pcen"},
    {"db_reference": "full_scale"},
    {"normalisation": "standard"},
    {"normalisation": "fixed"},
    {"normalisation": "fixed", "db_reference": "full_scale", "top_db": 100.0},
    {"channels": "differences"},
    {"channels": "floor"},
    {"image_size": (48, 80)},
    {"in_channels": 1},
    {"power": 1, "compression": "pcen", "normalisation": "standard"},
    {"channels": "differences", "image_size": (64, 24), "normalisation": "standard", "power": 1},
    {"channels": "floor", "image_size": (64, 24), "normalisation": "fixed", "hop_length": 500},
    {"n_fft": 1024, "hop_length": 320, "n_mels": 40, "fmin": 50.0, "fmax": 14_000.0},
    {"n_fft": 4096, "hop_length": 1001, "n_mels": 480, "fmin": 300.0, "period": 6.0},
    {"n_fft": 4096, "hop_length": 1252, "n_mels": 512, "fmin": 600.0, "period": 5.0},
    {"n_fft": 1536, "hop_length": 717, "n_mels": 64, "top_db": 60.0},
]


def settings_of(changes: dict) -> Config:
    return Config(**{"n_mels": 40, "period": 1.0, **changes})


def a_song(config: Config) -> np.ndarray:
    """A chirp that stops, over noise 40 dB below it, at half of full scale."""
    rng = np.random.default_rng(3)
    time = np.arange(config.n_samples) / RATE
    chirp = np.sin(2 * np.pi * (900 * time + 700 * time**2)) * (time % 0.7 < 0.3)
    return (0.5 * chirp + 0.005 * rng.standard_normal(config.n_samples)).astype(np.float32)


def librosas_image(waveform: np.ndarray, config: Config) -> np.ndarray:
    """(channels, frames, bands), each setting by librosa's own function for it."""
    mel = librosa.feature.melspectrogram(
        y=waveform / np.abs(waveform).max(), sr=RATE, n_fft=config.n_fft,
        hop_length=config.hop_length, n_mels=config.n_mels, fmin=config.fmin, fmax=config.fmax,
        power=config.power,
    )  # fmt: skip
    to_db = librosa.power_to_db if config.power == 2 else librosa.amplitude_to_db
    if config.compression == "pcen":
        image = librosa.pcen(mel * 2**31, sr=RATE, hop_length=config.hop_length)
    elif config.db_reference == "peak":
        image = (to_db(mel, ref=np.max, top_db=config.top_db) + config.top_db) / config.top_db
    else:
        decibels = np.maximum(to_db(mel, ref=1.0, top_db=None), -config.top_db)
        image = (decibels + config.top_db) / config.top_db

    planes = [image]
    if config.channels == "differences":
        planes += [librosa.feature.delta(image, order=order) for order in (1, 2)]
    if config.channels == "floor":
        medians = [sorted(band)[len(band) // 2] for band in image.tolist()]
        above = [[max(0, value - m) for value in band] for band, m in zip(image, medians)]  # noqa: B905
        planes = [np.array(above), image, image]
    if config.image_size is not None:
        frames, bands = config.image_size
        batch = torch.from_numpy(np.stack(planes)).float()[None]
        resized = F.interpolate(batch, size=(bands, frames), mode="bilinear", antialias=True)
        planes = list(resized[0].numpy())
    if config.normalisation == "min_max":
        planes = [(one - one.min()) / (one.max() - one.min()) for one in planes]
    if config.normalisation == "standard":
        planes = [(one - one.mean()) / one.std() for one in planes]
    return np.stack([plane.T for plane in planes])


@pytest.mark.parametrize("changes", SETTINGS, ids=str)
def test_every_setting_gives_what_librosa_gives(changes):
    config = settings_of(changes)
    song = a_song(config)
    made, expected = clip_image(song, View(config)), librosas_image(song, config)

    n_channels = 1 if config.channels == "repeat" else 3
    assert made.shape == (n_channels, config.image_frames, config.image_bands) == expected.shape
    assert made.dtype == np.float32
    np.testing.assert_allclose(made, expected, atol=2e-4 * np.abs(expected).max(), rtol=0)


@pytest.mark.parametrize("changes", SETTINGS, ids=str)
def test_the_exported_graph_sees_the_same(changes):
    config = settings_of(changes)
    song = a_song(config)
    with torch.no_grad():
        made = FrontEnd(config)(torch.from_numpy(song)[None] * 0.25)[0].numpy()
    expected = clip_image(song, View(config))
    assert made.shape == expected.shape
    np.testing.assert_allclose(made, expected, atol=1e-3 * np.abs(expected).max(), rtol=0)


@pytest.mark.parametrize("changes", SETTINGS[:14], ids=str)
def test_a_batch_in_torch_is_clip_by_clip_what_numpy_makes(changes, rng):
    config = settings_of(changes)
    waveforms = [a_song(config), rng.standard_normal(config.n_samples).astype(np.float32)]
    mels = [mel_power(waveform, **mel_settings(config)) for waveform in waveforms]
    mels.append(np.zeros_like(mels[0]))  # silence
    batch = torch.from_numpy(np.stack(mels)).transpose(1, 2)

    made = TorchView(config)(batch).numpy()
    for one, mel in zip(made, mels, strict=True):
        view = View(config)
        expected = view.finish(view.levels(mel))
        scale = max(1.0, np.abs(expected).max())
        np.testing.assert_allclose(one, expected, atol=2e-4 * scale, rtol=0)
    assert not made[2].any()


def test_normalisations_by_hand():
    mel = np.float32([[1.0, 1e-2], [1e-4, 1e-12]])  # 0, -20, -40 and below -80 dB

    def seen(**changes) -> list:
        view = View(Config(**changes))
        return view.finish(view.levels(mel))[0].T.ravel().tolist()

    fixed = [1.0, 0.75, 0.5, 0.0]
    assert seen(normalisation="fixed") == pytest.approx(fixed, abs=1e-6)
    assert seen() == pytest.approx(fixed, abs=1e-6)
    mean, deviation = 0.5625, np.std(fixed)
    standard = [(value - mean) / deviation for value in fixed]
    assert seen(normalisation="standard") == pytest.approx(standard, abs=1e-5)
    assert seen(normalisation="fixed", power=1) == pytest.approx([1.0, 0.5, 0.0, 0.0], abs=1e-6)


@pytest.mark.parametrize("n_frames", [4, 5])
def test_above_the_floor_noise_that_does_not_change_is_gone(n_frames):
    """Each band stands over its own median; of an even number of frames the upper one."""
    noise = np.float32([[0.5], [0.25]]).repeat(n_frames, axis=1)
    assert not above_floor(noise).any()
    song = noise.copy()
    song[0, 1:3] += 0.25
    song[1, 0] -= 0.125
    wanted = np.zeros_like(song)
    if n_frames == 5:
        wanted[0, 1:3] = 0.25  # heard in fewer than half of the frames
    np.testing.assert_array_equal(above_floor(song), wanted)
    batch = torch.from_numpy(song.T.copy())[None]
    np.testing.assert_array_equal(view_torch.above_floor(batch)[0].numpy().T, wanted)


def test_full_scale_keeps_the_level_and_the_peak_does_not():
    mel = np.float32([[1.0, 1e-2], [1e-4, 1e-12]])
    views = {name: View(Config(db_reference=name)) for name in ("peak", "full_scale")}
    quiet = {name: view.levels(mel * np.float32(1e-2)) for name, view in views.items()}
    np.testing.assert_allclose(quiet["peak"], views["peak"].levels(mel), atol=1e-6)
    expected = np.maximum(views["full_scale"].levels(mel) - 0.25, 0)  # 20 of 80 dB lower
    np.testing.assert_allclose(quiet["full_scale"], expected, atol=1e-6)


def test_differences_equal_librosas_delta(rng):
    image = rng.random((7, 40), np.float32)
    for order in (1, 2):
        made = image @ difference_matrix(40, order)
        np.testing.assert_allclose(made, librosa.feature.delta(image, order=order), atol=1e-5)
    ramp = 0.5 * np.arange(40, dtype=np.float32)[None]
    np.testing.assert_allclose(ramp @ difference_matrix(40, 1), np.full((1, 40), 0.5), atol=1e-5)
    with pytest.raises(ValueError, match="differences need 9 frames, the clip has 8"):
        difference_matrix(8, 1)


@pytest.mark.parametrize(("before", "after"), [(10, 10), (10, 25), (100, 30), (313, 512), (7, 3)])
def test_resizing_equals_torchs_antialiased_one(before, after, rng):
    values = rng.random((4, before), np.float32)
    batch = torch.from_numpy(values)[None, None]
    size = (4, after)
    expected = F.interpolate(batch, size=size, mode="bilinear", antialias=True)[0, 0].numpy()
    np.testing.assert_allclose(values @ resize_matrix(before, after), expected, atol=1e-5)


def test_pcen_is_a_slow_loop_over_frames(rng):
    """The formula of Lostanlen et al. (2019), frame by frame."""
    mel = rng.random((3, 50)).astype(np.float32) * 1e-3
    weights, start = smoothing_matrix(50, 512 / RATE)
    b = float(weights[0, 0])
    level, expected = np.ones(3), np.empty((3, 50))
    for frame in range(50):
        energy = mel[:, frame].astype(np.float64) * 2**31
        level = (1 - b) * level + b * energy
        expected[:, frame] = (energy / (1e-6 + level) ** 0.98 + 2.0) ** 0.5 - 2.0**0.5
    np.testing.assert_allclose(pcen(mel, (weights, start)), expected, rtol=1e-3)


def count_librosas_empty_bands(config: Config) -> int:
    bank = librosa.filters.mel(
        sr=RATE, n_fft=config.n_fft, n_mels=config.n_mels, fmin=config.fmin, fmax=config.fmax
    )
    return int((bank.max(axis=1) == 0).sum())


@pytest.mark.parametrize(
    ("changes", "n_fft"),
    [
        ({"n_fft": 512, "n_mels": 224}, 1024),
        ({"n_mels": 480}, 4096),
        ({"n_fft": 512, "n_mels": 128, "fmin": 0.0}, 1024),
    ],
)
@pytest.mark.filterwarnings("ignore:Empty filters detected:UserWarning")
def test_empty_mel_bands_are_refused_with_the_setting_to_change(changes, n_fft):
    config = Config(**changes)
    n_empty = count_librosas_empty_bands(config)
    hint = f"n_mels: {n_empty} of {config.n_mels} .* fewer n_mels, a higher fmin or n_fft={n_fft}"
    with pytest.raises(UserError, match=hint):
        check_bands(config)

    assert count_librosas_empty_bands(replace(config, n_fft=n_fft // 2))
    check_bands(replace(config, n_fft=n_fft))


def test_the_defaults_have_no_empty_band():
    check_bands(Config())
