"""Recordings found by what tables of annotations call them, and by the folders of the tables."""

import pytest

from catalog.annotations import read_annotations
from catalog.recording_names import RecordingNames
from configs import UserError

SITES = ["siteA/rec.wav", "siteB/rec.wav", "siteB/2023/rec.wav", "\u00c9t\u00e9/vent.wav"]


def spans_of(path, recordings):
    table = read_annotations(path, recordings)
    return list(table.itertuples(index=False, name=None))


def test_tables_in_folders_like_those_of_the_recordings_belong_to_them(tmp_path):
    for folder, label in (("siteA", "wren"), ("siteB", "robin"), ("siteB/2023", "owl")):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "rec.txt").write_text(f"0.5\t1.25\t{label}\n")
    (tmp_path / "siteA/more.csv").write_text("file,start,end,label\nrec.wav,3,4,tit\n")
    assert spans_of(tmp_path, SITES) == [
        ("siteA/rec.wav", 0.5, 1.25, "wren"),
        ("siteA/rec.wav", 3.0, 4.0, "tit"),
        ("siteB/2023/rec.wav", 0.5, 1.25, "owl"),
        ("siteB/rec.wav", 0.5, 1.25, "robin"),
    ]


def test_a_table_of_a_recording_that_is_not_there_takes_none_of_another_folder(tmp_path, caplog):
    for folder in ("siteA", "siteC"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "rec.txt").write_text(f"0.5\t1.25\t{folder}\n")
    found = spans_of(tmp_path, ["siteA/rec.wav", "siteB/other.wav"])
    assert found == [("siteA/rec.wav", 0.5, 1.25, "siteA")]
    assert "1 recordings of it are not among those here" in caplog.text


@pytest.mark.parametrize(
    ("text", "folder", "expected"),
    [
        ("rec", "siteA", "siteA/rec.wav"),
        ("rec.wav", "SITEB", "siteB/rec.wav"),
        ("rec.flac", "siteB/2023", "siteB/2023/rec.wav"),
        ("C:\\field\\siteB\\2023\\rec.wav", "siteA", "siteB/2023/rec.wav"),
        ("/mnt/sd card/siteA/rec", "", "siteA/rec.wav"),
        ("E\u0301te\u0301/vent.wav", "", "\u00c9t\u00e9/vent.wav"),
        (' "vent" ', "", "\u00c9t\u00e9/vent.wav"),
        ("rec", "siteC", None),
    ],
)
def test_names_by_hand(text, folder, expected):
    names = RecordingNames(SITES, ["siteA", "siteB"])
    assert names.find(text, "here", folder) == expected


def test_folders_that_are_not_the_recordings_make_no_difference():
    names = RecordingNames(["site/rec.1.wav", "site/rec.2.wav"], ["by_ann", "by_ben"])
    assert names.find("rec.2", "here", "by_ann") == "site/rec.2.wav"
    assert names.find("rec", "here", "by_ann") is None


def test_a_name_that_fits_two_is_refused_with_both():
    names = RecordingNames(SITES[:2])
    with pytest.raises(UserError, match="here: 'rec' fits siteA/rec.wav and siteB/rec.wav"):
        names.find("rec", "here")
