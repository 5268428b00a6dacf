"""Steps that wait for nothing: the device leaves out a bad one, and the program hears of it later.

A GPU works beside the program, which should have the next step ready before it is done with one.
So whether a step is good is decided on the device, as torch's GradScaler does, and its losses are
read while the next one is at work: a step late. Before anything is saved, all are read.

A schedule that goes by steps counts those that were left out, too: when the next rate is needed
nobody knows yet.
"""

import torch

from scheduler import stepped_on
from training import bad_steps
from training.fold import Fold
from training.readings import Reading

N_BEHIND = 1  # steps that are not read yet while the next is put together


def step(fold: Fold, norm: torch.Tensor) -> None:
    """Step where losses and norm are finite, as the device sees; read the step before.

    Args:
        fold: with the gradients of a whole group, unscaled and clipped.
        norm: of the gradients, () on the device.

    Raises:
        UserError: steps read here are the `max_bad_steps`-th in a row.
    """
    parts, progress = fold.parts, fold.progress
    assert fold.late is not None
    reading = Reading(fold.group.losses, norm, fold.clips_of)

    parts.optimizer.found_inf = reading.is_bad  # type: ignore[attr-defined] # fused: moves nothing
    parts.optimizer.step()
    parts.scaler.update()  # halves the scale after an overflow
    progress.step += 1

    fold.statistics.put_back_where(reading.is_bad)
    _update_average(fold, reading.is_bad)
    if stepped_on(fold.config.scheduler_name) == "step":
        parts.scheduler.step()

    fold.late.append(reading)
    read(fold, N_BEHIND)


def _update_average(fold: Fold, is_bad: torch.Tensor) -> None:
    """Take the weights into their moving average, and that back after a bad step."""
    ema = fold.parts.ema
    if ema is None:
        return
    assert fold.ema_before is not None
    fold.ema_before.remember()
    ema.update(fold.parts.model, step=fold.progress.step)
    fold.ema_before.put_back_where(is_bad)


def read(fold: Fold, n_left: int = 0) -> None:
    """Read the steps that were not read yet, but the last `n_left`, in their order.

    Raises:
        UserError: one of them is the `max_bad_steps`-th bad one in a row.
    """
    while fold.late is not None and len(fold.late) > n_left:
        norm, losses = fold.late.popleft().values()
        if bad_steps.note_losses(fold, norm, losses):
            fold.progress.bad_steps = 0
        else:
            bad_steps.count_bad_step(fold)
