"""Checkpoints that resume exactly: complete, plain, checked by a digest, never half-written."""

import hashlib
import logging
import math
import os
import pickle
import random
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from configs import Config, UserError, settings_where
from files import flush_folder
from scheduler import SCHEDULERS, find_schedule

logger = logging.getLogger("birdclef.checkpoint")

FORMAT_VERSION = 1
LAST_NAME = "last.pth"
NAME = re.compile(
    r"Exp_(?P<exp>\d+)_fold_(?P<fold>\d+)_epoch_(?P<epoch>\d+)_loss_(?P<loss>[\d.]+)_cmap_(?P<cmap>[\d.]+)\.pth"
)
SCHEDULED = (
    "lr",
    "initial_lr",
    "max_lr",
    "min_lr",
    "params",
)  # of an optimizer's groups; the rest are settings
DIGEST_MARK = b"sha256:"
DIGEST_LENGTH = len(DIGEST_MARK) + 64
PLAIN = (str, int, float, bool, type(None))
LARGEST = 1e30  # of a schedule's and an optimizer's numbers
MAX_VALUES, MAX_DEPTH = (
    1_000_000,
    20,
)  # of a state; a run of 10,000 epochs has a tenth of it, nested in five levels


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


# Files --------------------------------------------------------------------------------------------


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint beside, sign it, flush it and rename it.

    The file is a torch zip archive. Its SHA-256 stands in the archive's comment, so that
    `torch.load` reads the file as any other.

    Args:
        path: where to; an existing file is replaced whole.
        state: tensors and plain types (str, int, float, bool, None, in dicts, lists and tuples)
            alone.

    Raises:
        TypeError, ValueError: something else is in the state, or too much; the message names its
            place.
        CheckpointError: a tensor of the model is not finite, or the disk refuses; the old file is
            left as it was.
    """
    _check_plain(state)
    for key in ("model", "ema"):
        for name, tensor in (state.get(key) or {}).items():
            if (
                isinstance(tensor, torch.Tensor)
                and tensor.is_floating_point()
                and not tensor.isfinite().all()
            ):
                raise CheckpointError(f"{path}: not saved: {key} {name} holds NaN or infinity")
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            torch.save({"format_version": FORMAT_VERSION, **state}, file)
        _sign(part)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        part.unlink(missing_ok=True)
        raise CheckpointError(
            f"{path}: cannot be written: {error}; the checkpoints before it are unchanged"
        ) from None
    os.replace(part, path)
    flush_folder(path.parent)


def _check_plain(state: Any) -> None:
    """Refuse other types, and lists that hold each other: a few hundred bytes of those unfold without end."""
    rest, seen = [(state, "state", 0)], 0
    while rest:
        value, place, depth = rest.pop()
        seen += 1
        if depth > MAX_DEPTH or seen > MAX_VALUES:
            raise ValueError(
                f"{place[:100]}: more than {MAX_VALUES} values, or nested more than {MAX_DEPTH} deep"
            )
        if isinstance(value, dict):
            rest += [(key, f"a key of {place}", depth + 1) for key in value]
            rest += [(item, f"{place}[{key!r}]", depth + 1) for key, item in value.items()]
        elif isinstance(value, list | tuple):
            rest += [(item, f"{place}[{number}]", depth + 1) for number, item in enumerate(value)]
        elif type(value) not in PLAIN and not isinstance(value, torch.Tensor):
            raise TypeError(
                f"{place} is a {type(value).__name__}; a checkpoint holds tensors and plain types alone"
            )


def _sign(path: Path) -> None:
    """Append the digest of all before it as the zip archive's comment, and flush."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        digest = _digest(
            file, size - 2
        )  # the archive's last two bytes are the length of its comment
        file.seek(size - 2)
        file.write(DIGEST_LENGTH.to_bytes(2, "little") + DIGEST_MARK + digest.encode())
        file.flush()
        os.fsync(file.fileno())


