"""planning/archive.py on an archive whose contents are known."""

from dataclasses import replace

import pandas as pd
import pytest

from audio.decoder import Header
from configs import UserError
from planning.archive import (
    Grouping,
    choose_sample,
    describe_grouping,
    find_groupings,
    look_at_archive,
    usual_rate,
)


def test_all_headers_are_read_and_what_can_be_heard_is(planned):
    found = look_at_archive(planned)
    assert len(found.headers) == 12
    assert found.headers["wren/r1.flac"] == Header(3.0, 32_000, 1, "FLAC")
    assert found.headers["tit/r5.flac"].channels == 2
    assert found.headers["robin/r0.flac"] == Header(0.0, 0, 0, "")
    assert found.counts.to_dict() == {"robin": 4, "wren": 4, "tit": 4}
    assert found.labels_a_row == pytest.approx(13 / 12)
    assert found.background_share == pytest.approx(1 / 12)
    assert len(found.sample) == 11 and found.unusable == 1
    assert found.groupings == (Grouping("author", 2, 1.0),)
    robins = [one for one in found.sample if one.label == "robin"]
    assert len(robins) == 3 and all(1000 < one.high_hz < 2500 for one in robins)


def test_labels_with_a_time_are_counted(planned, tmp_path):
    labels = tmp_path / "labels.csv"
    rows = ["wren/r1.flac,0,1.5,wren", "wren/r1.flac,2,3,tit", "tit/r2.flac,0,0.5,tit"]
    labels.write_text("filename,start,end,label\n" + "\n".join(rows) + "\n")
    found = look_at_archive(replace(planned, annotations=labels), 2)
    assert found.counts.to_dict() == {"tit": 2, "wren": 1}
    assert sorted(found.labels_s) == [0.5, 1.0, 1.5]
    assert found.labels_a_row == 1.5


def test_a_sample_takes_each_species_first():
    labels = ["a"] * 50 + ["b"] * 2 + ["c"]
    table = pd.DataFrame({"primary_label": labels, "filename": [f"{k}" for k in range(53)]})
    assert sorted(choose_sample(table, 5, 8).values()) == ["a", "a", "b", "b", "c"]
    assert choose_sample(table, 5, 8) == choose_sample(table, 5, 8)
    assert len(choose_sample(table, 99, 8)) == 53


def test_a_rate_counts_if_a_tenth_have_it():
    headers = [Header(1, 22_050, 1, "WAV")] * 89 + [Header(1, 44_100, 1, "WAV")] * 10
    assert usual_rate([*headers, Header(1, 96_000, 1, "WAV")]) == 44_100
    assert usual_rate([Header(0, 0, 0, "")]) == 16_000


def test_a_grouping_is_scorable_where_two_groups_have_a_species():
    table = pd.DataFrame(
        {"primary_label": list("aabbc"), "author": list("xyxxx"), "site": list("11111")}
    )
    assert describe_grouping(table, "author") == Grouping("author", 2, 0.5)
    assert [one.column for one in find_groupings(table)] == ["author"]


def test_folders_without_sound_are_refused(planned, tmp_path):
    with pytest.raises(UserError, match="no recordings"):
        look_at_archive(replace(planned, train_audio_dir=tmp_path))
    with pytest.raises(UserError, match="no recordings"):
        look_at_archive(replace(planned, train_audio_dir=tmp_path / "nowhere"))
