"""Averages, timelines, events, and the file that an interrupted run leaves."""

import logging
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs import UserError
from detections import (
    Event,
    EventFinder,
    EventRule,
    PartialResults,
    Recording,
    Results,
    Timeline,
    TimelineFile,
    average_models,
    average_ranks,
    smooth,
)


def recording(name: str = "a.ogg", scores: np.ndarray | None = None, **facts) -> Recording:
    scores = np.array([[[0.25, 0.5], [0.75, 1 / 3]]], np.float32) if scores is None else scores
    facts = {"status": "ok", "reason": "", "seconds": 9.5} | facts
    return Recording(name, starts_s=5.0 * np.arange(scores.shape[-2]), scores=scores, **facts)


# Averages -----------------------------------------------------------------------------------------------


def test_probabilities_and_logits_are_averaged_as_worked_by_hand():
    # odds 1/9 and 9: their geometric mean is 1, which is a probability of 1/2; odds 1/4 and 1 make 1/2, that is 1/3
    scores = np.array([[[0.1, 0.2]], [[0.9, 0.5]]], np.float32)
    assert average_models(scores, "probability").tolist() == pytest.approx([pytest.approx([0.5, 0.35])])
    assert average_models(scores, "logit").tolist() == pytest.approx([pytest.approx([0.5, 1 / 3])])


def test_one_model_keeps_its_scores_to_the_bit(rng):
    scores = rng.random((1, 50, 4), np.float32)
    assert np.array_equal(average_models(scores, "probability"), scores[0])
    np.testing.assert_allclose(average_models(scores, "logit"), scores[0], rtol=1e-6)


def test_averages_stay_below_one_even_for_the_highest_scores():
    highest = np.full((3, 2, 1), 1 - 2**-24, np.float32)
    for how in ("probability", "logit"):
        assert (average_models(highest, how) < 1).all()
    assert (smooth(highest[0], 1.0) < 1).all()
    assert (average_ranks(highest) < 1).all()


@given(st.lists(st.lists(st.integers(0, 4), min_size=3, max_size=3), min_size=1, max_size=8))
def test_ranks_share_ties_and_count_to_n_plus_one(table):
    scores = np.array(table, np.float32)
    n = len(scores)
    for column in range(3):
        values = [row[column] for row in table]
        for row, value in enumerate(values):
            below, equal = sum(v < value for v in values), values.count(value)
            rank = Fraction(2 * below + equal + 1, 2) / (n + 1)  # the mean of below + 1 .. below + equal
            assert average_ranks(scores[None])[row, column] == pytest.approx(float(rank))
    both = average_ranks(np.stack([scores, 10 * scores]))  # a rank does not see how far apart scores are
    assert np.array_equal(both, average_ranks(scores[None]))
    assert (both > 0).all() and (both < 1).all()


def test_smoothing_is_a_weighted_mean_of_the_neighbours_there_are():
    scores = np.array([[0.0], [0.6], [0.3]], np.float32)
    assert smooth(scores, 0.5)[:, 0].tolist() == pytest.approx([0.3 / 1.5, (0 + 0.6 + 0.15) / 2, (0.3 + 0.3) / 1.5])
    assert np.array_equal(smooth(scores, 0.0), scores)
    assert smooth(scores[:1], 0.5).tolist() == [[0.0]]
    assert smooth(scores[:0], 0.5).shape == (0, 1)


# Timelines and events -----------------------------------------------------------------------------------


@given(st.integers(1, 7), st.integers(1, 9), st.integers(1, 6), st.randoms(use_true_random=False))
def test_a_timeline_in_pieces_is_the_mean_of_all_clips(n_clips, length, stride, random):
    clips = [
        np.array([[random.randint(0, 8) / 8, random.randint(0, 8) / 8] for _ in range(length)]) for _ in range(n_clips)
    ]
    n_frames = (n_clips - 1) * stride + length
    piles = [[] for _ in range(n_frames)]
    timeline, pieces = Timeline(2), []
    for number, clip in enumerate(clips):
        for offset, frame in enumerate(clip):
            piles[number * stride + offset].append(frame)
        pieces.append(timeline.take(number * stride))
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


@given(st.lists(st.sampled_from([0.0, 0.3, 0.5, 0.8]), max_size=40), st.lists(st.integers(0, 40), max_size=4))
def test_events_do_not_depend_on_how_the_timeline_is_cut(column, cuts):
    rule = EventRule(high=0.5, low=0.3)
    finder = EventFinder(rule, hop_s=2.0, n_classes=2)
    frames = np.array([column, [0.0] * len(column)], np.float32).T.reshape(-1, 2)
    for piece in np.split(frames, sorted(min(cut, len(column)) for cut in cuts)):
        finder.add(piece)
    found = finder.finish(seconds=1000.0)
    wanted = [(max(0.0, 2 * a - 1), 2 * b - 1, 0, pytest.approx(peak)) for a, b, peak in slow_events(column, rule)]
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
    assert [(event.start_s, event.end_s) for event in finder.finish(3.0)] == [(0.0, 0.5), (1.5, 2.5)]


def test_a_timeline_file_is_read_by_numpy(tmp_path, rng):
    frames = rng.random((7, 2), np.float32)
    file = TimelineFile(tmp_path / "deep" / "a.ogg.npz", ["bird0", "bird1"], hop_s=0.016)
    file.add(frames[:3])
    file.add(frames[3:])
    assert list((tmp_path / "deep").iterdir()) == []  # nothing under a name before it is whole
    file.close()
    with np.load(tmp_path / "deep" / "a.ogg.npz", allow_pickle=False) as saved:
        assert np.array_equal(saved["frames"], frames)
        assert saved["species"].tolist() == ["bird0", "bird1"]
        assert float(saved["hop_s"]) == 0.016
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.ogg.npz"]


