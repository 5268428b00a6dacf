"""Work in threads: in order, not too far ahead, and no thread is left behind."""

import threading
import time

import pytest

from inference import pipeline


def run_in_order(sources, n_threads: int = 2, depth: int = 3):
    return pipeline.in_order(sources, n_threads=n_threads, depth=depth, enter_thread=lambda: None)


@pytest.mark.parametrize("n_threads", [1, 2, 5])
def test_items_come_in_order_however_long_each_takes(n_threads):
    def source(number: int):
        for item in range(number):
            time.sleep(0.002 * (5 - number))
            yield number, item

    sources = [lambda number=number: source(number) for number in range(5)]
    found = list(run_in_order(sources, n_threads))
    assert found == [(number, item) for number in range(5) for item in range(number)]


def test_no_source_runs_further_ahead_than_asked():
    made = [0, 0, 0]

    def source(number: int):
        for _ in range(100):
            made[number] += 1
            yield number

    before = set(threading.enumerate())
    items = run_in_order([lambda number=number: source(number) for number in range(3)])
    assert next(items) == 0
    time.sleep(0.3)
    assert made[0] <= 1 + 3 + 1 and made[1] <= 3 + 1 and made[2] == 0  # given, waiting, and in hand
    items.close()
    assert set(threading.enumerate()) <= before


def test_an_error_comes_out_in_its_place_and_ends_the_threads():
    def source():
        yield 1
        raise ValueError("broken")

    before = set(threading.enumerate())
    items = run_in_order([source, lambda: iter(range(10**9))])
    assert next(items) == 1
    with pytest.raises(ValueError, match="broken"):
        next(items)
    assert set(threading.enumerate()) <= before


def test_results_come_in_order_and_not_far_ahead():
    taken, before = [], set(threading.enumerate())

    def items():
        for number in range(100):
            taken.append(number)
            yield number

    def slow_first(number: int) -> int:
        time.sleep(0.05 if number == 0 else 0)
        return -number

    results = pipeline.apply_in_order(slow_first, items(), 2, lambda: None)
    assert next(results) == 0 and len(taken) == 5
    assert list(results) == [-number for number in range(1, 100)]
    assert set(threading.enumerate()) <= before


def test_an_error_of_function_or_items_is_raised_and_ends_the_threads():
    before = set(threading.enumerate())

    def items():
        yield from range(5)
        raise ValueError("no more")

    results = pipeline.apply_in_order(lambda number: 1 / (number - 2), items(), 1, lambda: None)
    assert [next(results), next(results)] == [-0.5, -1]
    with pytest.raises(ZeroDivisionError):
        next(results)
    with pytest.raises(ValueError, match="no more"):
        list(pipeline.apply_in_order(abs, items(), 3, lambda: None))
    assert set(threading.enumerate()) <= before
