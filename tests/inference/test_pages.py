"""What the head of a page says, and which names and scores it shows."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from inference import pages
from inference.adjusting import Adjustment
from inference.calibration import Calibration
from inference.command_line import read_command_line
from inference.windows import Plan
from tests.inference.written import NAMES, selection
from tests.predicting import tiny


class Half:
    """Two models that score 0.2 and 0.4 at every moment of a clip."""

    models, class_names, config = ("one", "two"), ["bird0", "NA", "22961"], tiny()

    def prepare(self, clip: np.ndarray) -> np.ndarray:
        return clip

    def score(self, clips, *, frames):
        return None, None, np.stack([np.full((1, 4, 3), score) for score in (0.2, 0.4)])


def results(**settings):
    return SimpleNamespace(adjustment=Adjustment(**settings))


def test_a_page_says_what_was_done_to_scores():
    flags, _ = read_command_line(["m", "r", "--output", "o", "--power", "2", "--lean", "0.1"])
    plan = Plan(stride_s=2.5, average="logit")
    facts = pages.describe(flags, results(calibration=Calibration(2.0)), Half(), plan)
    assert facts["Model"] == "m, mean of 2 by logit"
    assert facts["Score"] == "clipwise, calibrated, --power 2, --lean 0.1"
    assert facts["Windows"] == "1 s, one every 2.5 s"


def test_curves_are_calibrated_as_scores_are():
    clip = np.zeros(8, np.float32)
    plain = pages.framewise_of(results(), Half(), Plan())(clip)
    assert plain.shape == (4, 3) and plain == pytest.approx(0.3)
    line = Calibration(1.0, 2.0)
    found = pages.framewise_of(results(calibration=line), Half(), Plan())(clip)
    assert found == pytest.approx(float(line.apply(np.float32(0.3))))


def test_names_of_the_metadata_stand_in_for_a_taxonomy(tmp_path):
    table = tmp_path / "m.csv"
    table.write_text("primary_label,scientific_name,common_name\nbird0,Aves una,First bird\n")
    models = SimpleNamespace(config=replace(tiny(), metadata_path=table))
    assert pages.named(selection(), models).names == {"bird0": ("Aves una", "First bird")}
    assert pages.named(selection(names=NAMES), models).names == NAMES


def test_nothing_to_suggest_is_said(tmp_path, caplog):
    flags, _ = read_command_line(["m", "r", "--output", str(tmp_path / "o.csv"), "--suggest", "3"])
    assert pages.suggest(flags, [], selection(), Half(), Plan()) == []
    assert "--suggest 3: no clip with a signal could be read" in caplog.text
