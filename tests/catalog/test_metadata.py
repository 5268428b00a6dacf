"""The rows of an archive, from a table or from folders."""

import logging
from pathlib import Path

import pandas as pd
import pytest

from catalog.labels import NO_BIRD
from catalog.metadata import read_archive, rows_from_folders, tidy_archive
from configs import Config, UserError
from tests.archive import frame

FILES = ["robin/r0.wav", "robin/r1.wav", "wren/w0.wav", "wren/w1.wav", "_trash/t0.wav"]


def archive(root: Path, text: str | None, **settings: object) -> Config:
    """Make settings of an archive with a metadata table of this text."""
    config = Config(root=root, **settings)
    config.metadata_path.parent.mkdir(parents=True, exist_ok=True)
    if text is not None:
        config.metadata_path.write_text(text)
    return config


def rows(table: pd.DataFrame) -> list[list[str]]:
    return table[["primary_label", "filename"]].to_numpy().tolist()


# Reading


def test_a_table_is_read_before_folders(tmp_path):
    config = archive(tmp_path, "label,file\nwren,a.wav\n")
    assert read_archive(config, FILES).to_numpy().tolist() == [["wren", "a.wav"]]


def test_folders_stand_for_a_table_that_is_not_there_and_that_is_said(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "birdclef"):
        table = read_archive(archive(tmp_path, None), ["wren/2023/a.wav", "tit/b.wav"])
    assert rows(table) == [["wren", "wren/2023/a.wav"], ["tit", "tit/b.wav"]]
    assert "no table at" in caplog.text
    assert "folders are the labels" in caplog.text


def test_from_folders_leaves_the_table_unread(tmp_path):
    config = archive(tmp_path, "not a table", from_folders=True)
    assert rows(read_archive(config, ["wren/a.wav"])) == [["wren", "wren/a.wav"]]


def test_another_table_nearby_is_not_passed_over(tmp_path):
    config = archive(tmp_path, None)
    other = config.metadata_path.with_name("train.csv")
    other.write_text("x")
    with pytest.raises(UserError, match=r"but .*data/train.csv is there; name .*--metadata-path"):
        read_archive(config, FILES)
    config.from_folders = True
    assert len(read_archive(config, FILES)) == 5


def test_a_table_that_was_named_must_be_there(tmp_path):
    config = archive(tmp_path, None, metadata_path=Path("birds.csv"))
    with pytest.raises(UserError, match="birds.csv: No such file or directory .*--from-folders"):
        read_archive(config, FILES)


def test_recordings_outside_folders_have_no_label(caplog):
    assert len(rows_from_folders(["a.wav", "wren/b.wav"], Path("x"))) == 1
    assert "1 recordings lie in no folder and are left out" in caplog.text
    with pytest.raises(UserError, match="x: no recordings in folders; put those of a species"):
        rows_from_folders(["a.wav"], Path("x"))


def test_names_that_no_table_can_hold_are_left_out_and_said(caplog):
    table = rows_from_folders(["wren/a\nb.wav", "wren/b.wav", "=x/c.wav"], Path("x"))
    assert table["filename"].tolist() == ["wren/b.wav"]
    assert "2 recordings are left out: '=x/c.wav', 'wren/a\\nb.wav'; its name" in caplog.text


# Tidying


def test_names_labels_and_numbers_are_repaired_together():
    config = Config()
    metadata = pd.DataFrame(
        {"Species": [" 22961.0 ", "7"], "File": ["A.WAV", "007\\b.ogg"]}, index=[2, 3], dtype=str
    )
    table, notes = tidy_archive(metadata, config, ["22961/a.wav", "007/b.mp3"])
    assert rows(table) == [["22961", "22961/a.wav"], ["007", "007/b.mp3"]]
    assert notes == {"repeated_rows": [], "non_species": [], "other_folders": []}


