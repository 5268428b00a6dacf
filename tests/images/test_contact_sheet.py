"""The sheet of training images: test_dataset.py draws one; here, the words under an image."""

import numpy as np

from images.contact_sheet import describe_targets


def test_birds_are_named_with_their_targets_the_highest_first():
    names = ["NA", "22961", "zebra"]
    assert describe_targets(np.array([0.3, 0.0025, 0.995]), names) == "zebra 0.995,  NA 0.3"
    mixed = np.array([0.781605, 0.0, 0.215895])
    assert describe_targets(mixed, names) == "NA 0.782,  zebra 0.216"
    assert describe_targets(np.array([0.09, 0.0, 0.0]), names) == "no bird"
