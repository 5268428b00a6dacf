"""Recordings of an evaluation to see and hear: where they are read, and who scores their frames."""

import numpy as np
import pytest
import yaml

from configs import Config
from inference.evaluated_clips import FoldModels, read_settings, read_window, show_rows
from inference.out_of_fold import OutOfFold
from tests.predicting import RATE, SPECIES, named, raw, save_model, song, tiny, write_wav


def test_a_window_is_read_from_prepared_and_from_plain_recordings(tmp_path):
    config, samples = tiny(), song(3.0)
    (tmp_path / "a").mkdir()
    np.save(tmp_path / "a" / "1.wav.npy", samples)
    np.save(tmp_path / "2.wav.npy", np.rint(samples * 32767).astype(np.int16))
    write_wav(tmp_path / "soundscape.wav", samples)
    first = read_window(tmp_path, "a/1.wav", 1.0, config)
    assert np.array_equal(first, samples[RATE : 2 * RATE]) and first.dtype == np.float32
    assert np.allclose(read_window(tmp_path, "2.wav", 1.0, config), first, atol=2e-5)
    assert np.allclose(read_window(tmp_path, "soundscape", 1.0, config), first, atol=1e-6)
    for name, start_s in (("a/1.wav", 9.0), ("soundscape", 9.0), ("nothing", 0.0)):
        with pytest.raises((OSError, ValueError, RuntimeError)):
            read_window(tmp_path, name, start_s, config)


def test_frames_are_scored_by_the_fold_that_held_the_recording_back(tmp_path):
    config = tiny()
    for fold in (0, 1):
        save_model(named(tmp_path / f"fold_{fold}", 1), config, seed=fold)
    (tmp_path / "fold_2").mkdir()
    models, samples = FoldModels(tmp_path), song(1.0)
    assert models.of(2) is None and models.of(7) is None
    scores = [models.of(fold)(samples) for fold in (0, 1)]
    opened = models._opened[1]
    expected = raw(opened, samples)["framewise_output"]
    assert np.allclose(scores[1], expected[: len(scores[1])], atol=1e-6)
    assert not np.allclose(scores[0], scores[1])

    write_wav(tmp_path / "a.wav", samples)
    oof = OutOfFold(
        np.zeros((2, 3), "f4"), np.zeros((2, 3), "u1"), np.array(["a.wav", "gone.wav"]),
        np.array([1, 1]), tuple(SPECIES),
    )  # fmt: skip
    shown = show_rows([0, 1], [2, 2], oof, tmp_path, config, models)
    assert list(shown) == [0] and shown[0].medium["seconds"] == 1.0
    assert max(shown[0].curve) == round(100 * float(scores[1][:, 2].max()))


def test_settings_are_those_of_the_first_fold(tmp_path):
    assert read_settings(tmp_path) is None
    (tmp_path / "fold_0").mkdir()
    path = tmp_path / "fold_0" / "config.yaml"
    path.write_text(yaml.safe_dump({"config": {"n_mels": 64, "gone": 1}}))
    assert read_settings(tmp_path) == Config(n_mels=64)
    assert read_settings(tmp_path / "fold_0") == Config(n_mels=64)
    path.write_text(yaml.safe_dump({"config": {"n_mels": -1}}))
    assert read_settings(tmp_path) is None
