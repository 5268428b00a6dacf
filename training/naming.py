"""The name of an experiment beside its number, and the notes that people keep of it."""

import json
import logging
from pathlib import Path

from configs import Config, UserError
from files import EXPERIMENT_NOTE, experiments_in, read_experiment_note, write_file

logger = logging.getLogger("birdclef.train")


def settle_number(config: Config) -> int:
    """Find the number of the experiment that the settings name, and keep name and notes with it.

    A name that an experiment has stands for its number. A new name takes `exp_id`, or where that
    one was left at its default and is taken, the next free number.

    Raises:
        UserError: `exp_id` is the number of an experiment with another name, or the name is that
            of another number.
    """
    number = config.exp_id
    if config.name:
        number = _number_of(config, experiments_in(config.models_dir))
    write_note(config.models_dir / f"Exp_{number}", config)
    return number


def _number_of(config: Config, names: dict[int, str]) -> int:
    number, is_default = config.exp_id, config.exp_id == Config().exp_id
    for other, name in names.items():
        if name == config.name:
            if other != number and not is_default:
                raise UserError(
                    f"name: {name!r} is Exp_{other} and --exp-id is {number}; leave one of them out"
                )
            return other

    if number not in names or (not is_default and not names[number]):
        return number
    if not is_default:
        raise UserError(
            f"name: Exp_{number} is {names[number]!r}; choose another --exp-id for {config.name!r}"
        )
    free = max(names) + 1
    logger.info("Exp_%d is another experiment; %r becomes Exp_%d", number, config.name, free)
    return free


def write_note(exp_dir: Path, config: Config) -> None:
    """Write the name and the notes that are given; what was noted before stays otherwise."""
    before = read_experiment_note(exp_dir)
    given = {"name": config.name, "notes": config.notes}
    note = before | {key: text for key, text in given.items() if text}
    if note != before:
        write_file(exp_dir / EXPERIMENT_NOTE, json.dumps(note, ensure_ascii=False, indent=2))
