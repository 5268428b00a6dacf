"""Sheets of a fold: which clips are the worst, what is said of them, and that they are pictures."""

import math
import os

import numpy as np
import pytest
from matplotlib.image import imread

from configs import Config
from training import folder, sheets
from training.sheets import describe, find_worst, leave_worst_clips


def test_the_worst_are_those_whose_scores_contradict_their_labels():
    scores = np.array([[0.9, 0.1], [0.1, 0.1], [0.5, 0.5], [1.0, 0.0]], np.float32)
    targets = np.array([[1, 0], [1, 0], [1, 0.3], [0, 0]], np.float32)
    worst = find_worst(scores, targets, 3)
    assert worst.rows.tolist() == [3, 1, 2]  # sure and wrong, then unsure; 0 is right
    assert worst.losses[0] == pytest.approx(-math.log(sheets.LOWEST_SCORE))
    assert worst.losses[1] == pytest.approx(-math.log(0.1) - math.log(0.9), abs=1e-6)
    assert worst.losses[2] == pytest.approx(-math.log(0.5))  # the bird behind does not count
    assert len(find_worst(scores, targets, 9).rows) == 4


@pytest.fixture
def scored(df, config):
    """A fold that is built and has scores: of row 1, a bird1, the model is sure it is bird2."""
    from tests.small_run import build

    fold = build(df, Config(**config.to_dict() | {"worst_clips": 2}))
    scores = np.full((6, 3), 0.1, np.float32)
    labels = np.zeros((6, 3))
    for row in range(6):
        scores[row, row % 3], labels[row, row % 3] = 0.8, 1
    scores[1] = 0.05, 0.02, 0.97
    names = fold.valid_set.filenames()
    folder.write_predictions(fold.dir, scores, labels, names, fold.class_names)
    return fold


def test_a_clip_is_described(scored):
    with np.load(scored.dir / "valid_predictions.npz") as file:
        scores = file["scores"]
    dataset = scored.valid_set
    targets = dataset.targets_of([1])
    said = describe(dataset, 1, scores[1], targets, scored.class_names, 7.41834)
    assert said.splitlines() == [
        "bird1/1.ogg, 0 to 1 s",
        "label bird1 0.02",
        "surest bird2 0.97, loss 7.42",
    ]
    said = describe(dataset, 0, scores[0], dataset.targets_of([0]), scored.class_names, 0.1)
    assert "label bird0 0.80 (behind it bird1)" in said
    said = describe(dataset, 0, scores[0], np.zeros(3), scored.class_names, 0.1)
    assert "label no bird" in said


def test_the_sheet_shows_the_worst_first(scored, monkeypatch):
    drawn = {}
    monkeypatch.setattr(sheets, "draw_images", lambda images, *rest, **words: drawn.update(words))
    leave_worst_clips(scored)
    assert len(drawn["captions"]) == 2 and drawn["captions"][0].startswith("bird1/1.ogg")


def test_the_sheet_is_a_picture_and_drawn_once_for_the_same_scores(scored):
    path = scored.dir / "worst_clips.png"
    leave_worst_clips(scored)
    assert len(np.unique(imread(path).reshape(-1, 4), axis=0)) > 200  # images, no empty frames
    first = path.stat().st_mtime_ns
    leave_worst_clips(scored)
    assert path.stat().st_mtime_ns == first
    os.utime(path, (1, 1))  # older than the scores
    leave_worst_clips(scored)
    assert path.stat().st_mtime > 1


def test_a_sheet_that_cannot_be_written_costs_no_run(scored, monkeypatch, caplog):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sheets, "draw_images", full)
    leave_worst_clips(scored)
    assert "worst_clips.png: not drawn: [Errno 28] No space left" in caplog.text


@pytest.mark.parametrize("frontend", ["cpu", "device"])
def test_training_images_are_those_that_the_model_gets(df, config, frontend, monkeypatch, tmp_path):
    from tests.small_run import build

    drawn = []
    monkeypatch.setattr(sheets, "draw_images", lambda images, *rest, **words: drawn.append(images))
    fold = build(df, Config(**config.to_dict() | {"frontend": frontend}))
    sheets.draw_training_images(fold, 3, tmp_path / "sheet.png")
    cpu = build(df, Config(**config.to_dict() | {"frontend": "cpu"}))
    wanted = [cpu.train_set[1, index]["image"][0].numpy() for index in (0, 6, 12)]
    assert np.allclose(drawn[0], wanted, atol=1e-4)
