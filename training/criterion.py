"""The loss of a run, as its settings choose it."""

from configs import Config, UserError
from losses.named import Criterion, get_loss


def build_loss(config: Config, *, is_timed: bool = False, has_masks: bool = False) -> Criterion:
    """Make the loss of the settings: a function of the model's output and targets (B, C).

    Args:
        config: loss_name, and the parameters of losses.
        has_masks: targets may be NaN, as the data set says.
        is_timed: targets are (B, 1 + S, C): those of each clip, then those of its S steps.

    Raises:
        UserError: an unknown name; the message lists the known ones.
    """
    try:
        return get_loss(
            config.loss_name,
            alpha=config.focal_alpha,
            gamma=config.focal_gamma,
            weights=config.loss_weights,
            has_masks=has_masks,
            is_timed=is_timed,
        )
    except ValueError as error:
        raise UserError(str(error)) from None
