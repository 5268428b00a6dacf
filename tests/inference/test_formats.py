"""Every file that predict.py writes, read back by what it is for."""

import csv
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from configs import UserError
from files import CannotWriteError
from inference import formats, submissions
from inference import selection as selection_module
from inference.detections import Event, Recording
from inference.formats import FORMATS, write
from inference.selection import Sample, Selection
from inference.text_files import TEXT

CLASSES = ["bird0", "NA", "22961"]
SCORES = np.array([[0.9, 0.1, 0.3], [0.2, 0.6, 0.7], [0.1, 0.2, 0.3]], np.float32)
NAMES = {
    "bird0": ("Turdus merula", "Common Blackbird"),
    "22961": ("Rana temporaria", "Common Frog"),
}


def one(name: str = "soundscape_29201.ogg", scores: np.ndarray = SCORES, **facts) -> Recording:
    facts = {"status": "ok", "reason": "", "seconds": 12.5} | facts
    return Recording(name, starts_s=5.0 * np.arange(len(scores)), scores=scores, **facts)


def selection(**settings) -> Selection:
    given = {
        "class_names": CLASSES,
        "period": 5.0,
        "folder": Path("/data"),
        "fmin": 20.0,
        "fmax": 16000.0,
    }
    return Selection(**given | settings)


def sample_file(path: Path, text: str) -> Sample:
    path.write_text(text)
    return submissions.read_sample(path)


def read_tsv(path: Path) -> list[list[str]]:
    return [line.split("\t") for line in path.read_text().splitlines()]


# Submissions --------------------------------------------------------------------------------------


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


def test_columns_and_rows_follow_the_sample(tmp_path, caplog):
    header = "row_id,22961,bird0"
    rows = "soundscape_29201_10,0,0\nsoundscape_29201_5,0,0\nsoundscape_7_5,0,0\n"
    sample = sample_file(tmp_path / "sample_submission.csv", f"{header}\n{rows}")
    assert sample.form == "submission-2023"
    assert write(tmp_path / "s.csv", "submission-2023", [one()], selection(sample=sample)) == 3
    table = pd.read_csv(tmp_path / "s.csv", index_col=0)
    assert list(table.columns) == ["22961", "bird0"]
    assert table.index.tolist() == ["soundscape_29201_10", "soundscape_29201_5", "soundscape_7_5"]
    assert (
        table.to_numpy(np.float32).tolist() == np.float32([[0.7, 0.2], [0.3, 0.9], [0, 0]]).tolist()
    )
    assert "1 of its rows have no window (soundscape_7_5)" in caplog.text


