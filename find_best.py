"""Train the probe, the planned settings and their neighbours, and say how to predict with the best.

    python find_best.py --config plan.yaml

What is trained already is taken. All are compared, and so are the means of two, on the recordings
that the folds held back, by paired bootstrap. how_to_predict.md gets the command of the winner,
with its thresholds; if the probe wins, it is the probe's. Stopped, it goes on where it was.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from configs import Config, UserError, configure_logger, load_config, run_main
from files import write_file
from inference.flags import FlagParser, number
from inference.out_of_fold import read_out_of_fold
from planning.candidates import Candidate, find_candidates, is_done
from planning.contest import hold
from planning.shipping import gather_models, how_to_predict, predict_command, write_thresholds

MORE_OF_BEST = """\
All settings of configs.py are flags, too; --exp-id is the planned settings'
number, and neighbours take the numbers after it.
"""
HERE = Path(__file__).resolve().parent


def main(args: Sequence[str] | None = None) -> int:
    """Train what is missing, compare, and write how to predict."""
    flags, config = read_command_line(args)
    configure_logger(config)
    if not config.train_dataframe_path.is_file():
        raise UserError(
            f"no {config.train_dataframe_path}: prepare_audios.py and split_data.py first"
        )

    candidates = find_candidates(config, flags.neighbours)
    for candidate in candidates:
        is_done(candidate)  # a number taken by other settings is refused before hours of training
    for candidate in candidates:
        train(candidate)

    found = {one.name: read_out_of_fold(one.folder) for one in candidates}
    folders = {one.name: one.folder for one in candidates}
    entries, winner = hold(found, flags.draws, config.seed)

    best_dir = config.models_dir / f"Exp_{config.exp_id}_best"
    model = gather_models(best_dir, [folders[name] for name in winner.members])
    thresholds = config.models_dir / f"Exp_{config.exp_id}_thresholds.csv"
    n_own = write_thresholds(thresholds, winner.oof)
    command = predict_command(model, thresholds)
    page = how_to_predict(entries, winner, folders, command, config, n_own)
    write_file(flags.output, page)

    for one in entries:
        print(
            f"{one.name:<22} macro AP {one.score[0]:.4f} [{one.score[1]:.4f}, {one.score[2]:.4f}]"
        )
    print(f"the winner: {winner.name}; wrote {flags.output}\nnext: {command}")
    return 0


def read_command_line(args: Sequence[str] | None) -> tuple[argparse.Namespace, Config]:
    """Read the script's own flags and the settings."""
    parser = FlagParser("find_best.py", (__doc__ or "").partition("\n")[0], MORE_OF_BEST)
    add = parser.add_argument
    add(
        "--neighbours",
        type=number(0, 2, int),
        default=1,
        metavar="N",
        help="settings one step from the planned ones to train, too (1)",
    )
    add("--draws", type=number(100, kind=int), default=1000, help="draws of the bootstrap (1000)")
    output = Path("how_to_predict.md")
    add("--output", type=Path, default=output, help=f"page to write ({output})")
    flags, rest = parser.parse_own(args)
    return flags, load_config(rest)


def train(candidate: Candidate) -> None:
    """Run the script of a candidate, unless all of its folds are there.

    Raises:
        UserError: the script failed; it has said why.
    """
    if is_done(candidate):
        print(f"{candidate.name}: taken from {candidate.folder}")
        return

    path = candidate.config.models_dir / "find_best" / f"{candidate.name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, yaml.safe_dump(candidate.config.to_dict(), sort_keys=False))
    print(f"{candidate.name}: python {candidate.script} --config {path}", flush=True)
    command = [sys.executable, str(HERE / candidate.script), "--config", str(path)]
    status = subprocess.run(command, check=False).returncode
    if status:
        raise UserError(f"{candidate.script} stopped with status {status}; run find_best.py again")


if __name__ == "__main__":
    run_main(main)
