"""Which clips are suggested: the least sure, unlike each other; and the table of them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from catalog.annotations import read_annotations
from configs import UserError
from inference.detections import Event, Recording
from inference.suggesting import (
    POOL,
    Suggestion,
    choose_clips,
    farthest_first,
    find_candidates,
    unsureness,
    write_suggestions,
)
from tests.inference.written import selection


def recording(name: str, scores: list[list[float]], stride: float = 5.0, **facts) -> Recording:
    starts_s = stride * np.arange(len(scores))
    seconds = stride * len(scores)
    given = {"status": "ok", "reason": "", "seconds": seconds} | facts
    return Recording(name, starts_s=starts_s, scores=np.float32(scores), **given)


def chosen(**settings):
    return selection(**{"class_names": ["a", "b"], "period": 5.0} | settings)


def test_unsureness_is_the_entropy_of_each_yes_and_no():
    found = unsureness(np.array([[0.5, 0.5], [0.25, 0.0], [0.0, 0.0]]))
    quarter = -(0.25 * np.log(0.25) + 0.75 * np.log(0.75))
    assert found == pytest.approx([2 * np.log(2), quarter, 0], abs=1e-9)


def test_the_next_one_is_the_farthest_from_all_before():
    angles = np.deg2rad([0, 60, 120, 180, 240, 300])  # of a hexagon
    points = 3 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    assert farthest_first(points, 2) == [0, 3]
    assert sorted(farthest_first(points, 9)) == [0, 1, 2, 3, 4, 5]
    assert farthest_first(np.zeros((0, 2)), 3) == []
    assert sorted(farthest_first(np.zeros((3, 2)), 3)) == [0, 1, 2]


def test_one_song_in_many_clips_is_suggested_once(rng):
    groups = np.repeat(np.eye(5), 20, axis=0) + 0.01 * rng.standard_normal((100, 5))
    order = farthest_first(groups, 5)
    assert sorted(place // 20 for place in order) == [0, 1, 2, 3, 4]


def test_candidates_are_the_least_sure_windows_with_a_signal():
    silent = np.array([False, False, True, False])
    results = [
        recording("x.wav", [[0.1, 0.1], [0.5, 0.4], [0.5, 0.5], [0.9, 0.3]], silent=silent),
        recording("y.wav", [[0.5, 0.5]], seconds=3.0),
        recording("z.wav", []),
    ]
    found = find_candidates(results, chosen(), 2)
    keys = [(one.name, one.event.start_s, one.event.end_s, one.event.species) for one in found]
    assert keys == [
        ("y.wav", 0.0, 3.0, 0),
        ("x.wav", 5.0, 10.0, 0),
        ("x.wav", 15.0, 20.0, 0),
        ("x.wav", 0.0, 5.0, 0),
    ]
    only_b = find_candidates(results, chosen(wanted=np.array([False, True])), 2)
    assert {one.event.species for one in only_b} == {1}


def test_candidates_do_not_overlap_and_are_ten_for_each_that_is_wanted():
    half = recording("x.wav", [[0.5, 0.2], [0.5, 0.5], [0.5, 0.3], [0.5, 0.1]], stride=2.5)
    starts = [one.event.start_s for one in find_candidates([half], chosen(), 1)]
    assert starts == [2.5, 7.5]
    many = [recording(f"{n}.wav", [[0.5 - n / 200, 0]]) for n in range(50)]
    found = find_candidates(many, chosen(), 1)
    assert [one.name for one in found] == [f"{n}.wav" for n in range(POOL)]


def test_a_clip_that_cannot_be_read_is_left_out(caplog):
    candidates = [Suggestion(f"{n}.wav", Event(0.0, 5.0, 0, 0.5)) for n in range(3)]

    def read(path: Path, event: Event) -> np.ndarray:
        if path.name == "1.wav":
            raise ValueError("the recording ends before")
        return np.full(4, float(path.stem))

    found = choose_clips(candidates, 3, Path("x"), read, lambda clips: np.stack(clips))
    assert [one.name for one in found] == ["0.wav", "2.wav"]
    assert "1.wav: no clip from 0 s: the recording ends before" in caplog.text
    assert choose_clips([], 3, Path("x"), read, lambda clips: np.stack(clips)) == []


def test_the_table_says_nothing_until_it_is_filled_in(tmp_path):
    clips = [Suggestion("x.wav", Event(5.0 * n, 5.0 * n + 5, n % 2, 0.4)) for n in range(4)]
    path = tmp_path / "s.csv"
    assert write_suggestions(path, clips, chosen()) == 4
    with pytest.raises(UserError, match="s.csv: no row has a verdict or a label yet"):
        read_annotations(path, ["x.wav"])

    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    assert list(table["detected"]) == ["a", "b", "a", "b"]
    table.loc[0, "label"], table.loc[1, "verdict"], table.loc[2, "label"] = "c", "yes", "nocall"
    table.to_csv(path, index=False)
    spans = read_annotations(path, ["x.wav"])
    said = list(spans[["start_s", "label", "verdict", "refuted"]].itertuples(index=False))
    assert [tuple(row) for row in said] == [
        (0.0, "c", "yes", ""),
        (5.0, "b", "yes", ""),
        (10.0, "", "no", "nocall"),
        (15.0, "", "unsure", ""),
    ]
