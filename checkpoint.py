"""Checkpoints: all that a run needs to go on exactly, in a file that is whole or not there.

A checkpoint is a torch archive of tensors and plain types, so reading one never runs code. The
archive's comment holds its SHA-256, which shows damage; `torch.load` reads the file as any other.
"""

import hashlib
import logging
import math
import os
import pickle
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch

from configs import Config, UserError, restore_rng
from files import replacing

logger = logging.getLogger("birdclef.checkpoint")

FORMAT_VERSION = 1
LAST_NAME = "last.pth"
NAME = re.compile(
    r"Exp_(?P<exp>\d+)_(?:refit|fold_(?P<fold>\d+))_epoch_(?P<epoch>\d+)"
    r"(?:_loss_(?P<loss>[\d.]+)_cmap_(?P<cmap>[\d.]+))?\.pth"
)
DIGEST_MARK = b"sha256:"
DIGEST_LENGTH = len(DIGEST_MARK) + 64
BLOCK = 1 << 22  # bytes read at a time

PLAIN = (str, int, float, bool, type(None))
LARGEST = 1e30  # of the numbers of a schedule and an optimizer

# Limits of a state. A run of 10,000 epochs has a tenth of the values, in five levels.
MAX_VALUES, MAX_DEPTH = 1_000_000, 20

# What a schedule changes in an optimizer's groups; the rest of them are the run's settings.
SCHEDULED = ("lr", "initial_lr", "max_lr", "min_lr", "params")


class CheckpointError(UserError):
    """A checkpoint that is damaged, foreign, or does not fit the run."""


@dataclass(frozen=True, order=True)
class NamedCheckpoint:
    """A best checkpoint as its file name describes it; they sort by epoch number."""

    epoch: int
    path: Path


def checkpoint_name(*, exp_id: int, fold: int, epoch: int, loss: float, cmap: float) -> str:
    """Name a best checkpoint, `Exp_47_fold_0_epoch_25_loss_0.00240_cmap_0.76698.pth`."""
    return f"Exp_{exp_id}_fold_{fold}_epoch_{epoch}_loss_{loss:.5f}_cmap_{cmap:.5f}.pth"


def named_checkpoints(train_dir: Path) -> list[NamedCheckpoint]:
    """List the best checkpoints in a fold's folder, oldest epoch first."""
    found = [(NAME.fullmatch(path.name), path) for path in train_dir.glob("Exp_*.pth")]
    return sorted(NamedCheckpoint(int(match["epoch"]), path) for match, path in found if match)


