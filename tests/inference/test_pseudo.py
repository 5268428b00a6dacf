"""Which windows become rows to train on."""

import numpy as np
import pandas as pd
import pytest

from inference.detections import Recording
from inference.pseudo import Rules, Window, label_windows, limit_recordings, most_of_each

CLASSES = ["robin", "wren"]


def recording(scores: np.ndarray, name: str = "a.wav", silent: tuple[int, ...] = ()) -> Recording:
    starts_s = 5.0 * np.arange(scores.shape[1])
    is_silent = np.isin(np.arange(scores.shape[1]), silent)
    return Recording(name, "ok", "", 5.0 * len(starts_s), starts_s, scores, silent=is_silent)


def labelled(scores: np.ndarray, rules: Rules, **how) -> list[Window]:
    one = recording(np.asarray(scores, np.float32), **how)
    table = label_windows([(one, one.scores.mean(axis=0))], CLASSES, rules, 5.0)
    return [Window(*row) for row in table.itertuples(index=False)]


def test_sure_windows_are_kept_with_their_labels_the_surest_first():
    scores = [[[0.2, 0.9], [0.3, 0.4], [0.8, 0.05]], [[0.4, 0.7], [0.3, 0.4], [0.6, 0.01]]]
    kept = labelled(scores, Rules(most_of_recording=1.0))
    assert kept == [
        Window("a.wav", 0.0, 5.0, ("wren", "robin"), (0.8, 0.3), (0, 1), 1.1),
        Window("a.wav", 10.0, 15.0, ("robin",), (0.7,), (0,), 0.7),
    ]


def test_empty_windows_are_kept_where_they_are_asked_for():
    scores = [[[0.01, 0.02], [0.2, 0.1], [0.01, 0.02]]]
    assert labelled(scores, Rules()) == []
    kept = labelled(scores, Rules(empty_below=0.05, most_of_recording=1.0))
    assert [(one.start_s, one.labels, one.weight) for one in kept] == [(0, (), 0), (10, (), 0)]


def test_silent_windows_say_nothing():
    scores = [[[0.9, 0.0], [0.0, 0.0]]]
    assert labelled(scores, Rules(empty_below=0.05), silent=(0, 1)) == []


# No recording takes a species over ----------------------------------------------------------------


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 1.0])
def test_the_limit_is_the_largest_that_keeps_to_the_share(share, rng):
    for _ in range(50):
        counts = rng.integers(1, 9, size=rng.integers(1, 9))
        fitting = [m for m in range(1, 10) if m <= share * sum(min(int(n), m) for n in counts)]
        fitting = [m for m in fitting if m <= counts.max()]
        assert most_of_each(counts, share) == max(fitting, default=1)


def rows(**windows: list[tuple[str, float]]) -> pd.DataFrame:
    found = [
        Window(f"{name}.wav", 5.0 * k, 5.0 * k + 5, (label,), (score,), (0,), score)
        for name, own in windows.items()
        for k, (label, score) in enumerate(own)
    ]
    return pd.DataFrame(found, columns=Window._fields)


def test_a_recording_full_of_one_species_is_cut_down_to_its_surest_windows():
    tone = [("wren", 0.9), ("wren", 0.99), ("wren", 0.95), ("robin", 0.6)]
    others = {f"s{k}": [("wren", 0.7)] for k in range(4)}
    kept = limit_recordings(rows(tone=tone, **others), Rules(most_of_recording=0.4))
    of_tone = kept[kept["filename"] == "tone.wav"]
    assert of_tone["start_s"].tolist() == [5.0, 10.0, 15.0]  # 2 of 6 wrens, and the robin
    assert len(kept) == 7


def test_a_species_of_one_recording_keeps_one_window():
    kept = limit_recordings(rows(tone=[("wren", 0.9), ("wren", 0.99)]), Rules())
    assert kept["scores"].tolist() == [(0.99,)]


def test_a_sure_second_label_counts_and_a_doubtful_one_does_not():
    table = rows(a=[("robin", 0.9)] * 2, b=[("robin", 0.9)])
    table["labels"] = [("robin", "wren")] * 3
    table["scores"] = [(0.9, 0.8), (0.9, 0.7), (0.9, 0.3)]
    kept = limit_recordings(table, Rules(most_of_recording=0.7))
    assert kept["scores"].tolist() == [(0.9, 0.8), (0.9, 0.3)]  # wren: one of a alone
