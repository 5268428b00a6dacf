"""Columns by the names that people give them."""

import logging

import pandas as pd
import pytest

from catalog.columns import name_columns
from configs import UserError


def table(**columns: str) -> pd.DataFrame:
    """Make a table of one row; its source is t.csv."""
    made = pd.DataFrame({name: [cell] for name, cell in columns.items()}, dtype=str)
    made.attrs["source"] = "t.csv"
    return made


@pytest.mark.parametrize(
    ("label", "filename"),
    [
        ("species", "file"),
        ("label", "path"),
        ("ebird_code", "filepath"),
        ("Species", "File Name"),
        ("Common Name", "file-name"),
        ("scientific_name", "audio_path"),
        ("category", "filename"),
        ("class", "fname"),
        ("en", "xc_id"),
        ("Manual ID", "IN FILE"),
        ("Primary Label", "FILENAME"),
        ("bird", "recording"),
        ("Label", "Begin Path"),
        ("species_code", "wav_file"),
    ],
)
def test_usual_names_are_understood_and_said(label, filename, caplog):
    with caplog.at_level(logging.INFO, "birdclef"):
        found = name_columns(table(**{"nr": "1", label: "wren", filename: "a.wav"}))
    assert found.columns.tolist() == ["nr", "primary_label", "filename"]
    assert f"t.csv: labels from column {label!r}" in caplog.text
    assert f"file names from column {filename!r}" in caplog.text or filename == "filename"


def test_birdclefs_own_names_need_no_word(caplog):
    made = table(primary_label="a", secondary_labels="[]", common_name="A", filename="a.wav")
    with caplog.at_level(logging.INFO, "birdclef"):
        assert name_columns(made) is made
    assert caplog.text == ""


def test_any_other_column_can_be_chosen_and_the_usual_one_is_kept():
    made = table(primary_label="a", art="Amsel", filename="x", file2="a.wav")
    found = name_columns(made, label_column="art", filename_column="file2")
    assert found.iloc[0].to_dict() == {
        "primary_label (original)": "a",
        "primary_label": "Amsel",
        "filename (original)": "x",
        "filename": "a.wav",
    }


def test_a_chosen_column_may_be_written_in_another_case():
    found = name_columns(table(Name="a", filename="a.wav"), label_column="name")
    assert found["primary_label"].tolist() == ["a"]


def test_web_addresses_are_no_file_names():
    made = table(species="a", file="//xeno-canto.org/1/download", **{"file-name": "XC1.mp3"})
    assert name_columns(made)["filename"].tolist() == ["XC1.mp3"]
    alone = table(species="a", file="//xeno-canto.org/1/download")
    with pytest.raises(UserError, match="'file' holds web addresses .*--filename-column"):
        name_columns(alone)


def test_web_addresses_that_end_with_a_file_name_are_file_names():
    made = table(species="a", url="x", file="https://example.org/audio/XC1.mp3")
    assert name_columns(made)["filename"].tolist() == ["https://example.org/audio/XC1.mp3"]


def test_other_labels_are_found_too():
    made = table(species="a", file="a.wav", background="b; c")
    assert name_columns(made)["secondary_labels"].tolist() == ["b; c"]


@pytest.mark.parametrize(
    ("columns", "settings", "said"),
    [
        (
            {"x": "1", "filename": "a"},
            {},
            r"t.csv: no column 'primary_label' \(or label, .*'x', 'file",
        ),
        ({"x": "1", "species": "a"}, {}, "no column 'filename' .*--filename-column"),
        ({"species": "1", "file": "a"}, {"label_column": "bird"}, "no column 'bird'; the columns"),
        (
            {"wren": "tit", "wren/1.wav": "tit/2.wav", "label": "x"},
            {},
            "has no header, its first row",
        ),
        ({"label": "a", "x": "b"}, {"filename_column": "label"}, "cannot be both"),
    ],
)
def test_missing_columns_list_those_that_are_there_and_the_setting(columns, settings, said):
    with pytest.raises(UserError, match=said):
        name_columns(table(**columns), **settings)


def test_genus_and_species_in_columns_of_their_own_are_one_label():
    names = {"Genus": ["Parus", "Dendrocopos"], "species": ["major", "major"], "file": ["a", "b"]}
    found = name_columns(pd.DataFrame(names))
    assert list(found["primary_label"]) == ["Parus major", "Dendrocopos major"]

    whole = pd.DataFrame(names | {"species": ["Parus major", "Dendrocopos major"]})
    assert list(name_columns(whole)["primary_label"]) == ["Parus major", "Dendrocopos major"]
    asked = name_columns(pd.DataFrame(names), label_column="genus")
    assert list(asked["primary_label"]) == ["Parus", "Dendrocopos"]
    xeno_canto = {"gen": ["Parus", "Dendrocopos"], "sp": ["major", "major"], "file": ["a", "b"]}
    found = name_columns(pd.DataFrame(xeno_canto))
    assert list(found["primary_label"]) == ["Parus major", "Dendrocopos major"]
    coded = pd.DataFrame(names | {"label": ["x", "y"]})
    assert list(name_columns(coded)["primary_label"]) == ["x", "y"]