# Writing ------------------------------------------------------------------------------------------


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint; the file holds the old state or the new one, however the run ends.

    Args:
        path: where to; an existing file is replaced as a whole.
        state: only tensors and plain types (str, int, float, bool, None, in dicts, lists, tuples).

    Raises:
        TypeError, ValueError: something else is in the state, or too much; the message says where.
        CheckpointError: a weight is not finite; the old file is unchanged.
        files.CannotWriteError: the disk refuses; the old file is unchanged.
    """
    _check_plain(state)
    _check_finite(state, path)

    with replacing(path) as file:
        try:
            torch.save({"format_version": FORMAT_VERSION, **state}, file)
        except RuntimeError as error:  # torch's own words, when a disk becomes full
            cause = error.__context__
            raise cause if isinstance(cause, OSError) else OSError(str(error)) from None
        sign(file)


def _check_plain(state: Any) -> None:
    """Refuse other types, and more than the limits: lists that hold each other unfold endlessly."""
    rest, seen = [(state, "state", 0)], 0
    while rest:
        value, place, depth = rest.pop()
        seen += 1
        if depth > MAX_DEPTH or seen > MAX_VALUES:
            raise ValueError(
                f"{place[:100]}: more than {MAX_VALUES} values, or more than {MAX_DEPTH} levels"
            )

        if isinstance(value, dict):
            rest += [(key, f"a key of {place}", depth + 1) for key in value]
            rest += [(item, f"{place}[{key!r}]", depth + 1) for key, item in value.items()]
        elif isinstance(value, list | tuple):
            rest += [(item, f"{place}[{number}]", depth + 1) for number, item in enumerate(value)]
        elif type(value) not in PLAIN and not isinstance(value, torch.Tensor):
            kind = type(value).__name__
            raise TypeError(f"{place} is a {kind}; a checkpoint holds only tensors and plain types")


def _check_finite(state: dict[str, Any], path: Path) -> None:
    """Refuse weights that are not finite: the checkpoint before them is worth more."""
    for part in ("model", "ema"):
        for name, value in (state.get(part) or {}).items():
            is_weight = isinstance(value, torch.Tensor) and value.is_floating_point()
            if is_weight and not value.isfinite().all():
                raise CheckpointError(f"{path}: not saved: {part} {name} holds NaN or infinity")


def sign(file: IO[bytes]) -> None:
    """Write the digest of a zip archive into its comment, which is the end of the file."""
    end = file.seek(0, os.SEEK_END) - 2  # the last two bytes are the comment's length
    digest = _digest(file, end)
    file.seek(end)
    file.write(DIGEST_LENGTH.to_bytes(2, "little") + DIGEST_MARK + digest.encode())


def _digest(file: IO[bytes], length: int) -> str:
    """Return the SHA-256 of the first `length` bytes of a file."""
    file.seek(0)
    digest = hashlib.sha256()
    while length > 0 and (block := file.read(min(length, BLOCK))):
        digest.update(block)
        length -= len(block)
    return digest.hexdigest()


# Reading ------------------------------------------------------------------------------------------


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU after checking its digest; code in it never runs.

    Raises:
        CheckpointError: it is missing, damaged, not a checkpoint of this project, or of a newer
            format.
    """
    try:
        check_digest(path)
        _check_archive(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
        _check_plain(state)
    except CheckpointError:
        raise
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from None
    except pickle.UnpicklingError:  # torch's own words tell how to run the code in such a file
        raise CheckpointError(
            f"{path}: holds more than tensors and plain values; none of it was run"
        ) from None
    except Exception as error:  # a stranger's file makes torch raise nearly anything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{path}: cannot be read: {reason}") from None

    version = state.get("format_version") if isinstance(state, dict) else None
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: format version {version!r}; this code reads version {FORMAT_VERSION}"
        )
    if unusable := _unusable_parts(state):
        raise CheckpointError(
            f"{path}: not a checkpoint of this project: no usable {', '.join(unusable)} in it"
        )
    return state


