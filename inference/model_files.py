"""Which checkpoints to predict with, and the settings they are used with."""

import logging
import re
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from catalog.class_names import difference
from configs import Config, UserError, settings_where

logger = logging.getLogger("birdclef.model_files")

FOLD = re.compile(r"fold_([0-9]+)")  # fold_0_old and the like are left alone
N_LOOKS = 5  # at a folder whose checkpoints a training run replaces


# Checkpoints --------------------------------------------------------------------------------------


def find_checkpoints(path: Path) -> list[Path]:
    """Find a checkpoint, the best one of a fold's folder, or the best of each fold's.

    The best is the newest by epoch number. A damaged one is passed over, a fold without any left
    out, with a warning.

    Args:
        path: a checkpoint, the folder of a fold, or that of an experiment.

    Raises:
        UserError: there is none; the message says where it looked.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f"{path}: no such model{_near(path)}")

    found = []
    for folder in fold_folders(path) or [path]:
        best = newest_best(folder)
        if best is not None:
            found.append(best)
        elif folder != path:
            message = "%s holds no sound checkpoint of a best epoch (yet); it is left out"
            logger.warning(message, folder)

    if found:
        return found
    if any(path.glob("**/train.log")):
        raise UserError(
            f"{path}: no checkpoint in it yet; if it is still training, wait for its first epoch"
        )
    raise UserError(
        f"{path}: no model in it: neither Exp_*_epoch_*.pth nor fold_*/ with one; "
        "train.py makes them"
    )


def _near(path: Path) -> str:
    """Name the experiments beside a folder that is not there."""
    if not path.parent.is_dir():
        return ""
    near = sorted(str(other) for other in path.parent.glob("Exp_*"))
    return f"; there are {', '.join(near)}" if near else ""


def fold_folders(path: Path) -> list[Path]:
    """List the folders of an experiment's folds, fold_0 and so on, by number."""
    found = [(FOLD.fullmatch(folder.name), folder) for folder in path.iterdir() if folder.is_dir()]
    numbered = [(int(match[1]), folder) for match, folder in found if match]
    return [folder for _, folder in sorted(numbered)]


def newest_best(folder: Path) -> Path | None:
    """Find the newest sound best checkpoint in a fold's folder, which may still be training."""
    from checkpoint import CheckpointError, named_checkpoints, read_checkpoint

    for _ in range(N_LOOKS):
        is_gone = False
        for item in reversed(named_checkpoints(folder)):
            try:
                read_checkpoint(item.path)
            except CheckpointError as error:
                is_gone = not item.path.exists()
                if is_gone:  # the run has a newer one by now
                    break
                logger.warning("%s; looking for the one before", error)
            else:
                return item.path
        if not is_gone:
            break
    return None


# Settings -----------------------------------------------------------------------------------------


def merge_settings(trained: dict[str, Any], given: Config, path: Path) -> Config:
    """Take a checkpoint's own settings, but where and how it runs as given.

    Raises:
        UserError: another value was given for what the checkpoint fixes.
    """
    default = Config()
    trained = {field.name: trained[field.name] for field in fields(Config) if field.name in trained}
    wanted, usual = given.to_dict(), default.to_dict()  # as a checkpoint has them: pairs are lists
    for name in (*settings_where(identity="clip"), *settings_where(identity="network")):
        value, own = wanted[name], trained.get(name)
        if value not in (usual[name], own):
            raise UserError(
                f"{name}: {path} was trained with {own!r}; {value!r} cannot be had from it"
            )

    changed = {name: getattr(given, name) for name in settings_where(for_prediction="given")}
    for name in settings_where(for_prediction="if given"):
        if getattr(given, name) != getattr(default, name):
            changed[name] = getattr(given, name)
    try:
        return Config(**trained | changed)
    except ValidationError as error:
        reason = error.errors(include_url=False)[0]["msg"]
        raise UserError(f"{path}: its settings are no model's: {reason}") from None


def check_agreement(
    path: Path,
    config: Config,
    class_names: Sequence[str],
    first: Path,
    first_config: Config,
    first_names: Sequence[str],
) -> None:
    """Refuse a fold whose scores cannot be averaged with the first one's (UserError)."""
    if list(class_names) != list(first_names):
        differ = difference(class_names, first_names)
        raise UserError(f"{path} and {first} have other classes ({differ}) and cannot be averaged")

    for name in settings_where(identity="clip"):
        one, other = getattr(config, name), getattr(first_config, name)
        if one != other:
            raise UserError(
                f"{path} has {name}={one!r}, {first} {other!r}; they cannot be averaged"
            )
