"""Verdicts on detections: how a row is read, and which windows are trained on with which labels."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from catalog import report
from catalog.annotated import describe_annotated, expand_windows, read_annotated, write_spans
from catalog.annotations import read_annotations
from catalog.frame_targets import FrameTargets
from catalog.reviews import (
    count_verdicts,
    judge,
    list_reviewed_windows,
    read_verdict,
    refuse_reviews,
    reviewed_recordings,
    without_undecided,
)
from catalog.targets import build_targets
from catalog.train_table import choose_windows
from configs import Config, UserError

HEADER = "filename,start_s,end_s,label,verdict,detected,score,note\n"
CUT = {"period": 5.0, "stride": 2.5, "min_overlap": 0.25}


def windows_of(text: str, seconds: float = 60.0, **cut: float) -> dict[float, tuple[str, ...]]:
    """Labels by the start of each window of rows `start end label verdict refuted`."""
    rows = [line.split() for line in text.strip().splitlines()]
    spans = pd.DataFrame(
        [
            ("a.wav", float(start), float(end), *(cell.replace("-", "") for cell in cells))
            for start, end, *cells in rows
        ],
        columns=["filename", "start_s", "end_s", "label", "verdict", "refuted"],
    )
    windows = list_reviewed_windows(spans, {"a.wav": seconds}, **CUT | cut)
    assert list(windows["number"]) == [2 * n for n in range(len(windows))]
    return dict(zip(windows["start_s"], windows["labels"], strict=True))


@pytest.mark.parametrize(
    ("text", "verdict"),
    [("yes", "yes"), (" NO ", "no"), ("u", "unsure"), ("Other", "other"), ("", ""), ("Y", "yes")],
)
def test_verdicts_are_words_or_their_first_letters(text, verdict):
    assert read_verdict(text, "t.csv: row 2") == verdict


def test_another_word_is_refused_with_its_row():
    with pytest.raises(UserError, match=r"t.csv: row 7: verdict 'maybe'; write yes, no, other"):
        read_verdict("maybe", "t.csv: row 7")


@pytest.mark.parametrize(
    ("verdict", "labels", "detected", "has_label", "said"),
    [
        ("yes", ("wren",), "wren", True, [("wren", "yes", "")]),
        ("yes", ("",), "wren", False, [("wren", "yes", "")]),
        ("yes", ("wren", "robin"), "wren", True, [("wren", "yes", ""), ("robin", "yes", "")]),
        ("no", ("",), "wren", False, [("", "no", "wren")]),
        ("no", ("wren",), "", True, [("", "no", "wren")]),
        ("other", ("robin",), "wren", True, [("robin", "yes", ""), ("", "no", "wren")]),
        ("other", ("",), "wren", True, [("", "no", "nocall")]),
        ("no", ("",), "", False, [("", "no", "nocall")]),  # of no species: of all
        ("unsure", ("",), "wren", False, [("", "unsure", "")]),
        ("", ("",), "wren", False, [("", "unsure", "")]),
        ("", ("robin",), "wren", True, [("robin", "yes", "")]),  # filled in by hand
        ("", ("",), "wren", True, [("", "no", "nocall")]),
    ],
)
def test_what_a_row_means(verdict, labels, detected, has_label, said):
    assert judge(verdict, labels, detected, has_label=has_label, where="t") == said


def test_verdicts_that_name_no_species_are_refused():
    with pytest.raises(UserError, match="t: verdict other without a label"):
        judge("other", ("",), "wren", has_label=False, where="t")
    with pytest.raises(UserError, match="neither label nor detected names a species"):
        judge("yes", ("",), "", has_label=False, where="t")


# Windows ------------------------------------------------------------------------------------------


def test_windows_lie_where_the_clips_lay_and_nowhere_else():
    found = windows_of("""
        10 15 wren yes -
        30 35 - no robin
        42 47 robin yes -
    """)
    assert found == {10.0: ("wren",), 30.0: (), 42.0: ("robin",)}


def test_a_refuted_species_is_absent_and_others_of_that_time_count():
    assert windows_of("""
        10 15 wren yes -
        10 15 - no robin
        12.5 17.5 robin yes -
    """) == {10.0: ("wren",), 12.5: ("robin", "wren")}
    assert windows_of("10 15 wren yes -\n10 15 - no wren") == {10.0: ("wren",)}


def test_what_is_not_decided_makes_no_negative():
    assert windows_of("10 15 - no wren\n12 17 - unsure -") == {}
    assert windows_of("10 15 robin yes -\n10 15 - unsure -") == {10.0: ("robin",)}
    assert windows_of("10 13 - no wren") == {}  # 2 s of the window were not listened to
    together = windows_of("10 13 - no wren\n8 12 - no wren\n12 16 - no wren")
    assert together == {9.0: ()}  # 9 to 14 s; the windows of the others reach beyond 8 to 16 s
    # No species is known to be absent for all of it.
    assert windows_of("10 13 - no wren\n8 12 - no wren\n12 16 - no robin") == {}


def refuted_of(text: str) -> list[tuple[str, ...]]:
    lines = [line.split() for line in text.strip().splitlines()]
    spans = pd.DataFrame(
        [("a.wav", float(b), float(e), *(c.replace("-", "") for c in cs)) for b, e, *cs in lines],
        columns=["filename", "start_s", "end_s", "label", "verdict", "refuted"],
    )
    return list(list_reviewed_windows(spans, {"a.wav": 60.0}, **CUT)["refuted"])


def test_a_no_is_about_its_species_and_nocall_about_all():
    assert refuted_of("10 15 - no wren\n10 15 - no robin") == [("robin", "wren")]
    assert refuted_of("10 15 - no nocall\n10 15 - no robin") == [()]  # none sings
    assert refuted_of("10 15 wren yes -\n10 15 - no robin") == [()]  # as in labelled recordings
    assert refuted_of("10 20 - no wren\n15 20 - no robin") == [
        *(("wren",), ("wren",)),  # at 10 and 12.5 s
        ("robin", "wren"),
    ]
    assert refuted_of("10 15 - no wren\n30 35 wren yes -") == [("wren",), ()]


def test_clips_of_other_lengths_than_a_window():
    assert windows_of("20 22 wren yes -") == {18.5: ("wren",)}  # in the middle
    assert windows_of("0 1 wren yes -") == {0.0: ("wren",)}
    assert windows_of("58 59 wren yes -") == {55.0: ("wren",)}  # not beyond the end
    assert windows_of("58 60 - no wren") == {58.0: ()}  # the rest of the recording
    assert windows_of("0 3 wren yes -", seconds=3.0) == {0.0: ("wren",)}
    assert windows_of("10 20 - no wren") == {10.0: (), 12.5: (), 15.0: ()}
    assert windows_of("10 15 wren yes -", period=15.0) == {5.0: ("wren",)}


# From the table to training -----------------------------------------------------------------------


@pytest.fixture
def config(tmp_path) -> Config:
    """Three recordings of 60 s: one reviewed, one annotated otherwise, one only suggested."""
    folder = tmp_path / "labels"
    folder.mkdir()
    (folder / "review.csv").write_text(
        HEADER + "a.wav,0,5,wren,yes,wren,0.9,clear\n"
        "a.wav,20,25,,no,wren,0.8,\n"
        "a.wav,40,45,robin;wren,other,blackcap,0.7,\n"
        "a.wav,50,55,,unsure,wren,0.6,\n"
        "b.wav,20,25,robin,yes,robin,0.9,\n"
        "b.wav,0,5,,no,robin,0.9,\n"
        "c.wav,0,5,,,robin,0.9,\n"
    )
    (folder / "b.txt").write_text("1.5\t4.25\twren\n")
    settings = Config(root=tmp_path, annotations=folder, period=5.0)
    rows = {f"{name}.wav": {"status": "ok", "seconds": 60.0} for name in "abc"}
    report.write_rows(settings.report_path, rows)
    return settings


def test_review_then_training_in_the_windows_that_were_heard(config):
    table, spans = read_annotated(config)
    assert dict(zip(table["filename"], table["labels"], strict=True)) == {
        "a.wav": "wren robin",  # 10 s and 5 s
        "b.wav": "robin wren",
    }
    assert reviewed_recordings(spans) == {"a.wav"}
    assert describe_annotated(table, spans)["reviewed"] == {"yes": 4, "no": 3, "unsure": 1}

    write_spans(spans, config)
    windows = expand_windows(table.assign(kfold=0), config)
    reviewed = windows[windows["filename"] == "a.wav"]
    assert dict(zip(reviewed["start_s"], reviewed["labels"], strict=True)) == {
        0.0: "wren",
        20.0: "",
        40.0: "robin wren",
    }
    assert list(reviewed["primary_label"]) == ["wren", "nocall", "robin"]
    assert reviewed["spans"].isna().all()  # a bird sings somewhere in the clip
    assert list(reviewed["refuted"]) == ["", "wren", ""]

    # A "no" says nothing of the others: they are masked, and it is absent.
    names = ["blackcap", "robin", "wren"]
    targets = build_targets(reviewed, config, "train", names)
    np.testing.assert_allclose(targets.of([0]), [0.0025, 0.0025, 0.995])
    np.testing.assert_allclose(targets.of([1]), [np.nan, np.nan, 0.0025])
    np.testing.assert_allclose(targets.of([1, 2]), [np.nan, 0.995, 0.995])  # heard together
    assert targets.has_masks and not build_targets(reviewed[:1], config, "train", names).has_masks
    valid = build_targets(reviewed, config, "valid", names)
    np.testing.assert_allclose(valid.of([1]), [0, 0, 0])  # scores need a label for each
    steps = FrameTargets(reviewed, config, names, targets).of([1], [0])
    assert np.isnan(steps).all()
    assert len(choose_windows(reviewed, reviewed, 0.5, seed=0)[1]) == 3

    others = windows[windows["filename"] == "b.wav"]
    assert len(others) == 24  # whole, as other annotated recordings are
    labels = dict(zip(others["start_s"], others["labels"], strict=True))
    assert labels[0.0] == "wren" and labels[20.0] == "robin" and labels[7.5] == ""


def test_a_verdict_of_no_is_kept_where_windows_without_labels_are_left_out(config):
    table, spans = read_annotated(config)
    write_spans(spans, config)
    windows = expand_windows(table.assign(kfold=0), replace(config, unlabelled="unknown"))
    empty = windows[windows["labels"] == ""]
    assert list(empty["start_s"]) == [20.0]


def test_recordings_of_which_nothing_was_decided_are_left_out(config):
    spans = read_annotations(config.annotations / "review.csv", ["a.wav", "b.wav", "c.wav"])
    assert set(spans["filename"]) == {"a.wav", "b.wav"}
    assert count_verdicts(spans) == {"yes": 4, "no": 3, "unsure": 1}
    assert len(without_undecided(spans)) == len(spans)
    with pytest.raises(UserError, match=r"--labels x: a.wav and 1 more were reviewed clip by clip"):
        refuse_reviews(spans, "--labels x")


def test_other_tables_have_no_verdicts(config):
    spans = read_annotations(config.annotations / "b.txt", ["b.wav"])
    assert list(spans.columns) == ["filename", "start_s", "end_s", "label"]
    assert reviewed_recordings(spans) == set()
    refuse_reviews(spans, "x")
