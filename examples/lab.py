"""Run named settings over folds and put what they reach into one table, with paired differences.

    python examples/lab.py base.yaml no_masks.yaml --folds 0 1 2 --seeds 8 9 -- --root archive

The first file is the base that the others are compared with. Flags behind `--` go to every run.
Each run is an experiment of its own in `<models_dir>/lab/<name>/seed_<seed>`, and train.py goes on
where one was stopped, so the same command continues an evening that was cut short.
"""

import argparse
import math
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import pandas as pd  # noqa: E402

from configs import Config, UserError, load_config, run_main  # noqa: E402
from files import csv_text, write_file  # noqa: E402

Scores = dict[tuple[int, int], float]  # by seed and fold


def main() -> int:
    """Train what is not trained yet, then print and write the table."""
    flags, rest = read_flags()
    names = [path.stem for path in flags.settings]
    if len(set(names)) < len(names):
        raise UserError("two files of settings have one name; the table could not tell them apart")

    reached: dict[str, Scores] = {name: {} for name in names}
    for seed in flags.seeds:
        for path in flags.settings:
            config = load_config(["--config", str(path), *rest])
            models_dir = config.models_dir / "lab" / path.stem / f"seed_{seed}"
            train(path, rest, models_dir, seed, flags.folds)
            found = read_scores(models_dir, config, flags.folds, flags.score)
            reached[path.stem] |= {(seed, fold): value for fold, value in found.items()}

    rows = make_table(reached)
    table = config.models_dir / "lab" / f"{flags.score}.csv"
    write_file(table, csv_text(rows))
    for row in rows:
        print("  ".join(f"{cell:>12}" for cell in row))
    print(f"wrote {table}")
    return 0


def read_flags(args: Sequence[str] | None = None) -> tuple[argparse.Namespace, list[str]]:
    """Read the command line; what stands behind `--` is train.py's."""
    args = list(sys.argv[1:] if args is None else args)
    own, _, rest = (args, "", []) if "--" not in args else _cut(args)
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("settings", nargs="+", type=Path, help="YAML files; the first is the base")
    parser.add_argument("--folds", nargs="+", type=int, default=[0], help="folds of each run")
    parser.add_argument("--seeds", nargs="+", type=int, default=[8], help="seeds of each run")
    parser.add_argument("--score", default="macro_ap", help="column of history.csv to compare")
    return parser.parse_args(own), rest


def _cut(args: list[str]) -> tuple[list[str], str, list[str]]:
    place = args.index("--")
    return args[:place], "--", args[place + 1 :]


def train(path: Path, rest: list[str], models_dir: Path, seed: int, folds: list[int]) -> None:
    """Run train.py in a process of its own; it goes on where an earlier run of it ended.

    Raises:
        UserError: it failed; its own message stands above.
    """
    command = [sys.executable, str(ROOT / "train.py"), "--config", str(path), *rest]
    command += ["--models-dir", str(models_dir.resolve()), "--seed", str(seed)]
    command += ["--folds", *map(str, folds)]
    if subprocess.run(command, check=False).returncode:
        raise UserError(f"{path}, seed {seed}: train.py failed")


def read_scores(models_dir: Path, config: Config, folds: list[int], score: str) -> dict[int, float]:
    """Read what each fold's last epoch reached.

    Raises:
        UserError: a history has no such column.
    """
    found = {}
    for fold in folds:
        path = models_dir / f"Exp_{config.exp_id}" / f"fold_{fold}" / "history.csv"
        history = pd.read_csv(path)
        if score not in history:
            raise UserError(f"--score {score}: {path} has {', '.join(history.columns)}")
        found[fold] = float(history[score].iloc[-1])
    return found


def make_table(reached: dict[str, Scores]) -> list[list[str]]:
    """Compare each run with the first, seed by seed and fold by fold.

    Returns:
        Rows of text, the header first: name, number of runs, mean and deviation of the score, and
        mean of the differences from the base with its standard error.
    """
    base = next(iter(reached.values()))
    rows = [["settings", "runs", "mean", "deviation", "difference", "error"]]
    for name, scores in reached.items():
        differences = [scores[key] - base[key] for key in scores if key in base]
        n_pairs = len(differences)
        error = _deviation(differences) / math.sqrt(n_pairs) if n_pairs else math.nan
        values = list(scores.values())
        numbers = (
            statistics.mean(values),
            _deviation(values),
            statistics.mean(differences) if differences else math.nan,
            error,
        )
        rows.append([name, str(len(values)), *(f"{number:.4f}" for number in numbers)])
    return rows


def _deviation(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else math.nan


if __name__ == "__main__":
    run_main(main)
