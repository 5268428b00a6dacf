"""File names in tables, and files in folders."""

import os
from pathlib import Path

import pandas as pd
import pytest

from catalog.filenames import check_filenames, list_files, match_filenames, tidy_path
from configs import UserError

FILES = [
    "wren/XC100.wav",
    "wren/Rec 1.WAV",
    "wren/001.wav",
    "robin/001.wav",
    "robin/2023/late.ogg",
    "robin/caf\u00e9.mp3",
    "flat.wav",
    "two/a.mp3",
    "two/a.wav",
]


def match(*rows: tuple[str, str], files: list[str] = FILES, folder: str = "/audio"):
    """Match (label, name) rows; return the names found and how many were repaired in which way."""
    table = pd.DataFrame(rows, columns=["label", "filename"], dtype=str)
    table.index += 2
    found, repairs = match_filenames(
        table["filename"], table["label"], files, folder=Path(folder), source="t.csv"
    )
    return found.tolist(), dict(repairs)


@pytest.mark.parametrize(
    ("label", "name", "path", "repair"),
    [
        ("wren", " wren/XC100.wav ", "wren/XC100.wav", "dropping spaces or quotes around them"),
        ("wren", "'wren/XC100.wav'", "wren/XC100.wav", "dropping spaces or quotes around them"),
        ("wren", "wren\\XC100.wav", "wren/XC100.wav", "changing \\ to /"),
        ("wren", "XC100.wav", "wren/XC100.wav", "adding the folder"),
        ("wren", "001.wav", "wren/001.wav", "adding the folder"),
        ("robin", "001.wav", "robin/001.wav", "adding the folder"),
        ("robin", "2023/late.ogg", "robin/2023/late.ogg", "adding the folder"),
        ("robin", "late.ogg", "robin/2023/late.ogg", "adding the folder"),
        ("wren", "wren/rec 1.wav", "wren/Rec 1.WAV", "ignoring case or the form of accents"),
        ("wren", "WREN/XC100.wav", "wren/XC100.wav", "ignoring case or the form of accents"),
        ("wren", "wren/XC100.mp3", "wren/XC100.wav", "taking another suffix"),
        ("wren", "wren/XC100", "wren/XC100.wav", "taking another suffix"),
        ("robin", "robin/cafe\u0301.mp3", "robin/caf\u00e9.mp3", "ignoring case or the form of"),
        ("wren", "wren/Rec%201.WAV", "wren/Rec 1.WAV", "reading %20 and the like as characters"),
        ("robin", "caf%c3%a9.mp3", "robin/caf\u00e9.mp3", "adding the folder and reading %20"),
        ("wren", "/home/ann/wren/XC100.wav", "wren/XC100.wav", "dropping folders before them"),
        ("wren", "/audio/wren/XC100.wav", "wren/XC100.wav", "dropping folders before them"),
        ("wren", "C:\\birds\\wren\\XC100.wav", "wren/XC100.wav", "changing \\ to / and dropping"),
        ("wren", "./wren//XC100.wav", "wren/XC100.wav", "dropping folders before them"),
        ("x", "x/flat.wav", "flat.wav", "dropping folders before them"),
        ("wren", "XC100", "wren/XC100.wav", "adding the folder and taking another suffix"),
        ("robin", "robin/XC100.wav", "wren/XC100.wav", "taking another folder"),
    ],
)
def test_the_one_file_that_a_name_means_is_found_and_said(label, name, path, repair):
    found, repairs = match((label, name))
    assert found == [path]
    assert [how for how in repairs if repair in how] == list(repairs)
    assert sum(repairs.values()) == 1


def test_a_name_that_is_there_is_taken_as_it_stands():
    assert match(("x", "wren/001.wav"), ("x", "flat.wav")) == (["wren/001.wav", "flat.wav"], {})


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("robin", "robin/Rec 1.WAV"),  # that file lies in another folder
        ("wren", "wren/002.wav"),
        ("wren", "../wren/XC100.wav"),
        ("wren", "wren/../flat.wav"),
        ("wren", "100.wav"),
        ("wren", ""),
        ("wren", "wren%2F001.wav"),  # not a slash
        ("robin", "robin/caf%E9.mp3"),  # no UTF-8
        ("wren", "%2e%2e/wren/002.wav"),
    ],
)
def test_a_name_of_another_file_is_not_guessed(label, name):
    assert match((label, name)) == ([name], {})


