"""What prepare says before it begins, with lengths worked by hand."""

import numpy as np
import pytest
import soundfile

from audio.decoder_pool import DecoderPool
from catalog import outlook
from configs import Config


@pytest.fixture
def config(tmp_path) -> Config:
    """An archive of recordings of 10, 20 and 90 s, of which 30 s are kept."""
    config = Config(root=tmp_path, num_workers=1, sample_rate=8_000, fmax=4_000)
    config.train_audio_dir.mkdir(parents=True)
    for seconds in (10, 20, 90):
        silence = np.zeros(8_000 * seconds, np.int16)
        soundfile.write(config.train_audio_dir / f"{seconds}.wav", silence, 8_000)
    return config


def lines(config: Config, jobs: list[str]) -> list[str]:
    names = ["10.wav", "20.wav", "90.wav"]
    with DecoderPool() as decoders:
        return outlook.describe_outlook(names, jobs, config, decoders)


def test_hours_space_time_and_what_is_not_used(config):
    said = lines(config, ["10.wav", "20.wav", "90.wav"])
    assert said[0] == "3 recordings (3 .wav)"
    # 10 + 20 + 30 s are kept of 120 s: a minute, 60 * 8000 * 4 bytes = 1.9 MB.
    assert "3 recordings, about 1.0 min of sound; 0.0 GB of" in said[1]
    assert said[2].startswith("1.0 min of 2.0 min lie beyond the first 30 s of a recording")
    assert "--max-seconds" in said[2]


def test_nothing_beyond_says_nothing_of_it(config):
    assert len(lines(config, ["10.wav", "20.wav"])) == 2


def test_all_prepared_before(config):
    assert lines(config, []) == ["3 recordings (3 .wav), all prepared before"]


def test_more_than_the_disk_has(config, monkeypatch):
    monkeypatch.setattr(
        outlook.shutil, "disk_usage", lambda path: type("Disk", (), {"free": 10**6})
    )
    assert any(
        "--audio-dtype int16" in line for line in lines(config, ["90.wav", "20.wav", "10.wav"])
    )


def test_many_recordings_are_judged_by_some_of_them(config, monkeypatch):
    monkeypatch.setattr(outlook, "LOOKED_AT", 2)  # the first and the last: 10 and 90 s of 3
    said = lines(config, ["10.wav", "20.wav", "90.wav"])
    assert "about 1.0 min of sound" in said[1]  # (10 + 30) * 3 / 2 s
    assert said[2].startswith("1.5 min of 2.5 min lie beyond")
