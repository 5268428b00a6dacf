"""Metadata from strangers: how split_data reads, checks and labels a table."""

import logging

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs import UserError
from split_data import (
    FORMULA,
    add_labels,
    check_metadata,
    parse_secondary_labels,
    read_metadata,
    spreadsheet_safe,
)

HEADER = b"primary_label,secondary_labels,author,filename\n"


def write(tmp_path, data: bytes):
    path = tmp_path / "train_metadata.csv"
    path.write_bytes(data)
    return path


def frame(*rows: tuple[str, str, str]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["primary_label", "secondary_labels", "filename"], dtype=str)
    return table.set_index(pd.RangeIndex(2, len(rows) + 2, name="row"))


# Reading


def test_labels_and_numbers_stay_text(tmp_path):
    path = write(
        tmp_path,
        HEADER + b"NA,[],nan,NA/XC1.ogg\n22961,,NULL,22961/1.ogg\n007,[],-15.90,007/2.ogg\n",
    )
    table = read_metadata(path)
    assert table["primary_label"].tolist() == ["NA", "22961", "007"]
    assert table["author"].tolist() == ["nan", "NULL", "-15.90"]
    assert table["secondary_labels"].tolist() == ["[]", "", "[]"]


def test_bom_and_crlf(tmp_path):
    path = write(
        tmp_path, b"\xef\xbb\xbf" + (HEADER + b"a,[],Jos\xc3\xa9,a/1.ogg\n").replace(b"\n", b"\r\n")
    )
    table = read_metadata(path)
    assert table.columns.tolist() == ["primary_label", "secondary_labels", "author", "filename"]
    assert table.iloc[0].tolist() == ["a", "[]", "José", "a/1.ogg"]


def test_mixed_encodings_are_read_line_by_line_with_a_warning(tmp_path, caplog):
    rows = HEADER + "a,[],José,a/1.ogg\n".encode() + "b,[],Zoë,b/2.ogg\n".encode("cp1252")
    with caplog.at_level(logging.WARNING, "birdclef"):
        table = read_metadata(write(tmp_path, rows))
    assert table["author"].tolist() == ["José", "Zoë"]
    assert "1 lines are not UTF-8, read as Windows-1252: line 3" in caplog.text


def test_rows_are_numbered_as_a_spreadsheet_shows_them(tmp_path):
    path = write(
        tmp_path, HEADER + b'a,[],"two\nlines",a/1.ogg\n\nb,[],x,b/2.ogg\n,,,\nc,[],y,c/3.ogg\n\n'
    )
    assert read_metadata(path).index.tolist() == [2, 4, 6]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "not a comma-separated table"),
        (HEADER, "no rows below the header"),
        (HEADER + b"\n\n", "no rows below the header"),
        (HEADER + b"a,[],x,a/1.ogg,more\n", "not a comma-separated table"),
        (HEADER + b"a,[],x,a/1.ogg\nb,[],x,b/2.ogg,more\n", "Expected 4 fields in line 3, saw 5"),
        (HEADER + b'a,[],"x,a/1.ogg\n', "EOF inside string"),
        ("primary_label,filename\na,a/1.ogg\n".encode("utf-16"), "is UTF-16"),
    ],
)
def test_what_is_no_table_is_one_clear_line(tmp_path, data, said):
    with pytest.raises(UserError, match=said) as caught:
        read_metadata(write(tmp_path, data))
    assert "\n" not in str(caught.value)
    assert "train_metadata.csv" in str(caught.value)