def _digest(file: Any, length: int) -> str:
    file.seek(0)
    digest = hashlib.sha256()
    while length > 0 and (block := file.read(min(length, 1 << 22))):
        digest.update(block)
        length -= len(block)
    return digest.hexdigest()


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU after checking its digest; no code in it is ever run.

    Raises:
        CheckpointError: missing, truncated, altered, not a checkpoint of this project, or of a
            newer format.
    """
    try:
        _check_digest(path)
        _check_archive(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
        _check_plain(state)
    except CheckpointError:
        raise
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from None
    except pickle.UnpicklingError:  # torch's own words tell how to run such a file's code
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
    if wrong := _unusable(state):
        raise CheckpointError(
            f"{path}: not a checkpoint of this project: no usable {', '.join(wrong)} in it"
        )
    return state


def _check_digest(path: Path) -> None:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - DIGEST_LENGTH))
        mark, _, told = file.read().partition(DIGEST_MARK)
        if mark or len(told) != 64 or _digest(file, size - DIGEST_LENGTH - 2).encode() != told:
            raise CheckpointError(
                f"{path}: damaged, or not a checkpoint of this project (its digest does not match)"
            )


def _check_archive(path: Path) -> None:
    """Refuse a file whose parts would take more memory than its size: torch writes none compressed or twice."""
    with zipfile.ZipFile(path) as archive:
        parts = archive.infolist()
    if (
        any(part.compress_type for part in parts)
        or sum(part.file_size for part in parts) > path.stat().st_size
    ):
        raise CheckpointError(
            f"{path}: not a checkpoint of this project: it unpacks to more than its size"
        )


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_rate(value: Any) -> bool:
    return type(value) is float and 0 < value < LARGEST


def _is_dict_of(*kinds: type) -> Callable[[Any], bool]:
    def fits(value: Any) -> bool:
        return isinstance(value, dict) and all(
            type(name) is str and isinstance(value[name], kinds) for name in value
        )

    return fits


def _is_history(value: Any) -> bool:
    return isinstance(value, list) and all(
        _is_dict_of(int, float)(row) and "valid_loss" in row for row in value
    )


# What readers rely on, and what a run that goes on relies on where it is there; a digest says
# nothing of either.
CONTENT: dict[str, Callable[[Any], bool]] = {
    "model": _is_dict_of(torch.Tensor),
    "epoch": _is_count,
    "step": _is_count,
    "class_names": lambda value: (
        isinstance(value, list) and all(type(name) is str for name in value)
    ),
    "config": lambda value: _is_dict_of(object)(value) and _is_rate(value.get("lr", 1.0)),
    "history": _is_history,
}
PROGRESS_CONTENT: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(
        ("fold", "batch", "skipped_steps", "bad_steps", "best_epoch", "micro_batch"), _is_count
    ),
    "best_loss": lambda value: type(value) in (int, float),
    "train_loss": lambda value: (
        _is_dict_of(int, float)(value) and _is_count(value.get("count")) and "total" in value
    ),
    "ema": lambda value: value is None or _is_dict_of(torch.Tensor)(value),
}


def _unusable(state: dict[str, Any]) -> list[str]:
    """Name the parts of a state that are missing or of another form than is relied on."""
    wrong = [name for name, fits in CONTENT.items() if name not in state or not fits(state[name])]
    return wrong + [
        name for name, fits in PROGRESS_CONTENT.items() if name in state and not fits(state[name])
    ]


# Resuming -----------------------------------------------------------------------------------------


def get_initial_checkpoint(config: Config) -> Path | None:
    """Find the newest sound checkpoint in `config.train_dir`, None where there is none at all.

    `last.pth` is the newest by construction, unless a run was stopped between writing a best
    checkpoint and `last.pth`; the best ones are compared by epoch number (as text, 99 comes after
    100). A damaged file is passed over with a warning that names it and the one used instead.

    Raises:
        CheckpointError: there are checkpoints, and every one is damaged.
    """
    if config.train_dir is None:
        raise ValueError("config.train_dir is not set; train.py sets it for each fold")
    last = config.train_dir / LAST_NAME
    candidates: list[tuple[float, Path]] = [(math.inf, last)] if last.exists() else []
    candidates += [
        (item.epoch, item.path) for item in reversed(named_checkpoints(config.train_dir))
    ]
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


def check_same_setup(
    state: dict[str, Any], path: Path, config: Config, class_names: list[str]
) -> None:
    """Refuse a checkpoint that this run cannot go on from, and log the settings that may differ and do.

    Raises:
        CheckpointError: other classes, another network, other audio settings, or another plan of
            the learning rate.
    """
    remedy = "choose another --exp-id, or --no-resume to set the earlier run aside"
    theirs = state["class_names"]
    if theirs != class_names:
        differ = ", ".join(sorted(set(theirs) ^ set(class_names))[:5])
        raise CheckpointError(
            f"{path} was trained with other classes ({len(theirs)} there, {len(class_names)} here; {differ}); {remedy}"
        )
    fixed = _fixed_settings(state, config)
    then, now = _comparable(state["config"]), _comparable(config.to_dict())
    for name, old in then.items():
        if name not in now or now[name] == old or name in settings_where(on_resume="free"):
            continue
        if name in fixed:
            raise CheckpointError(
                f"{path} was trained with {name}={old!r}, now it is {now[name]!r}; {remedy}"
            )
        logger.warning("%s: %s was %r, from here on it is %r", path, name, old, now[name])


def _fixed_settings(state: dict[str, Any], config: Config) -> set[str]:
    """Name the settings that a run which goes on from this state cannot change."""
    planned_in = find_schedule(config.scheduler_name).planned_in
    fixed = {*settings_where(on_resume="fixed")}
    if planned_in != "nothing":
        fixed |= {*settings_where(on_resume="planned")}
    if planned_in == "steps" or state.get("batch"):  # its place in the epoch counts batches
        fixed |= {*settings_where(on_resume="counted")}
    return fixed


def _comparable(settings: dict[str, Any]) -> dict[str, Any]:
    """Fill in a schedule's default parameters, which not every version has written down."""
    name, params = settings.get("scheduler_name"), settings.get("scheduler_params")
    if name not in SCHEDULERS or not isinstance(params, dict):
        return settings
    return settings | {"scheduler_params": SCHEDULERS[name].params | params}


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
        checkpoint: a file or what `read_checkpoint` returned.
        scheduler: anything with load_state_dict, as are scaler and ema; None leaves it out.
        scaler: the GradScaler.
        ema: the averaged model.
        restore_random_state: also set the generators of Python, numpy and torch.

    Returns:
        (last completed epoch, optimizer steps taken).

    Raises:
        CheckpointError: unreadable, or made with another network.
    """
    state = read_checkpoint(checkpoint) if isinstance(checkpoint, Path) else checkpoint
    parts = {
        "model": model,
        "optimizer": optimizer,
        "scheduler": scheduler,
        "scaler": scaler,
        "ema": ema,
    }
    for name, part in parts.items():
        if part is None:
            continue
        if state.get(name) is None:
            raise CheckpointError(
                f"the checkpoint holds no state of the {name}, which this run uses"
            )
        try:
            part.load_state_dict(_check_part(name, part, state[name]))
        except Exception as error:  # a stranger's state makes torch raise nearly anything
            reason = " ".join(str(error).split())[:300]
            raise CheckpointError(
                f"the checkpoint's {name} does not fit this run: {reason}"
            ) from None
    if restore_random_state:
        try:
            restore_rng(state["rng"])
        except Exception as error:
            raise CheckpointError(
                f"the checkpoint's random state cannot be used: {error}"
            ) from None
    return int(state["epoch"]), int(state["step"])


def _check_part(name: str, part: Any, state: dict[str, Any]) -> dict[str, Any]:
    """Return what to load into a part; refuse (ValueError) what it would choke on only at its next step."""
    if name in ("model", "ema"):  # torch compares names and shapes itself
        return state
    own = part.state_dict()
    if name == "optimizer":
        _check_moments(part, state)
        groups = list(zip(own["param_groups"], state["param_groups"], strict=True))
        taken = [{key: theirs[key] for key in SCHEDULED if key in theirs} for _, theirs in groups]
        state = {
            **state,
            "param_groups": [
                {**ours, **theirs} for (ours, _), theirs in zip(groups, taken, strict=True)
            ],
        }
        own = {"param_groups": own["param_groups"]}
        type(part)(
            [torch.zeros(1, requires_grad=True)], lr=state["param_groups"][0]["lr"]
        )  # refuses what is no rate
    if wrong := [key for key in own if key in state and not _alike(state[key], own[key])]:
        raise ValueError(f"its {', '.join(wrong)} has another form")
    return state


def scale_rates(optimizer: torch.optim.Optimizer, scheduler: Any, ratio: float) -> None:
    """Multiply where a schedule stands and what it starts from, for a run that goes on with another `lr`."""
    for group in optimizer.param_groups:
        group |= {
            name: group[name] * ratio for name in SCHEDULED if name != "params" and name in group
        }
    for name in ("base_lrs", "_last_lr"):
        if hasattr(scheduler, name):
            setattr(scheduler, name, [rate * ratio for rate in getattr(scheduler, name)])


def _check_moments(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Compare what an optimizer carries along for each parameter with that in number, names and shape."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    numbers = [number for group in state["param_groups"] for number in group["params"]]
    names = {frozenset(moments) for moments in state["state"].values()}
    if (
        len(names) > 1
        or not state["state"].keys() <= set(numbers)
        or len(set(numbers)) < len(numbers)
    ):
        raise ValueError("parameters with unlike moments")
    for number, parameter in zip(numbers, parameters, strict=True):
        for name, value in state["state"].get(number, {}).items():
            if (
                not isinstance(value, torch.Tensor)
                or value.dim()
                and value.shape != parameter.shape
            ):
                raise ValueError(
                    f"{name} of parameter {number} does not fit its shape {tuple(parameter.shape)}"
                )


def _alike(value: Any, own: Any) -> bool:
    """Say whether a value can stand in another's place: a number for a number, and so on inwards."""
    if isinstance(own, dict) and isinstance(value, dict):
        return all(_alike(value[key], own[key]) for key in own.keys() & value.keys())
    if isinstance(own, list | tuple) and isinstance(value, list | tuple):
        return len(value) == len(own) and all(map(_alike, value, own))
    if type(own) in (int, float) and type(value) in (int, float):
        return abs(value) < LARGEST or isinstance(value, float) and math.isinf(value)
    return type(value) is type(own) or own is None and type(value) in PLAIN


