"""Learning-rate schedules by name: how each is made, its parameters, and when it is stepped.

A new schedule is one entry of SCHEDULERS.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from torch.optim import Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler

from configs import DEFAULT_SCHEDULER_PARAMS, Config, SchedulerParams, UserError, choose

SteppedOn = Literal["valid_loss", "epoch", "step"]
Build = Callable[..., LRScheduler]


@dataclass(frozen=True)
class Schedule:
    """How a schedule is made and stepped.

    Attributes:
        build: takes the optimizer, the config, the steps of the whole run and the parameters.
        stepped_on: what it is stepped with: the validation loss, each epoch, each optimizer step.
        params: its parameters with their defaults, by torch's names.
        planned_in: what its length is planned in. Such a run cannot be made longer: past its end
            the rate would rise again, or the schedule would stop. In steps, it also depends on the
            batch size.
    """

    build: Build
    stepped_on: SteppedOn
    params: SchedulerParams = field(default_factory=dict)
    planned_in: Literal["nothing", "epochs", "steps"] = "nothing"


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
    """Rise linearly to lr in the warm-up, then fall along half a cosine to eta_min at the end."""
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
    "reduce_lr_on_plateau": Schedule(_plateau, "valid_loss", DEFAULT_SCHEDULER_PARAMS),
    "cosine": Schedule(
        _cosine,
        "epoch",
        {"T_max": 0, "eta_min": 0.0},  # epochs; 0 takes config.epochs
        planned_in="epochs",
    ),
    "cosine_warm_restarts": Schedule(
        _of(lr_scheduler.CosineAnnealingWarmRestarts),
        "epoch",
        {"T_0": 10, "T_mult": 2, "eta_min": 0.0},
    ),
    "one_cycle": Schedule(
        _one_cycle,
        "step",
        {"pct_start": 0.3, "div_factor": 25.0, "final_div_factor": 1e4},
        planned_in="steps",
    ),
    "step": Schedule(_of(lr_scheduler.StepLR), "epoch", {"step_size": 30, "gamma": 0.1}),
    "multi_step": Schedule(
        _of(lr_scheduler.MultiStepLR), "epoch", {"milestones": [60, 90], "gamma": 0.1}
    ),
    "exponential": Schedule(_of(lr_scheduler.ExponentialLR), "epoch", {"gamma": 0.97}),
    "linear_warmup_cosine": Schedule(
        _warmup_cosine, "step", {"warmup_epochs": 3.0, "eta_min": 0.0}, planned_in="steps"
    ),
    "none": Schedule(_of(lr_scheduler.ConstantLR, factor=1.0), "epoch"),
}


def find_schedule(name: str) -> Schedule:
    """Return the schedule of a name; refuse an unknown one and list the known ones (UserError)."""
    return SCHEDULERS[choose(name, SCHEDULERS, what="scheduler_name")]


def stepped_on(scheduler_name: str) -> SteppedOn:
    """Say what a schedule is stepped with."""
    return find_schedule(scheduler_name).stepped_on


def all_params(scheduler_name: str, given: SchedulerParams) -> SchedulerParams:
    """Return the parameters of a schedule: the given ones, and the defaults of the others.

    Raises:
        UserError: an unknown schedule, or a parameter that it does not take.
    """
    known = find_schedule(scheduler_name).params
    if unknown := sorted(given.keys() - known.keys()):
        takes = ", ".join(known) or "no parameters"
        raise UserError(
            f"scheduler_params: {scheduler_name} does not take {', '.join(unknown)}; "
            f"it takes {takes}"
        )
    return known | given


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
    name, schedule = config.scheduler_name, find_schedule(config.scheduler_name)
    params = all_params(name, config.scheduler_params)
    if steps_per_epoch is None and schedule.stepped_on == "step":
        raise UserError(
            f"scheduler_name={name!r} is stepped after each optimizer step; it needs "
            "steps_per_epoch"
        )

    if last_epoch >= 0:
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", config.lr)
    total_steps = config.epochs * (steps_per_epoch or 1)
    try:
        return schedule.build(
            optimizer, config=config, total_steps=total_steps, last_epoch=last_epoch, **params
        )
    except (ValueError, TypeError) as error:
        raise UserError(f"scheduler_params {params}: {name} says: {error}") from None
