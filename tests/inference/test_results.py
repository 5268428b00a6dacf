"""Recordings in order, with models averaged over the whole run."""

import numpy as np
import pytest

from inference.adjusting import Adjustment
from inference.partial import PartialResults
from inference.results import Results
from tests.inference.written import recording


def test_results_come_in_order_with_ranks_over_the_whole_run(tmp_path):
    partial = PartialResults(tmp_path / "x.partial", {})
    partial.add(recording("b.ogg", np.array([[[0.4], [0.1]]], np.float32)), [1, 1])
    partial.add(recording("a.ogg", np.array([[[0.3]]], np.float32)), [1, 1])
    ranked = {one.name: one.scores for one in Results(partial, ["a.ogg", "b.ogg"], "rank")}
    assert list(ranked) == ["a.ogg", "b.ogg"]
    assert ranked["a.ogg"].tolist() == [[0.5]]
    assert ranked["b.ogg"].tolist() == [[0.75], [0.25]]
    smoothed = list(Results(partial, ["b.ogg"], "probability", Adjustment(neighbours=(1.0,))))
    assert smoothed[0].scores[:, 0].tolist() == pytest.approx([0.25, 0.25])
    partial.close()


@pytest.mark.parametrize("average", ["probability", "logit", "rank"])
def test_silent_windows_score_zero_whatever_is_done_to_the_scores(tmp_path, average):
    scores = np.array([[[0.9], [0.0], [0.8]]], np.float32)
    silent = np.array([False, True, False])
    with PartialResults(tmp_path / "x.partial", {}) as partial:
        partial.add(recording("a.ogg", scores, silent=silent), [1, 1])
        (found,) = Results(partial, ["a.ogg"], average, Adjustment(None, (1.0,), 0.5))
    assert found.scores[1, 0] == 0 and found.scores[[0, 2], 0].min() > 0.3
    assert found.n_silent == 1


def test_a_run_without_recordings_has_no_results(tmp_path):
    with PartialResults(tmp_path / "x.partial", {}) as partial:
        assert list(Results(partial, [], "rank")) == []
