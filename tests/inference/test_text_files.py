"""Tables and names that are safe for any file system and any spreadsheet."""

import csv
from pathlib import Path

import pytest

from configs import UserError
from inference.text_files import (
    TEXT,
    named_after,
    path_cell,
    read_header,
    read_records,
    replacing_text,
    write_table,
)


def test_a_table_keeps_numbers_and_makes_text_safe(tmp_path):
    path = tmp_path / "t.csv"
    rows = [["=1+1", -0.5, "-5", "+1e3"], ["a,b", 2, 'say "x"', "\tx"], ["two\nlines", 0, "", "@"]]
    assert write_table(path, ["file", "+a", "-b", "c"], rows) == 3
    with open(path, newline="") as file:
        found = list(csv.reader(file))
    assert found[0] == ["file", "'+a", "'-b", "c"]
    assert found[1] == ["'=1+1", "-0.5", "-5", "+1e3"]
    assert found[2] == ["a,b", "2", 'say "x"', "'\tx"]
    assert found[3] == ["two\nlines", "0", "", "'@"]


def test_a_block_that_fails_leaves_the_old_text(tmp_path):
    path = tmp_path / "t.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), replacing_text(path) as file:
        file.write("new " * 10_000)
        raise RuntimeError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_names_of_any_bytes_come_back(tmp_path):
    name = b"caf\xe9".decode(errors="surrogateescape")
    write_table(tmp_path / "t.csv", ["file"], [[name]])
    assert (tmp_path / "t.csv").read_bytes() == b"file\ncaf\xe9\n"
    with open(tmp_path / "t.csv", **TEXT) as file:
        assert list(csv.reader(file))[1] == [name]


@pytest.mark.parametrize(
    ("folder", "name", "cell"),
    [
        (".", "a.wav", "a.wav"),
        (".", "=a.wav", "./=a.wav"),
        ("/data", "=a.wav", "/data/=a.wav"),
        ("+x", "a.wav", "./+x/a.wav"),
    ],
)
def test_a_path_is_no_formula(folder, name, cell):
    assert path_cell(Path(folder), name) == cell


def test_long_names_are_shortened_and_stay_apart(tmp_path):
    names = ["sub/" + "ü" * 120 + f"{number}.wav" for number in range(3)]
    paths = [named_after(tmp_path, name, ".npz") for name in names]
    assert len(set(paths)) == 3 and {path.parent for path in paths} == {tmp_path / "sub"}
    assert max(len(path.name.encode()) for path in paths) <= 255
    assert named_after(tmp_path, "a/b.ogg", ".npz") == tmp_path / "a" / "b.ogg.npz"


def test_the_header_of_a_table_is_read_without_the_rest(tmp_path):
    (tmp_path / "a.csv").write_bytes(b'\xef\xbb\xbfspecies,"score",\'=x\r\n1,2,3\n')
    assert read_header(tmp_path / "a.csv") == ["species", "score", "=x"]
    (tmp_path / "b.txt").write_text("Selection\tView, 1\n")
    assert read_header(tmp_path / "b.txt") == ["Selection", "View, 1"]
    with pytest.raises(UserError, match="No such file"):
        read_header(tmp_path / "none.csv")


def test_records_come_with_their_columns_and_a_mistake_says_what_failed(tmp_path):
    (tmp_path / "t.csv").write_text("\ufeffspecies,prior\nwren,0.5\n", encoding="utf-8")
    rows, columns = read_records(tmp_path / "t.csv", "no")
    assert (rows, columns) == ([{"species": "wren", "prior": "0.5"}], ["species", "prior"])

    (tmp_path / "empty.csv").write_text("species,prior\n")
    assert read_records(tmp_path / "empty.csv", "no") == ([], ["species", "prior"])

    with pytest.raises(UserError, match="--site-prior x.csv: cannot be read: .*No such file"):
        read_records(tmp_path / "x.csv", "--site-prior x.csv: cannot be read")
