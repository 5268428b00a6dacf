"""Kinds of scores, shifted clips, averages of folds."""

import numpy as np
import pytest
import torch

from inference import detections, scorers, stream, windows
from tests.predicting import (
    RATE,
    raw,
    save_model,
    score,
    song,
    tiny,
    write_wav,
)

# Kinds of scores ----------------------------------------------------------------------------------


def test_clip_scores_by_choice(models, tmp_path):
    samples = song(1.0)
    recordings = {"s": write_wav(tmp_path / "s.wav", samples)}
    output = raw(models, samples)
    clipwise, highest = output["clipwise_output"], output["framewise_output"].max(axis=0)
    wanted = {
        "clipwise": clipwise,
        "framewise_max": highest,
        "mix": 0.75 * clipwise + 0.25 * highest,
    }
    for kind in windows.SCORES:
        found = score(models, recordings, windows.Plan(score=kind), tmp_path / kind)
        np.testing.assert_allclose(found["s"].scores[0], wanted[kind], atol=1e-6)


def test_shifted_clips_stay_inside_the_recording_and_are_averaged(models, tmp_path):
    samples = song(3.0)
    recordings = {"s": write_wav(tmp_path / "s.wav", samples)}
    found = score(models, recordings, windows.Plan(shifts_s=(0.25, -0.25)), tmp_path / "o")["s"]
    wanted = []
    for starts in ((0, 2000, 0), (8000, 10000, 6000), (16000, 16000, 14000)):
        wanted.append(
            np.mean(
                [raw(models, samples[at : at + RATE])["clipwise_output"] for at in starts], axis=0
            )
        )
    np.testing.assert_allclose(found.scores, wanted, atol=1e-6)


@pytest.mark.parametrize("average", detections.AVERAGES)
def test_folds_are_averaged(tmp_path, sounds, average):
    paths = [save_model(tmp_path / f"{seed}.pth", tiny(), seed=seed) for seed in (1, 2)]
    recordings = stream.find_recordings(sounds).paths
    alone = []
    for number, path in enumerate(paths):
        found = score(
            scorers.TorchModels([path], tiny()), recordings, windows.Plan(), tmp_path / str(number)
        )
        alone.append(np.concatenate([one.scores for one in found.values()]))
    plan = windows.Plan(average=average)
    both = score(scorers.TorchModels(paths, tiny()), recordings, plan, tmp_path / "both")
    both = np.concatenate([one.scores for one in both.values()])
    if average == "rank":
        wanted = (
            (
                alone[0].argsort(axis=0).argsort(axis=0)
                + alone[1].argsort(axis=0).argsort(axis=0)
                + 2
            )
            / 2
            / 8
        )
    elif average == "logit":
        wanted = torch.sigmoid(
            torch.logit(torch.tensor(np.stack(alone), dtype=torch.float64)).mean(dim=0)
        ).numpy()
    else:
        wanted = (alone[0] + alone[1]) / 2
    np.testing.assert_allclose(both, wanted, atol=1e-6)