def test_a_file_whose_name_was_saved_as_in_a_web_address_is_found():
    assert match(("wren", "wren/Rec 2.wav"), files=["wren/Rec%202.wav"])[0] == ["wren/Rec%202.wav"]


def test_several_files_that_fit_are_refused_with_their_paths():
    with pytest.raises(UserError) as refused:
        match(("tit", "flat.wav"), ("tit", "001.wav"))
    assert str(refused.value) == (
        "t.csv: row 3: 2 files fit filename '001.wav': robin/001.wav, wren/001.wav; write the path "
        "of the one you mean"
    )
    with pytest.raises(UserError, match="2 files fit filename 'two/a.ogg': two/a.mp3, two/a.wav"):
        match(("two", "two/a.ogg"))


def test_a_file_that_a_row_names_exactly_is_not_given_to_a_row_that_is_nearly_right():
    rows = [("two", "two/a.mp3"), ("two", "two/A.ogg"), ("two", "two/a.wav")]
    assert match(*rows)[0] == ["two/a.mp3", "two/A.ogg", "two/a.wav"]
    deleted = [name for name in FILES if name != "wren/001.wav"]
    assert match(("robin", "001.wav"), ("wren", "001.wav"), files=deleted)[0] == [
        "robin/001.wav",
        "001.wav",
    ]


def test_an_archive_number_alone_is_enough():
    files = ["wren/XC100 - Wren - Troglodytes.mp3", "wren/XC1000 - Wren.mp3", "tit/ML200.wav"]
    found, repairs = match(("w", "XC100"), ("w", "1000"), ("t", "ML200.wav"), files=files)
    assert found == files
    assert set(repairs) == {
        "after adding the folder and comparing the number in the name alone",
        "after adding the folder",
    }


def test_the_audio_folder_is_no_part_of_a_name(tmp_path):
    assert tidy_path(f"{tmp_path}/wren/1.wav", tmp_path) == "wren/1.wav"
    assert tidy_path("/elsewhere/wren/1.wav", tmp_path) == "/elsewhere/wren/1.wav"


# Checking


@pytest.mark.parametrize(
    "name",
    ["/etc/passwd", "C:/x.ogg", "c:x.ogg", "..", "../x.ogg", "a/../../x.ogg", "a/..", "a\\x.ogg",
     "a/\0.ogg", "", "a//x.ogg", "./a/x.ogg", "a/x.ogg/", "a/x\n.ogg", "=cmd|' /C calc'!A0",
     "+x.ogg", "-x.ogg", "@x.ogg"],
)  # fmt: skip
def test_unsafe_filenames_are_refused_with_their_row(name):
    names = pd.Series(["a/1.ogg", name], index=[2, 3], name="filename", dtype=str)
    with pytest.raises(UserError, match="^t.csv: filename is not a plain path") as caught:
        check_filenames(names, "t.csv")
    assert f"row 3 {name!r};" in str(caught.value)


def test_odd_but_safe_filenames_pass():
    names = ["a/..x.ogg", "a/x..ogg", "a b/ü 🐦.ogg", "x.ogg", "a/b/c/x.ogg", ".a/.x.ogg"]
    assert check_filenames(pd.Series(names, name="filename", dtype=str), "t.csv") is None


def test_only_the_first_bad_rows_are_named():
    names = pd.Series([f"/{i}" for i in range(12)], index=range(2, 14), name="filename", dtype=str)
    with pytest.raises(UserError, match=r"row 2 '/0', .* row 6 '/4' and 7 more;"):
        check_filenames(names, "t.csv")


def test_names_that_are_one_file_on_some_disks_are_refused():
    names = pd.Series(["a/XC1.ogg", "a/xc1.ogg"], index=[2, 3], name="filename", dtype=str)
    with pytest.raises(UserError, match="row 2 'a/XC1.ogg', row 3 'a/xc1.ogg'"):
        check_filenames(names, "t.csv")


# Files below a folder


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
