"""Labels of a table: joined in one cell, repaired, and refused."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.labels import (
    NO_BIRD,
    add_labels,
    is_no_bird,
    is_unsorted,
    join_labels,
    number_repair,
    split_labels,
    split_primary,
    tidy_label,
)
from configs import UserError
from tests.archive import frame

# One cell for several labels


def test_labels_without_spaces_are_joined_by_spaces_and_others_by_semicolons():
    assert join_labels([("a", "b"), ("c",), ()]) == ["a b", "c", ""]
    assert join_labels([("a", "b"), ("Great tit",)]) == ["a;b", "Great tit"]


LABELS = st.text(st.characters(exclude_characters=";", exclude_categories=["Z", "C"]), min_size=1)
SPACED = st.lists(LABELS, min_size=1, max_size=3).map(" ".join)


@given(st.lists(st.lists(SPACED, max_size=4, unique=True), min_size=1, max_size=6))
def test_what_is_joined_is_split_again(rows):
    known = {label for labels in rows for label in labels}
    assert [split_labels(cell, known) for cell in join_labels(rows)] == rows


# Whole tables


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


def test_labels_with_spaces_stay_whole():
    table, _ = add_labels(
        frame(
            ("Great tit", "Blue tit; Wren", "a/1.ogg"),
            ("Wren", "['Great tit']", "a/2.ogg"),
            ("Wren", "Great tit Blue tit", "a/3.ogg"),
            ("Blue tit", "", "a/4.ogg"),
        )
    )
    assert table["labels"].tolist() == [
        "Great tit;Blue tit;Wren",
        "Wren;Great tit",
        "Wren;Great tit;Blue tit",
        "Blue tit",
    ]


def test_labels_of_one_cell_help_to_read_another():
    # Neither is a primary label, but the first row's quotes show that they are labels.
    rows = ("a", "['marsh', 'reed']", "a/1.ogg"), ("a", "reed marsh", "a/2.ogg")
    assert add_labels(frame(*rows))[0]["labels"].tolist() == ["a marsh reed", "a reed marsh"]


def test_a_recording_without_a_bird_has_no_labels():
    table, _ = add_labels(frame((NO_BIRD, "[]", "x/1.ogg"), ("a", "['nocall']", "a/2.ogg")))
    assert table["labels"].tolist() == ["", "a"]
    assert table["len_labels"].tolist() == [0, 1]


def test_cells_that_cannot_be_told_apart_are_refused_with_row_column_and_recording():
    table = frame(("a", "[]", "a/1.ogg"), ("b", "Parus major", "b/2.ogg"))
    table.attrs["source"] = "data/t.csv"
    with pytest.raises(UserError) as refused:
        add_labels(table)
    assert str(refused.value) == (
        "data/t.csv: secondary_labels cannot be told apart, it may be one label or 2; separate "
        "labels by ;: row 3 'Parus major' (b/2.ogg); separate labels by ; or write ['a', 'b']"
    )


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
        *[("", "[]"), ("a;b", "[]"), ("a\0", "[]"), ("=cmd", "[]"), ("-a", "[]"), ("a\x7f", "[]")],
        *[("a", "['@x']"), ("a", r"['\x00']"), ("a", r"['\ud800']"), ("a", "['x;y']")],
    ],
)
def test_labels_that_cannot_name_a_class_are_refused_with_their_row(primary, secondary):
    with pytest.raises(UserError, match=r"label is empty.*row 3 .*\(x/2.ogg\); rename it"):
        add_labels(frame(("a", "[]", "a/1.ogg"), (primary, secondary, "x/2.ogg")))


@pytest.mark.parametrize("label", ["a/b", "🐦", "22961", "NA", "'a'", "a-b", "x=y", "Great tit"])
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
    table = frame(("a", "['b']", "a/1.ogg"), ("a", "['b']", "a/2.ogg"))
    before = table.copy()
    add_labels(table)
    pd.testing.assert_frame_equal(table, before)


# Repairs


@pytest.mark.parametrize(
    ("label", "tidy"),
    [
        (" wren ", "wren"),
        ("Great  tit", "Great tit"),
        ("Great\u00a0tit\u00a0", "Great tit"),
        ("Great\ttit", "Great tit"),
        ("\ufeffwren", "wren"),
        ("cafe\u0301", "caf\u00e9"),
        ("Parus major", "Parus major"),
    ],
)
def test_spaces_and_accents_of_a_label(label, tidy):
    assert tidy_label(label) == tidy


@pytest.mark.parametrize(
    ("labels", "known", "repaired"),
    [
        (["22961.0", "wren"], ["22961"], ["22961", "wren"]),  # a folder has that number
        (["22961.0", "41663.0"], [], ["22961", "41663"]),  # all numbers are floats
        (["22961.0", "41663"], [], ["22961.0", "41663"]),  # not all of them
        (["7", "8.0", "wren"], ["007", "008"], ["007", "008", "wren"]),  # zeros were lost
        (["7"], ["007", "07"], ["7"]),  # which?
        (["7"], ["7", "007"], ["7"]),
        (["1.5", "2e3", "v1.0"], ["1", "2000"], ["1.5", "2e3", "v1.0"]),  # no whole numbers
    ],
)
def test_numbers_get_their_spelling_back(labels, known, repaired):
    repair = number_repair(labels, known)
    assert [repair(label) for label in labels] == repaired


def test_floats_among_secondary_labels_become_the_primary_ones():
    rows = ("22961", "['41663.0']", "a/1.ogg"), ("41663", "41663.0; 5.0", "a/2.ogg")
    assert add_labels(frame(*rows))[0]["labels"].tolist() == ["22961 41663", "41663 5"]


def test_of_several_labels_in_the_first_column_the_others_are_secondary():
    table = frame(
        ("['wren', 'tit']", "['owl']", "1.ogg"), ("tit;owl", "", "2.ogg"), ("owl", "", "3.ogg")
    )
    table, labels = split_primary(table, table["primary_label"], "t.csv")
    assert labels.tolist() == ["wren", "tit", "owl"]
    assert table["secondary_labels"].tolist() == ["['tit', 'owl']", "['owl']", ""]
    with pytest.raises(UserError, match=r"no list of labels: row 2 '\[\]' \(1.ogg\)"):
        bad = frame(("[]", "", "1.ogg"))
        split_primary(bad, bad["primary_label"], "t.csv")


@pytest.mark.parametrize("name", ["Background", "noise", "NOCALL", "no_call", "no-bird", "Silence"])
def test_words_for_no_bird(name):
    assert is_no_bird(name)
    assert not is_unsorted(name)


@pytest.mark.parametrize("name", ["_trash", "Unsorted", "_maybe later", ".hidden", "tmp"])
def test_words_for_unsorted(name):
    assert is_unsorted(name)
    assert not is_no_bird(name)


@pytest.mark.parametrize("name", ["wren", "noisy miner", "Noisy_Miner", "silvereye", "NA", "none1"])
def test_species_are_species(name):
    assert not is_no_bird(name)
    assert not is_unsorted(name)
