"""Detections by day, hour and site: counted by hand, and set against what was listened to."""

import argparse
import csv
import io
import logging
from datetime import date, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.image import imread

from inference import activity
from inference.activity import draw, hours_of, measure, write_sites
from inference.outputs import write_activity
from inference.places import read_zone
from tests.inference.written import NAMES, one, selection

MAY = date(2023, 5, 1)
LOUD, QUIET = [0.9, 0.1, 0.6], [0.1, 0.1, 0.1]


def recordings(*names: str, rows=(LOUD, QUIET, LOUD)):
    scores = np.array(rows, np.float32)
    return [one(name, scores, seconds=5.0 * len(scores)) for name in names]


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# Counting -----------------------------------------------------------------------------------------


def test_detections_are_set_against_the_time_listened():
    # Windows at 4:59:50, 4:59:55 and 5:00:00; species 0 and 2 in the first and the last
    found = measure(recordings("A_20230501_045950.wav"), selection(), 0.5)
    assert found.listened_s == {(MAY, 4): 10.0, (MAY, 5): 5.0}
    assert found.found == {(0, MAY, 4): 1, (2, MAY, 4): 1, (0, MAY, 5): 1, (2, MAY, 5): 1}
    rates = found.rates(0)
    assert rates.shape == (24, 1)
    assert rates[4, 0] == pytest.approx(3600 / 10) and rates[5, 0] == pytest.approx(3600 / 5)
    assert np.isnan(np.delete(rates[:, 0], [4, 5])).all()
    assert found.rates()[5, 0] == pytest.approx(2 * 3600 / 5)
    assert found.rates(1)[4, 0] == 0  # listened to, and not found


def test_a_last_window_counts_for_as_long_as_it_is():
    short = [one("A_20230501_040000.wav", np.float32([LOUD, LOUD, LOUD]), seconds=12.5)]
    found = measure(short, selection(), 0.5)
    assert found.listened_s == {(MAY, 4): 12.5}


@given(
    offsets=st.lists(st.floats(0, 3e5), max_size=20),
    zone=st.sampled_from([None, "UTC", "Europe/Berlin", "Asia/Kolkata", "America/St_Johns"]),
    start=st.datetimes(datetime(2023, 1, 1), datetime(2023, 12, 31)),
)
def test_hours_are_those_of_the_clock(offsets, zone, start):
    from inference.places import Made

    began = start.replace(microsecond=0)
    began = began if zone is None else began.replace(tzinfo=read_zone("UTC"))
    began = began if zone is None else began.astimezone(read_zone(zone))
    whole = np.floor(np.array(offsets, float))
    told = [Made("", began).at(seconds) for seconds in whole]
    wanted = [(date.fromisoformat(day), int(time[:2])) for day, time in told]
    assert hours_of(began, whole) == wanted


def test_the_most_frequent_come_first_and_windows_without_time_do_not_count():
    rows = ([0.9, 0.1, 0.1], [0.9, 0.9, 0.1])
    found = measure(recordings("A_20230501_040000.wav", "x.wav", rows=rows), selection(), 0.5)
    assert found.most_frequent() == [0, 1]
    assert found.found.total() == 3 and found.site_found.total() == 6
    assert (found.n_timed, found.n_recordings) == (1, 2)


# The table ----------------------------------------------------------------------------------------


def test_a_row_for_each_site_and_species(tmp_path):
    names = ("pond/A_20230501_045950.wav", "pond/A_20230502_045950.wav", "wood/x.wav")
    results = [*recordings(*names[:2]), *recordings(names[2], rows=[QUIET])]
    found = measure(results, selection(names=NAMES), 0.5)
    n_rows = write_sites(tmp_path / "sites.csv", found, selection(names=NAMES))
    rows = table(tmp_path / "sites.csv")
    assert n_rows == len(rows) == 4
    assert rows[0] == {
        "site": "A", "species": "bird0", "scientific_name": "Turdus merula",
        "common_name": "Common Blackbird", "detections": "4", "windows": "6",
        "hours": "0.0083", "detections_per_hour": "480.0",
    }  # fmt: skip
    assert [row["species"] for row in rows] == ["bird0", "22961"] * 2
    assert (rows[2]["site"], rows[2]["detections"]) == ("wood", "0")  # listened to, not found


