"""Windows against labels with times, on cases worked by hand."""

import logging

import numpy as np
import pandas as pd
import pytest

from configs import UserError
from inference.detections import Event
from inference.formats import write
from inference.predicted import read_predicted
from inference.timed_truth import meet
from tests.inference.written import CLASSES, NAMES, SCORES, one, selection

NAME = "soundscape_29201"
LABELS = "file,start_s,end_s,label\n{0}.ogg,1,3,bird0\n{0}.ogg,4.5,7,22961\n"
# bird0 in the first window; 22961: 0.5 of 2.5 s lie in the first, which is too little of it.
TRUTH = [[0, 0, 1], [1, 0, 0], [0, 0, 0]]  # columns 22961, NA, bird0
ORDER = [2, 1, 0]  # of CLASSES, sorted


def met(tmp_path, form="long", labels=LABELS, results=None, names=None, overlap=0.25, **settings):
    path = tmp_path / ("labels_" if form == "audacity" else "table.csv")
    write(path, form, results or [one(f"{NAME}.ogg")], selection(names=names or {}, **settings))
    truth = tmp_path / "labels.csv"
    truth.write_text(labels.format(NAME))
    return meet(read_predicted(path), truth, names or {}, overlap)


def test_windows_get_the_labels_of_their_time(tmp_path):
    oof = met(tmp_path)
    assert oof.class_names == tuple(sorted(CLASSES))
    assert np.array_equal(oof.scores, SCORES[:, ORDER])
    assert oof.labels.tolist() == TRUTH and oof.starts_s.tolist() == [0, 5, 10]
    assert met(tmp_path, overlap=0.2).labels[0].tolist() == [1, 0, 1]
    assert set(oof.filenames) == {f"{NAME}.ogg"}


@pytest.mark.parametrize(
    "labels",
    [
        "row_id,birds\n{0}_5,bird0\n{0}_10,22961\n{0}_15,nocall\n",
        "Selection\tBegin Path\tFile Offset (s)\tBegin Time (s)\tEnd Time (s)\tSpecies Code\n"
        "1\tday/{0}.ogg\t1\t1\t3\tbird0\n2\tday/{0}.ogg\t4.5\t4.5\t7\t22961\n",
        "file,start,end,bird0,22961\n{0}.ogg,0,5,1,0\n{0}.ogg,5,10,0,1\n{0}.ogg,10,12.5,0,0\n",
    ],
)
@pytest.mark.parametrize("form", ["long", "submission-2023"])
def test_labels_of_any_form_meet_scores_of_any_form(tmp_path, labels, form):
    oof = met(tmp_path, form, labels)
    order = [CLASSES.index(name) for name in oof.class_names]
    assert np.array_equal(oof.scores, SCORES[:, order])
    assert oof.labels[:, [oof.class_names.index(name) for name in sorted(CLASSES)]].tolist() == (
        TRUTH
    )


def test_labels_behind_all_windows_are_times_of_something_else(tmp_path):
    labels = "file,start,end,label\n{0}.ogg,05:30:00,05:30:02,bird0\n"
    with pytest.raises(UserError, match="scored up to 15 s, and its first label begins at 19800 s"):
        met(tmp_path, "submission-2023", labels)


def test_windows_that_a_list_leaves_out_score_0(tmp_path):
    labels = LABELS + "{0}.ogg,21,24,bird0\n"
    oof = met(tmp_path, threshold=0.5, labels=labels)  # nothing reaches 0.5 in the third window
    assert oof.starts_s.tolist() == [0, 5, 10, 15, 20]
    kept = np.where(SCORES >= 0.5, SCORES, 0)[:, ORDER]
    assert np.array_equal(oof.scores[:3], kept) and not oof.scores[3:].any()
    assert oof.labels[:, 2].tolist() == [1, 0, 0, 0, 1]


def test_events_count_in_the_windows_that_they_overlap(tmp_path):
    events = (Event(4.0, 6.0, 0, 0.75), Event(11.0, 11.5, 0, 0.5), Event(4.5, 5.0, 0, 0.9))
    oof = met(tmp_path, results=[one(f"{NAME}.ogg", events=events)], events=True)
    column = oof.class_names.index("bird0")
    assert oof.scores[:, column].tolist() == pytest.approx([0.9, 0.75, 0.5])


def test_names_stand_for_labels_on_both_sides(tmp_path):
    labels = "file,start,end,common name\n{0}.ogg,1,3,common blackbird\n"
    oof = met(tmp_path, "audacity", labels, names=NAMES, threshold=0.25)
    assert {"bird0", "22961"} <= set(oof.class_names)
    assert oof.labels[0, oof.class_names.index("bird0")] == 1


def test_what_only_one_side_has_is_said(tmp_path, caplog):
    labels = LABELS + "other.ogg,1,2,bird0\n{0}.ogg,1,3,zebra\n"
    results = [one(f"{NAME}.ogg"), one("unlabelled.ogg")]
    with caplog.at_level(logging.WARNING, "birdclef"):
        oof = met(tmp_path, labels=labels, results=results)
        assert "zebra" not in oof.class_names  # the table has every species that the model knows
        listed = met(tmp_path, labels=labels, results=results, threshold=0.5)
    said = caplog.text
    assert "1 recordings of it are not among those here and are left out" in said
    assert "1 of 2 recordings have no labels" in said and "(unlabelled.ogg)" in said
    assert "1 labelled species are not among the scored ones and are left out (zebra)" in said
    assert "1 labelled species were never detected and score 0 (zebra)" in said
    assert not listed.scores[:, listed.class_names.index("zebra")].any()


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ("file,start,end,label\nother.ogg,1,3,bird0\n", "no labels with times.*'other.ogg'"),
        ("file,start,end,label\n{0}.ogg,1,3,zebra\n", r"none of its species \(zebra\)"),
        ("file,start,end,label\n{0}.ogg,1,,bird0\n", "row 2: '' is no time"),
        ("file,label\n{0}.ogg,bird0\n", "no columns for start and end"),
    ],
)
def test_names_that_do_not_fit_stop_it(tmp_path, labels, said):
    with pytest.raises(UserError, match=said):
        met(tmp_path, labels=labels)


def test_a_recording_that_is_annotated_and_empty_counts(tmp_path):
    labels = LABELS + "b.ogg,0,12,nocall\n"
    oof = met(tmp_path, labels=labels, results=[one(f"{NAME}.ogg"), one("b.ogg")])
    assert not oof.labels[oof.filenames == "b.ogg"].any() and len(oof.labels) == 6
    assert pd.Series(oof.filenames).is_monotonic_increasing
