"""Each loss against its formula in plain Python, masks, and gradients that point the right way."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import metrics
from configs import Config, UserError
from metrics import BCEFocal2WayLoss
from training.losses import MORE_LOSSES, AsymmetricLoss, build_loss, cross_entropy, soft_auc

LOGITS = [[1.0, -2.0, 0.5], [0.0, 3.0, -1.0]]
TARGETS = [[1.0, 0.0, 0.0], [0.3, 1.0, 0.0]]


def tensors(targets=TARGETS):
    return torch.tensor(LOGITS), torch.tensor(targets)


def test_cross_entropy_scales_the_labels_of_a_clip_to_one():
    logits, targets = tensors([[1.0, 0.0, 0.0], [0.5, 1.0, 0.0]])
    expected = 0.0
    for row, weights in zip(LOGITS, [[1, 0, 0], [1 / 3, 2 / 3, 0]], strict=True):
        log_sum = math.log(sum(map(math.exp, row)))
        expected -= sum(w * (x - log_sum) for w, x in zip(weights, row, strict=True)) / 2
    assert float(cross_entropy(logits, targets)) == pytest.approx(expected, rel=1e-6)


def test_a_masked_class_leaves_the_softmax():
    logits, _ = tensors()
    masked = torch.tensor([[1.0, math.nan, 0.0], [1.0, 0.0, math.nan]])
    expected = (
        math.log(math.exp(1.0) + math.exp(0.5)) - 1.0 + math.log(1 + math.exp(3.0)) - 0.0
    ) / 2
    assert float(cross_entropy(logits, masked)) == pytest.approx(expected, rel=1e-6)


def test_asymmetric_loss_matches_its_formula():
    expected = 0.0
    for row, targets in zip(LOGITS, TARGETS, strict=True):
        for x, t in zip(row, targets, strict=True):
            p = 1 / (1 + math.exp(-x))
            q = max(p - 0.05, 0)
            expected -= t * (1 - p) * math.log(p) + (1 - t) * q**4 * math.log(1 - q)
    assert float(AsymmetricLoss()(*tensors())) == pytest.approx(expected / 6, rel=1e-5)


def test_soft_auc_averages_pairs_of_each_class():
    logits = torch.tensor([[2.0, 0.0], [1.0, 5.0], [-1.0, 7.0]])
    targets = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]])  # no pair in the second class
    pairs = [math.log(1 + math.exp(-1.0)), math.log(1 + math.exp(-3.0))]
    assert float(soft_auc(logits, targets)) == pytest.approx(sum(pairs) / 2, rel=1e-6)


@pytest.mark.parametrize("name", [*MORE_LOSSES, *(f"{name}_2way" for name in MORE_LOSSES)])
def test_masked_targets_teach_nothing_and_others_their_direction(name):
    torch.manual_seed(0)
    loss = build_loss(Config(loss_name=name, secondary_targets="masked"))
    logit = torch.zeros(4, 3, requires_grad=True)
    framewise = torch.randn(4, 5, 3, requires_grad=True)
    targets = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 1, 0], [math.nan, 0, 1]])
    loss({"logit": logit, "framewise_logit": framewise}, targets).backward()

    gradient = logit.grad.numpy()
    assert np.isfinite(gradient).all() and gradient[3, 0] == 0
    assert (gradient[[0, 1, 2, 3], [0, 1, 1, 2]] < 0).all()  # up with what is there
    assert gradient[0, 1] > 0  # down with what is not
    assert (framewise.grad is not None and bool(framewise.grad.any())) == name.endswith("_2way")


def test_weights_are_those_of_the_clip_and_of_the_loudest_frame():
    logits, targets = tensors()
    framewise = torch.stack([logits - 1, logits + 1], dim=1)
    output = {"logit": logits, "framewise_logit": framewise}
    loss = build_loss(Config(loss_name="cross_entropy_2way", loss_weights=(0.25, 2.0)))
    expected = 0.25 * cross_entropy(logits, targets) + 2 * cross_entropy(logits + 1, targets)
    torch.testing.assert_close(loss(output, targets), expected)


def test_without_masks_the_seeds_losses_are_those_of_metrics():
    assert isinstance(build_loss(Config()), BCEFocal2WayLoss)


def test_a_new_loss_of_metrics_is_one_of_the_losses_to_choose(monkeypatch):
    def make(alpha, gamma, weights):
        return metrics.on_clip(F.mse_loss)

    monkeypatch.setitem(metrics.LOSSES, "squared", make)
    loss = build_loss(Config(loss_name="squared"))
    logits, targets = torch.tensor([[0.5, 2.0]]), torch.tensor([[0.0, 1.0]])
    assert loss({"logit": logits}, targets).item() == pytest.approx((0.25 + 1.0) / 2)


def test_an_unknown_loss_lists_the_known_ones():
    with pytest.raises(UserError, match="unknown loss_name 'cros_entropy'.*cross_entropy"):
        build_loss(Config(loss_name="cros_entropy"))