def test_a_sample_of_other_recordings_gives_the_columns_alone(tmp_path, caplog):
    """As on Kaggle, where the public sample does not name the hidden recordings."""
    sample = sample_file(tmp_path / "sample_submission.csv", "row_id,bird0\nsoundscape_1_5,0\n")
    assert write(tmp_path / "s.csv", "submission-2025", [one()], selection(sample=sample)) == 3
    assert pd.read_csv(tmp_path / "s.csv")["bird0"].tolist() == pytest.approx([0.9, 0.2, 0.1])
    assert "not of these recordings" in caplog.text


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
    assert table["row_id"].tolist() == ["soundscape_29201_bird0_5", "soundscape_29201_22961_10"]
    assert table["target"].tolist() == [True, True] and table["target"].dtype == bool
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
    ("", "cannot be read"), ("id,bird0\n", "not row_id"), ("row_id\n", "no sample submission"),
])  # fmt: skip
def test_what_is_no_sample_submission_is_refused(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        sample_file(tmp_path / "sample.csv", text)


def test_a_sample_of_another_year_is_refused(tmp_path):
    sample = sample_file(tmp_path / "sample.csv", "row_id,birds\n")
    with pytest.raises(UserError, match="form of submission-2021, not of submission-2024"):
        submissions.check_sample(sample, CLASSES, ["submission-2024"], fill_missing=False)
    submissions.check_sample(sample, CLASSES, ["submission-2021", "long"], fill_missing=False)


def test_recordings_that_share_a_row_id_are_refused():
    with pytest.raises(UserError, match=r"a/x\.ogg and b/x\.wav"):
        submissions.check_row_ids("submission-2023", ["a/x.ogg", "b/x.wav"])
    submissions.check_row_ids("long", ["a/x.ogg", "b/x.wav"])
    with pytest.raises(UserError, match="same row_id"):
        submissions.check_row_ids("submission-2021", ["1_COR_20190904.ogg", "1_COR_20190905.ogg"])


@pytest.mark.parametrize(
    ("second", "text"), [(5.0, "5"), (2.5, "2.5"), (86400.0, "86400"), (1e6 + 5, "1000005")]
)
def test_seconds_of_a_row_id_are_written_in_full(second, text):
    assert submissions.row_id("submission-2023", "a/b_c.ogg", second) == f"b_c_{text}"


# Detections ---------------------------------------------------------------------------------------


def test_the_long_table_keeps_labels_times_and_scores(tmp_path):
    assert write(tmp_path / "l.csv", "long", [one("a/b.ogg")], selection()) == 9
    table = pd.read_csv(tmp_path / "l.csv", dtype={"species": str}, keep_default_na=False)
    assert table.columns.tolist() == ["file", "start_s", "end_s", "species", "score"]
    first = table[table["start_s"] == 5]
    assert first["species"].tolist() == ["22961", "NA", "bird0"]  # by falling score
    assert np.array_equal(first["score"].to_numpy(np.float32), np.float32([0.7, 0.6, 0.2]))
    assert table["end_s"].max() == 12.5  # no detection reaches beyond the recording
    assert set(table["file"]) == {"a/b.ogg"}


def test_threshold_top_k_and_species_select(tmp_path):
    def kept(**settings) -> list[tuple[float, str]]:
        write(tmp_path / "l.csv", "long", [one()], selection(**settings))
        table = pd.read_csv(tmp_path / "l.csv", dtype=str, keep_default_na=False)
        return list(zip(table["start_s"].astype(float), table["species"], strict=True))

    assert kept(threshold=float(np.float32(0.6))) == [(0, "bird0"), (5, "22961"), (5, "NA")]
    assert kept(top_k=1) == [(0, "bird0"), (5, "22961"), (10, "22961")]
    assert kept(top_k=1, threshold=0.5, wanted=np.array([True, True, False])) == [
        (0, "bird0"),
        (5, "NA"),
    ]


def test_raven_reads_a_table_whose_times_run_on_over_files(tmp_path):
    recordings = [
        one("a.wav"),
        one("b.wav", SCORES[:0], seconds=0.0),
        one("c.wav", SCORES[:1], seconds=4.0),
    ]
    write(tmp_path / "r.txt", "raven", recordings, selection(names=NAMES))
    header, *rows = read_tsv(tmp_path / "r.txt")
    assert header[:7] == [
        "Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Low Freq (Hz)", "High Freq (Hz)",
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=header)
    assert table["Selection"].tolist() == ["1", "2", "3", "4"]
    assert table["Begin Time (s)"].astype(float).tolist() == [0, 5, 5, 12.5]
    assert table["End Time (s)"].astype(float).tolist() == [5, 10, 10, 16.5]
    assert table["File Offset (s)"].astype(float).tolist() == [0, 5, 5, 0]
    assert table["Begin Path"].tolist() == ["/data/a.wav"] * 3 + ["/data/c.wav"]
    assert table["Species Code"].tolist() == ["bird0", "22961", "NA", "bird0"]
    assert table["Common Name"].tolist()[:2] == ["Common Blackbird", "Common Frog"]
    assert set(table["View"]) == {"Spectrogram 1"} and set(table["High Freq (Hz)"]) == {"16000"}


def test_audacity_gets_a_label_file_for_each_recording(tmp_path):
    recordings = [one("a/x.ogg"), one("b/x.ogg", SCORES[2:])]
    assert (
        write(
            tmp_path / "labels", "audacity", recordings, selection(names={"NA": ("s", 'a\t"b"\nc')})
        )
        == 3
    )
    rows = read_tsv(tmp_path / "labels" / "a" / "x.ogg.txt")
    assert rows == [
        ["0.000000", "5.000000", "bird0 0.900"],
        ["5.000000", "10.000000", "22961 0.700"],
        ["5.000000", "10.000000", 'a "b" c 0.600'],
    ]
    assert (tmp_path / "labels" / "b" / "x.ogg.txt").read_text() == ""


def test_birdnet_results_have_its_columns(tmp_path):
    write(tmp_path / "b.csv", "birdnet", [one("a.wav")], selection(names=NAMES, top_k=1))
    with open(tmp_path / "b.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0] == {
        "Start (s)": "0.0", "End (s)": "5.0", "Scientific name": "Turdus merula", "Common name": "Common Blackbird",
        "Confidence": "0.9", "File": "/data/a.wav",
    }  # fmt: skip
    assert [row["Common name"] for row in rows] == ["Common Blackbird", "Common Frog"]


def test_events_take_the_place_of_windows(tmp_path):
    events = (Event(0.25, 1.5, 1, 0.8), Event(3.0, 4.0, 0, 0.6))
    write(
        tmp_path / "l.csv",
        "long",
        [one(events=events)],
        selection(events=True, wanted=np.array([True, True, False])),
    )
    table = pd.read_csv(tmp_path / "l.csv", keep_default_na=False)
    assert table[["start_s", "end_s", "species"]].to_numpy().tolist() == [
        [0.25, 1.5, "NA"],
        [3.0, 4.0, "bird0"],
    ]


def test_parquet_is_read_by_pandas(tmp_path):
    pytest.importorskip("pyarrow", reason="no pyarrow: python -m pip install pyarrow")
    recordings = [one("a.ogg"), one("b.ogg", SCORES[:0]), one("c.ogg", SCORES[:1])]
    assert write(tmp_path / "t.parquet", "parquet", recordings, selection()) == 12
    table = pd.read_parquet(tmp_path / "t.parquet")
    write(tmp_path / "t.csv", "long", recordings, selection())
    text = pd.read_csv(
        tmp_path / "t.csv", dtype={"species": str, "score": np.float32}, keep_default_na=False
    )
    assert table["score"].dtype == np.float32
    assert table.to_dict("list") == text.to_dict("list")


def test_parquet_without_pyarrow_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(UserError, match="needs pyarrow; python -m pip install pyarrow"):
        formats.check_parquet()


@pytest.mark.parametrize("form", sorted(FORMATS.keys() - {"audacity", "parquet"}))
def test_a_write_that_fails_leaves_what_was_there(tmp_path, form):
    def breaking():
        yield one()
        raise RuntimeError("interrupted")

    path = tmp_path / "out.csv"
    path.write_text("before")
    with pytest.raises(RuntimeError, match="interrupted"):
        write(path, form, breaking(), selection())
    assert [(other.name, other.read_text()) for other in tmp_path.iterdir()] == [
        ("out.csv", "before")
    ]


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotWriteError, match="cannot be written"):
        write(tmp_path / "file" / "out.csv", "long", [one()], selection())


