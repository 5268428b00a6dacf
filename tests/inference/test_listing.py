"""Which detections a page lists, and their random order: fair, repeatable, whole to a depth."""

from collections import Counter

import numpy as np
import pytest

from inference.detections import Event
from inference.listing import SCORE_BINS, Listed, Listing, draw, ranks_in, score_bins

LABELS = ["robin", "wren"]


def listed(events: list[Event], limit: int = 10**6, n_recordings: int = 1) -> Listed:
    listing = Listing(LABELS, limit)
    for place in range(n_recordings):
        listing.add(place, f"{place}.wav", events[place::n_recordings])
    return listing.take()


def many(n: int, rng: np.random.Generator) -> list[Event]:
    return [
        Event(5.0 * k, 5.0 * k + 5, int(rng.random() < 0.2), float(rng.random())) for k in range(n)
    ]


@pytest.mark.parametrize(("score", "number"), [(0.0, 0), (0.049, 0), (0.05, 1), (0.999999, 19)])
def test_bins_are_a_twentieth_wide(score, number):
    assert score_bins([score]).tolist() == [number]


def test_ranks_are_counted_in_each_stratum():
    strata = np.array([7, 3, 7, 7, 3])
    draws = np.array([0.5, 0.9, 0.1, 0.3, 0.2])
    assert ranks_in(strata, draws).tolist() == [2, 1, 0, 1, 0]
    assert ranks_in(np.zeros(0, int), np.zeros(0)).tolist() == []


def test_all_are_listed_by_recording_and_time_and_the_best_of_a_window_first():
    events = [Event(5, 10, 0, 0.6), Event(5, 10, 1, 0.9), Event(0, 5, 1, 0.7)]
    found = listed(events)
    assert found.events == [events[2], events[1], events[0]]
    assert found.depth is None and sorted(found.order) == [0, 1, 2]
    assert found.counts.sum() == 3 and found.counts[1, 14] == 1 and found.counts[1, 18] == 1


def test_the_order_follows_from_what_a_detection_is_and_from_nothing_else(rng):
    events = many(300, rng)
    whole, part = listed(events), listed(events[:100])
    ranks = {event.start_s: rank for event, rank in zip(whole.events, whole.order, strict=True)}
    of_part = sorted(part.events, key=lambda event: ranks[event.start_s])
    assert [part.events[n] for n in np.argsort(part.order)] == of_part
    assert draw("a.wav", events[0], "wren") != draw("b.wav", events[0], "wren")


def test_the_order_is_uniform():
    draws = np.array([draw("a.wav", Event(k * 2.5, 0, 0, 0), "wren") for k in range(4000)])
    counts = np.histogram(draws, 10, (0, 1))[0]  # 400 each, with a deviation of 19
    assert abs(counts - 400).max() < 5 * 19
    assert abs(np.corrcoef(draws[1:], draws[:-1])[0, 1]) < 0.06  # four deviations


def test_what_does_not_fit_is_left_out_evenly_and_counted(rng):
    events = many(5000, rng)
    few, all_ = listed(events, limit=300, n_recordings=50), listed(events, n_recordings=50)
    assert len(few.events) <= 300 and few.depth is not None
    assert np.array_equal(few.counts, all_.counts) and few.counts.sum() == 5000

    kept = set(few.events)
    for of_species in (True, False):  # each stratum has its first ones, as in the whole list
        strata: dict[tuple[int, int], list[Event]] = {}
        for n in np.argsort(all_.order):
            event = all_.events[n]
            key = (event.species if of_species else -1, int(score_bins([event.score])[0]))
            strata.setdefault(key, []).append(event)
        for members in strata.values():
            assert set(members[: few.depth]) <= kept


def test_those_drawn_first_are_uniform_over_the_bins_of_each_species(rng):
    found = listed(many(2000, rng))
    first = [found.events[n] for n in found.first_drawn(4 * SCORE_BINS)]
    keys = Counter((event.species, int(score_bins([event.score])[0])) for event in first)
    assert set(keys.values()) == {2} and len(keys) == 2 * SCORE_BINS
    assert listed([]).first_drawn(5) == []
