"""Tables from strangers, read as text."""

import logging

import pytest

from catalog.tables import read_metadata
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
