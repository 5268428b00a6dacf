"""A folder of backgrounds: decoded once, anew where something changed, faults left out."""

import logging
import os

import numpy as np
import pytest
import soundfile as sf

from audio.backgrounds import prepare_backgrounds
from configs import Config, UserError


@pytest.fixture
def config(tmp_path) -> Config:
    """Three backgrounds at two rates, one of them in a subfolder, and a text file."""
    folder = tmp_path / "rain"
    (folder / "night").mkdir(parents=True)
    rng = np.random.default_rng(2)
    noise = 0.1 * rng.standard_normal(64_000).astype(np.float32)
    sf.write(folder / "b.wav", noise, 32_000)
    sf.write(folder / "a.flac", np.stack([noise, -noise * 0.5], 1)[:16_000], 16_000)
    sf.write(folder / "night/c.ogg", noise, 32_000)
    (folder / "notes.txt").write_text("rain")
    return Config(root=tmp_path, background_dir="rain")


def test_recordings_become_arrays_in_the_order_of_their_names(config):
    prepared = prepare_backgrounds(config)
    names = [path.relative_to(config.background_np_dir).as_posix() for path in prepared]
    assert names == ["a.flac.npy", "b.wav.npy", "night/c.ogg.npy"]
    assert config.background_np_dir == config.root / "train_np_background"

    first, second, _ = (np.load(path) for path in prepared)
    assert len(first) == 32_000  # a second at 32 kHz
    expected = sf.read(config.background_dir / "b.wav", dtype="float32")[0]
    np.testing.assert_array_equal(second, expected)


def test_they_are_prepared_once_and_anew_when_changed(config):
    times = [path.stat().st_mtime_ns for path in prepare_backgrounds(config)]
    assert [path.stat().st_mtime_ns for path in prepare_backgrounds(config)] == times

    sf.write(config.background_dir / "b.wav", np.linspace(-1, 1, 9_000), 32_000)
    os.remove(config.background_np_dir / "a.flac.npy")
    again = prepare_backgrounds(config)
    assert len(np.load(again[1])) == 9_000 and again[0].is_file()
    assert again[2].stat().st_mtime_ns == times[2]

    config.audio_dtype = "int16"
    assert {np.load(path).dtype.name for path in prepare_backgrounds(config)} == {"int16"}


def test_a_removed_background_is_no_longer_used(config):
    prepare_backgrounds(config)
    os.remove(config.background_dir / "b.wav")
    assert [path.name for path in prepare_backgrounds(config)] == ["a.flac.npy", "c.ogg.npy"]


def test_silent_and_broken_files_are_left_out(config, caplog):
    sf.write(config.background_dir / "silent.wav", np.zeros(9_000), 32_000)
    (config.background_dir / "broken.mp3").write_bytes(b"not audio")
    with caplog.at_level(logging.WARNING):
        assert len(prepare_backgrounds(config)) == 3
    assert "silent.wav is left out: silent" in caplog.text
    assert "broken.mp3 is left out: unreadable" in caplog.text


def test_no_folder_and_an_empty_one(config):
    config.background_dir = None
    assert prepare_backgrounds(config) == []
    config.background_dir = config.root / "nowhere"
    with pytest.raises(UserError, match="background_dir: .*nowhere: no such folder"):
        prepare_backgrounds(config)
    config.background_dir.mkdir()
    with pytest.raises(UserError, match="nowhere holds no recording that can be used"):
        prepare_backgrounds(config)
