"""How logits become scores, as the settings say it."""

import pytest

from configs import Config


@pytest.mark.parametrize(
    ("loss_name", "score_by", "softmax"),
    [
        ("bce_focal_2way", "auto", False),
        ("cross_entropy", "auto", True),
        ("cross_entropy_2way", "auto", True),
        ("cross_entropy", "sigmoid", False),
        ("bce", "softmax", True),
    ],
)
def test_the_loss_decides_how_logits_become_scores(loss_name, score_by, softmax):
    config = Config(loss_name=loss_name, score_by=score_by)
    assert config.has_softmax_scores is softmax