def check_digest(path: Path) -> None:
    """Refuse a file that was damaged, or is none of ours (CheckpointError)."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - DIGEST_LENGTH))
        before, _, written = file.read().partition(DIGEST_MARK)
        is_signed = not before and len(written) == 64
        if is_signed and _digest(file, size - DIGEST_LENGTH - 2).encode() == written:
            return
    raise CheckpointError(
        f"{path}: damaged, or not a checkpoint of this project (its digest does not match)"
    )


def _check_archive(path: Path) -> None:
    """Refuse an archive that unpacks to more than its size; torch compresses nothing."""
    with zipfile.ZipFile(path) as archive:
        parts = archive.infolist()
    is_compressed = any(part.compress_type for part in parts)
    if is_compressed or sum(part.file_size for part in parts) > path.stat().st_size:
        raise CheckpointError(
            f"{path}: not a checkpoint of this project: it unpacks to more than its size"
        )


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _is_dict_of(*kinds: type) -> Callable[[Any], bool]:
    def fits(value: Any) -> bool:
        return isinstance(value, dict) and all(
            type(name) is str and isinstance(value[name], kinds) for name in value
        )

    return fits


_is_row = _is_dict_of(int, float)
_is_weights = _is_dict_of(torch.Tensor)


def _is_history(value: Any) -> bool:
    return isinstance(value, list) and all(_is_row(row) and "valid_loss" in row for row in value)


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(type(name) is str for name in value)


def _is_config(value: Any) -> bool:
    return _is_dict_of(object)(value) and _is_rate(value.get("lr", 1.0))


def _is_rate(value: Any) -> bool:
    return type(value) is float and 0 < value < LARGEST


def _is_meter(value: Any) -> bool:
    return _is_row(value) and _is_count(value.get("count")) and "total" in value


# What each reader relies on. A digest says nothing about it: anyone can sign a file.
NEEDED_PARTS: dict[str, Callable[[Any], bool]] = {
    "model": _is_weights,
    "epoch": _is_count,
    "step": _is_count,
    "class_names": _is_names,
    "config": _is_config,
    "history": _is_history,
}

# What a run that goes on relies on; a checkpoint that only predicts may lack it.
OPTIONAL_PARTS: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys("fold batch skipped_steps bad_steps best_epoch micro_batch".split(), _is_count),
    "best_loss": _is_number,
    "train_loss": _is_meter,
    "probe": lambda value: isinstance(value, dict) and all(map(_is_number, value.values())),
    **dict.fromkeys(("ema", "average"), lambda value: value is None or _is_weights(value)),
}


def _unusable_parts(state: dict[str, Any]) -> list[str]:
    """Name the parts of a state that are missing or of another form than readers rely on."""
    missing = [name for name in NEEDED_PARTS if name not in state]
    checks = NEEDED_PARTS | OPTIONAL_PARTS
    return missing + [name for name in checks if name in state and not checks[name](state[name])]


# Which one to go on from --------------------------------------------------------------------------


def get_initial_checkpoint(config: Config) -> Path | None:
    """Find the newest sound checkpoint in `config.train_dir`; None if there is none at all.

    `last.pth` is the newest unless a run was stopped just before writing it. The best ones are
    compared by epoch number, not as text. A damaged file is skipped with a warning.

    Raises:
        CheckpointError: there are checkpoints, and all of them are damaged.
    """
    if config.train_dir is None:
        raise ValueError("config.train_dir is not set; train.py sets it for each fold")
    last = config.train_dir / LAST_NAME
    candidates: list[tuple[float, Path]] = [(math.inf, last)] if last.exists() else []
    for named in reversed(named_checkpoints(config.train_dir)):
        candidates.append((named.epoch, named.path))

    newest, newest_epoch = None, -1
    damaged: list[str] = []
    for epoch_in_name, path in candidates:
        if epoch_in_name <= newest_epoch:
            break
        try:
            epoch = int(read_checkpoint(path)["epoch"])
        except CheckpointError as error:
            damaged.append(str(error))
            continue
        if epoch > newest_epoch:
            newest, newest_epoch = path, epoch

    if newest is None and candidates:
        raise CheckpointError("no sound checkpoint is left: " + "; ".join(damaged))
    for message in damaged:
        logger.warning("%s; going on from %s instead", message, newest)
    return newest


# Into the parts of a run --------------------------------------------------------------------------


def scored_weights(state: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Take the weights that validation scored: averaged ones, of EMA or of epochs, if there are."""
    averaged: dict[str, torch.Tensor] | None = state.get("ema")
    return state["model"] if averaged is None else averaged


