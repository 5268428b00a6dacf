"""Annotated recordings: their rows, the times beside them, and the windows that a fold takes."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from catalog import report
from catalog.annotated import (
    day_of,
    describe_annotated,
    expand_windows,
    read_annotated,
    site_of,
    spans_path,
    write_spans,
)
from catalog.train_table import choose_windows, load_class_names
from configs import Config, UserError

SPANS = "filename,start,end,label\na/one.wav,1,2,wren\na/one.wav,1,4,robin\nb/two.wav,8,9,wren\n"


@pytest.fixture
def config(tmp_path) -> Config:
    """Two annotated recordings of 10 s and one without annotations, as prepare reports them."""
    table = tmp_path / "spans.csv"
    table.write_text(SPANS)
    settings = Config(root=tmp_path, annotations=table, period=5.0)
    names = ("a/one.wav", "b/two.wav", "c/three.wav")
    report.write_rows(
        settings.report_path, {name: {"status": "ok", "seconds": 10.0} for name in names}
    )
    return settings


def test_a_row_a_recording_with_the_label_that_sings_longest_first(config, caplog):
    table, spans = read_annotated(config)
    assert list(table["filename"]) == ["a/one.wav", "b/two.wav"]
    assert list(table["primary_label"]) == ["robin", "wren"]
    assert list(table["labels"]) == ["robin wren", "wren"]
    assert list(table["annotated_seconds"]) == [10.0, 10.0] and list(table["site"]) == ["a", "b"]
    assert "1 prepared recordings have no annotations" in caplog.text
    assert describe_annotated(table, spans) == {
        "hours": 0.006,
        "timed_labels": 3,
        "seconds_by_label": {"robin": 3.0, "wren": 2.0},
    }


HEAD = "filename,start,end,label\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a/one.wav,05:30:00,05:30:02,wren\n", "a/one.wav is 10.0 s long, .* begins at 19800 s"),
        ("a/one.wav,10,11,wren\nb/two.wav,0,1,wren\n", "a/one.wav is 10.0 s long"),
        ("a/one.wav,1,2,wren\nb/two.wav,0,1,Wren\n", "'Wren' and 'wren' differ only in case"),
        ("a/one.wav,1,2,=wren\n", "begins like a formula"),
    ],
)
def test_times_and_labels_that_mean_something_else_are_refused(config, text, said):
    config.annotations.write_text(HEAD + text)
    with pytest.raises(UserError, match=said):
        read_annotated(config)


def test_labels_behind_the_end_of_a_recording_are_said(config, caplog):
    config.annotations.write_text(HEAD + "a/one.wav,1,2,wren\na/one.wav,12,13,owl\n")
    read_annotated(config)
    assert "1 labels lie behind the end of their recording and are left out: owl" in caplog.text


def test_windows_have_the_labels_of_their_own_time(config):
    table, spans = read_annotated(config)
    write_spans(spans, config)
    windows = expand_windows(table.assign(kfold=0), config)
    labels = {(row.filename, row.start_s): row.labels for row in windows.itertuples()}
    assert labels == {
        ("a/one.wav", 0.0): "robin wren",
        ("a/one.wav", 2.5): "robin",  # its last 1.5 s of 3
        ("a/one.wav", 5.0): "",
        ("a/one.wav", 7.5): "",
        ("b/two.wav", 0.0): "",
        ("b/two.wav", 2.5): "",
        ("b/two.wav", 5.0): "wren",
        ("b/two.wav", 7.5): "wren",
    }
    assert load_class_names(windows) == ["robin", "wren"]
    empty = windows[windows["labels"] == ""]
    assert set(empty["primary_label"]) == {"nocall"}

    spans = {(row.filename, row.start_s): row.spans for row in windows.itertuples()}
    assert spans["a/one.wav", 0.0] == [("wren", 1.0, 2.0), ("robin", 1.0, 4.0)]
    assert spans["a/one.wav", 2.5] == [("robin", 0.0, 1.5)]
    assert spans["b/two.wav", 7.5] is None  # one label of whole seconds: perhaps a grid

    unknown = expand_windows(table.assign(kfold=0), replace(config, unlabelled="unknown"))
    assert len(unknown) == 4 and (unknown["labels"] != "").all()

    # Half of the robin's three seconds lie in the second window.
    half = expand_windows(table.assign(kfold=0), replace(config, label_overlap=0.6))
    assert list(half["labels"])[:2] == ["robin wren", ""]


def test_a_table_of_other_recordings_is_returned_as_it_is(config):
    table = pd.DataFrame({"filename": ["a/one.wav"], "primary_label": ["wren"]})
    assert expand_windows(table, config) is table


def test_without_the_times_one_line_says_what_to_run(config):
    table, _ = read_annotated(config)
    with pytest.raises(UserError, match=r"train_annotations.csv.*run split_data.py with"):
        expand_windows(table, config)
    assert spans_path(config).name == "train_annotations.csv"


def test_training_takes_few_empty_windows_and_validation_each_second_once():
    starts = np.arange(20) * 2.5
    labels = ["wren"] * 4 + ["nocall"] * 16
    columns = {"start_s": starts, "number": np.arange(20), "primary_label": labels}
    train = pd.DataFrame({"filename": "a", **columns})
    chosen, valid = choose_windows(train, train.assign(filename="b"), 0.5, seed=0)
    assert list(valid["start_s"]) == list(np.arange(10) * 5.0)
    assert chosen["primary_label"].value_counts().to_dict() == {"wren": 4, "nocall": 4}
    again, _ = choose_windows(train, train, 0.5, seed=0)
    assert chosen.equals(again)
    assert len(choose_windows(train, train, 0.0, seed=0)[0]) == 4
    sparse = train[train["number"].isin([3, 4, 6, 9])]  # what unlabelled="unknown" leaves
    assert list(choose_windows(train, sparse, 0.5, seed=0)[1]["number"]) == [4, 6]
    with pytest.raises(UserError, match="0 labelled windows"):
        choose_windows(train[train["primary_label"] == "nocall"], train, 0.5, seed=0)


@pytest.mark.parametrize(
    ("name", "site", "day"),
    [
        ("SITE_1/20230501_050000.WAV", "SITE_1", "2023-05-01"),
        ("north/a/2023-05-01T05.wav", "north/a", "2023-05-01"),
        ("day_0.wav", "", ""),
        ("123456789.wav", "", ""),
    ],
)
def test_site_and_day_by_hand(name, site, day):
    assert (site_of(name), day_of(name)) == (site, day)


def test_labels_of_a_grid_of_clips_teach_no_frames_unless_asked(config):
    table, spans = read_annotated(config)
    write_spans(spans, config)
    always = expand_windows(table.assign(kfold=0), replace(config, frame_labels="always"))
    found = {(row.filename, row.start_s): row.spans for row in always.itertuples()}
    assert found["b/two.wav", 7.5] == [("wren", 0.5, 1.5), ("wren", 3.0, 4.0)]  # 2.5 s, repeated


def test_a_point_labels_its_windows_and_teaches_no_frames(config):
    irregular = "b/two.wav,8,9.3,wren\nb/two.wav,0.2,0.9,wren\n"
    config.annotations.write_text(f"{HEAD}a/one.wav,7,7,wren\n{irregular}")
    table, spans = read_annotated(config)
    write_spans(spans, config)
    rows = expand_windows(table.assign(kfold=0), config).set_index(["filename", "start_s"])
    assert rows.loc[("a/one.wav", 5.0), "labels"] == "wren"
    assert rows.loc[("a/one.wav", 5.0), "spans"] is None
    assert rows.loc[("b/two.wav", 5.0), "spans"] == [("wren", 3.0, pytest.approx(4.3))]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, True),
        ({"loss_name": "cross_entropy_2way"}, True),
        ({"loss_name": "bce"}, False),
        ({"loss_name": "soft_auc_2way"}, False),  # compares clips with one another
        ({"loss_weights": (1.0, 0.0)}, False),
        ({"p_speed": 0.5}, False),
        ({"p_time_stretch": 0.5}, False),
        ({"p_resized_crop": 0.5}, False),
        ({"frame_labels": "never"}, False),
    ],
)
def test_when_labels_can_teach_frames(settings, expected):
    assert Config(**settings).learns_frames is expected
