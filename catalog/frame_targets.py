"""What labels with a time ask of single moments of a clip: targets for each step of its time.

A step is a few frames. It holds a bird where a label of it covers at least half of the step, or of
the label where that is shorter. Labels of a grid of clips, as BirdNET writes them, say no more than
that a bird sings somewhere in them: such windows ask nothing of their steps (NaN).

Axes: S steps of a clip, C target columns. `join` puts the targets of a clip and of its steps into
one array (1 + S, C), which is mixed, batched and copied as targets (C,) are.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from catalog.targets import Targets
from configs import Config

STEP_FRAMES = 8  # 0.13 s with the default settings; a segment of the network is 32
SPANS_COLUMN = "spans"  # of windows: (label, begin_s, end_s) within the window; None: not exact


def learns_steps(df: pd.DataFrame, config: Config) -> bool:
    """Say whether rows have labels with a time, and the settings have a use for them."""
    return config.learns_frames and SPANS_COLUMN in df


class FrameTargets:
    """The spans of all windows in a few arrays, and the targets of steps that follow from them.

    Args:
        df: windows of recordings, with the column `spans` as expand_windows makes it.
        config: of which period, sample rate, frames and `unlabelled` are used.
        class_names: species in the order of the target columns.
        targets: of the same rows; the values of absent and present birds are taken from it.
    """

    def __init__(
        self, df: pd.DataFrame, config: Config, class_names: Sequence[str], targets: Targets
    ) -> None:
        self.period, self.sample_rate = config.period, config.sample_rate
        self.n_steps = -(-config.n_frames // STEP_FRAMES)
        self.knows_silence = config.unlabelled == "negative"
        self.targets = targets

        spans_of_rows = list(df[SPANS_COLUMN])
        self.is_exact = np.array([spans is not None for spans in spans_of_rows])  # (n_rows,)
        number = {name: position for position, name in enumerate(class_names)}
        known = [
            [(number[label], begin, end) for label, begin, end in spans or () if label in number]
            for spans in spans_of_rows
        ]
        self.starts = np.cumsum([0, *map(len, known)])  # each row's first span, (n_rows + 1,)
        flat = np.array([span for spans in known for span in spans], np.float64).reshape(-1, 3)
        self.classes = flat[:, 0].astype(np.int64)
        self.times = flat[:, 1:].astype(np.float32)  # (m, 2), seconds within the window

    def of(self, rows: Sequence[int], rolls: Sequence[int]) -> np.ndarray:
        """Make the targets of the steps of windows heard together.

        Args:
            rows: of the table; a number beyond it is a background, which has no bird.
            rolls: samples by which each one's clip was rolled in time.

        Returns:
            (S, C) float32. NaN where nothing is known: in all steps where one of the windows has
            no exact labels, and with unlabelled="unknown" in steps without any label.
        """
        targets = self.targets
        n_classes = targets.n_columns - targets.no_bird_class
        sings = np.zeros((self.n_steps, n_classes), bool)
        for row, roll in zip(rows, rolls, strict=True):
            if row < len(self.is_exact):
                if not self.is_exact[row]:
                    return np.full((self.n_steps, targets.n_columns), np.nan, np.float32)
                self._mark(sings, row, roll / self.sample_rate)

        values = np.full((self.n_steps, targets.n_columns), targets.absent_target, np.float32)
        values[:, :n_classes][sings] = targets.primary_target
        is_silent = ~sings.any(axis=1)  # (S,)
        if targets.no_bird_class:
            values[is_silent, -1] = targets.primary_target
        values = targets.smoothed(values)
        if not self.knows_silence and any(row < len(self.is_exact) for row in rows):
            values[is_silent] = np.nan
        return values

    def _mark(self, sings: np.ndarray, row: int, roll_s: float) -> None:
        """Mark in `sings` (S, C) the steps that the spans of one window cover."""
        spans = slice(self.starts[row], self.starts[row + 1])
        begin, end = self.times[spans, 0] + roll_s, self.times[spans, 1] + roll_s  # (n_spans,)
        step_s = self.period / self.n_steps
        edges = np.arange(self.n_steps) * step_s
        least = 0.5 * np.minimum(step_s, end - begin)
        for turn_s in (0.0, self.period) if roll_s else (0.0,):  # what is rolled over the end
            overlap = np.minimum(end - turn_s, edges[:, None] + step_s)
            overlap = overlap - np.maximum(begin - turn_s, edges[:, None])  # (S, n_spans)
            steps, numbers = np.nonzero((overlap > 0) & (overlap >= least - 1e-6))
            sings[steps, self.classes[spans][numbers]] = True


def join(clip: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Put targets of a clip (C,) before those of its steps (S, C): (1 + S, C)."""
    return np.concatenate([clip[None], steps])


def of_clips(targets: Any) -> Any:
    """Return the targets of the clips alone, (B, C), of (B, C) or (B, 1 + S, C)."""
    return targets[:, 0] if targets.ndim == 3 else targets


# Windows ------------------------------------------------------------------------------------------


def is_grid(begin: np.ndarray, end: np.ndarray) -> bool:
    """Say whether labels (n,), in seconds, are those of a grid of clips, not of single songs.

    Those of one recording are if all have one length and begin at whole tenths of a second, as the
    clips of BirdNET, OpenSoundscape and BirdCLEF do. A person who draws boxes makes no two alike.
    """
    if not len(begin):
        return False
    lengths = end - begin
    tenths = begin * 10
    same = bool(np.ptp(lengths) < 2e-3)
    return same and bool((np.abs(tenths - np.round(tenths)) < 1e-2).all())


def repeat_spans(
    spans: list[tuple[str, float, float]], seconds: float, period: float
) -> list[tuple[str, float, float]]:
    """Repeat the spans of a window shorter than a clip, as its samples are repeated.

    Args:
        spans: (label, begin_s, end_s) within the window.
        seconds: length of the window, at most `period`.
        period: seconds in a clip. After whole repeats its rest is silence.
    """
    cut = [(label, begin, min(end, seconds)) for label, begin, end in spans if begin < seconds]
    n_times = max(1, int((period + 1e-6) // seconds)) if seconds > 0 else 1
    offsets = [number * seconds for number in range(n_times)]
    return [(label, begin + at, end + at) for at in offsets for label, begin, end in cut]
