"""The compiled transform against numpy's, and how it is divided into passes and blocks."""

import numpy as np
import pytest

from audio import mel_kernel
from audio.mel import mel_bank, mel_power


@pytest.mark.parametrize(
    ("n_fft", "passes"),
    [(16, (1, 2)), (32, (1, 4)), (64, (2, 1)), (512, (3, 1)), (1024, (3, 2)), (2048, (3, 4))],
)
def test_a_power_of_two_is_split_into_passes(n_fft, passes):
    assert mel_kernel.split_radices(n_fft) == passes
    eights, rest = passes
    assert 8**eights * rest == n_fft


def test_blocks_cover_whole_groups_of_frames():
    # 313 frames are 5 groups of 64; a frame of 2048 samples reaches over 4 hops of 512.
    n_blocks = mel_kernel.count_blocks(313, 2048, 512)
    assert n_blocks >= 5 * 64 + 4 and n_blocks % mel_kernel.BLOCKS_AT_A_TIME == 0
    assert n_blocks - (5 * 64 + 4) < mel_kernel.BLOCKS_AT_A_TIME


@pytest.mark.parametrize("n_fft", [16, 64, 512, 1024])  # every last pass: of radix 2, 4 and none
@pytest.mark.parametrize("n_frames", [1, 64, 65])  # within a group, a whole one, one more
def test_bands_are_those_of_numpys_transform(n_fft, n_frames, rng):
    hop = n_fft // 4
    waveform = rng.standard_normal((n_frames - 1) * hop + 1)
    bands = {"sample_rate": 32_000, "n_fft": n_fft, "n_mels": 8, "fmin": 0.0, "fmax": 16_000.0}

    window = np.hanning(n_fft + 1)[:-1]
    padded = np.pad(waveform, n_fft // 2 + n_fft)[n_fft:]
    frames = [padded[hop * k : hop * k + n_fft] * window for k in range(n_frames)]
    powers = np.abs(np.fft.rfft(frames)) ** 2  # (n_frames, n_frequencies)
    expected = mel_bank(**bands) @ powers.T

    made = mel_power(waveform, hop_length=hop, **bands)
    assert made.shape == (8, n_frames)
    np.testing.assert_allclose(made, expected, rtol=1e-5, atol=1e-9 * expected.max())
