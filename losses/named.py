"""The losses of training: what a run can choose by `loss_name`, all in one table.

Each is a function of logits (B, C) and targets (B, C) in [0, 1]. By its own name it sees the clip's
logits; with `_2way` behind the name also the loudest frame's, and `loss_weights` weigh both parts.
A target of NaN is masked out: nothing is learnt from it. A new loss is one entry of LOSSES. Nothing
here knows the settings of a run.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Output = Mapping[str, Tensor]  # what the SED model returns
Criterion = Callable[[Output, Tensor], Tensor]  # of the output and targets, gives a () loss
Loss = Callable[[Tensor, Tensor], Tensor]  # of logits and targets

TWO_WAY = "_2way"
CERTAINLY_NOT = -1e4  # a logit whose probability is 0 in float32
BCE_SHARE = 0.25  # beside the soft AUC, as the second place of BirdCLEF 2026 has it


class BCEFocalLoss(nn.Module):
    """Binary cross-entropy in which well classified examples count less.

    With p = sigmoid(logit) and target t, it is the mean over all elements of
    `t * alpha * (1 - p)^gamma * bce + (1 - t) * p^gamma * bce`, where bce is the cross-entropy of
    logit and t. Alpha weighs only the positive part; in RetinaNet's form (arXiv:1708.02002) the
    negative part has 1 - alpha.

    Args:
        alpha: weight of the positive part, >= 0.
        gamma: focusing exponent, >= 0. Gamma 0 with alpha 1 is the plain cross-entropy.
    """

    def __init__(self, alpha: float = 0.25, gamma: float = 2.0) -> None:
        super().__init__()
        if alpha < 0 or gamma < 0:
            raise ValueError(f"alpha={alpha} and gamma={gamma} must not be negative")
        self.alpha, self.gamma = alpha, gamma

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Compute the mean focal loss in nats.

        Args:
            logits: any shape and float dtype; the loss is computed in float32.
            targets: in [0, 1]; another shape is refused (ValueError), as it would be broadcast.

        Returns:
            () float32. Value and gradient are finite for every finite logit.
        """
        if logits.shape != targets.shape:
            raise ValueError(
                f"logits {tuple(logits.shape)} and targets {tuple(targets.shape)} differ in shape"
            )
        logits, targets = logits.float(), targets.float()

        # The logarithms of p and 1 - p keep every digit. Torch's own bce loses some by cancellation
        # where most negatives are (2.5e-4 of the loss at logit -7), and the gradient of
        # (1 - p)^0.5 is NaN once 1 - p is 0.
        log_p, log_not_p = F.logsigmoid(logits), F.logsigmoid(-logits)
        bce = -(targets * log_p + (1 - targets) * log_not_p)

        positive = targets * self.alpha * torch.exp(self.gamma * log_not_p) * bce
        negative = (1 - targets) * torch.exp(self.gamma * log_p) * bce
        return (positive + negative).mean()


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
    return soft_auc(logits, targets) + BCE_SHARE * of_known(binary_cross_entropy)(logits, targets)


# Which logits a loss sees -------------------------------------------------------------------------


class OneOrTwoWays(nn.Module):
    """A loss of the clip's logits, and perhaps of the loudest frame's.

    The framewise part teaches the frames: a clip holds a bird if any of its frames does.

    Args:
        loss: of logits and targets (B, C).
        weights: of the clipwise and the framewise part.
    """

    def __init__(self, loss: Loss, weights: Sequence[float] = (1.0, 0.0)) -> None:
        super().__init__()
        self.loss, self.weights = loss, tuple(weights)
        if len(self.weights) != 2:
            raise ValueError(
                f"two weights are needed, for the clipwise and the framewise part; got {weights}"
            )

    def forward(self, output: Output, targets: Tensor) -> Tensor:
        """Weigh both parts.

        Args:
            output: `logit` (B, C) and, for a second part, `framewise_logit` (B, T, C).
            targets: (B, C), in [0, 1].

        Returns:
            () float32.
        """
        clipwise, framewise = self.weights
        targets = targets.float()
        loss = clipwise * self.loss(output["logit"].float(), targets)
        if framewise:
            loudest = output["framewise_logit"].float().amax(dim=1)  # (B, T, C) -> (B, C)
            loss = loss + framewise * self.loss(loudest, targets)
        return loss


