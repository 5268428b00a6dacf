"""Columns of annotations under the names that programs and people give them."""

import pandas as pd
import pytest

from catalog.annotation_columns import Columns, plain_name


@pytest.mark.parametrize(
    ("column", "plain"),
    [
        ("Begin Time (s)", "begin time"),
        ("start_time_s", "start time"),
        ("Start [sec]", "start"),
        ("end_seconds", "end"),
        ("Begin Time (ms)", "begin time ms"),
        ("Low Freq (Hz)", "low freq"),
        ("S", "s"),
    ],
)
def test_units_are_left_out_but_for_milliseconds(column, plain):
    assert plain_name(column) == plain


@pytest.mark.parametrize(
    ("names", "start", "end"),
    [
        ("start_time_s end_time_s", "start_time_s", "end_time_s"),
        ("start_sec end_sec", "start_sec", "end_sec"),
        ("onset offset", "onset", "offset"),
    ],
)
def test_start_and_end_are_found(names, start, end):
    columns = Columns(pd.DataFrame(columns=[*names.split(), "species", "filename"]))
    assert (columns.start, columns.end, columns.label) == (start, end, "species")


def test_columns_of_0_and_1_are_species_where_there_is_no_label():
    table = pd.DataFrame({"file": ["a"], "start": ["0"], "end": ["5"], "wren": ["1"], "x": ["no"]})
    assert Columns(table).one_hot == ["wren"]
