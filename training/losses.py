"""The losses that a run can choose from: those of metrics.py, and those of other recipes.

Each is a function of logits (B, C) and targets (B, C) in [0, 1]. By its own name it sees the clip's
logits; with `_2way` behind the name also the loudest frame's, and `loss_weights` weigh both parts.
A target of NaN is masked out: nothing is learnt from it. A new loss is one entry of MORE_LOSSES.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import metrics
from configs import Config, choose

Loss = Callable[[Tensor, Tensor], Tensor]
TWO_WAY = "_2way"
BCE_SHARE = 0.25  # beside the soft AUC, as the second place of BirdCLEF 2026 has it


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Softmax cross-entropy, each clip's targets scaled to a sum of 1.

    A clip whose targets are all 0 counts as 0: it is no evidence for any class.
    """
    is_masked = targets.isnan()
    targets = targets.masked_fill(is_masked, 0.0)
    targets = targets / targets.sum(dim=1, keepdim=True).clamp(min=1e-6)

    # A masked class leaves the softmax, too.
    log_p = logits.masked_fill(is_masked, -torch.inf).log_softmax(dim=1)
    return -(targets * log_p.masked_fill(is_masked, 0.0)).sum(dim=1).mean()


def binary_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Average over all targets of the cross-entropy of each class for itself."""
    logits, targets = _known(logits, targets)
    return F.binary_cross_entropy_with_logits(logits, targets)


class AsymmetricLoss(nn.Module):
    """Binary cross-entropy in which easy negatives count less than easy positives.

    With p = sigmoid(logit) and q = max(p - margin, 0), the mean of -t (1 - p)^positive log p -
    (1 - t) q^negative log(1 - q) (Ridnik et al., arXiv:2009.14119, with its values).

    Args:
        positive: how much less easy positives count.
        negative: how much less easy negatives count.
        margin: negatives below it do not count at all.
    """

    def __init__(self, positive: float = 1.0, negative: float = 4.0, margin: float = 0.05) -> None:
        super().__init__()
        self.positive, self.negative, self.margin = positive, negative, margin

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Average over all targets: () float32."""
        logits, targets = _known(logits, targets)
        p = torch.sigmoid(logits)
        q = (p - self.margin).clamp(min=0)
        of_positives = targets * (1 - p) ** self.positive * F.logsigmoid(logits)
        of_negatives = (1 - targets) * q**self.negative * torch.log1p(-q.clamp(max=1 - 1e-6))
        return -(of_positives + of_negatives).mean()


def soft_auc(logits: Tensor, targets: Tensor) -> Tensor:
    """Smooth 1 - ROC-AUC: log(1 + exp(-d)), d being how far a positive lies above a negative.

    Each pair of clips of a batch counts for a class by the target of the one times 1 - the target
    of the other; classes with such pairs are averaged.
    """
    is_known = ~targets.isnan()
    targets = targets.nan_to_num(0.0)
    positive, negative = targets * is_known, (1 - targets) * is_known  # (B, C)

    above = logits[:, None] - logits[None]  # (B, B, C): clip of a row above clip of a column
    weights = positive[:, None] * negative[None]
    of_classes = weights.sum(dim=(0, 1))  # (C,)
    losses = (weights * F.softplus(-above)).sum(dim=(0, 1)) / of_classes.clamp(min=1e-6)
    return losses.sum() / (of_classes > 1e-6).sum().clamp(min=1)


def soft_auc_bce(logits: Tensor, targets: Tensor) -> Tensor:
    """`soft_auc` and a quarter of `binary_cross_entropy`, which keeps the logits in place."""
    return soft_auc(logits, targets) + BCE_SHARE * binary_cross_entropy(logits, targets)


class FocalLoss(nn.Module):
    """`metrics.BCEFocalLoss` of what is not masked."""

    def __init__(self, alpha: float, gamma: float) -> None:
        super().__init__()
        self.focal = metrics.BCEFocalLoss(alpha, gamma)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Average over all targets: () float32."""
        return self.focal(*_known(logits, targets))


class OneOrTwoWays(nn.Module):
    """A loss of the clip's logits, and perhaps of the loudest frame's.

    Args:
        loss: of logits and targets (B, C).
        weights: of the clipwise and the framewise part.
    """

    def __init__(self, loss: Loss, weights: Sequence[float]) -> None:
        super().__init__()
        self.loss, self.weights = loss, tuple(weights)

    def forward(self, output: Mapping[str, Tensor], targets: Tensor) -> Tensor:
        """Weigh both parts.

        Args:
            output: `logit` (B, C) and `framewise_logit` (B, T, C).
            targets: (B, C).

        Returns:
            () float32.
        """
        clipwise, framewise = self.weights
        targets = targets.float()
        loss = clipwise * self.loss(output["logit"].float(), targets)
        if framewise:
            loudest = output["framewise_logit"].float().amax(dim=1)  # (B, C)
            loss = loss + framewise * self.loss(loudest, targets)
        return loss


# How each is made from alpha and gamma of the focal loss
MORE_LOSSES: dict[str, Callable[[float, float], Loss]] = {
    "asymmetric": lambda alpha, gamma: AsymmetricLoss(),
    "bce": lambda alpha, gamma: binary_cross_entropy,
    "bce_focal": FocalLoss,
    "cross_entropy": lambda alpha, gamma: cross_entropy,
    "soft_auc": lambda alpha, gamma: soft_auc,
    "soft_auc_bce": lambda alpha, gamma: soft_auc_bce,
}


def build_loss(config: Config) -> metrics.Criterion:
    """Make the loss of the settings: a function of the model's output and targets (B, C).

    Raises:
        UserError: an unknown name; the message lists the known ones.
    """
    two_ways = [name + TWO_WAY for name in MORE_LOSSES]
    names = {*metrics.LOSSES, *MORE_LOSSES, *two_ways}
    name = choose(config.loss_name, names, what="loss_name")
    is_masked = config.secondary_targets == "masked"
    can_be_masked = name.removesuffix(TWO_WAY) in MORE_LOSSES
    if name in metrics.LOSSES and not (is_masked and can_be_masked):
        return metrics.get_loss(
            name, alpha=config.focal_alpha, gamma=config.focal_gamma, weights=config.loss_weights
        )

    loss = MORE_LOSSES[name.removesuffix(TWO_WAY)](config.focal_alpha, config.focal_gamma)
    weights = config.loss_weights if name.endswith(TWO_WAY) else (1.0, 0.0)
    return OneOrTwoWays(loss, weights)


def _known(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Leave out what is masked; without masks the tensors stay as they are."""
    is_masked = targets.isnan()
    if not is_masked.any():
        return logits, targets
    return logits[~is_masked], targets[~is_masked]
