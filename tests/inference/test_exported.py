"""Files of export.py, opened for prediction."""

import numpy as np
import pytest

from configs import Config, UserError
from inference.exported import EXPORT_FORMAT, open_exported
from inference.scorers import ExportedModel
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
