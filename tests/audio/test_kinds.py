"""Which files are recordings, by suffix, content and links, and what is said of the others."""

import os
import shlex
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audio import kinds
from audio.kinds import list_recordings

RATE = 32_000


def write(path: Path, **how) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.linspace(-0.5, 0.5, RATE // 4, dtype=np.float32), RATE, **how)
    return path


def names(folder: Path, **how) -> list[str]:
    return list_recordings(folder, **{"follow_links": False} | how).recordings


def test_folders_at_any_depth_in_order(tmp_path):
    for name in (
        "wren/b.wav",
        "wren/2023/May/a.wav",
        "wren/2023.wav",
        "flat.wav",
        "a/b/c/d/e/f.wav",
    ):
        write(tmp_path / name)
    expected = ["a/b/c/d/e/f.wav", "flat.wav", "wren/2023.wav", "wren/2023/May/a.wav", "wren/b.wav"]
    assert names(tmp_path) == expected


@pytest.mark.parametrize(
    "hidden", [".trash/a.wav", "wren/.a.wav", "__MACOSX/a.wav", "wren/._b.wav"]
)
def test_hidden_ones_are_left_out(tmp_path, hidden):
    write(tmp_path / "wren/b.wav")
    write(tmp_path / hidden)
    assert names(tmp_path) == ["wren/b.wav"]


@pytest.mark.parametrize(
    "how",
    [
        {"format": "WAV"},
        {"format": "WAV", "subtype": "FLOAT"},
        {"format": "RF64"},
        {"format": "W64"},
        {"format": "FLAC"},
        {"format": "OGG", "subtype": "VORBIS"},
        {"format": "MP3"},
        {"format": "AIFF"},
        {"format": "AU"},
        {"format": "CAF"},
    ],
)
@pytest.mark.parametrize("name", ["plain", "20230501_050000", "a.b", "song.bak", "x.WAV1"])
def test_sound_under_any_name_is_found_by_its_content(tmp_path, how, name):
    write(tmp_path / "wren" / name, **how)
    assert names(tmp_path) == [f"wren/{name}"]


def test_an_mp3_behind_a_tag_and_one_without(tmp_path):
    sound = write(tmp_path / "x.mp3", format="MP3").read_bytes()
    (tmp_path / "untagged").write_bytes(sound)
    (tmp_path / "tagged").write_bytes(b"ID3\x03\x00\x00\x00\x00\x00\x0a" + bytes(10) + sound)
    assert names(tmp_path) == ["tagged", "untagged", "x.mp3"]


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"x", b"some text", b"%PDF-1.7", b"\x89PNG\r\n\x1a\n" + bytes(20), b"PK\x03\x04"),
        *(b"RIFF\x24\0\0\0AVI LIST", b"RIFF\x24\0\0\0WEBPVP8 ", b"FORM\0\0\0\x24ILBMBMHD"),
        *(b"\xff\xd8\xff\xe0\0\x10JFIF", b"\xff\xfe<\0h\0t\0m\0", b"filename,label\n"),
    ],
)
def test_other_files_are_counted(tmp_path, content):
    write(tmp_path / "b.wav")
    (tmp_path / "notes.dat").write_bytes(content)
    listing = list_recordings(tmp_path, follow_links=False)
    assert listing.recordings == ["b.wav"] and listing.unread == {}
    assert listing.others == {".dat": 1}


@pytest.mark.parametrize("name", ["phone.m4a", "a.WMA", "b.aac", "my bird's song.m4a", "film.mp4"])
def test_sound_that_cannot_be_read_says_how_to_convert_it(tmp_path, name):
    (tmp_path / "wren").mkdir()
    (tmp_path / "wren" / name).write_bytes(b"\0\0\0\x20ftypM4A " + bytes(50))
    listing = list_recordings(tmp_path, follow_links=False)
    assert listing.recordings == [] and list(listing.unread) == [f"wren/{name}"]
    command = listing.unread[f"wren/{name}"].split("convert it: ")[1]
    stem = name.rsplit(".", 1)[0]
    assert shlex.split(command) == ["ffmpeg", "-i", name, f"{stem}.flac"]  # as a shell reads it


@pytest.mark.parametrize(
    "start", [b"\0\0\0\x20ftypM4A isom", b"wvpk\x24\0\0\0\0\0", b"#!AMR\n\0\0", b"MAC \x96\x0f"]
)
def test_such_sound_without_a_suffix(tmp_path, start):
    (tmp_path / "plain").write_bytes(start + bytes(50))
    assert (
        "ffmpeg -i plain plain.flac"
        in list_recordings(tmp_path, follow_links=False).unread["plain"]
    )


def test_links_out_of_the_folder_are_read_or_said(tmp_path):
    archive = tmp_path / "archive"
    write(archive / "wren/a.wav")
    write(tmp_path / "disk/tit/b.wav")
    (archive / "tit").symlink_to(tmp_path / "disk/tit")
    (archive / "wren/c.wav").symlink_to(tmp_path / "disk/tit/b.wav")

    listing = list_recordings(archive, follow_links=False)
    assert (listing.recordings, listing.links) == (["wren/a.wav"], ["tit", "wren/c.wav"])
    listing = list_recordings(archive, follow_links=True)
    assert listing.recordings == ["tit/b.wav", "wren/a.wav", "wren/c.wav"] and listing.links == []


def test_links_inside_the_folder(tmp_path):
    write(tmp_path / "wren/a.wav")
    (tmp_path / "wren/again.wav").symlink_to(tmp_path / "wren/a.wav")
    (tmp_path / "same").symlink_to(tmp_path / "wren")  # its recordings are listed already
    for follow_links in (False, True):
        assert names(tmp_path, follow_links=follow_links) == ["wren/a.wav", "wren/again.wav"]


def test_links_that_lead_round_in_circles_end(tmp_path):
    archive = tmp_path / "archive"
    write(archive / "wren/a.wav")
    (archive / "wren/up").symlink_to(archive)
    (archive / "out").symlink_to(tmp_path)
    (archive / "self").symlink_to(archive / "self")
    found = names(archive, follow_links=True)
    assert "wren/a.wav" in found and len(found) < 5


def test_the_archive_itself_may_be_a_link(tmp_path):
    write(tmp_path / "disk/wren/a.wav")
    (tmp_path / "archive").symlink_to(tmp_path / "disk")
    assert names(tmp_path / "archive") == ["wren/a.wav"]


@pytest.mark.skipif(os.name == "nt", reason="such names exist on Linux")
def test_names_that_are_no_utf8(tmp_path):
    write(tmp_path / "x.wav")
    os.rename(tmp_path / "x.wav", os.fsencode(tmp_path) + b"/\xff.wav")
    assert names(tmp_path) == ["\udcff.wav"]


def test_a_folder_that_cannot_be_read_is_an_error(tmp_path):
    with pytest.raises(OSError, match="nowhere"):
        list_recordings(tmp_path / "nowhere", follow_links=False)


def test_every_suffix_stands_in_one_list():
    assert not kinds.READ & kinds.OTHER_SOUND
    assert {suffix for usual in kinds.USUAL_SUFFIXES.values() for suffix in usual} == kinds.READ
