"""A prior by site moves logits: by hand, and what cannot be read is refused."""

import math
from pathlib import Path

import numpy as np
import pytest

from configs import UserError
from inference.adjusting import Adjustment
from inference.site_prior import read_site_shifts

CLASSES = ["robin", "wren", "tit"]


def write(folder: Path, *rows: str) -> Path:
    path = folder / "prior.csv"
    path.write_text("\n".join(["site,species,prior", *rows]) + "\n")
    return path


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def test_logits_move_by_the_distance_from_the_mean_prior(tmp_path):
    path = write(tmp_path, "north,robin,0.8", "south,robin,0.4", "north,wren,0")
    shifts = read_site_shifts(path, CLASSES, 0.5)
    adjustment = Adjustment(site_shifts=shifts)

    scores = np.array([[0.3, 0.9, 0.5], [0.0, 0.2, 0.999]], np.float32)
    found = adjustment.apply(scores, "north/20230501_050000.wav")
    for row, before in zip(found, scores, strict=True):
        moved = logit(0.8) / 2 - logit(0.6) / 2
        expected = 0 if before[0] == 0 else 1 / (1 + math.exp(-(logit(float(before[0])) + moved)))
        assert row[0] == pytest.approx(expected, abs=1e-6)
        assert row[1:] == pytest.approx(before[1:], abs=1e-6)  # alone in the table: its own mean
    lower = adjustment.apply(scores, "x/south_20230501_050000.wav")[0, 0]
    assert lower == pytest.approx(1 / (1 + math.exp(-(logit(0.3) + (logit(0.4) - logit(0.6)) / 2))))


def test_an_unknown_site_and_no_weight_change_nothing(tmp_path):
    path = write(tmp_path, "north,robin,0.8", "south,robin,0.4")
    scores = np.array([[0.3, 0.9, 0.5]], np.float32)
    elsewhere = Adjustment(site_shifts=read_site_shifts(path, CLASSES, 0.5))
    np.testing.assert_array_equal(elsewhere.apply(scores, "east/a.wav"), scores)
    weightless = Adjustment(site_shifts=read_site_shifts(path, CLASSES, 0.0))
    np.testing.assert_allclose(weightless.apply(scores, "north/a.wav"), scores, atol=1e-7)


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        (["north,robin,1.5"], "row 2: the prior '1.5'"),
        (["north,robin,much"], "row 2: the prior 'much'"),
        (["north,heron,0.5"], "none of its species"),
        (["north,robin,0.5", "north,robin,0.2"], "row 3: robin has another prior at north above"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path, rows, complaint):
    with pytest.raises(UserError, match=complaint):
        read_site_shifts(write(tmp_path, *rows), CLASSES, 0.5)


def test_a_missing_column_is_named(tmp_path):
    (tmp_path / "prior.csv").write_text("place,species,prior\na,robin,0.5\n")
    with pytest.raises(UserError, match="no column site"):
        read_site_shifts(tmp_path / "prior.csv", CLASSES, 0.5)
