"""Submissions of every year, read back as a competition would read them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs import UserError
from inference import submissions
from inference.formats import write
from inference.selection import Sample
from tests.inference.written import CLASSES, SCORES, one, selection


def sample_file(path: Path, text: str) -> Sample:
    path.write_text(text)
    return submissions.read_sample(path)


@pytest.mark.parametrize("year", [2023, 2024, 2025, 2026])
def test_a_submission_has_a_row_a_window_named_by_its_end_and_exact_scores(tmp_path, year):
    path = tmp_path / "submission.csv"
    assert write(path, f"submission-{year}", [one()], selection()) == 3
    table = pd.read_csv(path)
    assert list(table.columns) == ["row_id", *CLASSES]
    assert list(table["row_id"]) == [
        "soundscape_29201_5",
        "soundscape_29201_10",
        "soundscape_29201_15",
    ]
    assert np.array_equal(table[CLASSES].to_numpy(np.float32), SCORES)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("row_id;bird0\nx_5;0\n", "its header begins row_id;bird0"),
        ("row_id,bird0,bird0\nx_5,0,0\n", "column 'bird0' stands in it twice"),
        ("row_id,bird0\nx_5,0\nx_5,0\n", "row_id 'x_5' stands in it twice"),
    ],
)
def test_what_no_competition_would_give_is_refused(tmp_path, text, said):
    with pytest.raises(UserError, match=said):
        sample_file(tmp_path / "sample_submission.csv", text)


def test_columns_and_rows_follow_the_sample(tmp_path, caplog):
    header = "row_id,22961,bird0"
    rows = "soundscape_29201_10,0,0\nsoundscape_29201_5,0,0\nsoundscape_7_5,0,0\n"
    sample = sample_file(tmp_path / "sample_submission.csv", f"{header}\n{rows}")
    assert sample.form == "submission-2023"
    assert write(tmp_path / "s.csv", "submission-2023", [one()], selection(sample=sample)) == 4
    table = pd.read_csv(tmp_path / "s.csv", index_col=0)
    assert list(table.columns) == ["22961", "bird0"]
    numbers = ("29201_10", "29201_5", "7_5", "29201_15")
    assert table.index.tolist() == [f"soundscape_{number}" for number in numbers]
    wanted = np.float32([[0.7, 0.2], [0.3, 0.9], [0, 0], [0.3, 0.1]])
    assert np.array_equal(table.to_numpy(np.float32), wanted)
    assert "1 of its rows have no window (soundscape_7_5)" in caplog.text


def test_a_sample_chooses_no_rows_but_columns_and_order(tmp_path, caplog):
    """As on Kaggle: the public sample has a few rows, the hidden recordings have many windows."""
    rows = "soundscape_29201_10,0\nsoundscape_1_5,0\n"
    sample = sample_file(tmp_path / "sample_submission.csv", f"row_id,bird0\n{rows}")
    recordings = [one(), one("soundscape_8.ogg", SCORES[:1])]
    chosen = selection(sample=sample)
    assert write(tmp_path / "s.csv", "submission-2025", recordings, chosen) == 5
    table = pd.read_csv(tmp_path / "s.csv", index_col=0)["bird0"].round(6)
    assert table.to_dict() == {
        "soundscape_29201_10": 0.2,  # the sample's, in its order
        "soundscape_1_5": 0.0,  # has no recording
        "soundscape_29201_5": 0.9,  # all other windows
        "soundscape_29201_15": 0.1,
        "soundscape_8_5": 0.9,
    }
    assert "1 of its rows have no window (soundscape_1_5); they get 0.0" in caplog.text


@pytest.mark.parametrize(
    ("form", "header", "row", "blank"),
    [
        ("submission-2021", "birds", "7_COR_5,a b", "nocall"),
        ("submission-2022", "target", "soundscape_7_bird0_5,True", "False"),
        ("submission-2024", "bird0", "soundscape_7_5,0.5", "0.0"),
    ],
)
def test_without_recordings_the_sample_alone_is_written(tmp_path, form, header, row, blank):
    sample = sample_file(tmp_path / "sample.csv", f"row_id,{header}\n{row}\n")
    write(tmp_path / "s.csv", form, [], selection(sample=sample))
    name = row.split(",")[0]
    assert (tmp_path / "s.csv").read_text() == f"row_id,{header}\n{name},{blank}\n"


def test_2021_lists_the_birds_of_a_window_or_nocall(tmp_path):
    recording = one("7019_COR_20190904.ogg")
    write(tmp_path / "s.csv", "submission-2021", [recording], selection())
    table = pd.read_csv(tmp_path / "s.csv")
    assert table.columns.tolist() == ["row_id", "birds"]
    assert table["row_id"].tolist() == ["7019_COR_5", "7019_COR_10", "7019_COR_15"]
    assert table["birds"].tolist() == ["bird0", "NA 22961", "nocall"]


def test_2022_has_a_row_for_each_scored_bird_with_a_boolean(tmp_path):
    sample = sample_file(
        tmp_path / "sample.csv",
        "row_id,target\nsoundscape_29201_bird0_5,False\nsoundscape_29201_22961_10,False\n",
    )
    assert (sample.form, sample.species) == ("submission-2022", ["bird0", "22961"])
    write(tmp_path / "s.csv", "submission-2022", [one()], selection(sample=sample))
    table = pd.read_csv(tmp_path / "s.csv")
    assert table["row_id"].tolist()[:2] == ["soundscape_29201_bird0_5", "soundscape_29201_22961_10"]
    assert table["target"].tolist() == [True, True, False, False, False, False]
    assert table["target"].dtype == bool
    write(tmp_path / "all.csv", "submission-2022", [one()], selection(threshold=0.25))
    table = pd.read_csv(tmp_path / "all.csv", index_col=0)
    assert len(table) == 9 and table["target"].sum() == 5
    assert (
        table["target"]["soundscape_29201_NA_10"]
        and not table["target"]["soundscape_29201_bird0_10"]
    )


def test_species_outside_the_list_score_zero_in_a_submission(tmp_path):
    write(
        tmp_path / "s.csv",
        "submission-2023",
        [one()],
        selection(wanted=np.array([True, False, False])),
    )
    table = pd.read_csv(tmp_path / "s.csv")
    assert table["bird0"].tolist() == pytest.approx([0.9, 0.2, 0.1])
    assert not table[["NA", "22961"]].to_numpy().any()


def test_sample_columns_that_are_no_classes_are_refused_or_zero(tmp_path, caplog):
    sample = sample_file(tmp_path / "sample.csv", "row_id,bird0,xxx,yyy\n")
    with pytest.raises(
        UserError,
        match=r"2 of its 3 species are no classes of the model \(xxx, yyy\); --fill-missing",
    ):
        submissions.check_sample(sample, CLASSES, ["submission-2023"], fill_missing=False)
    submissions.check_sample(sample, CLASSES, ["submission-2023"], fill_missing=True)
    assert "they score 0" in caplog.text
    write(tmp_path / "s.csv", "submission-2023", [one()], selection(sample=sample))
    table = pd.read_csv(tmp_path / "s.csv")
    assert (
        table.columns.tolist() == ["row_id", "bird0", "xxx", "yyy"]
        and not table[["xxx", "yyy"]].to_numpy().any()
    )


@pytest.mark.parametrize(("text", "message"), [
    ("", "it is empty"), ("id,bird0\n", "not row_id"), ("row_id\n", "no sample submission"),
])  # fmt: skip
def test_what_is_no_sample_submission_is_refused(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        sample_file(tmp_path / "sample.csv", text)


def test_a_sample_of_another_year_is_refused(tmp_path):
    sample = sample_file(tmp_path / "sample.csv", "row_id,birds\n")
    with pytest.raises(UserError, match="form of submission-2021, not of submission-2024"):
        submissions.check_sample(sample, CLASSES, ["submission-2024"], fill_missing=False)
    submissions.check_sample(sample, CLASSES, ["submission-2021", "long"], fill_missing=False)


# Row ids ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "stems"),
    [
        ("submission-2023", {"x.ogg": "x", "a/y.ogg": "y"}),
        # AudioMoth's names, equal at every site
        (
            "submission-2025",
            {
                "S1/20230501_050000.WAV": "S1/20230501_050000",
                "S2/20230501_050000.WAV": "S2/20230501_050000",
                "z.wav": "z",
            },
        ),
        ("submission-2023", {"a/x.ogg": "a/x.ogg", "a/x.wav": "a/x.wav"}),
        # a path that is another one's name without its suffix
        (
            "submission-2023",
            {
                "a/x.ogg": "a/x.ogg",
                "a/x.ogg.wav": "a/x.ogg.wav",
                "a/x.wav": "a/x.wav",
                "b/x.ogg.wav": "b/x.ogg",
            },
        ),
        (
            "submission-2021",
            {
                "1_COR_20190904.ogg": "1_COR_20190904",
                "1_COR_20190905.ogg": "1_COR_20190905",
                "2_COR_20190904.ogg": "2_COR",
            },
        ),
    ],
)
def test_recordings_with_equal_names_keep_their_path_in_row_ids(form, stems):
    assert submissions.row_stems(form, stems) == stems


@given(st.sets(st.text("ab./", min_size=1, max_size=6).filter(lambda name: name[-1] not in "./")))
def test_no_two_recordings_share_a_row_id(names):
    names = {name.strip("/").replace("//", "/") for name in names}
    stems = submissions.row_stems("submission-2023", names)
    assert set(stems) == names and len(set(stems.values())) == len(names)


def test_row_ids_of_equal_names_are_told_apart_in_a_submission(tmp_path, caplog):
    names = ("S1/20230501_050000.WAV", "S2/20230501_050000.WAV")
    recordings = [one(name, SCORES[:1]) for name in names]
    write(tmp_path / "s.csv", "submission-2026", recordings, selection(recordings=names))
    rows = pd.read_csv(tmp_path / "s.csv")["row_id"].tolist()
    assert rows == ["S1/20230501_050000_5", "S2/20230501_050000_5"]
    assert "2 recordings have the name of another one" in caplog.text


def test_formulas_in_names_and_labels_are_escaped_and_found_again(tmp_path):
    chosen = selection(class_names=["=1+1", "@x", "-1"], recordings=("=cmd.wav",))
    write(tmp_path / "s.csv", "submission-2023", [one("=cmd.wav")], chosen)
    header, *rows = (tmp_path / "s.csv").read_text().splitlines()
    assert header == "row_id,'=1+1,'@x,-1" and rows[0] == "'=cmd_5,0.9,0.1,0.3"

    sample = submissions.read_sample(tmp_path / "s.csv")
    assert sample.species == ["=1+1", "@x", "-1"] and sample.row_ids[0] == "=cmd_5"


@pytest.mark.parametrize(
    ("second", "text"), [(5.0, "5"), (2.5, "2.5"), (86400.0, "86400"), (1e6 + 5, "1000005")]
)
def test_seconds_of_a_row_id_are_written_in_full(second, text):
    assert submissions.row_id("submission-2023", "b_c", second) == f"b_c_{text}"
