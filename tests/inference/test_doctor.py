"""A planted wrong label is found."""

from inference.doctor import find_suspicious
from tests.made_up_scores import made_up


def test_a_planted_wrong_label_is_the_doctors_first(rng):
    oof = made_up(rng)
    oof.labels[5] = [1, 0, 0]  # a wren called a robin
    table = find_suspicious(oof)
    first = table.iloc[0]
    assert (first.filename, first.label, first.seems_to_be) == ("wren/5.wav", "robin", "wren")
    assert first.is_contradicted and table["is_contradicted"].sum() == 1
