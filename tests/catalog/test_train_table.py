"""train.csv: what is refused, the classes, and the parts of a fold."""

import numpy as np
import pandas as pd
import pytest

from catalog.labels import NO_BIRD
from catalog.train_table import (
    DEBUG_ROWS,
    check_prepared,
    check_table,
    choose_windows,
    load_class_names,
    read_train_table,
    shrink,
    split_fold,
)
from configs import Config, UserError


def table(*rows: tuple[str, int]) -> pd.DataFrame:
    """Rows of (species, fold)."""
    df = pd.DataFrame(rows, columns=["primary_label", "kfold"])
    names = [f"{label}/{number}.ogg" for number, label in enumerate(df["primary_label"])]
    return df.assign(labels=df["primary_label"], filepath=[f"{name}.npy" for name in names])


def windows(*labels: str, filename: str = "a.wav") -> pd.DataFrame:
    df = pd.DataFrame({"primary_label": labels, "labels": labels, "filename": filename})
    return df.assign(start_s=2.5 * np.arange(len(labels)), number=np.arange(len(labels)))


def test_a_missing_column_names_it_and_those_that_are_there(tmp_path):
    (tmp_path / "train.csv").write_text("primary_label,labels\na,a\n")
    df = read_train_table(tmp_path / "train.csv")
    with pytest.raises(
        UserError, match=r"no column filepath, kfold \(it has primary_label, labels"
    ):
        check_table(df, "train.csv")


@pytest.mark.parametrize("value", ["", "x", "1.5"])
def test_a_fold_that_is_no_whole_number_is_named_by_its_row(value):
    df = table(("a", 0), ("b", 1)).astype({"kfold": object})
    df.loc[1, "kfold"] = value
    with pytest.raises(UserError, match=rf"row 3: kfold '{value}' is not a whole number"):
        check_table(df)


def test_classes_are_sorted_and_no_bird_is_none():
    assert load_class_names(table(("wren", 0), (NO_BIRD, 0), ("22961", 1), ("NA", 1))) == [
        *("22961", "NA", "wren"),
    ]


def test_the_parts_of_a_fold_by_hand():
    df = table(("a", 0), ("a", 1), ("b", 0), ("c", 0), ("c", 1))
    train, valid = split_fold(df, 0, rare_birds=["c"])
    assert list(valid.index) == [0]  # b would not be trained on, c is rare
    assert list(train.index) == [1, 2, 3, 4]


def test_a_fold_without_anything_to_validate_says_why():
    with pytest.raises(UserError, match="each of its species has one recording"):
        split_fold(table(("a", 0), ("b", 1)), 0, rare_birds=[])
    with pytest.raises(UserError, match="fold 5 has 0 of 2 recordings"):
        split_fold(table(("a", 0), ("a", 1)), 5, rare_birds=[])


def test_windows_of_validation_hold_each_second_once_and_few_are_empty():
    train = windows("robin", *[NO_BIRD] * 9, "wren")
    valid = windows("robin", NO_BIRD, "wren", "wren", filename="b.wav")
    chosen, held_back = choose_windows(train, valid, 0.5, seed=0)
    assert list(held_back["start_s"]) == [0.0, 5.0]
    assert sorted(chosen["primary_label"]) == sorted(["robin", "wren", NO_BIRD, NO_BIRD])

    chosen, _ = choose_windows(train, valid, 0.0, seed=0)
    assert list(chosen["primary_label"]) == ["robin", "wren"]


def test_a_fold_of_windows_without_a_label_is_refused():
    with pytest.raises(UserError, match="0 labelled windows to train on and 1 windows"):
        choose_windows(windows(NO_BIRD), windows("robin"), 0.5, seed=0)


def test_missing_and_damaged_arrays_are_counted_and_the_first_named(tmp_path):
    df = table(("a", 0), ("b", 0), ("c", 0))
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    np.save(tmp_path / "a" / "0.ogg.npy", np.zeros(10, np.float32))
    (tmp_path / "b" / "1.ogg.npy").write_bytes(b"no array")
    with pytest.raises(UserError, match=r"2 of 3 prepared recordings .*b/1.ogg.npy is damaged"):
        check_prepared(df, tmp_path)


def test_a_trial_takes_few_rows_of_each_part():
    df = table(*[("a", number % 2) for number in range(500)])
    few, config = shrink(df, 0, Config(epochs=120))
    assert few["kfold"].value_counts().to_dict() == {0: DEBUG_ROWS, 1: DEBUG_ROWS}
    assert config.epochs == 2 and list(few.index) == sorted(few.index)
