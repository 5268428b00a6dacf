"""What predict.py writes is read back: scores, times and names of every format."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from configs import UserError
from inference.detections import Event
from inference.formats import write
from inference.predicted import read_predicted
from tests.inference.written import CLASSES, NAMES, SCORES, one, selection

NAMES_OF_ALL = dict(NAMES, NA=("Nana alba", "White Nana"))
FILES = {"raven": "r.txt", "birdnet": "b.csv", "audacity": "labels", "parquet": "p.parquet"}


def written(tmp_path, form, results=None, **settings):
    path = tmp_path / FILES.get(form, "table.csv")
    chosen = selection(names=NAMES_OF_ALL, **settings)
    write(path, form, results or [one()], replace(chosen, recordings=("soundscape_29201.ogg",)))
    return read_predicted(path)


def matrix(predicted, names):
    """Scores (n windows, C), and the windows' starts."""
    table = predicted.spans.pivot(index="start_s", columns="species", values="score")
    return table[names].to_numpy(np.float32), table.index.to_numpy(float)


@pytest.mark.parametrize("form", ["long", "parquet", "submission-2023", "submission-2026"])
def test_tables_of_all_scores_come_back_to_the_bit(tmp_path, form):
    if form == "parquet":
        pytest.importorskip("pyarrow", reason="no pyarrow: python -m pip install pyarrow")
    predicted = written(tmp_path, form)
    scores, starts = matrix(predicted, CLASSES)
    assert np.array_equal(scores, SCORES) and starts.tolist() == [0, 5, 10]
    assert predicted.is_complete and predicted.are_windows and predicted.period == 5
    assert [name.split(".")[0] for name in predicted.recordings] == ["soundscape_29201"]


@pytest.mark.parametrize("form", ["raven", "birdnet", "audacity"])
def test_lists_of_detections_come_back(tmp_path, form):
    predicted = written(tmp_path, form, threshold=0.25)
    names = CLASSES if form == "raven" else ["Common Blackbird", "White Nana", "Common Frog"]
    scores, starts = matrix(predicted, names)
    assert starts.tolist() == [0, 5, 10] and not predicted.is_complete
    expected = np.where(SCORES >= 0.25, SCORES, np.nan)
    assert np.allclose(scores, expected, atol=1e-6, equal_nan=True)


def test_the_yes_and_no_of_2021_and_2022(tmp_path):
    found = written(tmp_path, "submission-2021", threshold=0.5)
    scores, _ = matrix(found, CLASSES)
    assert scores.tolist() == [[1, 0, 0], [0, 1, 1], [0, 0, 0]]
    told = written(tmp_path, "submission-2022", threshold=0.5)
    assert matrix(told, CLASSES)[0].tolist() == scores.tolist() and told.is_complete


def test_events_are_no_windows(tmp_path):
    events = (Event(0.5, 1.5, 0, 0.75), Event(2.0, 4.0, 0, 0.5))
    predicted = written(tmp_path, "long", [one(events=events)], events=True)
    assert not predicted.are_windows
    assert predicted.spans["end_s"].tolist() == [1.5, 4.0]


def test_names_that_a_spreadsheet_would_run_come_back(tmp_path):
    write(tmp_path / "l.csv", "long", [one("=1.ogg")], selection())
    assert read_predicted(tmp_path / "l.csv").recordings == ["=1.ogg"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n1,2\n", "no table of predict.py: its columns are a, b"),
        ("file,start_s,end_s,species,score\n", "no detections in it"),
        ("file,start_s,end_s,species,score\na,0,5,b,\n", "row 2: a time or a score is no number"),
        ("file,start_s,end_s,species,score\na,0,5,b,x\n", "cannot be read"),
        ("row_id,robin\na_x,0.5\n", "'a_x' does not end with _<second>"),
        ("row_id,robin\na_5,high\n", "a score is no number"),
        ("row_id,robin\na_5,\n", "a score is no number"),
        ("row_id,target\na_5,True\n", "is not <recording>_<species>_<second>"),
        ("row_id,birds\na_5,nocall\n", "names no bird"),
    ],
)
def test_what_cannot_be_read_says_why(tmp_path, text, said):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(UserError, match=said):
        read_predicted(tmp_path / "t.csv")
    with pytest.raises(UserError, match="no such file"):
        read_predicted(tmp_path / "nothing.csv")


def test_the_stride_is_the_least_step(tmp_path):
    recording = one(seconds=20.0)
    overlapping = replace(recording, starts_s=np.array([0.0, 2.5, 5.0]))
    write(tmp_path / "l.csv", "long", [overlapping], selection())
    predicted = read_predicted(tmp_path / "l.csv")
    assert predicted.stride == 2.5 and predicted.period == 5.0
    single = pd.DataFrame(predicted.spans[:1])
    assert replace(predicted, spans=single).stride == 5.0


def test_a_list_of_one_species_is_not_taken_for_all_there_is(tmp_path):
    scores = SCORES * np.float32([1, 0, 0])
    assert not written(tmp_path, "long", [one(scores=scores[::2])], threshold=0.5).is_complete
    gap = replace(one(scores=scores[:2]), starts_s=np.array([0.0, 50.0]))
    both = [one("a.ogg", scores=scores), gap]
    assert not written(tmp_path, "long", both, wanted=np.array([True, False, False])).is_complete
