"""Timelines of frames, their file, and the events in them."""

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.timeline import EventFinder, EventRule, Timeline, TimelineFile
from tests.inference.test_partial import through_json


@given(st.integers(1, 7), st.integers(1, 9), st.integers(1, 6), st.randoms(use_true_random=False))
def test_a_timeline_in_pieces_is_the_mean_of_all_clips(n_clips, length, stride, random):
    clips = [
        np.array([[random.randint(0, 8) / 8, random.randint(0, 8) / 8] for _ in range(length)])
        for _ in range(n_clips)
    ]
    n_frames = (n_clips - 1) * stride + length
    piles = [[] for _ in range(n_frames)]
    timeline, pieces = Timeline(2), []
    for number, clip in enumerate(clips):
        for offset, frame in enumerate(clip):
            piles[number * stride + offset].append(frame)
        pieces.append(timeline.take(number * stride))
        if random.random() < 0.5:
            state, timeline = timeline.state(), Timeline(2)
            timeline.restore(through_json(state))
        timeline.add(number * stride, clip)
        assert len(timeline._total) <= max(length, stride + length)
    taken = np.concatenate([*pieces, timeline.take(n_frames)])
    wanted = np.array([np.mean(pile, axis=0) if pile else [np.nan, np.nan] for pile in piles])
    np.testing.assert_allclose(taken, wanted, rtol=1e-6, atol=1e-30)


def test_frames_beyond_the_last_clip_are_unknown_and_those_beyond_the_end_are_cut():
    timeline = Timeline(1)
    timeline.add(0, np.ones((3, 1)))
    assert timeline.take(2).tolist() == [[1], [1]]
    taken = timeline.take(5)
    assert taken[0, 0] == 1 and np.isnan(taken[1:]).all() and len(taken) == 3
    timeline.add(5, np.full((2, 1), 0.5))
    assert timeline.take(6).tolist() == [[0.5]]


def slow_events(column: list[float], rule: EventRule) -> list[tuple[int, int, float]]:
    found, at = [], 0
    while at < len(column):
        end = at
        while end < len(column) and column[end] >= rule.low:
            end += 1
        if end > at and max(column[at:end]) >= rule.high:
            found.append((at, end, max(column[at:end])))
        at = max(end, at + 1)
    return found


@given(
    st.lists(st.sampled_from([0.0, 0.3, 0.5, 0.8]), max_size=40),
    st.lists(st.integers(0, 40), max_size=4),
)
def test_events_do_not_depend_on_how_the_timeline_is_cut(column, cuts):
    rule = EventRule(high=0.5, low=0.3)
    finder = EventFinder(rule, hop_s=2.0, n_classes=2)
    frames = np.array([column, [0.0] * len(column)], np.float32).T.reshape(-1, 2)
    found = []
    for piece in np.split(frames, sorted(min(cut, len(column)) for cut in cuts)):
        finder.add(piece)
        found += finder.take()
        state, finder = finder.state(), EventFinder(rule, hop_s=2.0, n_classes=2)
        finder.restore(through_json(state))
    found += finder.finish(seconds=1000.0)
    wanted = [
        (max(0.0, 2 * a - 1), 2 * b - 1, 0, pytest.approx(peak))
        for a, b, peak in slow_events(column, rule)
    ]
    assert [tuple(event) for event in found] == wanted


def test_an_event_must_reach_the_threshold_last_long_enough_and_end_with_the_recording():
    finder = EventFinder(EventRule(high=0.6, low=0.2, min_s=0.2), hop_s=0.1, n_classes=3)
    frames = np.zeros((10, 3), np.float32)
    frames[2:5, 0] = 0.3, 0.7, 0.3  # 0.3 s long
    frames[2:5, 1] = 0.5  # too low throughout
    frames[2, 2] = 0.9  # too short
    frames[8:, 2] = 0.9  # up to the end
    finder.add(frames)
    found = finder.finish(seconds=0.92)
    assert [event.species for event in found] == [0, 2]
    assert found[0] == pytest.approx((0.15, 0.45, 0, 0.7))
    assert found[1].end_s == 0.92


def test_a_hole_in_the_timeline_ends_an_event():
    finder = EventFinder(EventRule(high=0.5, low=0.5), hop_s=1.0, n_classes=1)
    finder.add(np.array([[0.8], [np.nan], [0.9]], np.float32))
    assert [(event.start_s, event.end_s) for event in finder.finish(3.0)] == [
        (0.0, 0.5),
        (1.5, 2.5),
    ]


def test_a_timeline_file_goes_on_and_is_read_by_numpy(tmp_path, rng):
    frames = rng.random((7, 2), np.float32)
    path, pieces = tmp_path / "deep" / "a.ogg.npz", tmp_path / "pieces" / "a.ogg"
    pieces.parent.mkdir()
    pieces.write_bytes(b"of another run")
    file = TimelineFile(path, pieces, ["bird0", "bird1"], hop_s=0.016)
    file.add(frames[:3])
    state = file.state()
    assert state == {
        "n_frames": 3,
        "n_bytes": 24,
        "crc32": zlib.crc32(pieces.read_bytes()),
    }  # no need to close it
    file.add(frames[:2])  # and then the run is killed
    file.discard()
    file = TimelineFile(path, pieces, ["bird0", "bird1"], hop_s=0.016, state=state)
    file.add(frames[3:])
    assert not path.parent.exists()  # nothing under a name before it is whole
    file.close()
    with np.load(path, allow_pickle=False) as saved:
        assert np.array_equal(saved["frames"], frames)
        assert saved["species"].tolist() == ["bird0", "bird1"]
        assert float(saved["hop_s"]) == 0.016
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.ogg.npz"]
    assert pieces.read_bytes() == frames.tobytes()
