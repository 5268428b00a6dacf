"""A planted wrong label is found."""

import numpy as np

from inference.doctor import find_suspicious, note_copies
from tests.made_up_scores import made_up


def test_a_planted_wrong_label_is_the_doctors_first(rng):
    oof = made_up(rng)
    oof.labels[5] = [1, 0, 0]  # a wren called a robin
    table = find_suspicious(oof)
    first = table.iloc[0]
    assert (first.filename, first.label, first.seems_to_be) == ("wren/5.wav", "robin", "wren")
    assert first.is_contradicted and table["is_contradicted"].sum() == 1


def test_copies_with_other_labels_come_first(rng):
    oof = made_up(rng, n=12)
    sounds = np.arange(12)
    sounds[7] = sounds[0] = sounds[3] = 5  # 0 and 3 are robins, 7 and 5 are others
    table = note_copies(find_suspicious(oof), oof, sounds).set_index("filename")
    names = oof.filenames
    noted = table["same_sound_as"]
    assert noted[names[0]] == f"{names[7]};{names[5]}" == noted[names[3]]
    assert noted[names[7]] == ";".join(sorted([names[0], names[3], names[5]]))
    assert (noted != "").tolist() == [True] * 4 + [False] * 8
    plain = note_copies(find_suspicious(oof), oof, np.arange(12))
    assert (plain["same_sound_as"] == "").all()
    assert plain["filename"].tolist() == find_suspicious(oof)["filename"].tolist()
