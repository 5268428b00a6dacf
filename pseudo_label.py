"""Label soundscapes with trained models, so that train.py can learn from them, too.

    python pseudo_label.py data/soundscapes --models models/Exp_47 --output pseudo/round_1.csv
    python train.py --exp-id 48 --pseudo-labels pseudo/round_1.csv
    python pseudo_label.py field/recordings --labels review.csv --output field/reviewed.csv

Every model that predict.py takes may label, and several are averaged. Sure windows become rows with
soft targets; beside the table lie the soundscapes, prepared once, and a JSON that says which model
made which label. An interrupted run goes on where it stopped.

With --labels people have labelled: a review of detections, or any labels with times. Their windows
then join the recordings of train.csv in one training.
"""

import argparse
import contextlib
import copy
import functools
import json
import logging
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from audio.backgrounds import prepare_folder
from audio.prepared import open_recording
from catalog.annotations import read_annotations
from catalog.fingerprint import find_same_sound
from catalog.pseudo_labels import refuse_labelled, windows_of_labels, write_pseudo_labels
from catalog.refuted import REFUTED_COLUMN
from catalog.train_table import read_train_table
from configs import Config, UserError, configure_logger, load_config, run_main, settings_where
from files import write_file
from inference.adjusting import Adjustment, read_neighbours
from inference.detections import AVERAGES, Recording, average_models
from inference.exported import is_exported
from inference.flags import FlagParser, number
from inference.partial import PartialResults, identity
from inference.pseudo import Rules, label_windows
from inference.scorers import find_weighted, open_models
from inference.scoring import score_recordings
from inference.stream import find_recordings
from inference.window_scores import add_score_flags, settle_scores
from inference.windows import Models, Plan

logger = logging.getLogger("birdclef.pseudo")

SOUNDSCAPES_NP = "soundscapes_np"  # folder of the prepared soundscapes, beside the table


def main(args: Sequence[str] | None = None) -> int:
    """Label what the command line names and say what came of it."""
    flags, config = read_flags(args)
    configure_logger(config)
    about = label(flags, config) if flags.labels is None else take_labels(flags, config)
    for line in describe(about):
        print(line)
    print(f"next: python train.py --pseudo-labels {flags.output}")
    return 0


def label(flags: argparse.Namespace, config: Config) -> dict[str, Any]:
    """Score, choose, check and write; a table that was made from all the same is left as it is.

    Returns:
        What the JSON beside the table holds.

    Raises:
        UserError: nothing to label, models that do not go together, or a soundscape that is a
            labelled recording.
    """
    follow = config.follow_links
    recordings, _ = find_recordings(flags.soundscapes, follow_links=follow)
    if flags.apart is not None:
        held_back, _ = find_recordings(flags.apart, follow_links=follow)
        refuse_labelled(recordings, held_back, where=str(flags.apart))

    made_from = settle(flags, config, recordings)
    about_path = flags.output.with_suffix(".json")
    if (done := read_about(about_path, flags.output)) and done["made_from"] == made_from:
        logger.info("%s is there already, made from the same", flags.output)
        return done

    prepared = prepare(flags, config)
    refuse_known(prepared, config)
    recordings = {name: path for name, path in recordings.items() if name in prepared}
    with contextlib.ExitStack() as held:
        scored = [
            score(path, place, recordings, flags, config, held)
            for place, path in enumerate(flags.models)
        ]
        class_names, period = agree(scored, flags.models)
        found = read_scores(scored, recordings, flags)
        table = label_windows(found, class_names, rules_of(flags), period)
        if table["labels"].map(len).sum() == 0:
            raise UserError(f"no window of {flags.soundscapes} scores {flags.keep_above:g} or more")

        members = [str(one) for models, _ in scored for one in members_of(models)]
        about = summarise(table, len(recordings)) | {"models": members}
        about |= {"sample_rate": config.sample_rate, "made_from": made_from}
        write_table(flags.output, table, prepared, about)
        for _, partial in scored:
            partial.close(delete=True)
    return about


def take_labels(flags: argparse.Namespace, config: Config) -> dict[str, Any]:
    """Write the windows that people have labelled, in place of models.

    Returns:
        What the JSON beside the table holds.

    Raises:
        UserError: no labels for any of the soundscapes, or one that is a labelled recording.
    """
    prepared = prepare(flags, config)
    spans = read_annotations(flags.labels, sorted(prepared), flag="--labels ")
    prepared = {name: prepared[name] for name in sorted(set(spans["filename"]))}
    refuse_known(prepared, config)
    rate = config.sample_rate
    seconds = {name: len(open_recording(path)) / rate for name, path in prepared.items()}
    table = windows_of_labels(spans, seconds, config)
    if table.empty:
        raise UserError(f"--labels {flags.labels}: nothing was decided of any window")

    about = summarise(table, len(prepared)) | {"models": [], "labels": str(flags.labels)}
    about |= {"sample_rate": rate}
    write_table(flags.output, table, prepared, about)
    return about