def test_every_repair_is_one_line_of_the_log(caplog):
    metadata = frame((" wren", "", "wren\\w0.wav"), ("wren ", "", "wren\\w1.wav"))
    metadata.attrs["source"] = "t.csv"
    with caplog.at_level(logging.INFO, "birdclef"):
        tidy_archive(metadata, Config(), FILES)
    assert [record.getMessage() for record in caplog.records] == [
        "t.csv: spaces around or in 2 labels taken away",
        "t.csv: 2 file names matched after changing \\ to /",
    ]


def test_equal_rows_are_kept_once_and_different_ones_refused():
    same = ("wren", "[]", "wren/w0.wav")
    table, notes = tidy_archive(frame(same, ("wren", "[]", "w1.wav"), same), Config(), FILES)
    assert table.index.tolist() == [2, 3]
    assert notes["repeated_rows"] == [4]
    with pytest.raises(UserError, match=r"several rows.*row 2 'wren/w0.wav', row 3 'wren/w0.wav'"):
        tidy_archive(frame(same, ("robin", "[]", "wren\\w0.wav")), Config(), FILES)


@pytest.mark.parametrize("labels", [[22961, 22962], ["a", None], ["a", float("nan")]])
def test_labels_that_are_not_text_are_refused(labels):
    table = pd.DataFrame({"primary_label": labels, "filename": ["a/1.ogg", "b/2.ogg"]})
    with pytest.raises(UserError, match="primary_label is not all text; read the table with"):
        tidy_archive(table, Config(), FILES)


def test_an_empty_label_or_a_missing_group_column_is_refused():
    with pytest.raises(
        UserError, match=r"primary_label is empty: row 3 '' \(x.wav\); write the sp"
    ):
        tidy_archive(frame(("a", "", "w0.wav"), (" ", "", "x.wav")), Config(), FILES)
    with pytest.raises(UserError, match=r"no column 'author' \(fold_group\); the columns are"):
        tidy_archive(frame(("a", "", "w0.wav")), Config(fold_group="author"), FILES)


def test_a_table_that_disagrees_with_the_folders_is_counted(caplog):
    metadata = frame(
        ("wren", "", "robin/r0.wav"), ("robin", "", "wren/w0.wav"), ("tit", "", "w1.wav")
    )
    _, notes = tidy_archive(metadata, Config(), FILES)
    assert "3 of 3 rows have another label than the folder of their recording" in caplog.text
    assert notes["other_folders"] == [
        {"row": 2, "filename": "robin/r0.wav", "label": "wren"},
        {"row": 3, "filename": "wren/w0.wav", "label": "robin"},
        {"row": 4, "filename": "wren/w1.wav", "label": "tit"},
    ]


def test_folders_with_other_names_than_the_labels_are_no_disagreement(caplog):
    metadata = frame(("Troglodytes", "", "wren/w0.wav"), ("Erithacus", "", "robin/r0.wav"))
    assert tidy_archive(metadata, Config(), FILES)[1]["other_folders"] == []
    assert caplog.text == ""


# What is no species

MIXED = [("wren", "a.wav"), ("Background", "b.wav"), ("_trash", "c.wav"), ("no call", "d.wav")]


@pytest.mark.parametrize(
    ("choice", "kept", "left_out"),
    [
        ("leave_out", ["wren"], [3, 4, 5]),
        ("negatives", ["wren", NO_BIRD, NO_BIRD], [4]),
        ("classes", ["wren", "Background", "_trash", "no call"], []),
    ],
)
def test_what_is_no_species_is_what_the_user_says(choice, kept, left_out, caplog):
    metadata = frame(*((label, "", name) for label, name in MIXED))
    table, notes = tidy_archive(metadata, Config(non_species=choice), [])
    assert table["primary_label"].tolist() == kept
    assert [note["row"] for note in notes["non_species"]] == left_out
    assert ("_trash" in caplog.text) == bool(left_out)
    assert ("--non-species: leave_out, negatives" in caplog.text) == bool(left_out)
