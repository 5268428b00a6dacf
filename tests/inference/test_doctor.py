"""A planted wrong label is found."""

from dataclasses import replace

import numpy as np
import pytest

from inference.doctor import PRIOR, find_suspicious, note_copies
from inference.out_of_fold import OutOfFold
from tests.made_up_scores import made_up


def test_a_planted_wrong_label_is_the_doctors_first(rng):
    oof = made_up(rng)
    oof.labels[5] = [1, 0, 0]  # a wren called a robin
    table = find_suspicious(oof)
    first = table.iloc[0]
    assert (first.filename, first.label, first.seems_to_be) == ("wren/5.wav", "robin", "wren")
    assert first.is_contradicted and table["is_contradicted"].sum() == 1


def test_suspicion_is_the_difference_of_two_log_likelihood_ratios(rng):
    """Worked out with normal densities; a recording's own score is left out of its species'."""
    oof = made_up(rng, n=12)
    row, label, other = 4, 1, 2
    z = np.log(oof.scores.clip(1e-7)) - np.log1p(-oof.scores)
    z = z.astype(np.float64).clip(-16, 16)
    has = oof.labels == 1
    gaps = [z[has[:, k], k].mean() - z[~has[:, k], k].mean() for k in range(3)]

    def ratio(k):
        without = z[~has[:, k], k]
        spread = np.concatenate(
            [z[has[:, k], k] - z[has[:, k], k].mean(), without - without.mean()]
        )
        others = z[has[:, k] & (np.arange(12) != row), k]
        guess = without.mean() + np.mean(gaps)
        mean = (others.sum() + PRIOR * guess) / (len(others) + PRIOR)
        density = (
            -((z[row, k] - m) ** 2) / (2 * np.mean(spread**2)) for m in (mean, without.mean())
        )
        present, absent = density
        return present - absent

    table = find_suspicious(oof)
    found = table.loc[row]
    seems = max((0, other), key=ratio)
    assert found["seems_to_be"] == oof.class_names[seems]
    assert found["suspicion"] == pytest.approx(ratio(seems) - ratio(label), rel=1e-5)


def test_a_label_of_a_species_that_no_other_recording_has_is_found(rng):
    """The planted recording is all that its species has: it is not as usual for that."""
    oof = made_up(rng, n=40)
    scores = np.column_stack([oof.scores, 0.2 * rng.random(40)]).astype(np.float32)
    labels = np.column_stack([oof.labels, np.zeros(40, np.uint8)])
    labels[7] = [0, 0, 0, 1]
    lone = replace(oof, scores=scores, labels=labels, class_names=(*oof.class_names, "owl"))
    assert find_suspicious(lone).index[0] == 7


def test_a_species_that_is_never_scored_high_is_not_what_others_seem_to_be(rng):
    """Twice the usual score of a dim species is less than that of a bright one is in doubt."""
    n = 120
    labels = np.eye(4, dtype=np.uint8)[np.arange(n) % 4]
    noise = rng.normal(size=(n, 4))
    logits = np.where(labels == 1, 3.0, -3.0) + 1.5 * noise
    logits[:, 3] = np.where(labels[:, 3] == 1, -5.0, -6.0) + 1.5 * noise[:, 3]  # dim
    scores = (1 / (1 + np.exp(-logits))).astype(np.float32)
    names = np.array([f"{k}.wav" for k in range(n)])
    oof = OutOfFold(scores, labels, names, np.zeros(n, int), ("a", "b", "c", "dim"))

    rows = np.flatnonzero((labels.argmax(axis=1) < 3) & (scores.argmax(axis=1) < 3))
    places = []
    for row in rows[labels[rows, scores[rows].argmax(axis=1)] == 1]:
        planted = labels.copy()
        planted[row] = np.roll(labels[row, :3], 1).tolist() + [0]
        places.append(find_suspicious(replace(oof, labels=planted)).index.get_loc(row))
    assert np.mean(np.array(places) < 3) > 0.9


def test_of_many_recordings_memory_does_not_change_the_list(rng, monkeypatch):
    oof = made_up(rng, n=50)
    whole = find_suspicious(oof)
    monkeypatch.setattr("inference.doctor.BLOCK_ROWS", 7)
    parts = find_suspicious(oof)
    assert parts["filename"].tolist() == whole["filename"].tolist()
    np.testing.assert_allclose(parts["suspicion"], whole["suspicion"], rtol=1e-9)


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
