"""File names in tables, and files in folders."""

import os

import pandas as pd
import pytest

from catalog.filenames import check_metadata, list_files
from configs import UserError
from tests.archive import frame

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
        match="primary_label is not all text; read the table with catalog.tables.read_metadata",
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


def test_links_are_listed_where_they_lead_out(tmp_path):
    inside, outside = tmp_path / "in", tmp_path / "out"
    (inside / "a").mkdir(parents=True)
    outside.mkdir()
    (outside / "x.npy").write_bytes(b"x")
    (inside / "a/1.npy").write_bytes(b"1")
    (inside / "a/2.npy").symlink_to("1.npy")
    (inside / "a/out.npy").symlink_to(outside / "x.npy")
    (inside / "folder").symlink_to(outside)
    (inside / "loop.npy").symlink_to("loop.npy")
    (inside / "dir.npy").mkdir()
    os.mkfifo(inside / "pipe.npy")
    files, links = list_files(inside, ".npy")
    assert files == ["a/1.npy", "a/2.npy", "a/out.npy"]
    assert links == ["a/out.npy", "folder"]
    (tmp_path / "alias").symlink_to(inside)
    assert list_files(tmp_path / "alias", ".npy") == (files, links)
    assert list_files(tmp_path / "nowhere") == ([], [])