def write_table(
    output: Path, table: pd.DataFrame, prepared: Mapping[str, Path], about: Mapping[str, Any]
) -> None:
    """Write the windows, with where their recordings lie beside the table, and its JSON."""
    arrays = {name: path.relative_to(output.parent).as_posix() for name, path in prepared.items()}
    write_pseudo_labels(output, table.assign(filepath=table["filename"].map(arrays)))
    write_file(output.with_suffix(".json"), json.dumps(about, indent=1) + "\n")


# Settings -----------------------------------------------------------------------------------------


def read_flags(args: Sequence[str] | None) -> tuple[argparse.Namespace, Config]:
    """Read the script's own flags and the settings that say where and how it runs."""
    usage = "pseudo_label.py SOUNDSCAPES (--models MODEL... | --labels PATH) --output FILE.csv"
    what, _, more = (__doc__ or "").partition("\n\n")
    parser = FlagParser(usage, what, more)
    add = parser.add_argument
    share = number(0, 1)
    add("soundscapes", metavar="SOUNDSCAPES", type=Path, help="folder of recordings")
    add("--models", metavar="MODEL", type=Path, nargs="+", default=[],
        help="what predict.py takes; several are averaged")  # fmt: skip
    add("--labels", metavar="PATH", type=Path,
        help="labels with times, or a review, in place of models")  # fmt: skip
    add("--output", metavar="FILE", type=Path, required=True, help="table to write")
    add("--keep-above", metavar="SCORE", type=share, default=0.5,
        help="lowest score of a window's surest label (default: 0.5)")  # fmt: skip
    add("--zero-below", metavar="SCORE", type=share, default=0.1,
        help="leave out labels with a lower score (default: 0.1)")  # fmt: skip
    add("--empty-below", metavar="SCORE", type=share, default=0.0,
        help="keep windows in which all score less, without a bird (default: none)")  # fmt: skip
    add("--most-of-recording", metavar="SHARE", type=share, default=0.25,
        help="largest share of a species' windows from one recording (default: 0.25)")  # fmt: skip
    add("--apart", metavar="FOLDER", type=Path,
        help="recordings to score on later: they are refused among the soundscapes")  # fmt: skip
    add_score_flags(add)
    add("--average", choices=AVERAGES[:2], default=AVERAGES[0], help="how to average models")
    add("--smooth", nargs="+", default=[], metavar="WEIGHT",
        help="average neighbouring windows first, as predict.py does")  # fmt: skip
    add("--lean", type=share, default=0.0, metavar="WEIGHT",
        help="move scores to the recording's highest first, as predict.py does")  # fmt: skip
    flags, rest = parser.parse_own(args)
    if flags.output.suffix != ".csv":
        raise UserError(f"--output {flags.output}: the table is a .csv")
    if bool(flags.models) == bool(flags.labels):
        raise UserError("give --models MODEL that label, or --labels PATH that people have given")
    if not flags.soundscapes.is_dir():
        raise UserError(f"{flags.soundscapes}: no such folder of soundscapes")
    return flags, load_config(rest)


def rules_of(flags: argparse.Namespace) -> Rules:
    """Return the rules that the flags ask for."""
    names = ("keep_above", "zero_below", "empty_below", "most_of_recording")
    return Rules(**{name: getattr(flags, name) for name in names})


def settle(
    flags: argparse.Namespace, config: Config, recordings: dict[str, Path]
) -> dict[str, Any]:
    """Say all that the labels depend on, in plain types: models, soundscapes and flags."""
    found = [
        ([model], None) if is_exported(model) else find_weighted(model) for model in flags.models
    ]
    return {
        "models": [[str(path), *identity(path)] for paths, _ in found for path in paths],
        "weights": [list(weights) if weights else None for _, weights in found],
        "soundscapes": [[name, *identity(path)] for name, path in recordings.items()],
        **vars(rules_of(flags)),
        **{name: getattr(config, name) for name in ("sample_rate", "audio_dtype")},
        **{name: getattr(flags, name) for name in ("score", "shifts", "average", "smooth", "lean")},
    }


def read_about(about_path: Path, table_path: Path) -> dict[str, Any] | None:
    """Read the JSON of an earlier run; None if it or its table is not there or damaged."""
    try:
        about = json.loads(about_path.read_text(encoding="utf-8"))
        return about if table_path.is_file() and "made_from" in about else None
    except (OSError, ValueError):
        return None


# Soundscapes --------------------------------------------------------------------------------------


def prepare(flags: argparse.Namespace, config: Config) -> dict[str, Path]:
    """Prepare the soundscapes whole, as annotated recordings are; return the arrays by name."""
    recipe = {name: getattr(config, name) for name in settings_where(makes_arrays=True)}
    recipe |= {"max_seconds": math.inf, "trim_db": None, "cut_still": False}
    folder = flags.output.parent / SOUNDSCAPES_NP
    prepared = prepare_folder(flags.soundscapes, folder, recipe, config.file_timeout_s)
    if not prepared:
        raise UserError(f"{flags.soundscapes} holds no recording that can be used")
    return prepared


