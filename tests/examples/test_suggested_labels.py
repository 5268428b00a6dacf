"""The experiment on suggested labels: its clips, its arithmetic, and the whole of it in small."""

import numpy as np
import pytest

from examples import suggested_labels as experiment


def test_a_clip_without_birds_is_noise_and_one_with_two_holds_both():
    silent = experiment.render([], (1, 2))
    assert silent.shape == (160_000,) and np.abs(silent).max() < 0.5
    both, first = experiment.render([0, 8], (1, 3)), experiment.render([0], (1, 3))
    spectrum = np.abs(np.fft.rfft(both - first))
    assert 400 < np.argmax(spectrum) / experiment.SECONDS < 650  # the Hooting Synthbird, 495 Hz


def test_random_labels_for_a_score_by_hand():
    counts, random = np.array([50, 100, 150]), np.array([0.4, 0.6, 0.5])
    assert experiment.labels_needed(counts, random, 0.5) == pytest.approx(75)
    assert experiment.labels_needed(counts, random, 0.61) == float("inf")


def test_suggested_clips_are_unsure_and_unlike_each_other():
    rng = np.random.default_rng(0)
    scores = np.full((100, 8), 0.01)
    scores[:40, 0] = 0.5  # the least sure
    features = np.repeat(np.eye(10), 10, axis=0)[:100]
    found = experiment.as_suggested(scores, features, 4, rng)
    assert sorted(place // 10 for place in found) == [0, 1, 2, 3]
    assert len(set(experiment.at_random(scores, features, 30, rng))) == 30


def test_the_whole_experiment_prints_a_row_a_round(capsys):
    experiment.main("--pool 60 --test 40 --batch 10 --rounds 2 --repeats 2".split())
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["labels", "10", "20", "30"]
    random, suggested = lines[1].split()[1:3]
    assert random == suggested  # both begin with the same clips
