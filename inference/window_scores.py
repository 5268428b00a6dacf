"""How windows are scored: as the flags say, and else as the model's own settings do."""

import argparse
import logging
from collections.abc import Callable
from typing import Any

from configs import Config
from inference.windows import SCORES

logger = logging.getLogger("birdclef.scores")


def add_score_flags(add: Callable[..., Any]) -> None:
    """Add --shifts and --score to a parser, by its `add_argument`."""
    add(
        "--shifts",
        type=float,
        nargs="*",
        metavar="SECONDS",
        help="also score each window shifted by these times, and take the mean; without a time, by "
        "none (default: predict_shifts of the model's settings, else none)",
    )
    add(
        "--score",
        choices=SCORES,
        help="which output of the model to take (default: predict_score of its settings, else "
        "clipwise); mix is 0.75 clipwise + 0.25 framewise_max",
    )


def settle_scores(flags: argparse.Namespace, config: Config) -> None:
    """Take --score and --shifts, where they are not given, from the settings of the model."""
    own = {"score": config.predict_score, "shifts": config.predict_shifts}
    taken = {name: value for name, value in own.items() if getattr(flags, name) is None}
    for name, value in taken.items():
        setattr(flags, name, value)
    if any(value != getattr(Config(), f"predict_{name}") for name, value in taken.items()):
        shifts = " ".join(f"{shift_s:g}" for shift_s in flags.shifts)
        message = "windows are scored as the model's settings say: --score %s --shifts %s"
        logger.info(message, flags.score, shifts)
