"""Learning-rate schedules by name, and when each of them is stepped."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch.optim import Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler

from configs import SCHEDULER_PARAMS, Config, UserError, choose

SteppedOn = Literal["valid_loss", "epoch", "step"]
Build = Callable[..., LRScheduler]


@dataclass(frozen=True)
class Schedule:
    """How a schedule is made, and what it is stepped with."""

    build: Build
    stepped_on: SteppedOn


def _plateau(
    optimizer: Optimizer, *, config: Config, total_steps: int, last_epoch: int, **params: Any
) -> LRScheduler:
    return lr_scheduler.ReduceLROnPlateau(optimizer, mode="min", **params)


def _cosine(
    optimizer: Optimizer,
    *,
    config: Config,
    total_steps: int,
    last_epoch: int,
    T_max: int,
    **params: Any,
) -> LRScheduler:
    return lr_scheduler.CosineAnnealingLR(
        optimizer, T_max=T_max or config.epochs, last_epoch=last_epoch, **params
    )


def _one_cycle(
    optimizer: Optimizer, *, config: Config, total_steps: int, last_epoch: int, **params: Any
) -> LRScheduler:
    # Momentum stays as it is: AdamW's betas are not part of this pipeline's settings.
    return lr_scheduler.OneCycleLR(
        optimizer,
        config.lr,
        total_steps=total_steps,
        cycle_momentum=False,
        last_epoch=last_epoch,
        **params,
    )


def _warmup_cosine(
    optimizer: Optimizer,
    *,
    config: Config,
    total_steps: int,
    last_epoch: int,
    warmup_epochs: float,
    eta_min: float,
) -> LRScheduler:
    """Rise linearly to lr over the warm-up's steps, then fall along half a cosine to eta_min at the last step."""
    warmup_steps = min(round(warmup_epochs * total_steps / config.epochs), total_steps - 1)
    lowest = eta_min / config.lr

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        progress = min(1.0, (step - warmup_steps) / max(1, total_steps - 1 - warmup_steps))
        return lowest + (1 - lowest) * (1 + math.cos(math.pi * progress)) / 2

    return lr_scheduler.LambdaLR(optimizer, factor, last_epoch=last_epoch)


def _of(scheduler_class: Callable[..., LRScheduler], **fixed: Any) -> Build:
    """Make a builder for a torch schedule that takes its parameters as they are."""

    def build(
        optimizer: Optimizer, *, config: Config, total_steps: int, last_epoch: int, **params: Any
    ) -> LRScheduler:
        return scheduler_class(optimizer, last_epoch=last_epoch, **fixed, **params)

    return build


SCHEDULERS: dict[str, Schedule] = {
    "reduce_lr_on_plateau": Schedule(_plateau, "valid_loss"),
    "cosine": Schedule(_cosine, "epoch"),
    "cosine_warm_restarts": Schedule(_of(lr_scheduler.CosineAnnealingWarmRestarts), "epoch"),
    "one_cycle": Schedule(_one_cycle, "step"),
    "step": Schedule(_of(lr_scheduler.StepLR), "epoch"),
    "multi_step": Schedule(_of(lr_scheduler.MultiStepLR), "epoch"),
    "exponential": Schedule(_of(lr_scheduler.ExponentialLR), "epoch"),
    "linear_warmup_cosine": Schedule(_warmup_cosine, "step"),
    "none": Schedule(_of(lr_scheduler.ConstantLR, factor=1.0), "epoch"),
}


def stepped_on(scheduler_name: str) -> SteppedOn:
    """Say when a schedule is stepped: with the validation loss, after each epoch, or after each optimizer step."""
    return SCHEDULERS[choose(scheduler_name, SCHEDULERS, what="scheduler_name")].stepped_on


def get_scheduler(
    config: Config,
    optimizer: Optimizer,
    last_epoch: int = -1,
    *,
    steps_per_epoch: int | None = None,
) -> LRScheduler:
    """Build the schedule that `config.scheduler_name` and `config.scheduler_params` describe.

    Args:
        config: settings; `epochs` is the length of the schedules that end.
        optimizer: its learning rates are the schedule's start (one_cycle takes `config.lr` as its
            peak).
        last_epoch: last step already taken, -1 at the start. A resumed run leaves it and loads the
            state instead.
        steps_per_epoch: optimizer steps in an epoch; needed by the schedules stepped that often.

    Returns:
        A torch scheduler whose `state_dict` holds only plain types.

    Raises:
        UserError: unknown name, a parameter the schedule does not take, or one it refuses.
    """
    name = choose(config.scheduler_name, SCHEDULERS, what="scheduler_name")
    if unknown := config.scheduler_params.keys() - SCHEDULER_PARAMS[name].keys():
        takes = ", ".join(SCHEDULER_PARAMS[name]) or "no parameters"
        raise UserError(
            f"scheduler_params: {name} does not take {', '.join(sorted(unknown))}; it takes {takes}"
        )
    if steps_per_epoch is None and SCHEDULERS[name].stepped_on == "step":
        raise UserError(
            f"scheduler_name={name!r} is stepped after each optimizer step and needs steps_per_epoch"
        )
    if last_epoch >= 0:
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", config.lr)
    total_steps = config.epochs * (steps_per_epoch or 1)
    try:
        return SCHEDULERS[name].build(
            optimizer,
            config=config,
            total_steps=total_steps,
            last_epoch=last_epoch,
            **config.scheduler_params,
        )
    except (ValueError, TypeError) as error:
        raise UserError(
            f"scheduler_params {config.scheduler_params}: {name} says: {error}"
        ) from None
