"""Write a trained fold, or all folds as one, as a file that takes waveforms and gives scores.

    python export.py models/Exp_47/fold_0 --to onnx --output birds.onnx
    python export.py models/Exp_47 --ensemble --precision int8

Log-mel, image and network are one graph. `export` opens the checkpoints, writes the graph, runs the
file on real clips beside the checkpoints, and puts it in place with a model card if both agree.
"""

import argparse
import logging
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from configs import Config, UserError, configure_logger, load_config, run_main
from files import find_experiment, write_file
from inference.flags import FlagParser, number

PRECISIONS = ("float32", "float16", "int8")
BACKENDS = {"onnx": ".onnx", "openvino": ".xml", "tflite": ".tflite"}
HUB = "hub"  # a folder to share: weights, settings and a card

WHAT_IT_DOES = "Write a trained fold, or all folds as one, as a file that needs no PyTorch."
MORE = """The file is compared on validation clips before it is kept. Settings of
configs.py are flags too; --root, --train-dataframe-path and --train-np-dir say
where the recordings are (default: where they were in training).

examples:
  python export.py models/Exp_47/fold_0 --to onnx --output birds.onnx
  python export.py models/Exp_47 --ensemble --precision int8
  python export.py models/blend.yaml --to openvino
  python export.py models/Exp_47/fold_0 --to tflite
  python export.py models/Exp_47 --ensemble --to hub --output shared/birds
"""


def read_command_line(args: Sequence[str] | None = None) -> tuple[argparse.Namespace, Config]:
    """Read export.py's own flags, and the settings that say where the recordings are.

    Raises:
        UserError: a flag that does not exist, or values that do not go together.
    """
    parser = FlagParser("export.py MODEL", WHAT_IT_DOES, MORE)
    add = parser.add_argument_group("what to export").add_argument
    add(
        "model",
        metavar="MODEL",
        type=find_experiment,
        help="a fold's folder, a checkpoint, blend.yaml of compare.py for all its networks in "
        "one file, or with --ensemble an experiment's folder",
    )
    add(
        "--ensemble",
        action="store_true",
        help="put all folds of the experiment into one file, which gives their mean",
    )

    add = parser.add_argument_group("the file").add_argument
    add(
        "--to",
        choices=[*BACKENDS, HUB],
        default="onnx",
        help="its format (default: onnx); hub: a folder of weights, settings and a card",
    )
    add(
        "--output",
        type=Path,
        metavar="FILE",
        help="where to write it (default: beside the model, named after it)",
    )
    add(
        "--precision",
        choices=PRECISIONS,
        default=PRECISIONS[0],
        help="numbers of the encoder (default: float32)",
    )
    add("--licence", default="not stated", metavar="TEXT", help="licence for the model card")

    add = parser.add_argument_group("comparison with the checkpoint").add_argument
    add(
        "--clips",
        type=number(1, kind=int),
        default=256,
        metavar="N",
        help="compare at most N validation clips (default: 256)",
    )
    add(
        "--limit",
        type=number(0),
        metavar="DIFFERENCE",
        help="largest difference of a score that passes (default: by precision)",
    )
    flags, rest = parser.parse_own(args)
    check_together(flags)
    return flags, load_config(rest)


def check_together(flags: argparse.Namespace) -> None:
    """Refuse flags that do not go together (UserError)."""
    if flags.to == "openvino" and flags.precision == "int8":
        # OpenVINO's reading of such a file moved scores by up to 0.98.
        raise UserError("--precision int8 works with --to onnx only")
    if flags.to == "tflite" and flags.precision != PRECISIONS[0]:
        raise UserError("--to tflite writes float32 alone; leave out --precision")
    if flags.to == HUB and is_blend(flags.model):
        raise UserError(f"--to hub takes one experiment, and {flags.model} is a blend of several")
    if flags.to == HUB and flags.precision != PRECISIONS[0]:
        raise UserError("--to hub writes float32 weights; leave out --precision")


def is_blend(path: Path) -> bool:
    """Say whether it is a file that compare.py --blend wrote, by its suffix."""
    return path.suffix in (".yaml", ".yml")


