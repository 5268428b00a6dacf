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
        build: makes it from the optimizer, the config, the steps of the whole run, the last step
            taken, and its parameters.
        stepped_on: when it is stepped: with each validation loss, epoch or optimizer step.
        params: its parameters and their defaults, by torch's names.
        planned_in: the unit in which its length is planned. Such a run cannot be made longer: past
            the end the rate would rise again, or the schedule would stop. A length in steps also
            fixes the batch size.
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
    # AdamW's betas are no setting of this pipeline, so the cycle leaves momentum alone.
    return lr_scheduler.OneCycleLR(
        optimizer,
        [group["lr"] for group in optimizer.param_groups],
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
    warmup_steps: int,
    eta_min: float,
) -> LRScheduler:
    """Rise linearly to lr during the warm-up, then fall to eta_min along half a cosine."""
    warmup_steps = warmup_steps or round(warmup_epochs * total_steps / config.epochs)
    warmup_steps = min(warmup_steps, total_steps - 1)
    cosine_steps = max(1, total_steps - 1 - warmup_steps)
    lowest = eta_min / config.lr

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)

        progress = min(1.0, (step - warmup_steps) / cosine_steps)
        return lowest + (1 - lowest) * (1 + math.cos(math.pi * progress)) / 2

    return lr_scheduler.LambdaLR(optimizer, factor, last_epoch=last_epoch)


def _of(scheduler_class: Callable[..., LRScheduler], **fixed: Any) -> Build:
    """Make the builder of a torch schedule that takes its parameters unchanged."""

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
        _warmup_cosine,
        "step",
        {"warmup_epochs": 3.0, "warmup_steps": 0, "eta_min": 0.0},  # steps, if any, in their place
        planned_in="steps",
    ),
    "none": Schedule(_of(lr_scheduler.ConstantLR, factor=1.0), "epoch"),
}


def find_schedule(name: str) -> Schedule:
    """Return the schedule of a name; refuse an unknown one and list the known ones (UserError)."""
    return SCHEDULERS[choose(name, SCHEDULERS, what="scheduler_name")]


def stepped_on(scheduler_name: str) -> SteppedOn:
    """Say when a schedule is stepped."""
    return find_schedule(scheduler_name).stepped_on


def step_after_epoch(name: str, scheduler: Any, loss: float) -> None:
    """Step a schedule that goes by epochs, or by the loss; one that goes by steps stays."""
    when = stepped_on(name)
    if when == "valid_loss":
        scheduler.step(loss)
    elif when == "epoch":
        scheduler.step()


def all_params(scheduler_name: str, given: SchedulerParams) -> SchedulerParams:
    """Return all parameters of a schedule: the given ones, and defaults for the rest.

    Raises:
        UserError: an unknown schedule, or a parameter that it does not take.
    """
    defaults = find_schedule(scheduler_name).params
    unknown = ", ".join(sorted(given.keys() - defaults.keys()))
    if unknown:
        known = ", ".join(defaults) or "no parameters"
        raise UserError(
            f"scheduler_params: {scheduler_name} does not take {unknown}; it takes {known}"
        )
    return defaults | given


def get_scheduler(
    config: Config,
    optimizer: Optimizer,
    last_epoch: int = -1,
    *,
    steps_per_epoch: int | None = None,
) -> LRScheduler:
    """Build the schedule that `config.scheduler_name` and `config.scheduler_params` describe.

    Args:
        config: settings; `epochs` is the length of the schedules that are planned.
        optimizer: the schedule starts from its learning rates; one_cycle peaks at `config.lr`.
        last_epoch: the last step taken, -1 at the start. A resumed run loads the state instead.
        steps_per_epoch: optimizer steps in an epoch, for schedules that are stepped with each.

    Returns:
        A torch scheduler whose `state_dict` holds only plain types.

    Raises:
        UserError: an unknown name, or a parameter that the schedule does not take or refuses.
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
