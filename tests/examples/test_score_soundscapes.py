"""Scoring of soundscapes with known birds, on cases worked by hand."""

import numpy as np
import pandas as pd
import pytest

from examples.score_soundscapes import (
    loudest_level,
    main,
    overlap_s,
    read_any,
    score_any,
    score_events,
    score_windows,
)

LABELS = pd.DataFrame(
    [
        ("s.ogg", 1.0, 4.0, "NA", 0.0),
        ("s.ogg", 8.0, 11.5, "NA", 10.0),
        ("s.ogg", 12.0, 13.0, "b", 10.0),
    ],
    columns=["file", "start_s", "end_s", "primary_label", "snr_db"],
)


def windows(**scores: list[float]) -> pd.DataFrame:
    """Three windows of five seconds, with each species' scores."""
    rows = [
        ("s.ogg", 5.0 * number, 5.0 * number + 5, species, score)
        for species, of_species in scores.items()
        for number, score in enumerate(of_species)
    ]
    return pd.DataFrame(rows, columns=["file", "start_s", "end_s", "species", "score"])


def test_overlap():
    starts, ends = np.array([0.0, 5.0, 10.0]), np.array([5.0, 10.0, 15.0])
    assert overlap_s(starts, ends, 4.0, 11.0).tolist() == [1.0, 5.0, 1.0]
    assert overlap_s(starts, ends, 20.0, 21.0).tolist() == [0.0, 0.0, 0.0]


def test_a_window_has_the_level_of_its_loudest_bird_of_enough_length():
    level = loudest_level(windows(NA=[0, 0, 0], b=[0, 0, 0]), LABELS, 1.0)
    # NA sings 3 s in the first, 2 s in the second and 1.5 s in the third window; b 1 s in the third
    assert level.tolist() == pytest.approx([0, 10, 10, np.nan, np.nan, 10], nan_ok=True)
    assert np.isnan(loudest_level(windows(NA=[0, 0, 0]), LABELS, 1.8)[2])


def test_windows_are_scored_level_by_level():
    table = score_windows(windows(NA=[0.4, 0.9, 0.8], b=[0.5, 0.1, 0.7]), LABELS)
    # Absent: b in the first two windows, 0.5 and 0.1. At 0 dB 0.4 beats one of the two; at 10 dB
    # all beat both.
    assert table["snr_db"].tolist() == [0.0, 10.0] and table["windows"].tolist() == [1, 3]
    assert table["roc_auc"].tolist() == [0.5, 1.0]
    assert table["average_precision"].tolist() == [0.5, 1.0]


def test_events_found_and_false_alarms():
    events = pd.DataFrame(
        [
            ("s.ogg", 3.5, 5.0, "NA"),
            ("s.ogg", 6.0, 7.0, "NA"),
            ("s.ogg", 12.5, 12.6, "NA"),
            ("t.ogg", 1.0, 2.0, "NA"),
        ],
        columns=["file", "start_s", "end_s", "species"],
    )
    by_level, total = score_events(events, LABELS)
    assert by_level.values.tolist() == [[0.0, 1, 1.0], [10.0, 2, 0.0]]
    assert (total["precision"], total["recall"]) == (0.25, pytest.approx(1 / 3))
    assert total["f1"] == pytest.approx(2 * 0.25 / 3 / (0.25 + 1 / 3))
    assert score_events(events[:0], LABELS)[1]["f1"] == 0.0


def test_the_script_keeps_labels_text(tmp_path, capsys):
    LABELS.to_csv(tmp_path / "labels.csv", index=False)
    windows(NA=[0.4, 0.9, 0.8], b=[0.5, 0.1, 0.7]).to_csv(tmp_path / "windows.csv", index=False)
    main([str(tmp_path / "labels.csv"), str(tmp_path / "windows.csv")])
    said = capsys.readouterr().out
    assert "0.500" in said and "roc_auc" in said


def test_bird_or_none_by_the_maximum_and_by_the_column(tmp_path):
    labels = LABELS[LABELS["start_s"] < 5]  # a bird in the first window alone
    table = windows(NA=[0.4, 0.9, 0.2], b=[0.5, 0.1, 0.3])
    assert score_any(table, labels) == {"maximum": 0.5}

    path = tmp_path / "windows.csv"
    table.assign(any_bird=[0.8, 0.7, 0.1] * 2).sort_values("start_s").to_csv(path, index=False)
    found = score_any(read_any(path, table), labels)
    assert found == {"maximum": 0.5, "any_bird": 1.0}
