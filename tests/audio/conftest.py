"""Recordings that several tests of decoding make."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

Encode = Callable[..., Path]


def sweep(seconds: float, sample_rate: int, n_channels: int = 1, seed: int = 0) -> np.ndarray:
    """Make a sweep in noise, (n, channels) float32; the channels differ."""
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    noise = np.random.default_rng(seed).normal(0, 0.05, (len(time), n_channels))
    top = 0.4 * sample_rate
    tone = 0.3 * np.sin(2 * np.pi * (top / 4 + top / 4 * time / seconds) * time)
    level = np.linspace(1, 0.4, n_channels)
    return (tone[:, None] * level + noise).astype(np.float32)


@pytest.fixture
def encode(tmp_path) -> Encode:
    """Write a sweep under a name, a second at a time, as libsndfile wants it for Ogg."""

    def write(
        name: str, sample_rate: int, n_channels: int = 1, seconds: float = 3.0, **how
    ) -> Path:
        path = tmp_path / name
        waveform = sweep(seconds, sample_rate, n_channels)
        with soundfile.SoundFile(path, "w", sample_rate, n_channels, **how) as file:
            for start in range(0, len(waveform), sample_rate):
                file.write(waveform[start : start + sample_rate])
        return path

    return write
