"""Files of export.py, opened for prediction."""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from configs import Config, UserError
from inference.exported import ABOUT_FILE, EXPORT_FORMAT, open_exported
from inference.scorers import ExportedModel, open_models
from network.tflite_file import add_texts
from tests.exporting import CLASSES, need_onnx


def test_threads_share_a_file_and_get_the_same_scores(exported, rng):
    path, _ = exported
    clips = rng.standard_normal((2, 32_000)).astype(np.float32)
    (alone, about), (shared, _) = open_exported(path), open_exported(path, n_threads=3)
    assert about["format"] == EXPORT_FORMAT
    for one, other in zip(alone(clips), shared(clips), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_an_exported_model_knows_its_classes_and_settings(exported):
    models = ExportedModel(exported[0], Config(num_workers=3))
    assert models.class_names == CLASSES and models.n_threads == 3
    assert (models.config.n_mels, models.config.n_samples) == (32, 32_000)
    clipwise, frame_max, frames = models.score([np.zeros(32_000, np.float32)], frames=True)
    assert clipwise.shape == frame_max.shape == (1, 1, 3)
    assert np.array_equal(frames.max(axis=2), frame_max)


def test_a_file_of_someone_else_is_refused(tmp_path):
    need_onnx()
    path = tmp_path / "other.onnx"
    path.write_bytes(b"not a graph")
    with pytest.raises(UserError, match="other.onnx: cannot be read"):
        ExportedModel(path, Config())


def test_a_device_that_exported_files_do_not_run_on_is_refused(tmp_path):
    with pytest.raises(UserError, match="--device cuda: exported files run on the CPU"):
        ExportedModel(tmp_path / "any.onnx", Config(device="cuda"))


def tflite_file(folder: Path) -> Path:
    """A file with the texts of export.py behind what the stand-in never reads."""
    path = folder / "birds.tflite"
    path.write_bytes(b"graph")
    settings = {"period": 0.5, "sample_rate": 8000, "fmax": 4000.0, "n_mels": 32}
    about = {"format": EXPORT_FORMAT, "settings": json.dumps(settings), "class_names": '["bird"]'}
    add_texts(path, {ABOUT_FILE: json.dumps(about)})
    return path


def test_a_tflite_file_scores_batches_clip_by_clip_and_threads_apart(tmp_path, fake_litert, rng):
    score, about = open_exported(tflite_file(tmp_path), n_threads=2)
    assert json.loads(about["class_names"]) == ["bird"]
    clips = rng.random((3, 4000), np.float32)
    with ThreadPoolExecutor(2) as pool:  # the stand-in refuses a second thread
        answers = list(pool.map(score, [clips] * 6))
    for clipwise, framewise in answers:
        np.testing.assert_array_equal(clipwise, clips.mean(axis=1)[:, None])
        np.testing.assert_array_equal(framewise[:, :, 0], clipwise * np.float32([1, 0.5]))


def test_a_tflite_file_predicts_as_any_exported_file(tmp_path, fake_litert):
    models = open_models(tflite_file(tmp_path), Config(num_workers=0))
    assert isinstance(models, ExportedModel)
    assert models.class_names == ["bird"] and models.config.n_samples == 4000
    clip = models.prepare(np.full(1000, 0.25, np.float32))
    clipwise, frame_max, _ = models.score([clip, clip], frames=False)
    assert clipwise.tolist() == frame_max.tolist() == [[[0.25], [0.25]]]


def test_a_tflite_file_of_someone_else_is_refused(tmp_path, fake_litert, monkeypatch):
    path = tmp_path / "other.tflite"
    path.write_bytes(b"graph")
    with pytest.raises(UserError, match="other.tflite: not a file of export.py"):
        ExportedModel(path, Config())
    monkeypatch.delitem(sys.modules, "ai_edge_litert.interpreter")
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    with pytest.raises(UserError, match="needs ai_edge_litert.*; python -m pip install ai-edge"):
        ExportedModel(path, Config())
