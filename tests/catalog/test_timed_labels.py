"""Labels of windows, by hand and against a slow count."""

import numpy as np
import pandas as pd

from catalog.timed_labels import TimedLabels, list_windows, window_starts


def test_a_label_counts_by_its_share_of_the_shorter_of_itself_and_the_window():
    spans = pd.DataFrame(
        [("a", 0.0, 10.0, "long"), ("a", 4.9, 5.1, "short"), ("b", 0.0, 5.0, "other")],
        columns=["filename", "start_s", "end_s", "label"],
    )
    timed = TimedLabels(spans, ["a", "b", "c"], ["long", "other", "short"])
    assert timed.classes_in(0, 0.0, 5.0, 0.5).tolist() == [0, 2]  # half of the short one
    assert timed.classes_in(0, 0.0, 5.0, 0.6).tolist() == [0]
    assert timed.classes_in(0, 5.1, 10.1, 0.6).tolist() == [0]
    assert timed.classes_in(0, 9.0, 14.0, 0.25).tolist() == []  # 1 s of 5
    assert timed.classes_in(0, 9.0, 14.0, 0.2).tolist() == [0]
    assert timed.classes_in(1, 0.0, 5.0, 1.0).tolist() == [1]
    assert timed.classes_in(2, 0.0, 5.0, 0.1).tolist() == []


def test_windows_of_a_recording_by_hand():
    assert window_starts(10.0, 5.0).tolist() == [0, 5]
    assert window_starts(10.4, 5.0).tolist() == [0, 5]
    assert window_starts(10.5, 5.0).tolist() == [0, 5, 10]
    assert window_starts(0.3, 5.0).tolist() == [0]
    spans = pd.DataFrame(
        [("a", 1.0, 2.0, "wren"), ("a", 1.0, 4.0, "robin"), ("a", 12.0, 13.0, "wren")],
        columns=["filename", "start_s", "end_s", "label"],
    )
    found = list_windows(spans, {"a": 15.0}, period=5.0, min_overlap=0.5)
    assert list(found["start_s"]) == [0, 5, 10]
    assert list(found["labels"]) == [("robin", "wren"), (), ("wren",)]


def test_windows_agree_with_a_slow_count(rng):
    period = 3.0
    starts = rng.uniform(0, 40, 60)
    spans = pd.DataFrame(
        {
            "filename": "a",
            "start_s": starts,
            "end_s": starts + rng.uniform(0.1, 6, 60),
            "label": rng.choice(list("uvwxyz"), 60),
        }
    )
    found = list_windows(spans, {"a": 45.0}, period=period, min_overlap=0.4)
    for window in found.itertuples():
        end_s = window.start_s + period
        sung = set()
        for span in spans.itertuples():
            overlap = min(span.end_s, end_s) - max(span.start_s, window.start_s)
            if overlap > 0 and overlap / min(period, span.end_s - span.start_s) >= 0.4:
                sung.add(span.label)
        assert set(window.labels) == sung
    assert np.array_equal(found["start_s"], np.arange(15) * period)
