"""The table of windows that models have labelled, and that no labelled recording is among them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from catalog.pseudo_labels import (
    PSEUDO_COLUMNS,
    read_pseudo_labels,
    read_rows,
    refuse_labelled,
    write_pseudo_labels,
)
from configs import UserError

CLASSES = ["Great tit", "robin", "wren"]
ROWS = [
    ("a.wav", "np/a.wav.npy", 0.0, 5.0, ("wren", "Great tit"), (0.9, 0.25), (1, 0), 1.15),
    ("a.wav", "np/a.wav.npy", 5.0, 10.0, (), (), (), 0.0),
    ("=b.wav", "np/b.wav.npy", 2.5, 7.5, ("robin",), (0.5,), (0,), 0.5),
]


@pytest.fixture
def table(tmp_path) -> Path:
    write_pseudo_labels(tmp_path / "round_1.csv", pd.DataFrame(ROWS, columns=PSEUDO_COLUMNS))
    return tmp_path / "round_1.csv"


def test_rows_come_back_as_they_were(table):
    read = read_rows(table)
    assert list(read[list(PSEUDO_COLUMNS)].itertuples(index=False, name=None)) == ROWS


def test_refuted_species_come_back_one_with_a_space_too(table, tmp_path):
    rows = pd.DataFrame(ROWS, columns=PSEUDO_COLUMNS)
    said = [(), ("Great tit",), ("robin", "wren")]
    write_pseudo_labels(tmp_path / "own.csv", rows.assign(refuted=said))
    assert read_rows(tmp_path / "own.csv")["refuted"].tolist() == said
    assert read_pseudo_labels(tmp_path / "own.csv", CLASSES).is_empty.tolist() == [False] * 3


def test_training_gets_arrays_by_class(table):
    pseudo = read_pseudo_labels(table, CLASSES)
    assert len(pseudo) == 3 and pseudo.is_empty.tolist() == [False, True, False]
    np.testing.assert_allclose(pseudo.scores_of(0, 3), [0.25, 0, 0.9])
    np.testing.assert_allclose(pseudo.scores_of(1, 3), [0, 0, 0])
    np.testing.assert_allclose(pseudo.scores_of(2, 3), [0, 0.5, 0])
    assert bytes(pseudo.paths[2]).decode() == str(table.parent / "np/b.wav.npy")


def test_windows_are_drawn_by_their_weights(table):
    pseudo, rng = read_pseudo_labels(table, CLASSES), np.random.default_rng(1)
    n_draws = 4000
    counts = np.bincount([pseudo.draw(rng, 0.2) for _ in range(n_draws)], minlength=3) / n_draws
    expected = [0.8 * 1.15 / 1.65, 0.2, 0.8 * 0.5 / 1.65]
    np.testing.assert_allclose(counts, expected, atol=4 * np.sqrt(0.25 / n_draws))
    assert 1 not in {pseudo.draw(rng, 0.0) for _ in range(200)}


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("0.9000 0.2500", "0.9000", "row 2: labels and scores differ"),
        ("0.5000,0", "1.5000,0", "row 4: a score is not between 0 and 1"),
        ("2.5,7.5", "7.5,2.5", "row 4: it ends before it starts"),
        ("0.5000,0,0.5000", "0.5000,0,-1", "row 4: its weight is negative"),
        ("0.5000,0,0.5000", "much,0,0.5000", "much"),
        ("made_by", "by", "no column made_by"),
    ],
)
def test_a_bad_row_is_named(table, old, new, complaint):
    text = table.read_text()
    assert old in text
    table.write_text(text.replace(old, new))
    with pytest.raises(UserError, match=complaint):
        read_rows(table)


def test_a_label_that_is_no_class_is_refused(table):
    with pytest.raises(UserError, match="'wren' is none of the 2 classes"):
        read_pseudo_labels(table, CLASSES[:2])


def test_a_table_without_windows_is_refused(tmp_path):
    write_pseudo_labels(tmp_path / "none.csv", pd.DataFrame([], columns=PSEUDO_COLUMNS))
    with pytest.raises(UserError, match="no windows"):
        read_pseudo_labels(tmp_path / "none.csv", CLASSES)


# Labelled recordings ------------------------------------------------------------------------------


def arrays(folder: Path, **samples: np.ndarray) -> dict[str, Path]:
    folder.mkdir()
    for name, waveform in samples.items():
        np.save(folder / f"{name}.npy", waveform.astype(np.float32))
    return {f"{name}.wav": folder / f"{name}.npy" for name in samples}


def refuse(one: dict[str, Path], other: dict[str, Path], **how) -> None:
    refuse_labelled(one, other, where="train.csv", **how)


def test_a_labelled_recording_is_known_by_name_bytes_and_sound(tmp_path, rng):
    first, second = rng.standard_normal((2, 500))
    field = arrays(tmp_path / "field", dawn=first, XC777=second)
    refuse(field, arrays(tmp_path / "other", song=rng.standard_normal(500)))

    with pytest.raises(UserError, match="dawn.wav is song.wav of train.csv, byte by byte"):
        refuse(field, arrays(tmp_path / "same", song=first))
    with pytest.raises(UserError, match="XC777.wav is XC777_b.wav of train.csv, by its name"):
        refuse(field, arrays(tmp_path / "named", XC777_b=rng.standard_normal(9)))
    with pytest.raises(UserError, match="dawn.wav is loud.wav of train.csv, by its sound"):
        loud = arrays(tmp_path / "loud", loud=2 * first)
        refuse(field, loud, same_sound=lambda paths: [0, 1, 0])