if __name__ == "__main__" and {"-h", "--help"} & set(sys.argv):
    run_main(lambda: read_command_line() and None)  # help need not wait for torch

import numpy as np
import pandas as pd

import checkpoint as ckpt
from catalog.annotated import expand_windows
from catalog.train_table import check_table, read_train_table, split_fold
from inference.comparison import Comparison, compare, judge, read_clips
from inference.exported import open_exported
from inference.graph_file import check_packages, convert_to_openvino, draft
from inference.hub import HUB_WEIGHTS
from inference.hub_card import write_hub
from inference.model_card import describe, model_card
from inference.model_files import find_checkpoints, fold_folders
from inference.scorers import TorchModels, find_weighted
from inference.tflite_graph import write_tflite
from inference.waveform_model import WaveformModel

logger = logging.getLogger("birdclef.export")

N_CALIBRATION = 64  # clips from which int8 learns the range of each activation


def main() -> int:
    """Export what the command line names and say how well the file agrees."""
    flags, config = read_command_line()
    configure_logger(config)
    if flags.to == HUB:
        output = export_hub(flags, config)
        print(f"wrote {output}: {', '.join(sorted(path.name for path in output.iterdir()))}")
        print(f"next: python predict.py {output} data/test_soundscapes --output submission.csv")
        return 0

    output, result = export(flags, config)

    size_mb = output.stat().st_size / 1e6
    print(f"compared on {result}")
    print(f"wrote {output} ({size_mb:.1f} MB) and its model card {output.name}.md")
    print(f"next: python predict.py {output} data/test_soundscapes --output submission.csv")
    return 0


def export_hub(flags: argparse.Namespace, given: Config) -> Path:
    """Write a folder to share, and read it again: its scores are those of the checkpoints.

    Raises:
        UserError: no checkpoint, folds that do not go together, missing recordings, or a folder
            whose scores are others.
    """
    paths = choose_checkpoints(flags.model, ensemble=flags.ensemble)
    given = replace(given, device="cpu", amp=False)
    models, states = open_states(paths, given)
    parts = [read_parts(models, state["fold"], given) for state in states]
    table = pd.concat([parts[0][0], parts[0][1]])

    home = flags.model if flags.model.is_dir() else flags.model.parent
    output: Path = flags.output or home / HUB
    write_hub(output, states, models, table, flags.licence)
    shared = TorchModels([output / HUB_WEIGHTS], given)
    noise = np.random.default_rng(0).standard_normal(models.config.n_samples).astype(np.float32)
    own, again = (one.score([one.prepare(noise)], frames=False)[0] for one in (models, shared))
    if not np.array_equal(own, again):
        raise UserError(f"{output}: its scores differ from those of {paths[0]}")
    return output


def open_states(
    paths: Sequence[Path], given: Config, weights: tuple[float, ...] | None = None
) -> tuple[TorchModels, list[dict[str, Any]]]:
    """Open checkpoints as models and as states (UserError: one without a complete epoch)."""
    states = [ckpt.read_checkpoint(path) for path in paths]
    if not all(state["history"] for state in states):
        raise UserError(f"{paths[0]}: holds no complete epoch")
    return TorchModels(paths, given, weights), states


def export(flags: argparse.Namespace, given: Config) -> tuple[Path, Comparison]:
    """Export, compare, put in place and describe.

    Raises:
        UserError: no checkpoint, folds that do not go together, missing packages or recordings, or
            scores too far off.
    """
    check_packages(flags.to)
    paths, weights = choose_weighted(flags.model, ensemble=flags.ensemble)
    models, states = open_states(paths, replace(given, device="cpu", amp=False), weights)
    output = place_output(flags, paths[0], states[0])

    folds = {state["fold"] for state in states}  # experiments of a blend have the same ones
    parts = [read_parts(models, fold, given) for fold in sorted(folds)]
    train_part, valid_part, config = parts[0]
    held_back = expand_windows(pd.concat([part[1] for part in parts]), config)
    clips = read_clips(held_back, flags.clips, config, models.class_names)
    calibration = None
    if flags.precision == "int8":
        heard = expand_windows(train_part, config)
        calibration = read_clips(heard, N_CALIBRATION, config, models.class_names).waveforms

    about = describe(states, models, flags.precision, flags.licence)
    with tempfile.TemporaryDirectory(prefix="export_") as folder:
        path = write_graph(Path(folder) / output.stem, flags, models, about, calibration)
        result = compare(open_exported(path)[0], models, clips)
        judge(result, flags.precision, flags.limit)

        if flags.to == "openvino":
            write_file(output.with_suffix(".bin"), path.with_suffix(".bin").read_bytes())
        write_file(output, path.read_bytes())

    card = model_card(output, about, pd.concat([train_part, valid_part]), result)
    write_file(output.with_name(f"{output.name}.md"), card)
    return output, result


