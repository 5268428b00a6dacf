"""What may change in a run that goes on from a checkpoint, and what follows from it."""

import logging
from pathlib import Path
from typing import Any

import torch

from catalog.class_names import difference
from checkpoint import SCHEDULED, CheckpointError
from configs import Config, as_word, settings_where
from scheduler import SCHEDULERS, find_schedule

logger = logging.getLogger("birdclef.train")

SWITCHES = ("channels_last", "compile_model")
REMEDY = "choose another --exp-id, or --no-resume to set the earlier run aside"


def check_same_setup(
    state: dict[str, Any], path: Path, config: Config, class_names: list[str]
) -> None:
    """Refuse a checkpoint that this run cannot go on from; log the settings that changed.

    Each field of `configs.py` says whether it may change (`on_resume`).

    Raises:
        CheckpointError: other classes, another network, other audio settings, or another plan of
            the learning rate.
    """
    theirs = state["class_names"]
    if theirs != class_names:
        raise CheckpointError(
            f"{path} was trained with other classes ({len(theirs)} there, {len(class_names)} here; "
            f"{difference(theirs, class_names)}); {REMEDY}"
        )

    free, fixed = settings_where(on_resume="free"), _fixed_settings(state, config)
    then, now = _comparable(state["config"]), _comparable(config.to_dict())
    for name, old in then.items():
        if name not in now or now[name] == old or name in free:
            continue
        if name in fixed:
            raise CheckpointError(
                f"{path} was trained with {name}={old!r}, now it is {now[name]!r}; {REMEDY}"
            )
        logger.warning("%s: %s was %r, from here on it is %r", path, name, old, now[name])


def other_split(state: dict[str, Any], split: str) -> str:
    """Say why weights cannot be validated on a fold; "" where it is the one they were trained for.

    Args:
        state: a checkpoint's; older versions did not note the split.
        split: the `resuming.split_digest` of the fold.
    """
    if state.get("split", split) == split:
        return ""
    return (
        "was trained on another split: other recordings or labels than train.csv, or "
        "pseudo_labels, has in this fold today, so its weights may have seen what would be "
        "validated on"
    )


def _fixed_settings(state: dict[str, Any], config: Config) -> set[str]:
    """Name the settings that a run cannot change when it goes on from this state."""
    planned_in = find_schedule(config.scheduler_name).planned_in
    fixed = {*settings_where(on_resume="fixed")}
    if planned_in != "nothing":
        fixed |= {*settings_where(on_resume="planned")}
    if planned_in == "steps" or state.get("batch"):  # its place in the epoch counts batches
        fixed |= {*settings_where(on_resume="counted")}
    return fixed


def _comparable(settings: dict[str, Any]) -> dict[str, Any]:
    """Say settings of older versions in today's words, with the schedule's default parameters."""
    settings = in_todays_words(settings)
    name, params = settings.get("scheduler_name"), settings.get("scheduler_params")
    if not isinstance(name, str) or name not in SCHEDULERS or not isinstance(params, dict):
        return settings
    return settings | {"scheduler_params": SCHEDULERS[name].params | params}


def in_todays_words(settings: dict[str, Any]) -> dict[str, Any]:
    """Say settings as this version would: switches were true or false before."""
    switches = {name: as_word(settings[name]) for name in SWITCHES if name in settings}
    return settings | switches


def scale_rates(optimizer: torch.optim.Optimizer, scheduler: Any, ratio: float) -> None:
    """Multiply the rates that a schedule starts from and has reached, after a change of `lr`."""
    rates = [name for name in SCHEDULED if name != "params"]
    for group in optimizer.param_groups:
        for name in rates:
            if name in group:
                group[name] = group[name] * ratio

    for name in ("base_lrs", "_last_lr"):
        if hasattr(scheduler, name):
            setattr(scheduler, name, [rate * ratio for rate in getattr(scheduler, name)])
