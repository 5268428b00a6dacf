"""What is settled before anything is scored."""

from pathlib import Path

import numpy as np
import pytest

from configs import Config, UserError
from files import CannotWriteError
from inference.calibration import Calibration
from inference.command_line import read_command_line
from inference.outputs import (
    make_folder,
    make_plan,
    place_outputs,
    read_threshold,
    warn_of_gaps,
)
from inference.timeline import EventRule
from inference.window_scores import settle_scores
from tests.inference.written import selection


def test_one_format_has_the_name_given_and_several_have_their_own():
    output = Path("out/found.csv")
    assert place_outputs(output, ["long"]) == {"long": output}
    assert place_outputs(output, ["long", "raven", "audacity", "parquet"]) == {
        "long": Path("out/found.long.csv"),
        "raven": Path("out/found.raven.txt"),
        "audacity": Path("out/found.audacity"),
        "parquet": Path("out/found.parquet.parquet"),
    }


def test_a_folder_or_a_file_in_the_way_is_refused(tmp_path):
    (tmp_path / "file").touch()
    for name, form in (("", "long"), ("file", "audacity")):
        with pytest.raises(UserError, match="choose another --output"):
            place_outputs(tmp_path / name, [form])
    assert place_outputs(tmp_path, ["audacity"]) == {"audacity": tmp_path}  # it may go on in it


def test_gaps_between_windows_are_said(caplog):
    for stride_s in (None, 2.5, 5.0):
        warn_of_gaps(stride_s, 5.0)
    assert not caplog.text
    warn_of_gaps(20.0, 5.0)
    assert "windows are 5 s long, so 75 % of each recording is not scored" in caplog.text


def plan_of(*flags: str, wanted: np.ndarray | None = None, threshold: float | None = None):
    chosen = selection(wanted=wanted, threshold=threshold)
    found, _ = read_command_line(["m", "r", "--output", "o", *flags])
    settle_scores(found, Config())
    return make_plan(found, chosen)


def test_a_plan_takes_windows_frames_and_events_from_the_flags():
    plan = plan_of("--stride", "2.5", "--shifts", "1", "-1", "--score", "mix", "--average", "logit")
    assert (plan.stride_s, plan.shifts_s, plan.score, plan.average) == (
        2.5,
        (1, -1),
        "mix",
        "logit",
    )
    assert not plan.needs_frames

    plan = plan_of("--frames", "f", wanted=np.array([True, False, True]))
    assert plan.frames_dir == Path("f") and plan.frame_species == (0, 2) and plan.events is None
    assert plan_of("--events").events == EventRule(0.5, 0.25, 0.0)
    flags = ("--events", "--event-low", "0.2", "--event-min", "0.5")
    assert plan_of(*flags, threshold=0.3).events == EventRule(0.3, 0.2, 0.5)


def test_a_folder_that_cannot_be_made_is_refused_at_once(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CannotWriteError, match="file/frames: cannot be written"):
        make_folder(tmp_path / "file" / "frames")


def test_thresholds_are_numbers_or_tables_and_those_of_evaluate_are_calibrated(tmp_path):
    line, names = Calibration(2.0, 1.0), ["robin", "tit"]
    assert read_threshold(None, None, names, line) is None
    assert read_threshold("0.25", None, names, line).tolist() == [0.25, 0.25]  # as one reads scores
    own = tmp_path / "own.csv"
    own.write_text("species,threshold\nrobin,0.25\n")
    assert read_threshold(str(own), None, names, line).tolist() == [0.25, 0.5]
    evaluated = tmp_path / "species.csv"
    evaluated.write_text("species,best_f1_threshold\nrobin,0.25\n")
    found = read_threshold(str(evaluated), None, names, line)
    assert found.tolist() == [line.apply(np.float32([0.25]))[0], 0.5]
    with pytest.raises(UserError, match="between 0 and 1"):
        read_threshold("1.5", None, names, None)
