"""Recordings to scores, kept on disk one by one."""

import numpy as np
import pytest

from inference.partial import PartialResults, identity
from inference.scoring import score_recordings
from inference.windows import Plan
from tests.predicting import RATE, song, write_wav


def test_each_window_is_scored_as_its_samples_are_alone(models, tmp_path):
    samples = song(3.0)
    path = write_wav(tmp_path / "s.wav", samples)
    with PartialResults(tmp_path / "x.partial", {}) as partial:
        assert score_recordings(models, {"s.wav": path}, Plan(), partial) == pytest.approx(3.0)
        assert partial.holds("s.wav", identity(path))
        scores = partial["s.wav"].scores

        alone = [models.prepare(samples[k * RATE : (k + 1) * RATE]) for k in range(3)]
        expected, _, _ = models.score(alone, frames=False)
        np.testing.assert_allclose(scores, expected, atol=1e-6)

        models.score = None  # a second time nothing is left to score
        assert score_recordings(models, {"s.wav": path}, Plan(), partial) == 0
