"""Compare experiments on the recordings that all of them held back.

    python compare.py models/Exp_1 models/Exp_2

Differences are paired: both experiments score the same recordings, and each draw of the bootstrap
takes the same recordings for both. Experiments with other folds or other classes are refused.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from catalog.tables import SHOWN
from configs import UserError, run_main
from files import csv_text, experiment_title, find_experiment, write_file
from inference.blend_file import write_blend
from inference.blending import Blend, choose_blend
from inference.bootstrap import draw_weights, interval
from inference.comparable import check_comparable, differing_settings, in_one_order
from inference.out_of_fold import read_out_of_fold
from inference.paired import METRICS, OF_SPECIES, all_metrics, difference_row

NOISE = 0.05  # chance of noise below which a species is named


def main(args: Sequence[str] | None = None) -> int:
    """Print the scores, the paired differences and the settings that differ."""
    flags = read_flags(args)
    names = [experiment_title(path) for path in flags.experiments]
    found = [read_out_of_fold(path) for path in flags.experiments]
    found = [in_one_order(oof) for oof in found]
    for path, oof in zip(flags.experiments[1:], found[1:], strict=True):
        check_comparable(flags.experiments[0], found[0], path, oof)

    recordings = pd.factorize(found[0].filenames)[0]
    weights = draw_weights(recordings, flags.draws, flags.seed)
    ones = np.ones((1, len(recordings)), np.uint16)
    scores = [all_metrics(oof, ones) for oof in found]
    drawn = [all_metrics(oof, weights) for oof in found]

    best = int(np.argmax([score["macro_ap"][0] for score in scores]))
    print_leaderboard(names, scores, drawn)
    others = [k for k in range(len(found)) if k != best]

    def differences_in(metrics: Sequence[str]) -> list[dict[str, Any]]:
        pairs = [(k, metric) for k in others for metric in metrics]
        return [
            difference_row(
                names[k], names[best], one, scores[k], scores[best], drawn[k], drawn[best]
            )
            for k, one in pairs
        ]

    differences = differences_in(METRICS)
    print_differences(differences)
    by_species = differences_in([f"{OF_SPECIES}{name}" for name in found[0].class_names])
    print_species(by_species)
    print_settings(flags.experiments)
    if flags.blend:
        blend = choose_blend(found, flags.draws, flags.seed)
        gain = {name: getattr(blend, name) for name in ("score", "gain", "low", "high")}
        write_blend(flags.blend, flags.experiments, blend.weights, gain)
        print_blend(names, blend, flags.blend)
    if flags.output:
        table = pd.DataFrame(differences + by_species)
        rows = table.astype(object).where(table.notna(), "").itertuples(index=False)
        write_file(flags.output, csv_text([table.columns, *rows]))
        print(f"wrote {flags.output}")
    return 0


def read_flags(args: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; a mistake is one line and status 2."""
    parser = argparse.ArgumentParser(
        prog="compare.py", description=(__doc__ or "").partition("\n")[0], allow_abbrev=False
    )
    add = parser.add_argument
    add(
        "experiments",
        type=find_experiment,
        nargs="+",
        help="folders of experiments, such as models/Exp_47, or their names",
    )
    add("--output", type=Path, help="CSV file of the differences, a row a metric")
    add(
        "--blend",
        type=Path,
        nargs="?",
        const=Path("blend.yaml"),
        metavar="FILE",
        help="find weights of an ensemble and write them (to blend.yaml), for predict.py",
    )
    add("--draws", type=int, default=1000, help="draws of the bootstrap (default: 1000)")
    add("--seed", type=int, default=8, help="seed of the draws (default: 8)")
    flags = parser.parse_args(args)
    if len(flags.experiments) < 2:
        raise UserError("name two experiments or more")
    return flags


def print_leaderboard(
    names: Sequence[str],
    scores: Sequence[dict[str, np.ndarray]],
    drawn: Sequence[dict[str, np.ndarray]],
) -> None:
    """Print a row an experiment, the best macro AP first."""
    order = sorted(range(len(names)), key=lambda k: -scores[k]["macro_ap"][0])
    width = max(map(len, ["experiment" + 12 * " ", *names])) + 2
    print("experiment".ljust(width) + "".join(metric.ljust(26) for metric in METRICS))
    for k in order:
        cells = []
        for metric in METRICS:
            low, high = interval(drawn[k][metric])
            cells.append(f"{scores[k][metric][0]:.4f} [{low:.4f}, {high:.4f}]".ljust(26))
        print(names[k].ljust(width) + "".join(cells))


def print_differences(rows: Sequence[dict[str, Any]]) -> None:
    """Print the paired differences to the best experiment."""
    print("\npaired differences")
    for row in rows:
        bounds = f"[{row['low']:+.4f}, {row['high']:+.4f}]"
        print(
            f"{row['experiment']} - {row['against']}  {row['metric']:<14} "
            f"{row['difference']:+.4f} {bounds}  noise: {row['p_noise']:.2f}"
        )


def print_blend(names: Sequence[str], blend: Blend, path: Path) -> None:
    """Print the weights, and what the blend gains on folds that had no say in them."""
    shares = zip(names, blend.weights, strict=True)
    said = ", ".join(f"{weight:.2f} {name}" for name, weight in shares if weight > 0)
    print(f"\nblend: {said}")
    bounds = f"[{blend.low:+.4f}, {blend.high:+.4f}]"
    held_out = f"macro_ap {blend.score:.4f} on held-out folds"
    print(f"{held_out}, {blend.gain:+.4f} {bounds} to the best one alone")
    print(f"wrote {path}; next: python predict.py {path} RECORDINGS --output FILE")


def print_species(rows: Sequence[dict[str, Any]]) -> None:
    """Print the largest differences of species that noise seldom makes, and how many it would."""
    told = [row for row in rows if row["p_noise"] < NOISE]
    told.sort(key=lambda row: -abs(row["difference"]))
    by_chance = NOISE * sum(not np.isnan(row["p_noise"]) for row in rows)
    said = f"{len(told)} differences with noise below {NOISE:g}, where chance makes {by_chance:.1f}"
    print(f"\nspecies by species: {said}")
    for row in told[:SHOWN]:
        print(f"{row['experiment']} - {row['against']}  {row['metric']} {row['difference']:+.4f}")


def print_settings(experiments: Sequence[Path]) -> None:
    """Print the settings in which the experiments differ, and no others."""
    print("\nsettings that differ")
    for name, values in differing_settings(experiments).items():
        print(f"{name:<24} " + "  ".join(values))


if __name__ == "__main__":
    run_main(main)