def refuse_known(prepared: dict[str, Path], config: Config) -> None:
    """Refuse soundscapes that are recordings of train.csv; without that table nothing is known."""
    path = config.train_dataframe_path
    if not path.is_file():
        logger.warning("%s is not there: soundscapes are not compared with it", path)
        return

    table = read_train_table(path)
    arrays = {name: config.train_np_dir / name for name in table["filepath"]}
    labelled = {name.removesuffix(".npy"): array for name, array in arrays.items()}
    labelled = {name: array for name, array in labelled.items() if array.is_file()}
    sounds = functools.partial(find_same_sound, sample_rate=config.sample_rate)
    refuse_labelled(prepared, labelled, where=str(path), same_sound=sounds)


# Scores -------------------------------------------------------------------------------------------


def score(
    path: Path,
    place: int,
    recordings: dict[str, Path],
    flags: argparse.Namespace,
    config: Config,
    held: contextlib.ExitStack,
) -> tuple[Models, PartialResults]:
    """Score all soundscapes with one model as predict.py does, or what is left of them."""
    models, own = open_models(path, config), copy.copy(flags)
    settle_scores(own, models.config)
    plan = Plan(score=own.score, shifts_s=tuple(own.shifts))
    settings = {"recordings": str(flags.soundscapes.resolve()), "model": models.identity}
    settings |= {"score": plan.score, "shifts": str(plan.shifts_s)}
    partial_path = flags.output.with_name(f"{flags.output.name}.{place}.partial")
    partial_path.parent.mkdir(parents=True, exist_ok=True)
    partial = held.enter_context(PartialResults(partial_path, settings))
    score_recordings(models, recordings, plan, partial)
    return models, partial


def members_of(models: Models) -> list[str]:
    """Name the checkpoints of a model, or its one exported file."""
    n_members = len(models.models)
    return [str(one).rpartition(" [")[0] or str(one) for one in models.identity[:n_members]]


def agree(
    scored: list[tuple[Models, PartialResults]], paths: Sequence[Path]
) -> tuple[list[str], float]:
    """Return the classes and the period that all models have.

    Raises:
        UserError: two of them differ.
    """
    first = scored[0][0]
    for (models, _), path in zip(scored, paths, strict=True):
        if sorted(models.class_names) != sorted(first.class_names):
            raise UserError(f"{path} and {paths[0]} have other classes and cannot label together")
        if models.config.period != first.config.period:
            raise UserError(f"{path} and {paths[0]} have clips of other lengths")
    return list(first.class_names), first.config.period


def read_scores(
    scored: list[tuple[Models, PartialResults]],
    recordings: dict[str, Path],
    flags: argparse.Namespace,
) -> Iterator[tuple[Recording, np.ndarray]]:
    """Give each recording with the scores of all models (models, n, C) and what comes of them."""
    class_names = list(scored[0][0].class_names)
    columns = [[models.class_names.index(name) for name in class_names] for models, _ in scored]
    weights = weights_of([models for models, _ in scored])
    adjustment = Adjustment(None, read_neighbours(flags.smooth), flags.lean)
    for name in recordings:
        parts = [partial[name] for _, partial in scored]
        scores = np.concatenate(
            [part.scores[:, :, own] for part, own in zip(parts, columns, strict=True)]
        )
        whole = Recording(**{**vars(parts[0]), "scores": scores})
        yield whole, adjustment.apply(average_models(scores, flags.average, weights), name)


def weights_of(models: Sequence[Models]) -> list[float] | None:
    """Weigh all checkpoints: those of a blend by its weights; None where none is a blend."""
    if all(one.weights is None for one in models):
        return None
    shares = [one.weights or (1 / len(one.models),) * len(one.models) for one in models]
    return [share / len(models) for of_model in shares for share in of_model]


# What came of it ----------------------------------------------------------------------------------


def summarise(table: pd.DataFrame, n_soundscapes: int) -> dict[str, Any]:
    """Count the windows, and the clips that each species gained, as its surest label."""
    leads = Counter(labels[0] for labels in table["labels"] if labels)
    has_none = table["labels"].map(len) == 0
    refuted = table[REFUTED_COLUMN] if REFUTED_COLUMN in table else [()] * len(table)
    is_partial = np.array([len(row) > 0 for row in refuted], bool)
    return {
        "n_soundscapes": n_soundscapes,
        "n_windows": len(table),
        "n_empty": int((has_none & ~is_partial).sum()),
        "n_refuted": int(is_partial.sum()),
        "windows_by_species": dict(sorted(leads.items(), key=lambda item: (-item[1], item[0]))),
    }


def describe(about: dict[str, Any]) -> list[str]:
    """Say in lines what was kept."""
    species = about["windows_by_species"]
    most = ", ".join(f"{name} {n}" for name, n in list(species.items())[:5])
    n_models, n_refuted = len(about["models"]), about.get("n_refuted", 0)
    refuted = f", {n_refuted} of which only a species that is absent is known" if n_refuted else ""
    by = f"{n_models} models" if n_models else f"labels of {about['labels']}"
    return [
        f"{about['n_soundscapes']} soundscapes, {by}",
        f"{about['n_windows']} windows kept, {about['n_empty']} of them without a bird{refuted}",
        f"{len(species)} species, most: {most}",
    ]


if __name__ == "__main__":
    run_main(main)
