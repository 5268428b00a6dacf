"""Whether an exported file agrees with its checkpoints."""

import numpy as np
import pandas as pd
import pytest

import dataset as data
from configs import Config, UserError
from images.recipe import clip_image
from images.view import View
from inference.comparison import Comparison, compare, judge, read_clips
from inference.model_files import find_checkpoints
from inference.scorers import TorchModels
from tests.exporting import (
    CLASSES,
)
from tests.small_run import tiny_config


def comparison(**changes: float) -> Comparison:
    values = {
        "n_clips": 9,
        "n_available": 9,
        "difference": 0.0,
        "cmap": 0.9,
        "cmap_expected": 0.9,
        "floor": 0.5,
        "ms_per_clip": 1.0,
        "ms_per_clip_expected": 1.0,
    }
    return Comparison(**values | changes)


def test_limits_go_by_precision_and_by_flag():
    judge(comparison(difference=4e-4), "float32", None)
    judge(comparison(difference=0.9, cmap=0.881), "int8", None)
    for precision, limit, changes in (
        ("float32", None, {"difference": 6e-4}), ("float16", None, {"difference": 0.06}),
        ("float16", 1e-3, {"difference": 2e-3}), ("int8", None, {"difference": float("inf")}),
        ("int8", None, {"cmap": 0.87}),
    ):  # fmt: skip
        with pytest.raises(UserError, match="nothing was written"):
            judge(comparison(**changes), precision, limit)


def test_clips_of_annotated_recordings_are_the_windows_that_validation_sees(tmp_path, rng):
    config = tiny_config(tmp_path, sample_rate=8000, fmax=4000.0)
    recording = rng.standard_normal(20_000).astype(np.float32)  # 2.5 s
    config.train_np_dir.mkdir(parents=True)
    np.save(config.train_np_dir / "a.wav.npy", recording)
    rows = {"primary_label": "bird", "labels": "bird", "filepath": "a.wav.npy"}
    windows = pd.DataFrame({**rows, "filename": "a.wav", "start_s": [0.0, 1.0, 2.0]})
    clips = read_clips(windows, 3, config, CLASSES)
    assert clips.n_available == 3 and clips.waveforms.shape == (3, 8000)
    for start, waveform, image in zip(range(3), clips.waveforms, clips.images, strict=True):
        window = recording[start * 8000 : (start + 1) * 8000]
        assert np.array_equal(waveform[: len(window)], window)
        assert np.array_equal(image[0], clip_image(window, View(config))[0])


def test_scores_that_are_not_finite_never_pass(trained_folds, monkeypatch):
    models = TorchModels(
        find_checkpoints(trained_folds.fold_dir(0)), Config(device="cpu", amp=False)
    )
    table = data.check_table(data.read_train_table(trained_folds.train_dataframe_path))
    clips = read_clips(table, 5, trained_folds, CLASSES)
    assert (
        len(clips.images) == 5
        and clips.n_available == 24
        and clips.labels.sum(axis=1).tolist() == [1] * 5
    )

    def broken(waveforms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        scores = np.full((len(waveforms), 3), np.nan, np.float32)
        return scores, np.repeat(scores[:, None], 63, axis=1)

    assert compare(broken, models, clips).difference == float("inf")
