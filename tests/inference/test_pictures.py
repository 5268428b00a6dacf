"""Pictures of an evaluation: what is drawn is what the tables say."""

import matplotlib.image
import numpy as np
import pandas as pd

from inference.calibration import choose
from inference.evaluation import overall_table, species_table
from inference.learning_curve import summarise
from inference.pictures import draw_learning_curve, draw_reliability, draw_species
from tests.made_up_scores import made_up, weights_of

BLUE = np.array([31, 119, 180]) / 255


def share_of_blue(path, columns=slice(None)) -> float:
    pixels = matplotlib.image.imread(path)[:, columns, :3]
    return float((np.abs(pixels - BLUE).max(axis=2) < 0.02).mean())


def test_species_that_do_better_stand_further_right(tmp_path, rng):
    oof = made_up(rng)
    weights = weights_of(oof, 10)
    good = species_table(oof, weights, 0.9)
    draw_species(tmp_path, good, overall_table(oof, weights))
    right = share_of_blue(tmp_path / "species.png", slice(600, None))
    assert right > 0 and share_of_blue(tmp_path / "recordings.png") > 0

    columns = ["average_precision", "average_precision_low", "average_precision_high"]
    bad = good.assign(**dict.fromkeys(columns, 0.1))
    draw_species(tmp_path, bad, overall_table(oof, weights))
    assert share_of_blue(tmp_path / "species.png", slice(600, None)) == 0
    assert share_of_blue(tmp_path / "species.png") > 0


def test_a_species_without_a_score_is_left_out(tmp_path, rng):
    oof = made_up(rng)
    weights = weights_of(oof, 10)
    table = species_table(oof, weights, 0.9)
    gap = pd.concat([table, table[:1].assign(species="ghost", average_precision=np.nan)])
    draw_species(tmp_path, table, overall_table(oof, weights))
    plain = (tmp_path / "species.png").read_bytes()
    draw_species(tmp_path, gap, overall_table(oof, weights))
    assert (tmp_path / "species.png").read_bytes() == plain


def test_reliability_is_drawn_before_and_after(tmp_path, rng):
    curves = choose(made_up(rng), "platt", seed=1).curves
    draw_reliability(tmp_path, curves)
    assert share_of_blue(tmp_path / "reliability.png") > 0
    before = {key: curves[key[0], "before"] for key in curves}
    same = (tmp_path / "reliability.png").read_bytes()
    draw_reliability(tmp_path, before)
    assert (tmp_path / "reliability.png").read_bytes() != same


def test_the_learning_curve_shows_what_was_measured_and_what_more_would_bring(tmp_path):
    fits = {"most": [1, 2, 5], "recordings": [1.0, 2.0, 5.0], "macro_ap": [0.3, 0.5, 0.6]}
    draw_learning_curve(tmp_path, *summarise(pd.DataFrame(fits)))
    pixels = matplotlib.image.imread(tmp_path / "learning_curve.png")[..., :3]
    orange = np.abs(pixels - np.array([255, 127, 14]) / 255).max(axis=2) < 0.02
    blue = np.abs(pixels - BLUE).max(axis=2) < 0.02
    right = pixels.shape[1] * 3 // 4
    assert orange[:, right:].any() and blue.any()
    assert not blue[: len(blue) // 2, right + 100 :].any()  # nothing was measured out there
