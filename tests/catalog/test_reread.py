"""Tables of split_data.py that plain pandas read."""

import pandas as pd
import pytest

from catalog.reread import as_written
from configs import UserError

ROWS = "primary_label,labels,filepath,kfold\n"


@pytest.mark.parametrize(
    "labels", [["007", "008"], ["22961", "41663"], ["NA", "wren"], ["NA", "22961"], ["1e5", "2e5"]]
)
def test_labels_are_those_of_the_file_again(tmp_path, labels):
    path = tmp_path / "train.csv"
    rows = [f"{label},{label},x/{n}.wav.npy,{n}\n" for n, label in enumerate(labels)]
    path.write_text(ROWS + "".join(rows))
    read = pd.read_csv(path)
    assert read["primary_label"].tolist() != labels or read["labels"].tolist() != labels
    table = as_written(read, path)
    assert table["primary_label"].tolist() == table["labels"].tolist() == labels
    assert table["kfold"].tolist() == [0, 1]
    assert as_written(read[1:], path)["labels"].tolist() == labels[1:]


def test_text_is_left_alone_and_a_negative_may_have_no_labels(tmp_path):
    columns = {"primary_label": ["NA", "nocall"], "labels": ["NA", float("nan")]}
    table = pd.DataFrame({**columns, "filepath": ["a", "b"]})
    assert as_written(table, tmp_path / "nowhere.csv") is table


def test_without_the_file_numbers_are_spelled_as_their_folders(tmp_path):
    columns = {"primary_label": [7, 22961], "labels": [7, 22961]}
    table = pd.DataFrame({**columns, "filepath": ["007/1.wav.npy", "22961/2.wav.npy"]})
    found = as_written(table, tmp_path / "nowhere.csv")
    assert found["primary_label"].tolist() == found["labels"].tolist() == ["007", "22961"]


def test_a_file_with_other_rows_is_refused(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text(ROWS + "007,007,a/1.wav.npy,0\n")
    table = pd.DataFrame({"primary_label": [7], "labels": [7], "filepath": ["b/2.wav.npy"]})
    with pytest.raises(
        UserError, match="row 2: primary_label .* not text, and .*train.csv has oth"
    ):
        as_written(table, path)
