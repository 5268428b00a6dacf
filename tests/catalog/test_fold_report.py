"""The report of the folds."""

import pandas as pd

from catalog.fold_report import fold_report
from catalog.labels import NO_BIRD


def test_fold_report_worked_by_hand():
    table = pd.DataFrame(
        {
            "primary_label": ["a", "a", "b", "c", "c", "c", "c"],
            "filename": [
                "a/1.ogg",
                "a/2.ogg",
                "b/3.ogg",
                "c/1.mp3",
                "c/5.ogg",
                "c/6.ogg",
                "c/7.ogg",
            ],
            "author": ["x", "y", "x", "", "z", "y", "z"],
            "kfold": [0, 1, 0, 1, 1, 1, 0],
        }
    )
    contents = [0, 1, 2, 3, 2, 4, 5]
    identities = pd.DataFrame(
        {
            "key": ["1", "2", "3", "1", "5", "6", "7"],
            "rule": ["number"] * 7,
            "content": contents,
            "sound": [0, 1, 2, 3, 2, 5, 5],  # the last two are copies at another gain
        }
    )
    report = fold_report(table, identities)
    assert report["folds"] == [
        {
            "fold": 0,
            "recordings": 3,
            "classes": 3,
            "classes_without_training_data": ["b"],
            "classes_without_validation_data": [],
        },
        {
            "fold": 1,
            "recordings": 4,
            "classes": 2,
            "classes_without_training_data": [],
            "classes_without_validation_data": ["b"],
        },
    ]
    assert report["leakage"] == {
        "id": {"distinct": 6, "in_several_folds": ["1"]},
        "content": {"distinct": 6, "in_several_folds": ["b/3.ogg"]},
        "sound": {"distinct": 5, "in_several_folds": ["b/3.ogg", "c/6.ogg"]},
        "author": {"distinct": 3, "in_several_folds": ["z"]},
    }
    assert report["copies"] == [
        ["a/1.ogg", "c/1.mp3"],
        ["b/3.ogg", "c/5.ogg"],
        ["c/6.ogg", "c/7.ogg"],
    ]
    assert report["joined"] == {"number": 2, "equal to the byte": 2, "same sound": 2}
    assert report["other_labels"] == [["b/3.ogg", "c/5.ogg"]]
    assert report["uneven_classes"] == ["c"]


def test_recordings_without_a_bird_are_no_class():
    table = pd.DataFrame(
        {
            "primary_label": ["a", "a", NO_BIRD, NO_BIRD],
            "filename": ["a/1.wav", "a/2.wav", "n/3.wav", "n/4.wav"],
            "kfold": [0, 1, 1, 2],
        }
    )
    identities = pd.DataFrame(
        {"key": ["1", "2", "3", "4"], "rule": "number", "content": range(4), "sound": range(4)}
    )
    report = fold_report(table, identities)
    assert (report["recordings"], report["classes"], report["negatives"]) == (4, 1, 2)
    assert [fold["recordings"] for fold in report["folds"]] == [1, 2, 1]
    assert report["folds"][2]["classes_without_validation_data"] == ["a"]
