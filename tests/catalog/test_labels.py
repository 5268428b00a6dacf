"""Labels of a recording: what a cell says, and how they are joined."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.filenames import check_metadata
from catalog.labels import add_labels, parse_secondary_labels
from configs import UserError
from tests.archive import frame

# Labels


@pytest.mark.parametrize(
    ("cell", "names"),
    [
        *[
            ("", ()),
            ("[]", ()),
            ("['']", ()),
            ("['a', 'b']", ("a", "b")),
            ("('a',)", ("a",)),
            ("['NA']", ("NA",)),
        ],
        *[
            ("[22961, 'a']", ("22961", "a")),
            ("['', 'a']", ("a",)),
            (r"['\d']", (r"\d",)),
            ("['ü 🐦']", ("ü 🐦",)),
        ],
        *[
            ("nan", None),
            ("a b", None),
            ("'a'", None),
            ("['a'", None),
            ("[True]", None),
            ("[['a']]", None),
        ],
        *[
            ("[1.5]", None),
            ("{'a': 1}", None),
            ("[None]", None),
            ("\0", None),
            ("[" * 5000, None),
            ("-" * 9000, None),
        ],
        ("__import__('os').system('touch hacked')", None),
        ("['a'] + [print('ran')]", None),
        (str(["a" * 9] * 1000), None),  # over MAX_CELL
        ("[" + " " * 10_000_000 + "]", None),
    ],
)
def test_secondary_labels_by_hand(cell, names):
    assert parse_secondary_labels(cell) == names


@given(st.text(max_size=60))
def test_any_secondary_cell_gives_labels_or_none(cell):
    names = parse_secondary_labels(cell)
    assert names is None or all(isinstance(name, str) and name for name in names)


@given(st.lists(st.text(min_size=1, max_size=8), max_size=8))
def test_a_list_that_python_wrote_is_read_back(names):
    assert parse_secondary_labels(repr(names)) == tuple(names)


def test_labels_are_primary_then_secondary_without_repeats():
    table, malformed = add_labels(
        frame(
            ("a", "['b', 'c']", "a/1.ogg"),
            ("a", "['b', 'a', 'b']", "a/2.ogg"),
            ("b", "['']", "b/3.ogg"),
            ("NA", "oops(", "NA/4.ogg"),
        )
    )
    assert table["labels"].tolist() == ["a b c", "a b", "b", "NA"]
    assert table["len_labels"].tolist() == [3, 2, 1, 1]
    assert malformed.to_dict() == {5: "oops("}


def test_secondary_labels_are_optional_and_may_be_missing_values():
    table = frame(("a", "[]", "a/1.ogg"))
    assert add_labels(table.drop(columns="secondary_labels"))[0]["labels"].tolist() == ["a"]
    table["secondary_labels"] = pd.Series([float("nan")], index=table.index, dtype=object)
    labelled, malformed = add_labels(table)
    assert labelled["labels"].tolist() == ["a"]
    assert malformed.empty


@pytest.mark.parametrize(
    ("primary", "secondary"),
    [
        *[
            ("great tit", "[]"),
            ("", "[]"),
            ("a\tb", "[]"),
            ("a\0", "[]"),
            ("=cmd", "[]"),
            ("-a", "[]"),
            ("a\u00a0b", "[]"),
        ],
        *[
            ("a", "['great tit']"),
            ("a", "['@x']"),
            ("a", r"['\x00']"),
            ("a", r"['\ud800']"),
            ("a", "[' ']"),
        ],
    ],
)
def test_labels_that_cannot_be_joined_are_refused_with_their_row(primary, secondary):
    with pytest.raises(UserError, match="joined by spaces.*row 3 .*rename it"):
        add_labels(frame(("a", "[]", "a/1.ogg"), (primary, secondary, "x/2.ogg")))


@pytest.mark.parametrize("label", ["a/b", "🐦", "22961", "NA", "'a'", "a-b", "x=y"])
def test_unusual_labels_pass_unchanged(label):
    assert add_labels(frame((label, "[]", "x/1.ogg")))[0]["labels"].tolist() == [label]


@pytest.mark.parametrize(
    "rows", [("amecro", "Amecro", "[]"), ("amecro", "b", "['AMECRO']"), ("é", "e\u0301", "[]")]
)
def test_labels_that_differ_only_in_case_are_refused(rows):
    first, second, secondary = rows
    with pytest.raises(UserError, match="only in case.*row 2 .*row 3 "):
        add_labels(frame((first, "[]", "x/1.ogg"), (second, secondary, "x/2.ogg")))


def test_the_callers_table_is_not_changed():
    table = frame(("a", "['b']", "a/1.ogg"), ("a", "['b']", "a/1.ogg"))
    before = table.copy()
    add_labels(check_metadata(table))
    pd.testing.assert_frame_equal(table, before)
