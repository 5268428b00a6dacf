"""When and where a recording was made: names and headers as recorders write them."""

import struct
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
import soundfile

from configs import UserError
from inference.detections import Recording
from inference.formats import write
from inference.places import read_zone, when_and_where
from tests.inference.written import NAMES, SCORES, selection


@pytest.mark.parametrize(
    ("name", "site", "start"),
    [
        ("20230501_050000.WAV", "", "2023-05-01T05:00:00"),  # AudioMoth
        ("SITE_1/20230501_050000.WAV", "SITE_1", "2023-05-01T05:00:00"),
        ("20230501_050000T.WAV", "", "2023-05-01T05:00:00"),  # triggered
        ("pond/5E90A4D4.WAV", "pond", "2020-04-10T16:54:44+00:00"),  # older AudioMoth, UTC
        ("SMA01234_20230501_050000.wav", "SMA01234", "2023-05-01T05:00:00"),  # Song Meter
        ("x/SITE-A_20230501$050000.wav", "SITE-A", "2023-05-01T05:00:00"),
        ("SITE_A_0+1_20230501_050000.wav", "SITE_A_0+1", "2023-05-01T05:00:00"),
        ("SWIFT02_20230501_050000Z.wav", "SWIFT02", "2023-05-01T05:00:00+00:00"),
        ("HQ_20230501T050000+0200_rec.flac", "HQ", "2023-05-01T05:00:00+02:00"),
        ("lake 2023-05-01_05-00-30.wav", "lake", "2023-05-01T05:00:30"),
        ("lake_20230501_0500.wav", "lake", "2023-05-01T05:00:00"),
        ("lake_2023-05-01T05.00.30.wav", "lake", "2023-05-01T05:00:30"),
        ("pond/20230501050030.wav", "pond", "2023-05-01T05:00:30"),
        ("pond/iNat20230501050.wav", "pond", None),  # an id
        ("pond/920230501050030.wav", "pond", None),
        ("wren/XC123456.mp3", "wren", None),
        ("a/20230231_050000.wav", "a", None),  # no such day
        ("a/920230501_050000.wav", "a", None),  # a number
        ("a/20230501_250000.wav", "a", None),
    ],
)
def test_names_of_recorders_are_understood(name, site, start):
    made = when_and_where(name, None, None)
    assert made.site == site
    assert made.start == (datetime.fromisoformat(start) if start else None)


def test_a_zone_is_that_of_the_clock_where_nothing_says_another():
    berlin = read_zone("Europe/Berlin")
    made = when_and_where("S_20230501_235958.wav", None, berlin)
    assert made.at(0) == ("2023-05-01", "23:59:58+02:00")
    assert made.at(2.6) == ("2023-05-02", "00:00:00+02:00")
    night = when_and_where("S_20230326_015959.wav", None, berlin)
    assert night.at(1) == ("2023-03-26", "03:00:00+02:00")  # summer time begins
    winter = when_and_where("S_20230101_120000.wav", None, berlin)
    assert winter.at(0) == ("2023-01-01", "12:00:00+01:00")
    utc = when_and_where("S_20230501_050000Z.wav", None, berlin)
    assert utc.at(0) == ("2023-05-01", "07:00:00+02:00")  # the same moment
    assert when_and_where("S_20230501_050000.wav", None, None).at(61) == ("2023-05-01", "05:01:01")
    assert when_and_where("XC1.mp3", None, berlin).at(5) == ("", "")
    with pytest.raises(UserError, match="--time-zone Mars/Base: no such zone"):
        read_zone("Mars/Base")


def wav_with(path: Path, kind: bytes, content: bytes) -> Path:
    """A WAV with a chunk of metadata between its format and its samples."""
    soundfile.write(path, np.zeros(10), 8000)
    whole = path.read_bytes()
    chunk = kind + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)
    at = whole.index(b"data")
    path.write_bytes(whole[:at] + chunk + whole[at:])
    return path


@pytest.mark.parametrize(
    ("kind", "content", "time"),
    [
        (
            b"LIST",
            b"INFOICMT\x40\0\0\0Recorded at 05:00:00 01/05/2023 (UTC+2) by AudioMoth 24F",
            "2023-05-01T05:00:00+02:00",
        ),
        (
            b"LIST",
            b"INFOICMT\x40\0\0\0Recorded at 03:00:00 01/05/2023 (UTC) by AudioMoth 24F3",
            "2023-05-01T03:00:00+00:00",
        ),
        (
            b"LIST",
            b"INFORecorded at 03:00:00.000 01/05/2023 (UTC-3:30) by AudioMoth 24F3",
            "2023-05-01T03:00:00-03:30",
        ),
        (
            b"guan",
            b"GUANO|Version:1.0\nMake:Wildlife Acoustics\nTimestamp:2023-05-01T05:00:00+02:00\n",
            "2023-05-01T05:00:00+02:00",
        ),
        (b"guan", b"GUANO|Version:1.0\nTimestamp:yesterday\n", "1999-01-01T00:00:00"),  # the name's
    ],
)
def test_a_header_counts_before_the_name(tmp_path, kind, content, time):
    path = wav_with(tmp_path / "S_19990101_000000.wav", kind, content)
    made = when_and_where(path.name, path, None)
    assert made.start == datetime.fromisoformat(time) and made.site == "S"


@pytest.mark.parametrize(
    "content", [b"", b"RIFF", b"RIFF\0\0\0\0WAVELIST\xff\xff\xff\xffx", b"x" * 99]
)
def test_headers_of_strangers_do_no_harm(tmp_path, content):
    path = tmp_path / "S_20230501_050000.wav"
    path.write_bytes(content)
    assert when_and_where(path.name, path, None).start == datetime(2023, 5, 1, 5)


def test_the_long_table_has_names_date_time_and_site(tmp_path):
    name = "S1/20230501_055958.WAV"
    recording = Recording(name, "ok", "", 10.0, np.array([0.0, 5.0]), SCORES[:2])
    zone = ZoneInfo("UTC")
    chosen = selection(
        names=NAMES, columns=("when", "names"), zone=zone, threshold=0.6, folder=tmp_path
    )
    write(tmp_path / "l.csv", "long", [recording], chosen)
    table = pd.read_csv(tmp_path / "l.csv", keep_default_na=False, dtype=str)
    more = ["site", "date", "time", "scientific_name", "common_name"]
    assert table.columns.tolist() == ["file", "start_s", "end_s", "species", "score", *more]
    assert table[["species", *more]].to_numpy().tolist() == [
        ["bird0", "S1", "2023-05-01", "05:59:58+00:00", "Turdus merula", "Common Blackbird"],
        ["22961", "S1", "2023-05-01", "06:00:03+00:00", "Rana temporaria", "Common Frog"],
        ["NA", "S1", "2023-05-01", "06:00:03+00:00", "NA", "NA"],
    ]