def load_checkpoint(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer | None,
    checkpoint: Path | dict[str, Any],
    *,
    scheduler: Any = None,
    scaler: Any = None,
    ema: torch.nn.Module | None = None,
    restore_random_state: bool = True,
) -> tuple[int, int]:
    """Put a checkpoint's state into the parts of a run.

    Args:
        model: the network; every key has to fit.
        optimizer: None loads the model alone, for inference.
        checkpoint: a file, or what `read_checkpoint` returned.
        scheduler: the schedule; as with scaler and ema, None leaves it out.
        scaler: the GradScaler.
        ema: the averaged model.
        restore_random_state: also set the generators of Python, numpy and torch.

    Returns:
        (last completed epoch, optimizer steps taken).

    Raises:
        CheckpointError: it cannot be read, lacks the state of a part, or does not fit one.
    """
    state = read_checkpoint(checkpoint) if isinstance(checkpoint, Path) else checkpoint
    parts: dict[str, Any] = {"model": model, "optimizer": optimizer}
    parts |= {"scheduler": scheduler, "scaler": scaler, "ema": ema}
    for name, part in parts.items():
        if part is not None:
            _load_part(name, part, state)

    if restore_random_state:
        try:
            restore_rng(state["rng"])
        except Exception as error:
            raise CheckpointError(f"the checkpoint's random state is unusable: {error}") from None
    return int(state["epoch"]), int(state["step"])


def _load_part(name: str, part: Any, state: dict[str, Any]) -> None:
    if state.get(name) is None:
        raise CheckpointError(f"the checkpoint holds no state of the {name}, which this run uses")
    try:
        part.load_state_dict(_fitting(name, part, state[name]))
    except Exception as error:  # a stranger's state makes torch raise nearly anything
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"the checkpoint's {name} does not fit this run: {reason}") from None


def _fitting(name: str, part: Any, state: dict[str, Any]) -> dict[str, Any]:
    """Return what to load into a part; refuse (ValueError) what would fail at its next step."""
    if name in ("model", "ema"):  # torch itself compares their names and shapes
        return state

    own = part.state_dict()
    if name == "optimizer":
        _check_moments(part, state)
        state = state | {"param_groups": _with_own_settings(own["param_groups"], state)}
        own = {"param_groups": own["param_groups"]}
        # An optimizer refuses what is not a rate.
        type(part)([torch.zeros(1, requires_grad=True)], lr=state["param_groups"][0]["lr"])

    if wrong := [key for key in own if key in state and not _alike(state[key], own[key])]:
        raise ValueError(f"its {', '.join(wrong)} has another form")
    return state


def _with_own_settings(own: list[dict[str, Any]], state: dict[str, Any]) -> list[dict[str, Any]]:
    """Take from a checkpoint's groups what a schedule changes, and the rest from the run's own."""
    groups = []
    for ours, theirs in zip(own, state["param_groups"], strict=True):
        groups.append(ours | {key: theirs[key] for key in SCHEDULED if key in theirs})
    return groups


def _check_moments(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Compare the moments of each parameter with it in number, names and shape (ValueError)."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    numbers = [number for group in state["param_groups"] for number in group["params"]]
    kinds = {frozenset(moments) for moments in state["state"].values()}
    is_known = state["state"].keys() <= set(numbers)
    if len(kinds) > 1 or not is_known or len(set(numbers)) < len(numbers):
        raise ValueError("parameters with unlike moments")

    for number, parameter in zip(numbers, parameters, strict=True):
        for name, value in state["state"].get(number, {}).items():
            is_tensor = isinstance(value, torch.Tensor)
            if not is_tensor or (value.dim() > 0 and value.shape != parameter.shape):
                shape = tuple(parameter.shape)
                raise ValueError(f"{name} of parameter {number} does not fit its shape {shape}")


def _alike(value: Any, own: Any) -> bool:
    """Say whether a value can take another's place: a number a number's, and so on inwards."""
    if isinstance(own, dict) and isinstance(value, dict):
        return all(_alike(value[key], own[key]) for key in own.keys() & value.keys())
    if isinstance(own, list | tuple) and isinstance(value, list | tuple):
        return len(value) == len(own) and all(map(_alike, value, own))
    if _is_number(own) and _is_number(value):
        return abs(value) < LARGEST or (isinstance(value, float) and math.isinf(value))
    return type(value) is type(own) or (own is None and type(value) in PLAIN)
