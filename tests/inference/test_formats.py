"""Every file that lists detections, read back by what it is for."""

import csv
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from configs import UserError
from files import CannotWriteError
from inference import formats
from inference.detections import Event
from inference.formats import FORMATS, write
from inference.text_files import TEXT
from tests.inference.written import NAMES, SCORES, one, selection


def read_tsv(path: Path) -> list[list[str]]:
    return [line.split("\t") for line in path.read_text().splitlines()]


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
        "Selection",
        "View",
        "Channel",
        "Begin Time (s)",
        "End Time (s)",
        "Low Freq (Hz)",
        "High Freq (Hz)",
    ]
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
        "Start (s)": "0.0",
        "End (s)": "5.0",
        "Scientific name": "Turdus merula",
        "Common name": "Common Blackbird",
        "Confidence": "0.9",
        "File": "/data/a.wav",
    }
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
    nothing = np.zeros((0, 3), np.float32)
    silent = one("c.ogg", status="silent", silent=np.array([True, True, True]))
    bad = one("b.ogg", nothing, status="unreadable", reason="cut, at 3 s")
    unread = {"a.m4a": "libsndfile cannot read M4A"}
    summary = formats.write_bad_files(tmp_path / "bad.csv", [one(), bad, silent], unread)
    assert summary == formats.Summary({"unreadable": 2, "silent": 1}, 2, 6, 3)
    rows = pd.read_csv(tmp_path / "bad.csv", keep_default_na=False).to_numpy().tolist()
    assert rows == [
        ["a.m4a", "unreadable", "libsndfile cannot read M4A"],
        ["b.ogg", "unreadable", "cut, at 3 s"],
        ["c.ogg", "silent", ""],
    ]


@pytest.mark.parametrize("form", ["long", "raven", "audacity", "birdnet"])
def test_no_cell_of_any_table_is_run_by_a_spreadsheet(tmp_path, form):
    """Names, labels and common names from strangers, with every character that begins a formula."""
    names = {"=a": ("@sci", "+common"), "\tb": ("-sci", "=common")}
    chosen = selection(class_names=["=a", "\tb", "c"], names=names, folder=Path("."))
    recordings = [one(f"{sign}1+1.wav") for sign in "=+-@"]
    write(tmp_path / "t", form, recordings, chosen)

    delimiter = "," if form in ("long", "birdnet") else "\t"
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == (4 if form == "audacity" else 1)
    for path in files:
        with open(path, newline="") as file:
            cells = [cell for row in csv.reader(file, delimiter=delimiter) for cell in row]
        assert len(cells) >= 9
        assert not [cell for cell in cells if cell[:1] in "=+-@\t" and cell[:1]]


def test_a_path_that_looks_like_a_formula_can_still_be_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("=1+1.wav").touch()
    write(Path("b.csv"), "birdnet", [one("=1+1.wav")], selection(folder=Path(".")))
    (path,) = set(pd.read_csv("b.csv")["File"])
    assert path == "./=1+1.wav" and Path(path).exists()


def test_a_name_of_255_bytes_has_label_files_of_its_own(tmp_path):
    names = ["a" * 250 + f"{number}.wav" for number in range(2)]
    write(tmp_path / "labels", "audacity", [one(name) for name in names], selection())
    assert len(list((tmp_path / "labels").iterdir())) == 2


@pytest.mark.parametrize(("leaves_no_bird", "expected"), [(True, [1.3, 1.5, 0.6]), (False, None)])
def test_the_chance_that_any_bird_sings_stands_in_a_column(tmp_path, leaves_no_bird, expected):
    path = tmp_path / "x.csv"
    chosen = selection(columns=("any",), leaves_no_bird=leaves_no_bird)
    formats.write(path, "long", [one()], chosen)
    table = pd.read_csv(path, dtype={"species": str}, keep_default_na=False)
    expected = SCORES.max(axis=1) if expected is None else np.minimum(expected, 1 - 2**-24)
    found = table["any_bird"].to_numpy(float)
    np.testing.assert_allclose(found, np.repeat(expected, 3), rtol=1e-6)