class TimedTwoWays(nn.Module):
    """A 2-way loss whose framewise part compares each step of a clip with a target of its own.

    Where a clip has no such targets, its loudest frame is compared with the clip's, as in
    OneOrTwoWays. Both kinds of clips count alike; steps are averaged over all clips.

    Args:
        loss: of logits and targets (n, C), row by row.
        weights: of the clipwise and the framewise part.
    """

    def __init__(self, loss: Loss, weights: Sequence[float]) -> None:
        super().__init__()
        self.loss, self.weights = loss, tuple(weights)

    def forward(self, output: Output, targets: Tensor) -> Tensor:
        """Weigh both parts.

        Args:
            output: `logit` (B, C) and `framewise_logit` (B, T, C).
            targets: (B, 1 + S, C): those of each clip, then those of its S steps; NaN in steps of
                which nothing is known.

        Returns:
            () float32.
        """
        clips, steps = targets[:, 0].float(), targets[:, 1:].float()  # (B, C), (B, S, C)
        framewise = output["framewise_logit"].float()
        n_steps, n_frames = steps.shape[1], framewise.shape[1]
        steps_in_order = torch.arange(n_steps, device=framewise.device)
        middle = ((steps_in_order + 0.5) * n_frames / n_steps).long()  # (S,) frames

        is_known = ~steps.isnan().any(dim=2)  # (B, S)
        has_steps = is_known.any(dim=1)  # (B,)
        losses, n_clips = [], len(targets)
        if has_steps.any():
            of_known = self.loss(framewise[:, middle][is_known], steps[is_known])
            losses.append(of_known * has_steps.sum() / n_clips)
        if not has_steps.all():
            loudest = framewise[~has_steps].amax(dim=1)
            losses.append(self.loss(loudest, clips[~has_steps]) * (~has_steps).sum() / n_clips)

        clipwise = self.loss(output["logit"].float(), clips)
        return self.weights[0] * clipwise + self.weights[1] * torch.stack(losses).sum()


class BCEFocal2WayLoss(OneOrTwoWays):
    """Focal loss on the clip's logits plus focal loss on its highest framewise logits.

    Args:
        weights: of the clipwise and of the framewise part.
        alpha: see BCEFocalLoss.
        gamma: see BCEFocalLoss.
    """

    def __init__(
        self, weights: Sequence[float] = (1.0, 1.0), alpha: float = 0.25, gamma: float = 2.0
    ) -> None:
        super().__init__(BCEFocalLoss(alpha, gamma), weights)


def of_known(loss: Loss) -> Loss:
    """Make a loss that averages over all targets one that leaves out those that are NaN.

    A masked target becomes an absence that the logits are certain of, and costs nothing. To pick
    out the others a GPU would be waited for.
    """

    def of_the_rest(logits: Tensor, targets: Tensor) -> Tensor:
        is_masked = targets.isnan()
        of_all = loss(logits.masked_fill(is_masked, CERTAINLY_NOT), targets.nan_to_num(0.0))
        n_known = targets.numel() - is_masked.sum()
        return of_all * (targets.numel() / n_known.clamp(min=1))

    return of_the_rest


# By name ------------------------------------------------------------------------------------------

# A new loss is one entry: how to make it from alpha and gamma of the focal loss.
LOSSES: dict[str, Callable[[float, float], Loss]] = {
    "asymmetric": lambda alpha, gamma: AsymmetricLoss(),
    "bce": lambda alpha, gamma: binary_cross_entropy,
    "bce_focal": BCEFocalLoss,
    "cross_entropy": lambda alpha, gamma: cross_entropy,
    "soft_auc": lambda alpha, gamma: soft_auc,
    "soft_auc_bce": lambda alpha, gamma: soft_auc_bce,
}

# These compare classes or clips of a batch and pass over NaN themselves; the others are averages
# over targets, each for itself.
SEE_MASKS = ("cross_entropy", "soft_auc", "soft_auc_bce")


def get_loss(
    loss_name: str,
    *,
    alpha: float = 0.25,
    gamma: float = 2.0,
    weights: Sequence[float] = (1.0, 1.0),
    has_masks: bool = False,
    is_timed: bool = False,
) -> Criterion:
    """Make a loss of LOSSES: a function of the model's output and targets (B, C) in [0, 1].

    Args:
        loss_name: its name, with `_2way` behind it for one that sees the loudest frame, too.
        alpha: weight of the positives in the focal losses.
        gamma: how much less easy examples count in them.
        weights: of the clipwise and the framewise part of a 2-way loss.
        has_masks: targets may be NaN, which is looked for in each batch.
        is_timed: targets are (B, 1 + S, C), as for TimedTwoWays; for a 2-way loss alone.

    Raises:
        ValueError: an unknown name; the message lists the known ones.
    """
    plain_name = loss_name.removesuffix(TWO_WAY)
    if plain_name not in LOSSES:
        known = ", ".join(sorted(LOSSES))
        raise ValueError(
            f"unknown loss_name {loss_name!r}; choose from {known}, each also with {TWO_WAY} "
            "behind its name"
        )

    loss = LOSSES[plain_name](alpha, gamma)
    if has_masks and plain_name not in SEE_MASKS:
        loss = of_known(loss)
    if is_timed and loss_name.endswith(TWO_WAY):
        return TimedTwoWays(loss, weights)
    return OneOrTwoWays(loss, weights if loss_name.endswith(TWO_WAY) else (1.0, 0.0))