def test_missing_metadata_says_where_it_looked(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.csv: No such file.*--metadata-path"):
        read_metadata(tmp_path / "nowhere.csv")


# Checking


def test_missing_columns_list_those_that_are_there():
    table = pd.DataFrame({"ebird_code": ["a"], "filename": ["a/1.ogg"]})
    with pytest.raises(
        UserError, match="no column 'primary_label'; the columns are 'ebird_code', 'filename'"
    ):
        check_metadata(table)
    with pytest.raises(UserError, match="no column 'author'"):
        check_metadata(frame(("a", "[]", "a/1.ogg")), fold_group="author")


@pytest.mark.parametrize("labels", [[22961, 22962], ["a", None], ["a", float("nan")]])
def test_labels_that_are_not_text_are_refused(labels):
    table = pd.DataFrame({"primary_label": labels, "filename": ["a/1.ogg", "b/2.ogg"]})
    with pytest.raises(
        UserError,
        match="primary_label is not all text; read the table with split_data.read_metadata",
    ):
        check_metadata(table)


@pytest.mark.parametrize(
    "name",
    [
        *[
            "/etc/passwd",
            "C:/x.ogg",
            "c:x.ogg",
            "..",
            "../x.ogg",
            "a/../../x.ogg",
            "a/..",
            "a\\x.ogg",
            "a/\0.ogg",
            "",
        ],
        *[
            "a//x.ogg",
            "./a/x.ogg",
            "a/x.ogg/",
            "a/x\n.ogg",
            "=cmd|' /C calc'!A0",
            "+x.ogg",
            "-x.ogg",
            "@x.ogg",
        ],
    ],
)
def test_unsafe_filenames_are_refused_with_their_row(name):
    with pytest.raises(UserError, match="filename is not a plain path") as caught:
        check_metadata(frame(("a", "[]", "a/1.ogg"), ("a", "[]", name)))
    assert f"row 3 {name!r};" in str(caught.value)


@pytest.mark.parametrize(
    "name", ["a/..x.ogg", "a/x..ogg", "a b/ü 🐦.ogg", "x.ogg", "a/b/c/x.ogg", ".a/.x.ogg"]
)
def test_odd_but_safe_filenames_pass(name):
    assert check_metadata(frame(("a", "[]", name)))["filename"].tolist() == [name]


def test_only_the_first_bad_rows_are_named():
    with pytest.raises(UserError, match=r"row 2 '/0', .* row 6 '/4' and 7 more;"):
        check_metadata(frame(*[("a", "[]", f"/{i}") for i in range(12)]))


def test_equal_rows_are_kept_once_and_different_ones_refused():
    same = ("a", "[]", "a/1.ogg")
    assert check_metadata(frame(same, ("b", "[]", "b/2.ogg"), same)).index.tolist() == [2, 3]
    with pytest.raises(UserError, match="stands in several rows.*row 2 'a/1.ogg', row 3 'a/1.ogg'"):
        check_metadata(frame(same, ("b", "[]", "a/1.ogg")))


def test_filenames_that_are_one_file_on_some_disks_are_refused():
    with pytest.raises(UserError, match="row 2 'a/XC1.ogg', row 3 'a/xc1.ogg'"):
        check_metadata(frame(("a", "[]", "a/XC1.ogg"), ("a", "[]", "a/xc1.ogg")))


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


# Spreadsheets


def test_formulas_get_an_apostrophe_and_numbers_do_not():
    cells = pd.Series(
        ["=1+1", "-15.9", "+3", "-1e-5", "-.5", "-x", "@me", "'=x", "it's", "", "a=b", "x\r\ny\rz"]
    )
    wanted = [
        "'=1+1",
        "-15.9",
        "+3",
        "-1e-5",
        "-.5",
        "'-x",
        "'@me",
        "''=x",
        "it's",
        "",
        "a=b",
        "x\ny\nz",
    ]
    assert spreadsheet_safe(cells).tolist() == wanted


@given(st.lists(st.text(alphabet="'=+-@\t1.ea b", max_size=6), min_size=1, max_size=8))
def test_taking_one_apostrophe_away_gives_the_text_back(cells):
    safe = spreadsheet_safe(pd.Series(cells, dtype=str)).tolist()
    assert [
        cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell for cell in safe
    ] == cells
