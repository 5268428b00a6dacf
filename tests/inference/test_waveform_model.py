"""The exported graph in torch: its front end against validation's, half precision, the mean."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from configs import Config
from images.recipe import clip_image
from images.view import View
from inference.waveform_model import FrontEnd, HalfEncoder, WaveformModel
from model import SED
from transforms import crop_or_pad

SMALL = "test_efficientnet"


def validation_image(clip: np.ndarray, config: Config) -> np.ndarray:
    """Image (n_frames, n_mels) as dataset.py makes it."""
    return clip_image(clip, View(config))[0]


def image(front_end: FrontEnd, *clips: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return front_end(torch.from_numpy(np.stack(clips)))[:, 0].numpy()


def song(n_samples: int, rng: np.random.Generator) -> np.ndarray:
    """A sweep that stops, over noise 60 dB below it."""
    time = np.arange(n_samples) / n_samples
    sweep = np.sin(0.3 * n_samples * time**2) * (np.sin(20 * time) > 0)
    return (0.2 * sweep + 2e-4 * rng.standard_normal(n_samples)).astype(np.float32)


@pytest.mark.parametrize(
    ("n_fft", "hop_length", "period"),
    [
        (2048, 512, 1.0),  # the defaults
        (2048, 320, 1.0),  # a step that does not divide the frame
        (1024, 501, 1.0),  # an odd one: without a common divisor the transform takes one step
        (1000, 250, 0.7),  # no power of two
        (2018, 1009, 0.5),  # twice a prime
        (512, 800, 0.503),  # gaps between frames, and samples that reach no frame
    ],
)
def test_the_front_end_makes_the_image_of_validation(n_fft, hop_length, period, rng):
    config = Config(n_fft=n_fft, hop_length=hop_length, period=period, n_mels=40)
    clip = song(config.n_samples, rng)
    made, expected = image(FrontEnd(config), clip)[0], validation_image(clip, config)
    assert made.shape == expected.shape == (config.n_frames, 40)
    # 5e-5 of 80 dB is 4e-3 dB, what a transform in float32 loses near the floor.
    np.testing.assert_allclose(made, expected, atol=5e-5)
    assert np.ptp(expected) == 1


@settings(max_examples=15, deadline=None)
@given(
    n_fft=st.integers(8, 300).map(lambda half: 2 * half),
    hop_length=st.integers(1, 400),
    n_samples=st.integers(100, 5000),
)
def test_any_frame_and_hop_give_the_frames_of_validation(n_fft, hop_length, n_samples):
    config = Config(n_fft=n_fft, hop_length=hop_length, n_mels=8, period=n_samples / 32_000)
    clip = np.random.default_rng(n_samples).standard_normal(config.n_samples).astype(np.float32)
    made, expected = image(FrontEnd(config), clip)[0], validation_image(clip, config)
    assert made.shape == expected.shape
    if np.ptp(expected) == 1 and np.isfinite(expected).all():
        np.testing.assert_allclose(
            made, expected, atol=1e-3
        )  # a span of little more than 0 magnifies rounding


def test_level_does_not_matter_and_silence_gives_zeros(rng):
    config = Config(period=1.0, n_mels=40)
    front_end, clip = FrontEnd(config), song(32_000, rng)
    silence = np.zeros_like(clip)
    loud, quiet, nothing = image(
        front_end, clip * np.float32(64), clip * np.float32(2**-20), silence
    )
    np.testing.assert_array_equal(loud, quiet)  # powers of two change no bit
    np.testing.assert_array_equal(nothing, np.zeros((config.n_frames, 40)))
    np.testing.assert_array_equal(validation_image(silence, config), nothing)


def test_a_repeated_short_clip_and_an_impulse_are_as_in_validation(rng):
    config = Config(period=1.0, n_mels=40)
    impulse = np.zeros(32_000, np.float32)
    impulse[31_999] = -1e-3  # at the edge, where only the padding's share of a frame is left of it
    repeated = crop_or_pad(song(700, rng), config.n_samples)
    for clip in (impulse, repeated):
        np.testing.assert_allclose(
            image(FrontEnd(config), clip)[0], validation_image(clip, config), atol=5e-5
        )


def test_a_clip_is_the_same_alone_and_beside_a_louder_one(rng):
    config = Config(period=1.0, n_mels=40)
    front_end, clip = FrontEnd(config), song(32_000, rng)
    together = image(front_end, clip, rng.standard_normal(32_000).astype(np.float32))
    np.testing.assert_allclose(together[0], image(front_end, clip)[0], atol=1e-6)


def test_scores_are_the_mean_of_the_networks_and_below_one(rng):
    config = Config(period=1.0, n_mels=32)
    networks = [SED(SMALL, num_classes=3, n_mels=32).eval() for _ in range(3)]
    clip = torch.from_numpy(song(32_000, rng))[None]
    with torch.no_grad():
        images = FrontEnd(config)(clip).expand(-1, 3, -1, -1)
        expected = [network(images) for network in networks]
        clipwise, framewise = WaveformModel(networks, config)(clip)
        for name, made in (("clipwise_output", clipwise), ("framewise_output", framewise)):
            mean = sum(output[name].double() for output in expected) / 3
            torch.testing.assert_close(made.double(), mean, atol=1e-6, rtol=0)
        for network in networks:
            for block in network.att_blocks:
                block.cla.bias.fill_(100.0)
        certain = WaveformModel(networks, config)(clip)[0]
    assert certain.max() < 1 and certain.min() > 1 - 1e-6


def test_half_precision_is_the_encoder_s_alone_and_changes_no_network(rng):
    config = Config(period=1.0, n_mels=32)
    network = SED(SMALL, num_classes=3, n_mels=32).eval()
    half = WaveformModel([network], config, half=True)
    inner = half.models[0]
    assert isinstance(inner.encoder, HalfEncoder)
    assert {p.dtype for p in inner.encoder.parameters()} == {torch.float16}
    assert {
        p.dtype
        for p in (*inner.fc1.parameters(), *inner.bn0.parameters(), *half.front_end.parameters())
    } == {torch.float32}
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    clip = torch.from_numpy(song(32_000, rng))[None]
    with torch.no_grad():
        gap = (half(clip)[0] - WaveformModel([network], config)(clip)[0]).abs().max().item()
    assert 0 < gap < 0.02 and math.isfinite(gap)