def save_best(train_dir: Path, state: dict[str, Any], *, keep: int) -> None:
    """Save the epoch that the state's history ends with under its own name, and keep the last `keep` of such."""
    row = state["history"][-1]
    name = checkpoint_name(
        exp_id=state["config"]["exp_id"],
        fold=state["fold"],
        epoch=state["epoch"],
        loss=row["valid_loss"],
        cmap=row["cmap_pad_5"],
    )
    save_checkpoint(train_dir / name, state)
    prune_checkpoints(train_dir, keep)


def prune_checkpoints(train_dir: Path, keep: int) -> None:
    """Delete all but the last `keep` best checkpoints that are sound; the newest of them is the best of all."""
    sound = 0
    for item in reversed(named_checkpoints(train_dir)):
        if sound >= keep:
            item.path.unlink(missing_ok=True)
            continue
        try:
            _check_digest(item.path)
        except (
            CheckpointError,
            OSError,
        ):  # a damaged one does not count: what it should replace stays
            logger.warning("%s is damaged", item.path)
            continue
        sound += 1


def capture_rng() -> dict[str, Any]:
    """Take the states of the global generators of Python, numpy and torch, as plain types and tensors."""
    kind, keys, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002 - saved for libraries that use it
    version, words, next_gauss = random.getstate()
    return {
        "python": [version, list(words), next_gauss],
        "numpy": [
            str(kind),
            [int(key) for key in keys],
            int(position),
            int(has_gauss),
            float(gauss),
        ],
        "torch": torch.get_rng_state(),
        "cuda": [torch.cuda.get_rng_state()] if torch.cuda.is_available() else [],
    }


def restore_rng(state: dict[str, Any]) -> None:
    """Put back what `capture_rng` took; that of the CUDA device only where there is one."""
    version, words, next_gauss = state["python"]
    random.setstate((version, tuple(words), next_gauss))
    kind, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((kind, np.array(keys, np.uint32), position, has_gauss, gauss))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"][0])
