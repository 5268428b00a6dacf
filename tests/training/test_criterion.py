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


def test_masked_secondary_birds_leave_the_default_loss_finite():
    masked = torch.tensor([[0.0, math.nan]])
    loss = build_loss(Config(secondary_targets="masked", loss_name="bce_focal"))(OUTPUT, masked)
    known = {"logit": OUTPUT["logit"][:, :1]}
    assert loss == get_loss("bce_focal")(known, TARGETS[:, :1])


def test_masks_that_the_data_have_are_left_out_whatever_the_settings_say():
    masked = torch.tensor([[0.0, math.nan]])
    assert build_loss(Config(loss_name="bce"))(OUTPUT, masked).isnan()
    known = get_loss("bce")({"logit": OUTPUT["logit"][:, :1]}, TARGETS[:, :1])
    assert build_loss(Config(loss_name="bce"), has_masks=True)(OUTPUT, masked) == known


def test_an_unknown_loss_lists_the_known_ones():
    with pytest.raises(UserError, match="unknown loss_name 'cros_entropy'.*cross_entropy"):
        build_loss(Config(loss_name="cros_entropy"))


def test_targets_of_steps_are_asked_for_by_the_caller():
    timed = torch.stack([TARGETS, torch.tensor([[1.0, 0.0]])], dim=1)  # (1, 1 + 1, 2)
    expected = get_loss("bce_focal_2way", is_timed=True)(OUTPUT, timed)
    assert build_loss(Config(), is_timed=True)(OUTPUT, timed) == expected
