"""The page of a round: its numbers are those of the tables, and its text is escaped."""

import re

import pandas as pd

from catalog.pseudo_labels import PSEUDO_COLUMNS
from inference.round_page import (
    RoundScore,
    changed_sides,
    model_rows,
    place_rows,
    render,
    species_rows,
)


def rows(*windows: tuple[str, float, tuple[str, ...], tuple[float, ...]]) -> pd.DataFrame:
    full = [
        (name, f"np/{name}.npy", start, start + 5, labels, scores, (0, 1)[: len(labels)], 1.0)
        for name, start, labels, scores in windows
    ]
    return pd.DataFrame(full, columns=PSEUDO_COLUMNS)


FIRST = rows(
    ("north/a.wav", 0.0, ("wren",), (0.9,)),
    ("north/a.wav", 5.0, ("robin",), (0.6,)),
    ("south/b.wav", 0.0, (), ()),
)
SECOND = rows(
    ("north/a.wav", 0.0, ("wren", "robin"), (0.95, 0.3)),
    ("north/a.wav", 5.0, ("wren",), (0.75,)),
    ("south/b.wav", 0.0, ("<tit>",), (0.8,)),
    ("south/b.wav", 5.0, ("wren",), (0.65,)),
)


def test_species_with_their_gain_sources_and_scores():
    wren, tit, robin = species_rows(SECOND, FIRST)
    assert wren[:6] == ["wren", 3, "+2", 2, 2, "0.75"]
    assert tit[:3] == ["<tit>", 1, "+1"]
    assert robin[:6] == ["robin", 0, "-1", 0, 0, ""]
    assert wren[6].counts == [0, 0, 0, 0, 0, 0, 1, 1, 0, 1]
    assert species_rows(FIRST, None)[0][2] == ""


def test_places_and_models():
    assert place_rows(FIRST) == [["north", 1, 2, 0], ["south", 1, 1, 1]]
    assert model_rows(SECOND, ["m0", "m1"]) == [["m0", 4], ["m1", 1]]


def test_a_window_whose_surest_label_is_another_one_changed_sides():
    found = changed_sides(SECOND, FIRST)
    assert found[["filename", "start_s", "lead_before", "lead"]].to_numpy().tolist() == [
        ["north/a.wav", 5.0, "robin", "wren"],
        ["south/b.wav", 0.0, "", "<tit>"],
    ]


def test_the_page_has_them_and_escapes_names():
    scores = [
        RoundScore(0, "m", 0.5, 0.4, 0.6),
        RoundScore(1, "n", 0.55, 0.4, 0.7, 0.05, -0.01, 0.1),
    ]
    page = render(SECOND, FIRST, [*scores], ["m0"])
    assert "&lt;tit&gt;" in page and "<tit>" not in page
    text = re.sub(r"<[^>]+>", " ", page)
    assert "+0.0500" in text and "-0.0100 to +0.1000" in text
    assert "4 windows (0.0 h) of 2 recordings, 0 of them without a bird; 2 species." in text
    assert "This is the first round" in render(FIRST, None, scores, ["m0"])
    assert "No window" in render(FIRST, FIRST, scores, ["m0"])
