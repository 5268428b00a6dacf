"""The loss that settings choose, masks and mistakes included."""

import math

import pytest
import torch

from configs import Config, UserError
from losses.named import BCEFocal2WayLoss, get_loss
from training.criterion import build_loss

OUTPUT = {"logit": torch.tensor([[0.5, -2.0]]), "framewise_logit": torch.tensor([[[1.0, -1.0]]])}
TARGETS = torch.tensor([[0.0, 1.0]])


def test_the_settings_of_the_loss_are_used():
    config = Config(focal_alpha=0.4, focal_gamma=1.0, loss_weights=(2.0, 3.0))
    expected = BCEFocal2WayLoss(weights=(2.0, 3.0), alpha=0.4, gamma=1.0)(OUTPUT, TARGETS)
    assert build_loss(config)(OUTPUT, TARGETS) == expected


@pytest.mark.parametrize("name", ["bce", "bce_focal"])
def test_masks_of_the_data_set_are_left_out(name):
    masked = torch.tensor([[0.0, math.nan]])
    assert build_loss(Config(loss_name=name))(OUTPUT, masked).isnan()
    known = get_loss(name)({"logit": OUTPUT["logit"][:, :1]}, TARGETS[:, :1])
    assert build_loss(Config(loss_name=name), has_masks=True)(OUTPUT, masked) == known


def test_an_unknown_loss_lists_the_known_ones():
    with pytest.raises(UserError, match="unknown loss_name 'cros_entropy'.*cross_entropy"):
        build_loss(Config(loss_name="cros_entropy"))


def test_targets_of_steps_are_asked_for_by_the_caller():
    timed = torch.stack([TARGETS, torch.tensor([[1.0, 0.0]])], dim=1)  # (1, 1 + 1, 2)
    expected = get_loss("bce_focal_2way", is_timed=True)(OUTPUT, timed)
    assert build_loss(Config(), is_timed=True)(OUTPUT, timed) == expected
