"""The recordings of a finished run, with models averaged and scores adjusted."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from inference.adjusting import Adjustment
from inference.detections import Recording, average_models, average_ranks
from inference.partial import PartialResults


class Results:
    """The recordings of a run in order, read from disk one by one each time they are gone through.

    Args:
        partial: what was scored.
        names: of the recordings, in the order wanted.
        average: one of detections.AVERAGES. For ranks all scores are held in memory.
        adjustment: what is done to the scores of each recording.
        weights: of the models; None weighs them alike.

    Attributes:
        adjustment: the same.
    """

    def __init__(
        self,
        partial: PartialResults,
        names: Sequence[str],
        average: str,
        adjustment: Adjustment | None = None,
        weights: Sequence[float] | None = None,
    ) -> None:
        self._weights = weights
        self._partial, self._names = partial, list(names)
        self._average, self.adjustment = average, adjustment or Adjustment()

        self._ranks = None
        if average == "rank" and names:
            scores = [partial[name].scores for name in names]
            self._ranks = average_ranks(np.concatenate(scores, axis=1), weights)

    def __iter__(self) -> Iterator[Recording]:
        n_done = 0  # windows
        for name in self._names:
            recording = self._partial[name]
            n_windows = recording.scores.shape[1]

            if self._ranks is None:
                scores = average_models(recording.scores, self._average, self._weights)
            else:
                scores = self._ranks[n_done : n_done + n_windows]
            n_done += n_windows

            scores = self.adjustment.apply(scores, name)
            if recording.n_silent:
                scores = np.where(recording.silent[:, None], np.float32(0), scores)
            yield replace(recording, scores=scores)
