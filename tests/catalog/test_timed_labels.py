"""Labels of windows, by hand and against a slow count."""

import numpy as np
import pandas as pd
import pytest

from catalog.timed_labels import list_windows, window_starts


@pytest.mark.parametrize(
    ("start_s", "min_overlap", "labels"),
    [
        (0.0, 0.5, {"long", "short"}),  # half of the short one
        (0.0, 0.6, {"long"}),
        (5.0, 0.6, {"long"}),
        (7.5, 0.6, set()),  # 2.5 s of 5
        (7.5, 0.5, {"long"}),
    ],
)
def test_a_label_counts_by_its_share_of_the_shorter_of_itself_and_the_window(
    start_s, min_overlap, labels
):
    spans = pd.DataFrame(
        [("a", 0.0, 10.0, "long"), ("a", 4.9, 5.1, "short")],
        columns=["filename", "start_s", "end_s", "label"],
    )
    found = list_windows(spans, {"a": 20.0}, period=5.0, stride=2.5, min_overlap=min_overlap)
    assert set(found.set_index("start_s").loc[start_s, "labels"]) == labels


def test_windows_of_a_recording_by_hand():
    assert window_starts(10.0, 5.0, 5.0).tolist() == [0, 5]
    assert window_starts(10.4, 5.0, 5.0).tolist() == [0, 5]
    assert window_starts(10.5, 5.0, 5.0).tolist() == [0, 5, 10]
    assert window_starts(10.0, 5.0, 2.5).tolist() == [0, 2.5, 5, 7.5]
    assert window_starts(0.3, 5.0, 5.0).tolist() == [0]
    spans = pd.DataFrame(
        [("a", 1.0, 2.0, "wren"), ("a", 1.0, 4.0, "robin"), ("a", 12.0, 13.0, "wren")],
        columns=["filename", "start_s", "end_s", "label"],
    )
    found = list_windows(spans, {"a": 15.0}, period=5.0, stride=5.0, min_overlap=0.5)
    assert list(found["start_s"]) == [0, 5, 10]
    assert list(found["labels"]) == [("robin", "wren"), (), ("wren",)]


def test_a_point_counts_in_the_windows_that_it_lies_in():
    spans = pd.DataFrame(
        [("a", 5.0, 5.0, "wren")], columns=["filename", "start_s", "end_s", "label"]
    )
    found = list_windows(spans, {"a": 15.0}, period=5.0, stride=2.5, min_overlap=0.5)
    assert [len(labels) for labels in found["labels"]] == [0, 1, 1, 0, 0, 0]


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
    found = list_windows(spans, {"a": 45.0}, period=period, stride=period, min_overlap=0.4)
    for window in found.itertuples():
        end_s = window.start_s + period
        sung = set()
        for span in spans.itertuples():
            overlap = min(span.end_s, end_s) - max(span.start_s, window.start_s)
            if overlap > 0 and overlap / min(period, span.end_s - span.start_s) >= 0.4:
                sung.add(span.label)
        assert set(window.labels) == sung
    assert np.array_equal(found["start_s"], np.arange(15) * period)
