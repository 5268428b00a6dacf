r"""Label soundscapes, train on the labels, score what came of it: rounds in one command.

    python examples/self_training.py data/soundscapes --models models/Exp_47 --output rounds \
        --held-back field/audio --labels field/labels -- --config recipes/soundscapes.yaml

Each round labels with the models of the round before (pseudo_label.py), trains new ones on labelled
and pseudo-labelled clips (train.py, or probe.py in minutes), and scores them on a part that no
pseudo-label touches: recordings with labels and times, or without these what the folds hold back.
When the score falls, the rounds end. Flags behind `--` go to every training. The same command goes
on where it was stopped.
"""

import argparse
import io
import json
import math
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402

from catalog.pseudo_labels import read_rows  # noqa: E402
from configs import Config, UserError, load_config, run_main  # noqa: E402
from files import write_file  # noqa: E402
from inference.bootstrap import draw_weights, interval, macro, score_classes  # noqa: E402
from inference.out_of_fold import OutOfFold, read_out_of_fold  # noqa: E402
from inference.predicted import read_predicted  # noqa: E402
from inference.round_page import RoundScore, render  # noqa: E402
from inference.timed_truth import meet  # noqa: E402

N_BOOTSTRAP = 1000  # of the bootstrap
FOLDERS = {"train": "Exp_{}", "probe": "Exp_{}_probe"}  # where a student's models lie


def main(args: Sequence[str] | None = None) -> int:
    """Run the rounds that are not done yet and print what each reached."""
    flags, rest = read_flags(args)
    scores = [score_round(flags, rest, 0, flags.models, None)]
    for number in range(1, flags.rounds + 1):
        say(scores[-1])
        models = run_round(flags, rest, number, scores[-1])
        scores.append(score_round(flags, rest, number, [models], scores[-1]))
        write_page(flags, number, scores)
        if scores[-1].macro_ap < scores[-2].macro_ap:
            say(scores[-1])
            print(f"round {number} fell below the one before: use {scores[-2].models}")
            return 0

    say(scores[-1])
    print(f"next: python predict.py {scores[-1].models} RECORDINGS --output FILE")
    return 0


