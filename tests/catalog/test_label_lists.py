"""Lists of labels in a cell, in the ways in which people write them."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.label_lists import AmbiguousError, MalformedError, parse_labels

KNOWN = {"wren", "tit", "robin", "Great tit", "Blue tit", "Owl, Barn", "22961", "007"}


@pytest.mark.parametrize(
    ("cell", "labels"),
    [
        # nothing
        ("", ()),
        ("[]", ()),
        ("['']", ()),
        ("  ", ()),
        ("nan", ()),
        ("None", ()),
        ("<NA>", ()),
        ("set()", ()),
        ("[nan]", ()),
        ("()", ()),
        ("wren, nan", ("wren",)),
        # Python's and JSON's
        ("['a', 'b']", ("a", "b")),
        ("('a',)", ("a",)),
        ("['NA']", ("NA",)),
        ("{'a', 'b'}", ("a", "b")),
        ("[22961, 'a']", ("22961", "a")),
        ("[22961.0]", ("22961.0",)),
        ("['', 'a']", ("a",)),
        (r"['\d']", (r"\d",)),
        ("['ü 🐦']", ("ü 🐦",)),
        ("['a', 'b',]", ("a", "b")),
        ('["a", "b"]', ("a", "b")),
        (r'["caf\u00e9", "a\/b"]', ("café", "a/b")),
        ("[\"Cooper's hawk\", 'wren']", ("Cooper's hawk", "wren")),
        ("[b'wren']", ("wren",)),
        ("['Great tit', 'wren']", ("Great tit", "wren")),
        ("'a', 'b'", ("a", "b")),
        ("'a'", ("a",)),
        # numpy's and pandas'
        ("['wren' 'tit']", ("wren", "tit")),
        ("['wren'\n 'tit']", ("wren", "tit")),
        ("['Great tit' 'wren']", ("Great tit", "wren")),
        ("[22961 41663]", ("22961", "41663")),
        ("array(['a', 'b'], dtype=object)", ("a", "b")),
        ("array(['a' 'b'])", ("a", "b")),
        ("Index(['a', 'b'], dtype='object')", ("a", "b")),
        ("[np.str_('a'), np.str_('b')]", ("a", "b")),
        ("[np.int64(22961)]", ("22961",)),
        # without quotes
        ("[wren, tit]", ("wren", "tit")),
        ("[wren tit]", ("wren", "tit")),
        ("{wren,tit}", ("wren", "tit")),
        ("wren;tit", ("wren", "tit")),
        ("wren, tit", ("wren", "tit")),
        ("wren|tit", ("wren", "tit")),
        ("wren ; tit ;", ("wren", "tit")),
        ("wren\ntit", ("wren", "tit")),
        ("wren", ("wren",)),
        ("new1", ("new1",)),
        ("wren tit", ("wren", "tit")),
        ("22961 41663", ("22961", "41663")),
        ("Great tit", ("Great tit",)),
        ("Great tit; Marsh warbler", ("Great tit", "Marsh warbler")),
        ("Great tit Blue tit", ("Great tit", "Blue tit")),
        ("wren Great tit", ("wren", "Great tit")),
        ("Owl, Barn", ("Owl, Barn",)),
        ("Owl, Barn; wren", ("Owl, Barn", "wren")),
        ("Cooper's hawk, wren", ("Cooper's hawk", "wren")),
        ("a(b), c", ("a(b)", "c")),
    ],
)
def test_lists_read_by_hand(cell, labels):
    assert parse_labels(cell, KNOWN) == labels


@pytest.mark.parametrize(
    "cell",
    [
        "['a'",
        "['a']]",
        "oops(",
        "[True]",
        "[['a']]",
        "[1.5]",
        "{'a': 1}",
        "\0",
        "[" * 5000,
        "-" * 9000,
        "['a'] + [print('ran')]",
        str(["a" * 9] * 1000),
        "[" + " " * 10_000_000 + "]",
        "['a' ... 'b']",
        "a = b",
        "<b>wren</b>",
        "__import__('os').system('touch hacked')",
    ],
)
def test_what_is_no_list_of_names(cell):
    with pytest.raises(MalformedError):
        parse_labels(cell, KNOWN)


@pytest.mark.parametrize(
    ("cell", "why"),
    [
        ("['wren' 'tit', 'robin']", "a comma is missing"),
        ("['wren', 'tit' 'robin']", "a comma is missing"),
        ("wren; tit | robin", "two kinds of separators"),
        ("wren; tit, robin", "two kinds of separators"),
        ("wren tit, robin", "'wren tit' may be one label or 2"),
        ("Parus major", "one label or 2"),
        ("wren foo", "one label or 2; separate labels by ;"),
    ],
)
def test_what_cannot_be_told_apart(cell, why):
    with pytest.raises(AmbiguousError, match=why):
        parse_labels(cell, KNOWN)


def test_words_that_can_be_cut_in_two_ways_are_ambiguous():
    known = {"Great", "tit", "Great tit"}
    assert parse_labels("Great tit", known) == ("Great tit",)
    with pytest.raises(AmbiguousError):
        parse_labels("Great tit tit", known)


def test_missing_words_that_are_labels_stay():
    assert parse_labels("NA", {"NA"}) == ("NA",)
    assert parse_labels("NA", {"wren"}) == ()


NAMES = st.lists(st.text(min_size=1, max_size=8), max_size=8)


@given(NAMES)
def test_a_list_that_python_wrote_is_read_back(names):
    assert parse_labels(repr(names)) == tuple(names)
    assert parse_labels(repr(tuple(names))) == tuple(names)


@given(NAMES)
def test_a_list_that_json_wrote_is_read_back(names):
    assert parse_labels(json.dumps(names)) == tuple(names)


@given(st.lists(st.text(st.characters(categories=["L", "Nd"]), min_size=1), min_size=1, max_size=8))
def test_what_pandas_writes_of_an_array_is_read_back(names):
    cell = str(pd.DataFrame({"a": [np.array(names, dtype=object)]}).to_csv(index=False))
    text = pd.read_csv(__import__("io").StringIO(cell), dtype=str)["a"][0]
    assert parse_labels(text) == tuple(names)


@given(st.text(max_size=60))
def test_any_cell_gives_labels_or_one_of_two_errors(cell):
    try:
        labels = parse_labels(cell, KNOWN)
    except (MalformedError, AmbiguousError):
        return
    assert all(isinstance(label, str) and label for label in labels)


@pytest.mark.parametrize("cell", ["wren，tit", "wren、tit", "wren；tit", "wren ｜ tit"])  # noqa: RUF001
def test_wide_separators_are_separators(cell):
    assert parse_labels(cell) == ("wren", "tit")
    assert parse_labels(cell, {cell}) == (cell,)
