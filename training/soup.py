"""Soups: the weights of several checkpoints of a fold averaged, and validated like an epoch.

`--soup 3` averages the best checkpoints that a fold has kept, or those of `soup_from`: the uniform
soup of Wortsman et al. (arXiv:2203.05482, section 2). Their greedy soup, recipe 1 there, takes a
checkpoint in only if the average with it is no worse in what is monitored; because that is found on
the validation part, the scores of a greedy soup are optimistic. Batch statistics of one checkpoint
fit no average, so they are made anew from an epoch of training clips.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import checkpoint as ckpt
from catalog.class_names import difference
from configs import Config, UserError, settings_where
from files import csv_text, write_file
from metrics import MetricMeter
from training import processes
from training.averaging import add_to_mean, remake_statistics, training_images
from training.changes import other_split
from training.fold import Fold, rank

logger = logging.getLogger("birdclef.train")

Validate = Callable[[Fold], tuple[float, MetricMeter]]
STATISTICS = ("running_mean", "running_var")  # buffers of batch normalisation
STANDARDISING = (
    "linear_head.mean",
    "linear_head.std",
    "band_statistics.mean",
    "band_statistics.std",
)


@dataclass(frozen=True, eq=False)
class Ingredient:
    """A checkpoint of a soup: its file, its last complete epoch, and the weights that are scored.

    Attributes:
        path: the file.
        epoch: complete epochs.
        step: optimizer steps.
        weights: the model's state, of EMA where the run had one.
    """

    path: Path
    epoch: int
    step: int
    weights: dict[str, Tensor]


def soup_settings(config: Config) -> Config:
    """Make a soup anew each time; what an earlier one left is set aside.

    Raises:
        UserError: settings that a soup has no use for.
    """
    if not config.soup:
        return config
    if config.refit or config.find_lr:
        other = "refit" if config.refit else "find_lr"
        raise UserError(f"--soup averages what is trained; leave out --{other.replace('_', '-')}")
    return replace(config, resume=False)


def make_soup(fold: Fold, validate: Validate) -> None:
    """Give a fold the averaged weights; its next history row is theirs.

    Args:
        fold: newly built; its model takes the weights.
        validate: of train.py; asked by a greedy soup for each average that it tries.

    Raises:
        UserError: there is nothing to average, or a checkpoint does not fit the others.
    """
    found = processes.from_first(lambda: gather_ingredients(fold))

    chosen, scores = found, [dict[str, float]() for _ in found]
    if fold.config.soup_greedy:
        chosen, scores = choose_greedily(fold, found, validate)
    pour(fold, chosen)

    progress = fold.progress
    progress.epoch = max(one.epoch for one in chosen) - 1  # the row that follows has its number
    progress.step = max(one.step for one in chosen)
    fold.parts.average = fold.parts.model
    names = ", ".join(one.path.name for one in chosen)
    logger.info("fold %d: averaged %d of %d: %s", fold.number, len(chosen), len(found), names)
    if processes.is_first():
        write_ingredients(fold.dir / "ingredients.csv", found, chosen, scores)


# Which checkpoints --------------------------------------------------------------------------------


def gather_ingredients(fold: Fold) -> list[Ingredient]:
    """Read the checkpoints to average, all of which fit the fold and each other."""
    paths = find_checkpoints(fold.config, fold.number)
    found = [read_ingredient(path, fold) for path in paths]
    check_buffers(found)
    return found


def find_checkpoints(config: Config, number: int) -> list[Path]:
    """List the checkpoints to average for a fold: the last `soup` best ones of each source.

    A source is a checkpoint, the folder of a fold, or that of an experiment. A file that is named
    counts whatever `soup` says. A damaged one stops the soup when it is read.

    Raises:
        UserError: a source that is not there, or fewer than two checkpoints.
    """
    sources = config.soup_from or [replace(config, soup=0).exp_dir]
    found: list[Path] = []
    for source in sources:
        if not source.exists():
            raise UserError(f"soup: {source}: no such checkpoint or folder")
        if source.is_file():
            found.append(source)
            continue
        of_fold = source / f"fold_{number}"
        folder = of_fold if of_fold.is_dir() else source
        found += [one.path for one in ckpt.named_checkpoints(folder)[-config.soup :]]

    found = [path for path in dict.fromkeys(found) if is_of_fold(path, number)]
    if len(found) < 2:
        named = ", ".join(map(str, found or sources))
        raise UserError(
            f"soup: fold {number}: {len(found)} checkpoints in {named}, and an average takes two; "
            "train with a larger --keep-checkpoints, or name others with --soup-from"
        )
    return found


def is_of_fold(path: Path, number: int) -> bool:
    """Say whether a checkpoint is of a fold; one without a number in its name is asked itself."""
    named = ckpt.NAME.fullmatch(path.name)
    if named and named["fold"]:
        return int(named["fold"]) == number
    return int(ckpt.read_checkpoint(path).get("fold", number)) == number


def read_ingredient(path: Path, fold: Fold) -> Ingredient:
    """Read a checkpoint and check that it is of the fold's network, classes and split.

    Raises:
        CheckpointError: it cannot be read or does not fit; the message names the file.
    """
    state = ckpt.read_checkpoint(path)
    if fault := misfit(state, fold):
        raise ckpt.CheckpointError(f"{path}: cannot be averaged: {fault}")

    weights = ckpt.scored_weights(state)
    try:
        fold.parts.model.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise ckpt.CheckpointError(f"{path}: does not fit this network: {reason}") from None
    return Ingredient(path, state["epoch"], state["step"], weights)


def misfit(state: dict[str, Any], fold: Fold) -> str:
    """Say in what a checkpoint differs from the fold; "" where an average with it makes sense."""
    trained, now = state["config"], fold.config.to_dict()
    if trained.get("refit"):
        return "it was trained on all folds, so nothing is left to validate it on"
    if state["class_names"] != fold.class_names:
        return f"other classes ({difference(state['class_names'], fold.class_names)})"

    for name in (*settings_where(identity="clip"), *settings_where(identity="network")):
        if trained.get(name, now[name]) != now[name]:
            return f"{name} was {trained[name]!r} there, here it is {now[name]!r}"
    fault = other_split(state, fold.split)
    return f"it {fault}" if fault else ""


def check_buffers(found: Sequence[Ingredient]) -> None:
    """Refuse checkpoints whose features are standardised by other numbers: no mean fits both.

    Raises:
        CheckpointError: a buffer of one is another than that of the first.
    """
    first = found[0]
    for one in found[1:]:
        for name in STANDARDISING:
            if name in first.weights and not torch.equal(first.weights[name], one.weights[name]):
                raise ckpt.CheckpointError(
                    f"{one.path}: cannot be averaged: it started from another probe than "
                    f"{first.path}"
                )


# The average --------------------------------------------------------------------------------------


def pour(fold: Fold, chosen: Sequence[Ingredient]) -> None:
    """Load the mean of weights into the fold's model, with batch statistics that fit it.

    Statistics that all of them share stay: they were frozen, or there is one checkpoint.
    """
    model, mean = fold.parts.model, dict[str, Tensor]()
    for n, one in enumerate(chosen, start=1):
        model.load_state_dict(one.weights)
        mean = add_to_mean(mean, model, n)

    model.load_state_dict({**model.state_dict(), **mean})
    if not share_statistics(chosen):
        remake_statistics(model, training_images(fold), fold.call)
    model.eval()


def share_statistics(chosen: Sequence[Ingredient]) -> bool:
    """Say whether all checkpoints have the batch statistics of the first."""
    first, *others = chosen
    names = [name for name in first.weights if name.endswith(STATISTICS)]
    return all(
        torch.equal(first.weights[name], one.weights[name]) for one in others for name in names
    )


def choose_greedily(
    fold: Fold, found: Sequence[Ingredient], validate: Validate
) -> tuple[list[Ingredient], list[dict[str, float]]]:
    """Begin with the best and take each next one in if the average is no worse with it.

    Returns:
        The checkpoints taken, and what each of `found` scores by itself.
    """
    monitor = fold.config.monitor if fold.config.monitor != "last" else "macro_ap"

    def place(ingredients: Sequence[Ingredient]) -> tuple[float, dict[str, float]]:
        pour(fold, ingredients)
        valid_loss, meter = validate(fold)
        row = {"epoch": 0, "valid_loss": valid_loss, **meter.compute()}
        return rank(row, monitor), {monitor: row[monitor]}

    alone = [place([one]) for one in found]
    order = sorted(range(len(found)), key=lambda number: alone[number][0])
    chosen, best = [found[order[0]]], alone[order[0]][0]
    for number in order[1:]:
        with_it, _ = place([*chosen, found[number]])
        if with_it <= best:
            chosen, best = [*chosen, found[number]], with_it

    logger.warning(
        "fold %d: a greedy soup is chosen by %s on the validation part: its scores are optimistic",
        fold.number,
        monitor,
    )
    return chosen, [scores for _, scores in alone]


def write_ingredients(
    path: Path,
    found: Sequence[Ingredient],
    chosen: Sequence[Ingredient],
    scores: Sequence[dict[str, float]],
) -> None:
    """Write which checkpoints were there and which were taken, as CSV."""
    columns = ["checkpoint", "epoch", "is_taken", *scores[0]]
    rows: list[list[Any]] = [
        [str(one.path), one.epoch, int(one in chosen), *score.values()]
        for one, score in zip(found, scores, strict=True)
    ]
    write_file(path, csv_text([columns, *rows]))
