"""Say how good an experiment is: species by species, overall, and which labels look wrong.

    python evaluate.py models/Exp_47
    python evaluate.py windows.csv --labels labels.csv

The first reads the out-of-fold predictions of the folds: each recording is scored by a model that
was not trained on it. The second reads what predict.py wrote and labels with times. A folder
`evaluation/` beside them gets evaluation.html, species.csv, overall.csv, groups.csv, doctor.csv,
reliability.csv, a calibration and pictures.
"""

import argparse
import logging
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from catalog.fingerprint import find_same_sound
from catalog.tables import SHOWN
from configs import Config, UserError, configure_logger, run_main
from files import csv_text, find_experiment, write_file
from inference.bootstrap import ClassScores, draw_weights
from inference.calibration import (
    METHODS,
    Verdict,
    choose,
    reliability_table,
    write_calibration,
)
from inference.comparable import add_spread, read_twin
from inference.doctor import find_suspicious, note_copies
from inference.evaluated import CALIBRATION, EVALUATION
from inference.evaluated_clips import FoldModels, Shown, read_settings, show_rows
from inference.evaluation import group_table, overall_table, species_table
from inference.evaluation_page import choose_rows, write_page
from inference.flags import number
from inference.learning_curve import N_MORE, summarise
from inference.out_of_fold import OutOfFold, read_out_of_fold
from inference.pictures import draw_learning_curve, draw_reliability, draw_species
from inference.predicted import read_predicted
from inference.score_notes import Note, as_network_gave, read_note
from inference.selection import MORE_COLUMNS, Names, read_taxonomy
from inference.table_columns import TableColumns
from inference.timed_truth import meet

logger = logging.getLogger("birdclef.evaluate")


def main(args: Sequence[str] | None = None) -> int:
    """Evaluate an experiment or a fold, write the tables and print the gist."""
    flags = read_flags(args)
    configure_logger(Config())
    table = TableColumns(flags.table)
    names = table.names() if flags.taxonomy is None else read_taxonomy(flags.taxonomy)
    note = read_note(flags.scores) if flags.labels else Note()
    oof = read_scores(flags, names, note)
    recordings = pd.factorize(oof.filenames)[0]
    weights = draw_weights(recordings, flags.draws, flags.seed)

    tables = score_tables(oof, weights, flags)
    config = settings_of(flags)
    if (sounds := find_sounds(flags, oof, config)) is not None:
        tables["doctor"] = note_copies(tables["doctor"], oof, sounds)
    verdict = None
    if flags.calibrate != "off":
        verdict = choose(oof, flags.calibrate, flags.seed, given=note.given(oof.scores))
        tables["reliability"] = reliability_table(verdict.curves)
    groups = [] if flags.labels else [pd.Series(oof.folds.astype(str), name="fold")]
    groups += table.of(oof, flags.by) if flags.by else []
    groups += [table.seen(oof, name) for name in flags.seen]
    parts = [group_table(oof, values, weights, column=str(values.name)) for values in groups]
    if parts:
        tables["groups"] = pd.concat(parts, ignore_index=True)

    output = flags.output or place_of(flags.scores)
    for name, rows in tables.items():
        written = with_names(rows, names) if name == "species" else rows
        write_table(output / f"{name}.csv", written)
    draw_species(output, tables["species"], tables["overall"])
    if verdict is not None:
        keep_calibration(output / CALIBRATION, verdict, oof, note)
        draw_reliability(output, verdict.curves)
    if flags.page:
        page = output / "evaluation.html"
        clips = clips_of(flags, oof, tables, config)
        write_page(page, oof, tables, names, facts_of(flags, oof), clips, config)
    if flags.learning_curve:
        add_learning_curve(output, flags, oof, config)
    print_gist(tables)
    if verdict is not None:
        print_calibration(verdict)
    print(f"\nwrote {output}: {', '.join(sorted(tables))} as CSV, and pictures")
    print_next(flags, output)
    return 0