def read_flags(args: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """Read the command line; what stands behind `--` goes to train.py or probe.py."""
    words = list(sys.argv[1:] if args is None else args)
    place = words.index("--") if "--" in words else len(words)
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("soundscapes", type=Path, help="folder of unlabelled recordings")
    add("--models", type=Path, nargs="+", required=True, help="what labels in the first round")
    add("--output", type=Path, required=True, help="folder for labels, models and pages")
    add("--rounds", type=int, default=2, help="most rounds (default: 2)")
    add("--student", choices=FOLDERS, default="train", help="what is trained (default: train)")
    add("--students", type=Path, nargs="+", default=[], metavar="FILE.yaml",
        help="settings of the students, in turn: two kinds of network can alternate")  # fmt: skip
    add("--held-back", type=Path, help="folder of recordings to score on")
    add("--labels", type=Path, help="their labels with times, as evaluate.py reads them")
    add("--label-flags", default="", help="more flags of pseudo_label.py, in one text")
    flags = parser.parse_args(words[:place])
    if flags.students and any(word.partition("=")[0] == "--config" for word in words[place:]):
        raise UserError(
            "--students gives each round its file of settings, and --config behind -- another; "
            "leave out one of them, and give what all students share as flags behind --"
        )
    if (flags.held_back is None) != (flags.labels is None):
        raise UserError("--held-back and --labels go together: recordings, and what is in them")
    return flags, words[place + 1 :]


def run_stage(script: str, args: Sequence[str]) -> None:
    """Run a script in a process of its own; each goes on where it was stopped.

    Raises:
        UserError: it failed; its own message stands above.
    """
    if subprocess.run([sys.executable, str(ROOT / script), *args], check=False).returncode:
        raise UserError(f"{script} failed; start the same command again when that is mended")


# A round ------------------------------------------------------------------------------------------


def run_round(flags: argparse.Namespace, rest: list[str], number: int, before: RoundScore) -> Path:
    """Label and train; return the folder of the models."""
    settings = list(rest)
    if flags.students:
        settings += ["--config", str(flags.students[(number - 1) % len(flags.students)])]
    exp_id = load_config(rest).exp_id + number  # a kind's own number would meet another round's
    models_dir = (flags.output / "models").resolve()  # of all rounds: they share frozen features
    own = [*settings, "--models-dir", str(models_dir), "--exp-id", str(exp_id)]
    config = load_config(own)
    models = models_dir / FOLDERS[flags.student].format(exp_id)
    if score_path(flags, number).is_file():
        return models

    table = flags.output / f"round_{number}.csv"
    apart = ["--apart", str(flags.held_back)] if flags.held_back else []
    words = [str(flags.soundscapes), "--models", *before.models.split("\n"), *apart]
    words += ["--output", str(table), *flags.label_flags.split(), *settings_of(config)]
    run_stage("pseudo_label.py", words)
    run_stage(f"{flags.student}.py", [*own, "--pseudo-labels", str(table.resolve())])
    return models


def settings_of(config: Config) -> list[str]:
    """Write the settings that pseudo_label.py shares with the training as flags."""
    names = ("sample_rate", "fmax", "audio_dtype", "train_dataframe_path", "train_np_dir")
    found = [["--" + name.replace("_", "-"), str(getattr(config, name))] for name in names]
    run = [["--device", config.device], ["--num-workers", str(config.num_workers)]]
    return [word for pair in found + run for word in pair]


# Its score ----------------------------------------------------------------------------------------


def score_path(flags: argparse.Namespace, number: int) -> Path:
    """Name the file of a round's score; a round that has it is done."""
    return flags.output / f"round_{number}_score.json"


def score_round(
    flags: argparse.Namespace,
    rest: list[str],
    number: int,
    models: Sequence[Path],
    before: RoundScore | None,
) -> RoundScore:
    """Score a round's models on the held-back part, with intervals over its recordings."""
    path = score_path(flags, number)
    if path.is_file():
        return RoundScore(**json.loads(path.read_text(encoding="utf-8")))

    draws_path = flags.output / "held_back_draws.npz"
    found = held_back_scores(flags, rest, number, models)
    plain, drawn = macro_ap(found)
    low, high = interval(drawn)
    score = RoundScore(
        number, "\n".join(map(str, models)), plain, float(low), float(high)
    )  # fmt: skip
    if before is not None:
        earlier = earlier_draws(draws_path, number - 1, found)
        gain_low, gain_high = interval(drawn - earlier)
        gain = plain - before.macro_ap
        score = RoundScore(**{**asdict(score), "gain": gain, "gain_low": float(gain_low),
                              "gain_high": float(gain_high)})  # fmt: skip
    keep_draws(draws_path, number, drawn, found)
    write_file(path, json.dumps(asdict(score), indent=1) + "\n")
    return score


def keep_draws(path: Path, number: int, drawn: np.ndarray, found: OutOfFold) -> None:
    """Add a round's draws (n_draws,) to the file from which the next one takes its difference."""
    arrays = dict(np.load(path)) if path.is_file() else {}
    arrays |= {f"round_{number}": drawn, "filenames": found.filenames.astype(str)}
    content = io.BytesIO()
    np.savez(content, **arrays)
    write_file(path, content.getvalue())


def earlier_draws(path: Path, number: int, found: OutOfFold) -> np.ndarray:
    """Read the draws of a round (n_draws,).

    Raises:
        UserError: other recordings were scored then.
    """
    with np.load(path) as stored:
        if not np.array_equal(stored["filenames"], found.filenames.astype(str)):
            raise UserError(
                f"round {number} was scored on other recordings; give the folds of its models "
                "(--folds), or recordings of your own (--held-back and --labels)"
            )
        return stored[f"round_{number}"]


def macro_ap(found: OutOfFold) -> tuple[float, np.ndarray]:
    """Macro average precision of the species that occur, and in each draw of recordings."""
    recordings = pd.factorize(found.filenames)[0]
    weights = draw_weights(recordings, N_BOOTSTRAP, Config().seed)
    ones = np.ones((1, len(found.scores)), np.uint16)
    plain = macro(score_classes(found.labels, found.scores, ones).average_precision)
    drawn = macro(score_classes(found.labels, found.scores, weights).average_precision)
    if math.isnan(plain[0]):
        raise UserError("no species of the model occurs in the held-back part")
    return float(plain[0]), drawn


def held_back_scores(
    flags: argparse.Namespace, rest: list[str], number: int, models: Sequence[Path]
) -> OutOfFold:
    """Score the held-back recordings, averaged over models, or read what the folds held back."""
    if flags.held_back is None:
        return read_out_of_fold(models[0])

    config = load_config(rest)
    found = []
    for place, model in enumerate(models):
        output = flags.output / f"round_{number}_held_back_{place}.csv"
        words = [str(model), str(flags.held_back), "--output", str(output), "--format", "long"]
        run = ["--device", config.device, "--num-workers", str(config.num_workers)]
        run_stage("predict.py", words + run)
        found.append(meet(read_predicted(output), flags.labels, {}, config.label_overlap))
    scores = np.mean([one.scores for one in found], axis=0, dtype=np.float64)
    return OutOfFold(**{**vars(found[0]), "scores": scores.astype(np.float32)})


# What is said -------------------------------------------------------------------------------------


def write_page(flags: argparse.Namespace, number: int, scores: Sequence[RoundScore]) -> None:
    """Write the page of a round."""
    table = flags.output / f"round_{number}.csv"
    before = flags.output / f"round_{number - 1}.csv"
    about = json.loads(table.with_suffix(".json").read_text(encoding="utf-8"))
    earlier = read_rows(before) if before.is_file() else None
    page = render(read_rows(table), earlier, scores, about["models"])
    write_file(table.with_suffix(".html"), page)
    print(f"wrote {table.with_suffix('.html')}")


def say(score: RoundScore) -> None:
    """Print a round's score."""
    line = (
        f"round {score.number}: macro AP {score.macro_ap:.4f} [{score.low:.4f}, {score.high:.4f}]"
    )
    if not math.isnan(score.gain):
        line += f", {score.gain:+.4f} [{score.gain_low:+.4f}, {score.gain_high:+.4f}]"
    print(line, flush=True)


if __name__ == "__main__":
    run_main(main)
