"""What was done to the scores in a table of predict.py: noted, read back, and undone."""

import numpy as np
import pytest

from configs import UserError
from inference.adjusting import Adjustment
from inference.calibration import Calibration
from inference.formats import write
from inference.predicted import read_predicted
from inference.score_notes import Note, as_network_gave, note_path, read_note, write_note
from tests.inference.written import SCORES, one, selection

LINE = Calibration(2.0, -0.5)


def test_a_note_comes_back(tmp_path):
    path = tmp_path / "found.csv"
    assert read_note(path) == Note()
    write_note(path, Adjustment(calibration=LINE))
    assert note_path(path).name == "found.scores.yaml"
    assert read_note(path) == Note(LINE)
    write_note(path, Adjustment(powers=np.ones(3), neighbours=(0.5,), calibration=LINE))
    assert read_note(path) == Note(LINE, ("--power", "--smooth"))
    write_note(path, Adjustment(lean=0.2, site_shifts={}))
    assert read_note(path) == Note(None, ("--lean", "--site-prior"))
    write_note(path, Adjustment())  # scores as they are: that of the run before goes
    assert not note_path(path).exists()


@pytest.mark.parametrize("text", ["{", "[]", "calibration: {slope: 0}", "calibration: {a: 1}"])
def test_a_note_that_cannot_be_read_is_said(text, tmp_path):
    (tmp_path / "found.scores.yaml").write_text(text)
    with pytest.raises(UserError, match="found.scores.yaml: says what was done"):
        read_note(tmp_path / "found.csv")


def test_calibrated_scores_are_taken_as_the_network_gave_them(tmp_path):
    calibrated = one("a.ogg", LINE.apply(SCORES))
    write(tmp_path / "found.csv", "long", [calibrated], selection())
    given = read_predicted(tmp_path / "found.csv")
    found = as_network_gave(given, Note(LINE)).spans.sort_values(["start_s", "species"])["score"]
    order = np.argsort(selection().class_names)
    assert found.to_numpy() == pytest.approx(SCORES[:, order].reshape(-1), abs=1e-6)
    for note in (Note(), Note(LINE, ("--power",))):  # what came after it cannot be undone
        assert as_network_gave(given, note) is given
        assert note.given(SCORES) is None
    assert np.array_equal(Note(LINE).given(SCORES), LINE.apply(SCORES))