# An interrupted run -------------------------------------------------------------------------------------


def test_recordings_come_back_as_they_were(tmp_path, rng):
    first = recording(scores=rng.random((2, 3, 4), np.float32), events=(Event(0.5, 1.25, 3, 0.75),))
    second = recording("b.ogg", scores=np.zeros((2, 0, 4), np.float32), status="unreadable", reason="cut", seconds=0.0)
    partial = PartialResults(tmp_path / "x.partial", {"model": "m"})
    partial.add(first, [10, 20])
    partial.add(second, [11, 21])
    partial.close()
    partial = PartialResults(tmp_path / "x.partial", {"model": "m"})
    for old in (second, first):
        new = partial[old.name]
        assert np.array_equal(new.scores, old.scores) and new.scores.dtype == np.float32
        assert np.array_equal(new.starts_s, old.starts_s)
        assert (new.status, new.reason, new.seconds, new.events) == (old.status, old.reason, old.seconds, old.events)
    assert partial.holds("a.ogg", [10, 20])
    assert not partial.holds("a.ogg", [10, 99]) and not partial.holds("c.ogg", [10, 20])
    partial.close(delete=True)
    assert list(tmp_path.iterdir()) == []


def test_parts_of_a_recording_are_put_together(tmp_path, rng):
    scores = rng.random((2, 7, 3), np.float32)
    whole = recording(
        scores=scores, events=(Event(0.5, 1.25, 2, 0.75),), status="truncated", reason="cut", seconds=34.0
    )
    partial = PartialResults(tmp_path / "x.partial", {})
    partial.add(replace(whole, scores=scores[:, :6] * 0, starts_s=whole.starts_s[:6]), [1, 1])  # of an earlier file
    for first, last in ((0, 3), (3, 5)):
        part = replace(whole, scores=scores[:, first:last], starts_s=whole.starts_s[first:last], status="unfinished")
        partial.add(part, [2, 2], first)
        partial.add(recording(f"other{first}"), [1, 1])
    partial.close()
    partial = PartialResults(tmp_path / "x.partial", {})
    assert not partial.holds("a.ogg", [2, 2])
    assert (partial.n_windows("a.ogg", [2, 2]), partial.n_windows("a.ogg", [1, 1])) == (5, 0)
    assert partial.n_windows("b.ogg", [2, 2]) == 0
    partial.add(replace(whole, scores=scores[:, 5:], starts_s=whole.starts_s[5:]), [2, 2], first=5)
    assert partial.holds("a.ogg", [2, 2])
    found = partial["a.ogg"]
    assert np.array_equal(found.scores, scores) and np.array_equal(found.starts_s, whole.starts_s)
    assert (found.status, found.reason, found.seconds, found.events) == ("truncated", "cut", 34.0, whole.events)
    partial.close()


def test_a_line_cut_off_anywhere_costs_that_recording_alone(tmp_path):
    path = tmp_path / "x.partial"
    partial = PartialResults(path, {"model": "m"})
    partial.add(recording("a.ogg"), [1, 1])
    whole = path.stat().st_size
    partial.add(recording("b.ogg"), [2, 2])
    partial.close()
    content = path.read_bytes()
    for length in (whole, whole + 1, whole + 50, len(content) - 1):
        path.write_bytes(content[:length])
        partial = PartialResults(path, {"model": "m"})
        assert partial.holds("a.ogg", [1, 1]) and not partial.holds("b.ogg", [2, 2])
        partial.add(recording("b.ogg"), [2, 2])
        assert np.array_equal(partial["b.ogg"].scores, partial["a.ogg"].scores)
        partial.close()
        assert path.read_bytes() == content


def test_other_settings_start_anew_and_say_which(tmp_path, caplog):
    path = tmp_path / "x.partial"
    partial = PartialResults(path, {"model": "m", "stride_s": 5})
    partial.add(recording(), [1, 1])
    partial.close()
    with caplog.at_level(logging.WARNING):
        partial = PartialResults(path, {"model": "m", "stride_s": 2})
    assert "stride_s changed" in caplog.text and "model" not in caplog.text
    assert not partial.holds("a.ogg", [1, 1])
    partial.close()


def test_a_second_run_is_kept_out(tmp_path):
    partial = PartialResults(tmp_path / "x.partial", {})
    with pytest.raises(UserError, match="another run"):
        PartialResults(tmp_path / "x.partial", {})
    partial.close()


def test_results_come_in_order_with_ranks_over_the_whole_run(tmp_path):
    partial = PartialResults(tmp_path / "x.partial", {})
    partial.add(recording("b.ogg", np.array([[[0.4], [0.1]]], np.float32)), [1, 1])
    partial.add(recording("a.ogg", np.array([[[0.3]]], np.float32)), [1, 1])
    ranked = {one.name: one.scores for one in Results(partial, ["a.ogg", "b.ogg"], "rank")}
    assert list(ranked) == ["a.ogg", "b.ogg"]
    assert ranked["a.ogg"].tolist() == [[0.5]]
    assert ranked["b.ogg"].tolist() == [[0.75], [0.25]]
    smoothed = list(Results(partial, ["b.ogg"], "probability", 1.0))
    assert smoothed[0].scores[:, 0].tolist() == pytest.approx([0.25, 0.25])
    partial.close()
