"""Stochastic weight averaging: one model of the weights that a fold's last epochs ended with.

The mean of weights along a training lies in a flatter place than its ends (Izmailov et al.,
arXiv:1803.05407). Batch statistics of the ends fit none of it, so they are made anew from an epoch
of training clips, as they are before MixUp and CutMix.
"""

import copy
import logging
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

from training.batches import batches_in_turn
from training.fold import Fold
from training.rates import keeps_statistics
from training.stopping import stop_if_asked
from training.stopwatch import WAITING

logger = logging.getLogger("birdclef.train")


def add_to_mean(mean: Mapping[str, Tensor], model: nn.Module, n: int) -> dict[str, Tensor]:
    """Take the parameters of an n-th model into the mean of those before it; n counts from 1."""
    own = {name: value.detach() for name, value in model.named_parameters()}
    if n == 1:
        return {name: value.clone() for name, value in own.items()}
    return {name: mean[name].to(value).lerp(value, 1 / n) for name, value in own.items()}


def with_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> nn.Module:
    """Copy a model, with other parameters; its buffers stay."""
    copied = copy.deepcopy(model)
    copied.load_state_dict({**copied.state_dict(), **weights})
    return copied


def remake_statistics(
    model: nn.Module, batches: Iterable[Tensor], forward: Callable[..., object]
) -> None:
    """Set running means and variances to their average over batches, all of which count alike.

    Args:
        model: it is left in evaluation mode.
        batches: of images (B, channels, T, F).
        forward: how the model is called.
    """
    model.eval()  # neither dropout nor masks
    norms = [one for one in model.modules() if isinstance(one, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # an average over all batches
        norm.train()

    with torch.no_grad():
        for images in batches:
            forward(model, images)

    model.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


# In train.py --------------------------------------------------------------------------------------


def collect_weights(fold: Fold) -> None:
    """Take an epoch's weights into the average, if it is one of the last `average_epochs`."""
    progress = fold.progress
    if progress.epoch + 1 > fold.n_epochs - fold.config.average_epochs:
        progress.n_averaged += 1
        scored = fold.parts.scored_model
        progress.average = add_to_mean(progress.average, scored, progress.n_averaged)


def average_weights(fold: Fold) -> bool:
    """Make the averaged model the one that is scored, once the last epoch is done.

    Returns:
        Whether there is one; it is validated and saved like an epoch's, as the history's last row.
    """
    progress = fold.progress
    if progress.is_averaged:
        logger.info("fold %d is complete: its last weights were averaged", fold.number)
    if progress.is_averaged or not progress.n_averaged:
        return False

    logger.info("fold %d: averaging the weights of %d epochs", fold.number, progress.n_averaged)
    model = with_weights(fold.parts.scored_model, progress.average)
    if not keeps_statistics(fold.config, progress.epoch - 1):
        remake_statistics(model, training_images(fold), fold.call)
    fold.parts.average = model.eval()
    return True


def training_images(fold: Fold) -> Iterable[Tensor]:
    """Go through the images of an epoch that was not trained on, one batch after the other."""
    fold.train_sampler.set_position(fold.progress.epoch + 1)
    for batch in batches_in_turn(fold.train_loader, fold.watch, WAITING, what="batch statistics"):
        yield fold.to_device(batch)[0]
        stop_if_asked(fold)
