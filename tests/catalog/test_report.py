"""The report of preparing: rows that are written as they come, and read whole."""

import csv

import pandas as pd
import pytest

from catalog import report

ROW = {
    "status": "ok", "seconds": 1.5, "native_rate": 44_100, "channels": 2, "peak": 0.25,
    "reason": "", "crc32": "00c0ffee", "made_from": "10 bytes, 7 ns, 32000, 30.0, float32, None",
}  # fmt: skip
BAD = {"status": "unreadable", "seconds": 0.0, "native_rate": None, "reason": "no, sound"}


def test_what_is_written_is_read(tmp_path):
    report.write_rows(tmp_path / "r.csv", {"b/2.ogg": ROW, "a/1.ogg": ROW | BAD})
    table = report.read_report(tmp_path / "r.csv")
    assert table["filename"].tolist() == ["a/1.ogg", "b/2.ogg"]
    assert table["seconds"].tolist() == [0.0, 1.5]
    assert table["native_rate"].tolist() == [pd.NA, 44_100]
    assert table["reason"].tolist() == ["no, sound", ""]
    assert table["crc32"].tolist()[1] == "00c0ffee"  # text, not a number


def test_the_later_of_two_rows_counts_and_no_unfinished_one(tmp_path):
    path = tmp_path / "r.csv"
    report.write_rows(path, {"a.ogg": ROW})
    report.append_row(path, "a.ogg", ROW | {"status": "truncated"})
    report.append_row(path, "b.ogg", ROW)
    text = path.read_text()
    path.write_text(text[: text.rindex("b.ogg") + 8])  # killed in the middle of its row
    assert {name: row["status"] for name, row in report.read_rows(path).items()} == {
        "a.ogg": "truncated"
    }
    report.append_row(path, "c.ogg", ROW)
    assert set(report.read_rows(path)) == {"a.ogg", "c.ogg"}


def test_no_report_has_no_rows(tmp_path):
    assert report.read_rows(tmp_path / "none.csv") == {}
    assert len(report.read_report(tmp_path / "none.csv")) == 0


@pytest.mark.parametrize("name", ["=1+1.wav", "+x", "-x", "@x", "'=x", "a,b", 'q"q', "\udcff.wav"])
def test_odd_names_come_back_and_no_cell_is_a_formula(tmp_path, name):
    path = tmp_path / "r.csv"
    report.write_rows(path, {name: ROW})
    report.append_row(path, name, ROW | {"status": "silent"})
    assert {key: row["status"] for key, row in report.read_rows(path).items()} == {name: "silent"}
    with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
        assert not any(cell[:1] in ("=", "+", "@") for row in csv.reader(file) for cell in row)


def test_a_report_of_an_older_version_has_no_check_sums(tmp_path):
    path = tmp_path / "r.csv"
    report.write_rows(path, {"a.ogg": ROW})
    table = pd.read_csv(path, dtype=str).drop(columns="crc32")
    table.to_csv(path, index=False)
    assert report.read_rows(path)["a.ogg"]["crc32"] == ""