def score_tables(
    oof: OutOfFold, weights: np.ndarray, flags: argparse.Namespace
) -> dict[str, pd.DataFrame]:
    """Score all together and species by species, and list suspicious labels.

    With a twin of another seed, the spread of the two stands beside each score.
    """
    overall = overall_table(oof, weights)
    species = species_table(oof, weights, flags.precision)
    if flags.other_seed is not None:
        if flags.labels is not None:
            raise UserError("--other-seed needs an experiment, not a table of windows")
        twin, ones = read_twin(flags.scores, oof, flags.other_seed), weights[:1]
        overall = add_spread(overall, overall_table(twin, ones), ["score"])
        scores = list(ClassScores._fields)
        species = add_spread(species, species_table(twin, ones, flags.precision), scores)
    return {"overall": overall, "species": species, "doctor": find_suspicious(oof)}


def read_flags(args: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; a mistake is one line and status 2."""
    parser = argparse.ArgumentParser(
        prog="evaluate.py", description=(__doc__ or "").partition("\n")[0], allow_abbrev=False
    )
    add_inputs(parser)
    add = parser.add_argument
    add("--output", type=Path, help="folder to write (default: evaluation/ in or beside it)")
    add(
        "--copies",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="look for prepared recordings that sound the same and have other labels",
    )
    add(
        "--learning-curve",
        action="store_true",
        help="also fit the probe to fewer recordings: what would ten more a species bring?",
    )
    page_help = "write evaluation.html (default: yes)"
    add("--page", action=argparse.BooleanOptionalAction, default=True, help=page_help)
    add("--draws", type=int, default=1000, help="draws of the bootstrap (default: 1000)")
    add("--seed", type=int, default=8, help="seed of the draws (default: 8)")
    add(
        "--precision",
        type=float,
        default=0.9,
        help="precision that each species' second threshold is to reach (default: 0.9)",
    )
    add(
        "--calibrate",
        choices=("best", *METHODS, "off"),
        default="best",
        help="how scores are made probabilities, in calibration.yaml (default: the better one)",
    )
    add(
        "--table",
        type=Path,
        default=Path("train.csv"),
        help="table with the columns of --by, and names",
    )
    add("--by", nargs="*", default=[], metavar="COLUMN", help="also score by these columns")
    add(
        "--other-seed",
        type=find_experiment,
        metavar="EXPERIMENT",
        help="one of the same settings and another seed: how far apart are their scores?",
    )
    add(
        "--seen",
        nargs="*",
        default=[],
        metavar="COLUMN",
        help="also score apart what training has seen of these columns, and has not: site, author",
    )
    flags = parser.parse_args(args)
    if flags.draws < 1 or not 0 < flags.precision <= 1:
        raise UserError("--draws is at least 1, and --precision lies above 0 and is at most 1")
    return flags


def add_inputs(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say what is read."""
    add = parser.add_argument
    add(
        "scores",
        type=find_experiment,
        help="folder of an experiment or a fold, such as models/Exp_47, or its name; with "
        "--labels, what predict.py wrote: a table, a submission or Audacity's folder",
    )
    add(
        "--labels",
        type=Path,
        metavar="PATH",
        help="labels with times, in any format that --annotations reads, or with BirdCLEF's row_id",
    )
    add(
        "--label-overlap",
        type=number(0, 1),
        default=Config().label_overlap,
        metavar="SHARE",
        help="overlap from which a label counts in a window, of the shorter of the two "
        "(default: %(default)s)",
    )
    add(
        "--taxonomy",
        type=Path,
        metavar="FILE",
        help="names of the species, as for predict.py (default: those in --table)",
    )
    add(
        "--audio",
        type=Path,
        metavar="DIR",
        help="recordings to see and hear on the page (default: an experiment's prepared ones)",
    )


def read_scores(flags: argparse.Namespace, names: Names, note: Note) -> OutOfFold:
    """Read scores and labels: out of fold, or of windows against labels with times.

    Scores that predict.py has calibrated are turned back into what the network gave: thresholds and
    a calibration are of those.

    Raises:
        UserError: they cannot be read, or a table of predict.py comes without labels.
    """
    if flags.labels is not None:
        predicted = as_network_gave(read_predicted(flags.scores), note)
        return meet(predicted, flags.labels, names, flags.label_overlap)
    if flags.scores.is_file():
        raise UserError(f"{flags.scores}: a table is evaluated against labels; give --labels FILE")
    return read_out_of_fold(flags.scores)


def place_of(scores: Path) -> Path:
    """Name the folder of the evaluation: in that of an experiment, beside a table."""
    is_experiment = scores.is_dir() and not any(scores.glob("*.txt"))
    return (scores if is_experiment else scores.parent) / EVALUATION


def keep_calibration(path: Path, verdict: Verdict, oof: OutOfFold, note: Note) -> None:
    """Write a calibration for predict.py, unless it would be of other scores than predict.py's."""
    if not note.changed_by:
        write_calibration(path, verdict, oof)
        return
    path.unlink(missing_ok=True)  # of an earlier evaluation
    flags = " and ".join(note.changed_by)
    logger.warning("scores were changed by %s: no %s, which comes before that", flags, path.name)


def with_names(species: pd.DataFrame, names: Names) -> pd.DataFrame:
    """Put the names that people know beside the codes, if those of any species are known.

    Args:
        species: a row a species.
        names: scientific and common names by label, of --taxonomy or --table.
    """
    if not names.keys() & set(species["species"]):
        return species
    found = [names.get(label, ("", "")) for label in species["species"]]
    known = pd.DataFrame(found, columns=MORE_COLUMNS["names"], index=species.index)
    return pd.concat([species[["species"]], known, species.drop(columns="species")], axis=1)


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table; a score that there is none of is an empty cell."""
    rows = table.astype(object).where(table.notna(), "").itertuples(index=False)
    write_file(path, csv_text([table.columns, *rows]))


def facts_of(flags: argparse.Namespace, oof: OutOfFold) -> dict[str, str]:
    """Say what was evaluated, for the head of the page."""
    n_recordings = len(np.unique(oof.filenames))
    facts = {"Scores": str(flags.scores.resolve()), "Recordings": f"{n_recordings:,}"}
    if flags.labels is not None:
        facts |= {"Labels": str(flags.labels.resolve()), "Windows": f"{len(oof.scores):,}"}
    facts["Intervals"] = f"95 %, {flags.draws} draws of whole recordings"
    return facts


def settings_of(flags: argparse.Namespace) -> Config:
    """Return the settings of the experiment; the defaults where there are none."""
    found = read_settings(flags.scores) if flags.labels is None else None
    return found or Config()


def folder_of(flags: argparse.Namespace, config: Config) -> Path | None:
    """Return the folder of the recordings, None where there is none."""
    folder = flags.audio or (config.train_np_dir if flags.labels is None else None)
    return folder if folder is not None and folder.is_dir() else None


def find_sounds(flags: argparse.Namespace, oof: OutOfFold, config: Config) -> np.ndarray | None:
    """Number prepared recordings by what is heard, (n,) int; None where it cannot be told."""
    folder = folder_of(flags, config)
    paths = [folder / f"{name}.npy" for name in oof.filenames] if folder else []
    if not flags.copies or oof.starts_s is not None or not any(map(Path.is_file, paths)):
        return None
    return find_same_sound(paths, config.sample_rate)


def clips_of(
    flags: argparse.Namespace, oof: OutOfFold, tables: dict[str, pd.DataFrame], config: Config
) -> dict[int, Shown]:
    """Make pictures, sounds and curves of the worst and the best, by row of `oof`.

    Those whose recording is not there are left out.
    """
    folder = folder_of(flags, config)
    if folder is None:
        return {}

    models = FoldModels(flags.scores) if flags.labels is None else None
    worst, best = choose_rows(tables["doctor"])
    species = [oof.class_names.index(name) for name in tables["doctor"].loc[worst, "seems_to_be"]]
    species += [oof.class_names.index(name) for name in tables["doctor"].loc[best, "label"]]
    return show_rows([*worst, *best], species, oof, folder, config, models)


def add_learning_curve(
    output: Path, flags: argparse.Namespace, oof: OutOfFold, config: Config
) -> None:
    """Fit the probe to fewer recordings, draw how it does, and say what more would bring.

    Raises:
        UserError: no experiment, or no table of its recordings.
    """
    if flags.labels is not None:
        raise UserError("--learning-curve needs an experiment: it fits the probe to its recordings")
    from catalog.train_table import check_table, load_class_names, read_train_table, split_fold
    from model import pick_device
    from training.learning_curve import measure_curve

    rows = check_table(read_train_table(flags.table), str(flags.table))
    fits = []
    for fold in sorted(set(oof.folds.tolist())):
        parts = split_fold(rows, fold, config.rare_birds)
        device = pick_device(config.device)
        fits.append(measure_curve(*parts, load_class_names(rows), config, device))
    table, curve = summarise(pd.concat(fits))

    write_table(output / "learning_curve.csv", table)
    draw_learning_curve(output, table, curve)
    now, then = table.iloc[-2], table.iloc[-1]
    print(
        f"probe: macro AP {now.macro_ap:.4f} at {now.recordings:.1f} recordings a species; "
        f"{N_MORE} more would bring {then.macro_ap - now.macro_ap:+.4f}\n"
    )


def print_gist(tables: dict[str, pd.DataFrame]) -> None:
    """Print the overall scores, the species that do worst and the labels to look at first."""
    for row in tables["overall"].itertuples():
        floor = f"  (floor {row.floor:.4f})" if np.isfinite(row.floor) else ""
        seeds = f"  +- {row.score_seed_spread:.4f}" if hasattr(row, "score_seed_spread") else ""
        print(f"{row.metric:<14} {row.score:.4f}  [{row.low:.4f}, {row.high:.4f}]{seeds}{floor}")

    species = tables["species"].dropna(subset=["average_precision"])
    print("\nspecies with the lowest average precision:")
    for row in species.nsmallest(SHOWN, "average_precision").itertuples():
        print(f"  {row.species:<20} {row.average_precision:.3f}  of {row.n_positive}{_taken(row)}")

    doctor = tables["doctor"]
    n_contradicted = int(doctor["is_contradicted"].sum())
    print(f"\nlabels that the scores contradict: {n_contradicted} of {len(doctor)}")
    if "same_sound_as" in doctor:
        print(f"copies with another label: {int((doctor['same_sound_as'] != '').sum())}")
    if len(doctor):
        print("the most suspicious ones, contradicted or not:")
    for row in doctor.head(SHOWN).itertuples():
        print(f"  {_place(row)}: {row.label}, seems to be {row.seems_to_be}")


def print_calibration(verdict: Verdict) -> None:
    """Print how far scores are from the share that is right, before and after calibration."""
    line, found = verdict.calibration, verdict.curves
    print(f"\n{line.method} scaling: slope {line.slope:g}, offset {line.offset:g}; expected error")
    for which, what in (("pairs", "of all pairs"), ("highest", "of highest scores")):
        before, after = (found[which, when].expected_error for when in ("before", "after"))
        chance = verdict.by_chance[which]
        print(
            f"  {what:<18} {before:.4f}, {after:.4f} after it (on recordings held back from it; "
            f"{chance:.4f} by chance)"
        )


def print_next(flags: argparse.Namespace, output: Path) -> None:
    """Name the page to open, and of an experiment the command that predicts with it."""
    if flags.page:
        print(f"open {output / 'evaluation.html'} in a browser")
    if not flags.labels:
        words = ["python", "predict.py", str(flags.scores), "RECORDINGS", "--output", "found.csv"]
        print("next:", shlex.join([*words, "--format", "long", "--report", "found.html"]))


def _place(row: Any) -> str:
    return f"{row.filename} at {row.start_s:g} s" if hasattr(row, "start_s") else row.filename


def _taken(row: Any) -> str:
    return f", most taken for {row.taken_for} ({row.n_taken_for})" if row.n_taken_for else ""


if __name__ == "__main__":
    run_main(main)