def write_graph(
    stem: Path,
    flags: argparse.Namespace,
    models: TorchModels,
    about: dict[str, str],
    calibration: Any,
) -> Path:
    """Write the graph of the models under a stem with the suffix it takes; return its path."""
    half = flags.precision == "float16"
    graph = WaveformModel(
        models.models,
        models.config,
        half=half and flags.to == "onnx",
        weights=models.weights,
    )
    if flags.to == "tflite":
        path = stem.with_name(f"{stem.name}.tflite")
        write_tflite(path, graph, models.config.n_samples, about)
        return path

    path = stem.with_name(f"{stem.name}.onnx")
    draft(path, graph, models.config.n_samples, about, calibration)
    if flags.to == "openvino":
        path = convert_to_openvino(path, about, half=half)
    return path


def choose_weighted(path: Path, *, ensemble: bool) -> tuple[list[Path], tuple[float, ...] | None]:
    """Find the checkpoints as `choose_checkpoints`, or all of a blend with their weights."""
    if is_blend(path):
        return find_weighted(path)
    return choose_checkpoints(path, ensemble=ensemble), None


def choose_checkpoints(path: Path, *, ensemble: bool) -> list[Path]:
    """Find the newest sound best checkpoint of the fold, or with `ensemble` of each (UserError)."""
    paths = find_checkpoints(path)
    if ensemble and not (path.is_dir() and fold_folders(path)):
        raise UserError(
            f"--ensemble wants the folder of an experiment, models/Exp_47 say; {path} is not one"
        )
    if len(paths) > 1 and not ensemble:
        raise UserError(
            f"{path} has {len(paths)} folds; name one of them, or put all into one file with "
            "--ensemble"
        )
    return paths


def place_output(flags: argparse.Namespace, first: Path, state: Mapping[str, Any]) -> Path:
    """Settle the file's name (UserError: one that cannot be written)."""
    suffix = BACKENDS[flags.to]
    is_one = not (flags.ensemble or is_blend(flags.model))
    name = flags.model.stem if is_blend(flags.model) else f"Exp_{state['config']['exp_id']}"
    if is_one:
        name += "_refit" if state["config"].get("refit") else f"_fold_{state['fold']}"
    if flags.precision != "float32":
        name += f"_{flags.precision}"

    folder = flags.model if flags.ensemble else first.parent
    if is_blend(flags.model):
        folder = flags.model.parent
    output: Path = flags.output or folder / f"{name}{suffix}"
    if output.suffix != suffix or output.is_dir():
        raise UserError(
            f"--output {output}: --to {flags.to} needs a file name that ends in {suffix}"
        )
    if not output.parent.is_dir():
        raise UserError(f"--output {output}: there is no folder {output.parent}")
    return output


def read_parts(
    models: TorchModels, fold: int, given: Config
) -> tuple[pd.DataFrame, pd.DataFrame, Config]:
    """Read the training and the validation part of a fold, and the settings to read their audio."""
    default = Config()
    places = {}
    for name in ("train_dataframe_path", "train_np_dir"):
        if getattr(given, name) != getattr(default, name):
            places[name] = getattr(given, name)
    config = replace(models.config, **places)

    path = config.train_dataframe_path
    if not path.is_file():
        raise UserError(
            f"{path}: no such file, and the exported file has to be compared on real clips; say "
            "where they are with --root, or --train-dataframe-path and --train-np-dir"
        )
    table = check_table(read_train_table(path), str(path))
    return *split_fold(table, fold, config.rare_birds), config


if __name__ == "__main__":
    run_main(main)
