"""Targets where labelled clips and windows that models have labelled are mixed."""

from collections.abc import Sequence

import numpy as np

from catalog.pseudo_labels import PseudoLabels
from catalog.targets import Targets


class MixedTargets:
    """The targets of rows, of backgrounds and of pseudo-labelled windows, by number.

    The rows of the table come first, then the backgrounds, then the windows.

    Args:
        labelled: targets of the rows and backgrounds.
        pseudo: the windows; None: there are none.
        first_window: number of the first window.
        power: exponent of the models' scores.
        label_cap: largest sum of the targets of labelled rows heard together; None: no limit.
        pseudo_cap: the same of a window.
    """

    def __init__(
        self,
        labelled: Targets,
        pseudo: PseudoLabels | None = None,
        *,
        first_window: int = 0,
        power: float = 1.0,
        label_cap: float | None = None,
        pseudo_cap: float | None = None,
    ) -> None:
        self._labelled, self._pseudo, self._first_window = labelled, pseudo, first_window
        self._power, self._label_cap, self._pseudo_cap = power, label_cap, pseudo_cap
        self.primary = labelled.primary

    def of(self, rows: Sequence[int]) -> np.ndarray:
        """Make the targets (n_columns,) float32 of what is heard together.

        Each class takes its highest target; what one of them says nothing about is NaN, unless
        another has it. The class for no bird takes what the scores of the
        windows leave of 1, where nothing else has a bird.
        """
        windows = [row - self._first_window for row in rows if self._is_window(row)]
        labelled = [row for row in rows if not self._is_window(row)]
        targets = capped(self._labelled.of(labelled), self._label_cap)
        if not windows:
            return targets

        soft = [self._soft(window) for window in windows]
        if self._labelled.no_bird_class:
            has_bird = not all(map(self._labelled.is_without_bird, labelled))
            left = 0.0 if has_bird else min(1 - min(1.0, float(one.sum())) for one in soft)
            absent = self._labelled.absent_target
            targets[-1] = absent + left * (self._labelled.primary_target - absent)
            if not has_bird and any(map(self._is_partial, rows)):
                targets[-1] = np.nan
            soft = [np.append(one, np.float32(0)) for one in soft]

        is_unknown = np.isnan(targets)
        for window, one in zip(windows, soft, strict=True):
            targets = np.fmax(targets, self._labelled.smoothed(capped(one, self._pseudo_cap)))
            is_unknown |= self._unknown(window)
        targets[is_unknown & ~self._is_heard(targets)] = np.nan
        return targets

    def _unknown(self, window: int) -> np.ndarray:
        """Say of which columns a window says nothing: (n_columns,) bool, never that for no bird."""
        assert self._pseudo is not None
        n_classes = self._labelled.n_columns - self._labelled.no_bird_class
        unknown = self._pseudo.refuted.unknown(window, n_classes)
        return np.pad(unknown, (0, int(self._labelled.no_bird_class)))

    def _is_heard(self, targets: np.ndarray) -> np.ndarray:
        """Say of each column (n_columns,) whether its target is above that of an absent bird."""
        absent = np.full(self._labelled.n_columns, self._labelled.absent_target, np.float32)
        return targets > self._labelled.smoothed(absent)

    @property
    def has_masks(self) -> bool:
        """Whether some targets are NaN."""
        of_windows = self._pseudo is not None and bool(self._pseudo.refuted.is_partial.any())
        return self._labelled.has_masks or of_windows

    def _is_partial(self, row: int) -> bool:
        if not self._is_window(row):
            return self._labelled.refuted.says_little(row)
        assert self._pseudo is not None
        return self._pseudo.refuted.says_little(row - self._first_window)

    def is_without_bird(self, row: int) -> bool:
        """Say whether a row, a background or a window has no bird."""
        if not self._is_window(row):
            return self._labelled.is_without_bird(row)
        assert self._pseudo is not None
        return bool(self._pseudo.is_empty[row - self._first_window])

    def _is_window(self, row: int) -> bool:
        return self._pseudo is not None and row >= self._first_window

    def _soft(self, window: int) -> np.ndarray:
        """Return the scores (C,) of a window, raised to the power."""
        assert self._pseudo is not None
        n_classes = self._labelled.n_columns - self._labelled.no_bird_class
        return self._pseudo.scores_of(window, n_classes) ** np.float32(self._power)


def capped(targets: np.ndarray, cap: float | None) -> np.ndarray:
    """Scale targets (C,) down to a sum of at most `cap`; masked ones (NaN) do not count."""
    total = float(np.nansum(targets))
    if cap is None or total <= cap:
        return targets
    return (targets * (cap / total)).astype(np.float32)
