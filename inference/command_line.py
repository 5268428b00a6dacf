"""The flags of predict.py, grouped by what a person is doing."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from configs import Config, UserError, load_config, settings_where
from files import find_experiment
from inference import formats
from inference.detections import AVERAGES
from inference.flags import FlagParser, number
from inference.listing import DRAWN_CLIPS
from inference.scorers import CPU_BATCH
from inference.selection import MORE_COLUMNS
from inference.window_scores import add_score_flags
from settings.kaggle import is_asked_for, submission_places

DESCRIPTION = "Score recordings of any length with trained models and write what they hold."
EXAMPLE = """examples:
  python predict.py models/Exp_47 data/test_soundscapes --output submission.csv
  python predict.py models/Exp_47/fold_0 my/recordings --output found.csv \\
      --format long raven --threshold 0.5 --stride 2.5
"""


def read_command_line(args: Sequence[str] | None = None) -> tuple[argparse.Namespace, Config]:
    """Read predict.py's own flags, and the settings that say where and how it runs.

    Raises:
        UserError: a flag that does not exist, or a value that is not allowed.
        SystemExit: status 0, after `--help`.
    """
    parser = FlagParser("predict.py MODEL RECORDINGS --output FILE", DESCRIPTION, EXAMPLE)
    on_kaggle = is_asked_for(sys.argv[1:] if args is None else args)
    _add_paths(parser, is_named=not on_kaggle)
    for add_group in (
        _add_pages,
        _add_species,
        _add_windows,
        _add_evaluation,
        _add_adjustments,
        _add_detections,
        _add_events,
        _add_run,
    ):
        add_group(parser)
    flags, rest = parser.parse_own(args)
    if on_kaggle:
        _take_submission(flags)
    return flags, load_config(rest + _settings(flags))


def _take_submission(flags: argparse.Namespace) -> None:
    """Without RECORDINGS, take those of the competition, and where its submission goes."""
    if flags.recordings is not None:
        if flags.output is None:
            raise UserError("RECORDINGS needs --output; --help lists the flags")
        return
    for name, value in submission_places().items():
        if getattr(flags, name) is None:
            setattr(flags, name, value)


def _settings(flags: argparse.Namespace) -> list[str]:
    """Hand the flags that are settings of configs.py on to `load_config`."""
    args: list[str] = []
    for name in (*settings_where(for_prediction="given"), "amp_dtype", "config"):
        flag, value = "--" + name.replace("_", "-"), getattr(flags, name)
        if value is not None:
            args += [flag] if value is True else [flag, value]
    if flags.amp is not None:
        args.append("--amp" if flags.amp else "--no-amp")
    return args


# The groups ---------------------------------------------------------------------------------------


def _add_paths(parser: argparse.ArgumentParser, *, is_named: bool) -> None:
    """Add what is read and written; on Kaggle it need not be named."""
    add = parser.add_argument_group("what to read and what to write").add_argument
    add(
        "model",
        metavar="MODEL",
        type=find_experiment,
        help="a checkpoint, a fold's folder, an experiment's folder or name (its folds are "
        "averaged), a file of export.py, or blend.yaml of compare.py",
    )
    add(
        "recordings",
        metavar="RECORDINGS",
        nargs=None if is_named else "?",
        type=Path,
        help="a recording, or a folder of recordings",
    )
    add(
        "--output",
        type=Path,
        required=is_named,
        metavar="FILE",
        help="file to write; for audacity, a folder",
    )
    add(
        "--format",
        nargs="+",
        choices=formats.FORMATS,
        metavar="FORMAT",
        help=f"one or more of {', '.join(formats.FORMATS)} (default: the sample submission's, "
        "parquet for a .parquet, else submission-2023). With several, each file's name holds its "
        "format",
    )


def _add_pages(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("what else to write").add_argument
    add(
        "--report",
        type=Path,
        metavar="FILE",
        help="also write a page to look at, listen to and review, FILE.html",
    )
    add(
        "--review-clips",
        type=number(0, kind=int),
        metavar="N",
        help="clips in the page that are drawn at random for review, evenly over species and "
        f"scores, beside the best (default: {DRAWN_CLIPS}, about 30 kB each)",
    )
    add(
        "--activity",
        type=Path,
        metavar="DIR",
        help="also write when and where species were found: DIR/activity.png, detections by day "
        "and hour, and DIR/species_by_site.csv",
    )
    add(
        "--suggest",
        type=number(1, kind=int),
        metavar="N",
        help="also suggest N clips to label next, unsure and unlike each other: a table, "
        "FILE.suggested.csv, and a page, FILE.suggested.html, beside the output",
    )
    add(
        "--frames",
        type=Path,
        metavar="DIR",
        help="also save each recording's framewise scores, as DIR/<name>.npz",
    )


def _add_species(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("species").add_argument
    add(
        "--sample-submission",
        type=Path,
        metavar="FILE",
        help="sample_submission.csv, whose columns and order a submission follows",
    )
    add(
        "--fill-missing",
        action="store_true",
        help="score 0 for species of the sample that the model does not know",
    )
    add(
        "--species",
        type=Path,
        metavar="FILE",
        help="list of species, one a line; other species are left out, or score 0 in submissions",
    )
    add(
        "--taxonomy",
        type=Path,
        metavar="FILE",
        help="CSV of eBird or BirdCLEF with scientific and common names for the labels",
    )


def _add_windows(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("windows and their scores").add_argument
    add(
        "--stride",
        type=number(0.001),
        metavar="SECONDS",
        help="from one window to the next (default: a window's length)",
    )
    add_score_flags(add)
    add(
        "--average",
        choices=AVERAGES,
        default=AVERAGES[0],
        help="how to average folds (default: probability)",
    )


def _add_adjustments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("what is done to scores").add_argument
    add(
        "--power",
        metavar="POWER",
        help="raise scores to this power, or to those of a CSV with the columns species and power",
    )
    add(
        "--smooth",
        nargs="+",
        default=[],
        metavar="WEIGHT",
        help="average each window with its neighbours: weights of the windows 1, 2, ... places "
        "away, or gaussian and its sigma in windows",
    )
    add(
        "--lean",
        type=number(0, 1),
        default=0.0,
        metavar="WEIGHT",
        help="move each score this far to the recording's highest score of its species",
    )
    add(
        "--site-prior",
        type=Path,
        metavar="FILE",
        help="CSV with the columns site, species and prior: how likely a species is at a site; "
        "scores move as far as that is from its mean over sites",
    )
    add(
        "--site-weight",
        type=number(0),
        default=0.5,
        metavar="WEIGHT",
        help="how far --site-prior moves the logits (default: 0.5)",
    )


def _add_evaluation(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("what an evaluation of the model says").add_argument
    add(
        "--calibration",
        metavar="FILE",
        default="auto",
        help="auto: make scores probabilities if evaluate.py was run on the model; off; or a "
        "calibration.yaml (default: auto)",
    )
    add(
        "--evaluation",
        type=Path,
        metavar="DIR",
        help="folder of evaluate.py (default: evaluation/ in the model's folder, if it is there)",
    )


def _add_detections(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("which windows are detections").add_argument
    add(
        "--threshold",
        metavar="SCORE",
        help="lowest score of a detection; best-f1 or precision=0.9, each species' own from the "
        "evaluation of the model; or a CSV with the columns species and threshold (default: 0 in "
        "long and parquet, else 0.5)",
    )
    add(
        "--top-k",
        type=number(1, kind=int),
        metavar="N",
        help="keep the N best detections of a window (default: all)",
    )
    add(
        "--columns",
        nargs="+",
        choices=MORE_COLUMNS,
        default=[],
        metavar="COLUMNS",
        help="more columns of long and parquet: names (scientific and common, from --taxonomy), "
        "when (site, date and time of the detection, from the file's name and header), any (the "
        "chance that any bird sings in the window)",
    )
    add(
        "--time-zone",
        metavar="ZONE",
        help="zone of the recorders' clocks, as Europe/Berlin, where files do not say another",
    )


def _add_events(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("events: detections with their own start and end").add_argument
    add(
        "--events",
        action="store_true",
        help="list events instead of windows",
    )
    add(
        "--event-low",
        type=number(0, 1),
        metavar="SCORE",
        help="an event ends where frames score less than this (default: half the threshold)",
    )
    add(
        "--event-min",
        type=number(0),
        default=0.0,
        metavar="SECONDS",
        help="shortest event to keep (default: 0)",
    )


def _add_run(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("run").add_argument
    add("--device", help="auto, cpu, cuda, cuda:1 or mps (default: auto)")
    add(
        "--valid-bs",
        metavar="N",
        help=f"clips in a batch (default: 32; at most {CPU_BATCH} on a CPU)",
    )
    add(
        "--num-workers",
        metavar="N",
        help="threads that decode recordings; on a CPU, also threads that score clips",
    )
    add(
        "--file-timeout-s",
        metavar="SECONDS",
        help="give up a recording whose decoder is silent for this long (default: 120)",
    )
    add(
        "--amp",
        action=argparse.BooleanOptionalAction,
        help="score in mixed precision (default: as in validation)",
    )
    add(
        "--follow-links",
        action="store_true",
        default=None,
        help="read what lies behind links that lead out of the folder of recordings",
    )
    add("--amp-dtype", metavar="TYPE", help="float16 or bfloat16 (default: as in validation)")
    add("--config", metavar="FILE", help="YAML file with these settings")
