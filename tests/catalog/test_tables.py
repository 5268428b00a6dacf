"""Tables from strangers, read as text."""

import csv
import io
import logging

import pytest

from catalog.tables import read_table
from configs import UserError

HEADER = b"primary_label,secondary_labels,author,filename\n"


def write(tmp_path, data: bytes):
    path = tmp_path / "train_metadata.csv"
    path.write_bytes(data)
    return path


# Reading


def test_labels_and_numbers_stay_text(tmp_path):
    path = write(
        tmp_path,
        HEADER + b"NA,[],nan,NA/XC1.ogg\n22961,,NULL,22961/1.ogg\n007,[],-15.90,007/2.ogg\n",
    )
    table = read_table(path)
    assert table["primary_label"].tolist() == ["NA", "22961", "007"]
    assert table["author"].tolist() == ["nan", "NULL", "-15.90"]
    assert table["secondary_labels"].tolist() == ["[]", "", "[]"]


def test_bom_and_crlf(tmp_path):
    path = write(
        tmp_path, b"\xef\xbb\xbf" + (HEADER + b"a,[],Jos\xc3\xa9,a/1.ogg\n").replace(b"\n", b"\r\n")
    )
    table = read_table(path)
    assert table.columns.tolist() == ["primary_label", "secondary_labels", "author", "filename"]
    assert table.iloc[0].tolist() == ["a", "[]", "José", "a/1.ogg"]


def test_mixed_encodings_are_read_line_by_line_with_a_warning(tmp_path, caplog):
    rows = HEADER + "a,[],José,a/1.ogg\n".encode() + "b,[],Zoë,b/2.ogg\n".encode("cp1252")
    with caplog.at_level(logging.WARNING, "birdclef"):
        table = read_table(write(tmp_path, rows))
    assert table["author"].tolist() == ["José", "Zoë"]
    assert "1 lines are not UTF-8, read as Windows-1252: line 3" in caplog.text


def test_rows_are_numbered_as_a_spreadsheet_shows_them(tmp_path):
    path = write(
        tmp_path, HEADER + b'a,[],"two\nlines",a/1.ogg\n\nb,[],x,b/2.ogg\n,,,\nc,[],y,c/3.ogg\n\n'
    )
    assert read_table(path).index.tolist() == [2, 4, 6]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "not a table of text: it is empty"),
        (b"\n , ,,\n", "not a table of text: it is empty"),
        (HEADER, "no rows below the header"),
        (HEADER + b"\n\n", "no rows below the header"),
        (HEADER + b"a,[],x,a/1.ogg,more\n", "row 2 has 5 cells, the header 4; put quotes"),
        (HEADER + b"\na,[],x,a/1.ogg\nb,['a', 'b'],x,b/2.ogg\n", "row 4 has 5 cells"),
        (HEADER + b'a,[],"x,a/1.ogg\n', "line 2: unexpected end of data"),
        (HEADER + b'a,[],"x"y,a/1.ogg\n', "line 2: ',' expected after"),
        (b"PK\x03\x04 and so on", r"is a spreadsheet file \(.xlsx, .ods\); save it as CSV"),
        (b'[{"primary_label": "wren"}]', "is JSON; save it as CSV"),
        (b"<!DOCTYPE html><html>", "is a web page"),
        (b"\xff\xfea\0,", "is damaged UTF-16"),
    ],
)
def test_what_is_no_table_is_one_clear_line(tmp_path, data, said):
    with pytest.raises(UserError, match=said) as caught:
        read_table(write(tmp_path, data))
    assert "\n" not in str(caught.value)
    assert "train_metadata.csv" in str(caught.value)


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.csv: No such file"):
        read_table(tmp_path / "nowhere.csv")


ROWS = [["primary_label", "filename", "notes"], ["wren", "wren/1.wav", "a, b; c"], ["tit", "2", ""]]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]
)
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_any_delimiter_encoding_and_line_end(tmp_path, delimiter, encoding, line_end):
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator=line_end).writerows(ROWS)
    table = read_table(write(tmp_path, text.getvalue().encode(encoding)))
    assert [table.columns.tolist(), *table.to_numpy().tolist()] == ROWS


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("a;b;\n1;2;\n", [["1", "2"]]),  # a delimiter too many at the end of every row
        ("a,b\n1,2,,,\n", [["1", "2"]]),  # or of the rows alone
        ("a,b,c\n1\n", [["1", "", ""]]),  # cells left out at the end
        ("sep=;\na;b\n1,5;2\n", [["1,5", "2"]]),  # Excel's first line
        ("\n,,\na,b\n1,2\n  , \n3,4\n,\n", [["1", "2"], ["3", "4"]]),  # blank rows anywhere
        (" a , b \n1,2\n", [["1", "2"]]),  # spaces around names
        ('a,b\n"x\ny",2\n', [["x\ny", "2"]]),  # a line break in a cell
        ("a\tb\n1, 2\t3;4\n", [["1, 2", "3;4"]]),  # other delimiters in cells
        ("a\n1\n", [["1"]]),  # one column
    ],
)
def test_what_people_and_programs_leave_in_tables(tmp_path, text, rows):
    table = read_table(write(tmp_path, text.encode()))
    assert table.columns.tolist() == ["a", "b", "c"][: len(rows[0])]
    assert table.to_numpy().tolist() == rows


def test_columns_without_a_name_or_with_one_twice_are_named_as_pandas_does(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "birdclef"):
        table = read_table(write(tmp_path, b",a,a,,b\n0,1,2,x,3\n"))
    assert table.columns.tolist() == ["Unnamed: 0", "a", "a.1", "Unnamed: 3", "b"]
    assert "a second column 'a' is read as 'a.1'" in caplog.text


def test_a_header_alone_is_a_table_where_that_is_asked_for(tmp_path):
    table = read_table(write(tmp_path, b"a,b\n,\n"), may_be_empty=True)
    assert (table.columns.tolist(), len(table)) == (["a", "b"], 0)


def test_a_delimiter_that_is_no_comma_is_said(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "birdclef"):
        read_table(write(tmp_path, b"a;b\n1;2\n"))
    assert "columns are separated by semicolons" in caplog.text


def test_remarks_above_the_header_are_passed_over_and_rows_keep_their_numbers(tmp_path):
    path = tmp_path / "remarks.csv"
    path.write_text("# birds of 2023, by Ann\n\n# checked\nfilename,label\na.wav,wren\n")
    table = read_table(path)
    assert list(table.columns) == ["filename", "label"] and list(table.index) == [5]

    path.write_text("#,filename\n1,a.wav\n")  # a numbered column is no remark
    assert list(read_table(path).columns) == ["#", "filename"]