# The picture --------------------------------------------------------------------------------------


@pytest.fixture
def words(monkeypatch) -> dict[str, list[str]]:
    """What is written at the axes of the pictures that are drawn."""
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    said: dict[str, list[str]] = {"x": [], "y": [], "title": []}
    for place, kind, name in (
        ("x", Figure, "supxlabel"),
        ("y", Figure, "supylabel"),
        ("title", Axes, "set_title"),
    ):
        original = getattr(kind, name)

        def note(self, text, *rest, place=place, original=original, **more):
            said[place].append(text)
            return original(self, text, *rest, **more)

        monkeypatch.setattr(kind, name, note)
    return said


@pytest.mark.parametrize(
    ("name", "zone", "clock"),
    [
        ("A_20230501_040000.wav", None, "the recorders' clocks"),
        ("A_20230501_040000.wav", "Europe/Berlin", "Europe/Berlin"),
        ("A_20230501_040000Z.wav", None, "UTC"),
        ("A_20230501T040000+0200.wav", None, "UTC+02:00"),
    ],
)
def test_the_axis_names_the_clock(name, zone, clock, words):
    chosen = selection(zone=read_zone(zone), names=NAMES)
    picture = draw(measure(recordings(name), chosen, 0.5), chosen)
    assert picture.startswith(b"\x89PNG")
    assert words["y"] == [f"hour of the day, {clock}"]
    assert words["title"] == ["all species: 4", "Common Blackbird: 2", "Common Frog: 2"]


def test_an_hour_without_a_recording_is_grey():
    found = measure(recordings("A_20230501_040000.wav"), selection(), 0.5)
    image = imread(io.BytesIO(draw(found, selection())))[..., :3]
    grey = np.isclose(image, 0.85, atol=0.01).all(axis=2).mean()
    assert 0.4 < grey < 0.8  # 23 of 24 hours of each panel


def test_nothing_found_is_a_picture_too(words):
    found = measure(recordings("A_20230501_040000.wav", rows=[QUIET]), selection(), 0.5)
    assert draw(found, selection()).startswith(b"\x89PNG")
    assert words["title"] == ["all species: 0"]


def test_a_name_is_not_read_as_a_formula():
    names = {"bird0": ("$x_", "$\\frac{$" + "y" * 60)}
    found = measure(recordings("A_20230501_040000.wav"), selection(names=names), 0.5)
    title = activity.title_of(found, 0, selection(names=names))
    assert title == "$\\frac{$" + "y" * 29 + "...: 2"
    draw(found, selection(names=names))


# What predict.py makes of it ----------------------------------------------------------------------


def flags(folder: Path | None, report: Path | None = None) -> argparse.Namespace:
    return argparse.Namespace(activity=folder, report=report)


def test_predict_writes_both(tmp_path):
    results = recordings("A_20230501_040000.wav")
    lines, picture = write_activity(flags(tmp_path), results, selection())
    assert [line.split(":")[0] for line in lines] == [
        f"wrote {tmp_path / 'species_by_site.csv'}",
        f"wrote {tmp_path / 'activity.png'}",
    ]
    assert (tmp_path / "activity.png").read_bytes() == picture
    page_only = write_activity(flags(None, Path("page.html")), results, selection())
    assert page_only == ([], picture)
    assert write_activity(flags(None), results, selection()) == ([], None)


def test_names_without_a_time_are_one_line_in_the_log(tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="birdclef"):
        lines, picture = write_activity(flags(tmp_path), recordings("x.wav", "y.wav"), selection())
        assert picture is None and len(lines) == 1
        write_activity(flags(tmp_path), recordings("A_20230501_040000.wav", "y.wav"), selection())
        several = recordings("A_20230501_040000.wav", "A_20230501_040000Z.wav")
        write_activity(flags(tmp_path), several, selection())
    assert [record.getMessage() for record in caplog.records] == [
        "no recording says when it was made, by its name or header: no activity.png",
        "1 of 2 recordings do not say when they were made; activity.png is without them",
        "times are told by UTC, the recorders' clocks; --time-zone makes them one",
    ]
