"""The fuzz targets on their kept corpus, and on what hypothesis makes of it."""

import csv
import io
import logging

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import checkpoint as ckpt
from tests import fuzz

# Number of inputs, where one takes more than a millisecond; 100 elsewhere.
EXAMPLES = {"flags": 15, "checkpoint": 40}


@pytest.fixture(autouse=True)
def quiet():
    """Warnings about each odd table and checkpoint are not what is tested."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("name", fuzz.TARGETS)
def test_the_corpus_is_answered(name):
    inputs = fuzz.corpus(name)
    assert len(inputs) > 3
    for path in inputs:
        fuzz.run_target(name, path.read_bytes())


@st.composite
def damaged(draw, name: str) -> bytes:
    """An input of the corpus with bytes changed, cut out, or put in from another input."""
    seeds = [path.read_bytes() for path in fuzz.corpus(name)]
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        length = draw(st.integers(0, 12))
        other = draw(st.sampled_from(seeds))
        first = draw(st.integers(0, len(other)))
        part = other[first : first + draw(st.integers(1, 60))]
        data[start : start + length] = draw(st.one_of(st.binary(max_size=8), st.just(part)))
    return bytes(data)


@pytest.mark.parametrize("name", fuzz.TARGETS)
def test_what_is_near_the_corpus_is_answered(name):
    @settings(
        max_examples=EXAMPLES.get(name, 100), deadline=None, suppress_health_check=list(HealthCheck)
    )
    @given(damaged(name))
    def check(data):
        fuzz.run_target(name, data)

    check()


# Of a given form ----------------------------------------------------------------------------------


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([3, 7]), st.binary(max_size=5)), min_size=1, max_size=12),
    st.data(),
)
def test_ogg_streams_of_whole_pages_are_whole_and_none_can_be_lost(parts, data):
    """Pages of one or two streams in any order, their first pages in front as RFC 3533 asks."""
    serials = sorted({serial for serial, _ in parts})
    order = [(serial, b"head") for serial in serials] + parts
    counts = {serial: 0 for serial in serials}
    last = {serial: place for place, (serial, _) in enumerate(order)}  # of each stream's pages

    pages = []
    for place, (serial, payload) in enumerate(order):
        flags = 2 * (counts[serial] == 0) + 4 * (place == last[serial])
        pages.append(fuzz.ogg_page(serial, counts[serial], flags, payload))
        counts[serial] += 1

    def find_damage(pages: list[bytes]) -> str:
        return fuzz.damage.CHECKS["OGG"](b"".join(pages), None, 10, 100)

    fuzz.fuzz_ogg(b"\0" + b"".join(pages))
    assert find_damage(pages) == ""

    lost = data.draw(st.integers(0, len(pages) - 1))
    assert find_damage(pages[:lost] + pages[lost + 1 :]) != ""

    flipped = bytearray(pages[lost])
    bit = data.draw(st.integers(0, 8 * len(flipped) - 1))
    flipped[bit // 8] ^= 1 << bit % 8
    assert find_damage([*pages[:lost], bytes(flipped), *pages[lost + 1 :]]) != ""


CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)


@settings(deadline=None)
@given(st.lists(st.lists(CELL, min_size=2, max_size=2), min_size=1, max_size=5))
def test_any_table_that_pythons_csv_writes_is_read_cell_by_cell(rows):
    rows = [["a", f"a/{number}.ogg", *cells] for number, cells in enumerate(rows)]
    text = io.StringIO()
    csv.writer(text).writerows([["primary_label", "filename", "author", "notes"], *rows])
    path = fuzz.scratch() / "written.csv"
    path.write_bytes(text.getvalue().encode())
    assert fuzz.tables.read_table(path).to_numpy().tolist() == rows


PLAIN = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.binary(max_size=3)
)
ANYTHING = st.recursive(
    PLAIN,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_state_with_anything_in_any_place_is_used_or_refused(data):
    """One part of a sound state, at any depth, is replaced or taken out."""
    state = fuzz.make_state()
    place = state
    while isinstance(place, dict | list) and place:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        inner = place[key]
        if not isinstance(inner, dict | list) or not inner or data.draw(st.booleans()):
            break
        place = inner

    if data.draw(st.booleans()):
        del place[key]
    else:
        place[key] = data.draw(ANYTHING)

    path = fuzz.scratch() / ckpt.LAST_NAME
    torch.save({"format_version": ckpt.FORMAT_VERSION, **state}, path)
    fuzz.use_checkpoint(path)
