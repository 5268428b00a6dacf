"""Sites that training has heard, by hand."""

import numpy as np

from inference.seen import seen_in_training


def test_a_site_is_seen_where_another_fold_has_recordings_of_it():
    sites = np.array(["pond", "pond", "pond", "wood", "wood", "hill"])
    folds = np.array([0, 0, 1, 2, 2, 1])
    own = np.array(["pond", "pond", "wood", "hill", "moor", ""])
    held_back = np.array([0, 1, 2, 1, 0, 0])
    assert seen_in_training(sites, folds, held_back, own).tolist() == [
        *("seen", "seen", "unseen", "unseen", "unseen", "unknown")
    ]
    assert seen_in_training(sites, folds, np.array([0]), np.array(["wood"])).tolist() == ["seen"]