def test_file_names_of_any_bytes_pass(tmp_path):
    name = b'caf\xe9, "1".ogg'.decode(errors="surrogateescape")
    write(tmp_path / "l.csv", "long", [one(name)], selection())
    with open(tmp_path / "l.csv", **TEXT) as file:
        assert {row["file"] for row in csv.DictReader(file)} == {name}


def test_bad_files_are_listed_with_the_reason(tmp_path):
    recordings = [one(), one("b.ogg", SCORES[:0], status="unreadable", reason="cut, at 3 s")]
    assert formats.write_bad_files(tmp_path / "bad.csv", recordings) == 1
    table = pd.read_csv(tmp_path / "bad.csv")
    assert table.to_numpy().tolist() == [["b.ogg", "unreadable", "cut, at 3 s"]]


# Names and lists ----------------------------------------------------------------------------------


@pytest.mark.parametrize("header", [
    "TAXON_ORDER,CATEGORY,SPECIES_CODE,SCI_NAME,PRIMARY_COM_NAME", "x,y,primary_label,scientific_name,common_name",
])  # fmt: skip
def test_taxonomies_of_ebird_and_birdclef_are_read(tmp_path, header):
    (tmp_path / "t.csv").write_text(
        f"{header}\n1,species,bird0,Turdus merula,Common Blackbird\n", "utf-8-sig"
    )
    assert selection_module.read_taxonomy(tmp_path / "t.csv") == {
        "bird0": ("Turdus merula", "Common Blackbird")
    }


def test_what_is_no_taxonomy_is_refused_with_its_columns(tmp_path):
    (tmp_path / "t.csv").write_text("code,name\n")
    with pytest.raises(UserError, match="columns code, name, not species_code"):
        selection_module.read_taxonomy(tmp_path / "t.csv")


def test_a_species_list_takes_labels_names_and_birdnets_lines(tmp_path, caplog):
    path = tmp_path / "list.txt"
    for line in ("bird0", "Turdus merula", "Common Blackbird", "Turdus merula_Common Blackbird"):
        path.write_text(f"# those of the site\n\n{line}\nDodo\n")
        assert selection_module.read_species(path, CLASSES, NAMES).tolist() == [True, False, False]
    assert "1 species are no classes of the model (Dodo)" in caplog.text
    path.write_text("Turdus merula\n")
    with pytest.raises(
        UserError, match="none of its 1 lines is a class of the model; give a --taxonomy"
    ):
        selection_module.read_species(path, CLASSES, {})
