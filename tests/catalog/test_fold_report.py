"""The report of the folds."""

import numpy as np
import pandas as pd

from catalog.fold_report import fold_report


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
    report = fold_report(table, np.array([0, 1, 2, 3, 2, 4, 5]))
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
        "author": {"distinct": 3, "in_several_folds": ["z"]},
    }
    assert report["copies"] == [["a/1.ogg", "c/1.mp3"], ["b/3.ogg", "c/5.ogg"]]
    assert report["uneven_classes"] == ["c"]
