"""Write a trained fold, or all folds of an experiment as one, as a file that takes waveforms and gives scores.

    python export.py models/Exp_47/fold_0 --to onnx --output birds.onnx
    python export.py models/Exp_47 --ensemble --precision int8

Log-mel, image and network are one graph. Before it is put in place, the file is run and compared
with what validation gives for the same clips. Read from the top: `draft` writes the graph of
waveform_model.py, `compare` runs it, `judge` lets it pass, `model_card` describes it; `run` does
all of that in order.
"""

import argparse
import contextlib
import importlib.metadata
import importlib.util
import json
import logging
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from configs import (
    Config,
    UserError,
    configure_logger,
    load_config,
    run_main,
    settings_where,
    versions,
)

PRECISIONS = ("float32", "float16", "int8")
BACKENDS = {"onnx": ".onnx", "openvino": ".xml"}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; --help lists the flags")


def read_command_line(args: Sequence[str] | None = None) -> tuple[argparse.Namespace, Config]:
    """Read export.py's own flags, and settings: of these, where the prepared recordings are counts."""
    parser = _Parser(
        prog="export.py",
        description=(__doc__ or "").partition("\n")[0],
        epilog="Any setting of configs.py is a flag too: --root, --train-dataframe-path and --train-np-dir say where "
        "the recordings are that the file is compared on (default: where the training had them).",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "model",
        type=Path,
        help="a fold's folder, a checkpoint, or with --ensemble an experiment's folder",
    )
    add("--to", choices=list(BACKENDS), default="onnx", help="what reads the file (default: onnx)")
    add("--output", type=Path, metavar="FILE", help="default: named after the model, beside it")
    add(
        "--precision",
        choices=PRECISIONS,
        default=PRECISIONS[0],
        help="of the encoder (default: float32)",
    )
    add(
        "--ensemble",
        action="store_true",
        help="all folds of the experiment in one graph, their mean",
    )
    add("--clips", type=int, default=256, help="validation clips compared at most (default: 256)")
    add(
        "--limit", type=float, help="largest difference of a score let pass (default: by precision)"
    )
    add("--licence", default="not stated", metavar="TEXT", help="of the model, for the model card")
    flags, rest = parser.parse_known_args(args)
    if flags.clips < 1 or (flags.limit is not None and not flags.limit >= 0):
        raise UserError("--clips must be at least 1, --limit at least 0")
    if (
        flags.to == "openvino" and flags.precision == "int8"
    ):  # its reading of such a file moved scores by up to 0.98
        raise UserError("--precision int8 is for --to onnx alone")
    return flags, load_config(rest)


if __name__ == "__main__" and {"-h", "--help"} & set(sys.argv):
    run_main(lambda: read_command_line() and None)  # it need not wait for torch

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import torch  # noqa: E402

import checkpoint as ckpt  # noqa: E402
import dataset as data  # noqa: E402
from files import write_file  # noqa: E402
from inference.exported import EXPORT_FORMAT, Session, open_exported  # noqa: E402
from inference.model_files import find_checkpoints, fold_folders  # noqa: E402
from inference.scorers import TorchModels  # noqa: E402
from inference.waveform_model import WaveformModel  # noqa: E402
from metrics import describe_scores, padded_cmap, padded_cmap_floor  # noqa: E402
from transforms import crop_or_pad  # noqa: E402

logger = logging.getLogger("birdclef.export")

OPSET = 18
# The largest difference of a score that is let pass. float32: validation's log-mel is computed in
# float64; that of the graph is up to 3e-3 dB off near the floor, which moved scores of trained
# networks by up to 4e-5. A mistake in window, padding, bank or floor moves them by 1e-2 and more.
# float16: scores moved by 2e-2. int8: cmAP counts.
LIMITS = {"float32": 5e-4, "float16": 0.05, "int8": 1.0}
MAX_CMAP_LOSS = 0.02
N_FIRST = 3  # convolutions of an encoder that stay in float32: int8 in them doubles the differences of scores
N_CALIBRATION = 64  # clips from which int8 learns the range of each activation
BATCH = 8  # clips scored at a time


# Files --------------------------------------------------------------------------------------------


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporters' warnings about themselves off the terminal."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def check_packages(backend: str) -> None:
    """Refuse to begin without the optional packages (UserError)."""
    needed = {"onnx", "onnxscript", "openvino" if backend == "openvino" else "onnxruntime"}
    if missing := sorted(name for name in needed if importlib.util.find_spec(name) is None):
        raise UserError(
            f"{', '.join(missing)} missing; python -m pip install -r requirements-export.txt"
        )


def draft(
    path: Path,
    model: WaveformModel,
    n_samples: int,
    about: dict[str, str],
    calibration: np.ndarray | None,
) -> None:
    """Write an .onnx file.

    Args:
        path: where to.
        model: the graph.
        n_samples: of a clip.
        about: metadata.
        calibration: waveforms (N, n_samples) for int8; None keeps the model's own precision.
    """
    import onnx

    with quiet():
        torch.onnx.export(
            model,
            (torch.zeros(2, n_samples),),
            path,
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            input_names=["waveform"],
            output_names=["clipwise", "framewise"],
            opset_version=OPSET,
            external_data=False,
            verbose=False,
        )
        if calibration is not None:
            quantize(path, calibration)
    program = onnx.load(path)
    onnx.helper.set_model_props(program, about)
    onnx.checker.check_model(program)
    onnx.save(program, path)


def quantize(path: Path, waveforms: np.ndarray) -> None:
    """Turn the encoders' convolutions but the first few into int8, in place; log-mel and head stay in float32."""
    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Reader(CalibrationDataReader):
        batches = iter(np.array_split(waveforms, -(-len(waveforms) // BATCH)))

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self.batches, None)
            return None if batch is None else {"waveform": batch}

    convolutions: dict[str, list[str]] = {}  # by network
    for node in onnx.load(path).graph.node:
        if node.op_type == "Conv" and ".encoder." in node.input[1]:
            convolutions.setdefault(node.input[1].partition(".encoder.")[0], []).append(node.name)
    quantize_static(
        path,
        path,
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        nodes_to_quantize=[name for names in convolutions.values() for name in names[N_FIRST:]],
    )


def convert_to_openvino(path: Path, about: dict[str, str], *, half: bool) -> Path:
    """Write what an .onnx file holds as .xml and .bin beside it; return the .xml file."""
    import openvino

    program = openvino.convert_model(path)
    for name, value in about.items():
        program.set_rt_info(value, ["birdclef", name])
    openvino.save_model(program, path.with_suffix(".xml"), compress_to_fp16=half)
    return path.with_suffix(".xml")


# Comparing ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Clips:
    """Real clips, as waveforms and as validation sees them: waveforms (N, n_samples), images, labels (N, C)."""

    waveforms: np.ndarray
    images: list[np.ndarray]
    labels: np.ndarray
    n_available: int


def read_clips(part: pd.DataFrame, n_clips: int, config: Config, class_names: list[str]) -> Clips:
    """Take up to `n_clips` rows, evenly spread, through validation's own data set."""
    chosen = np.unique(np.linspace(0, len(part) - 1, min(n_clips, len(part))).round().astype(int))
    one_each = replace(config, valid_clips=1)
    rows = data.WaveformDataset(part.iloc[chosen], one_each, "valid", class_names)
    items = [rows[index] for index in range(len(rows))]
    recordings = [np.load(rows.path(index), mmap_mode="r") for index in range(len(rows))]
    return Clips(
        waveforms=np.stack([crop_or_pad(recording, config.n_samples) for recording in recordings]),
        images=[item["image"].numpy() for item in items],
        labels=np.stack([item["targets"].numpy() >= 0.5 for item in items]).astype(np.uint8),
        n_available=len(part),
    )


@dataclass(frozen=True)
class Comparison:
    """How a file's scores differ from validation's, which are those of the checkpoints in float32."""

    n_clips: int
    n_available: int
    difference: float  # the largest of any score, silence included
    cmap: float  # padded cmAP of the file
    cmap_expected: float
    floor: float
    ms_per_clip: float
    ms_per_clip_expected: float  # the network alone, in torch

    def __str__(self) -> str:
        """Say it in one line."""
        return (
            f"{self.n_clips} of {self.n_available} validation clips and silence: largest difference of a score "
            f"{self.difference:.1e}, padded cmAP {self.cmap:.4f} (checkpoint {self.cmap_expected:.4f}, "
            f"floor {self.floor:.4f}), {self.ms_per_clip:.0f} ms a clip with its log-mel "
            f"(torch's network alone {self.ms_per_clip_expected:.0f})"
        )


def compare(scorer: Session, models: TorchModels, clips: Clips) -> Comparison:
    """Score real clips and silence with the file, and as validation does, each fold's mean."""
    silence = np.zeros(models.config.n_samples, np.float32)
    silent_image = np.broadcast_to(models.prepare(silence), clips.images[0].shape)
    waveforms, images = [*clips.waveforms, silence], [*clips.images, silent_image]
    scores, expected, difference, took = [], [], 0.0, [0.0, 0.0]
    for start in range(0, len(images), BATCH):
        began = time.perf_counter()
        clipwise, framewise = scorer(np.stack(waveforms[start : start + BATCH]))
        halfway = time.perf_counter()
        clipwise_expected, _, framewise_expected = models.score(
            images[start : start + BATCH], frames=True
        )
        took = [took[0] + halfway - began, took[1] + time.perf_counter() - halfway]
        assert framewise_expected is not None
        scores.append(clipwise)
        expected.append(clipwise_expected.mean(axis=0))
        for one, other in ((clipwise, expected[-1]), (framewise, framewise_expected.mean(axis=0))):
            gap = np.abs(one - other).max()
            difference = max(difference, float(gap) if np.isfinite(gap) else float("inf"))
    n_clips, labels = len(clips.images), clips.labels
    cmap, cmap_expected = (
        padded_cmap(labels, np.nan_to_num(np.concatenate(part))[:n_clips])
        for part in (scores, expected)
    )
    return Comparison(
        n_clips=n_clips,
        n_available=clips.n_available,
        difference=difference,
        cmap=cmap,
        cmap_expected=cmap_expected,
        floor=padded_cmap_floor(labels.sum(axis=0, dtype=np.int64), n_clips),
        ms_per_clip=1e3 * took[0] / len(images),
        ms_per_clip_expected=1e3 * took[1] / len(images),
    )


def judge(result: Comparison, precision: str, limit: float | None) -> None:
    """Refuse a file whose scores are too far off (UserError)."""
    limit = LIMITS[precision] if limit is None else limit
    if result.difference > limit:
        raise UserError(
            f"the file's scores differ by up to {result.difference:.2g} from the checkpoint's, more than {limit:g}; "
            "nothing was written"
        )
    if (loss := result.cmap_expected - result.cmap) > MAX_CMAP_LOSS:
        raise UserError(
            f"{precision} costs {loss:.4f} of padded cmAP ({result.cmap:.4f}; checkpoint {result.cmap_expected:.4f}), "
            f"more than {MAX_CMAP_LOSS:g}; nothing was written"
        )


# The record ---------------------------------------------------------------------------------------


def describe(
    states: Sequence[dict[str, Any]], models: TorchModels, flags: argparse.Namespace
) -> dict[str, str]:
    """Collect the metadata of the file: names to text, all but `format`, `precision` and `licence` in JSON."""
    folds = [{"fold": state["fold"], **state["history"][-1]} for state in states]
    everything, local = models.config.to_dict(), settings_where(is_local=True)
    settings = {name: value for name, value in everything.items() if name not in local}
    here = versions() | {"onnx": importlib.metadata.version("onnx")}
    parts = {"class_names": models.class_names, "settings": settings, "folds": folds}
    parts |= {"trained_with": states[0]["versions"], "exported_with": here}
    texts = {name: json.dumps(part, ensure_ascii=False) for name, part in parts.items()}
    return {
        "format": EXPORT_FORMAT,
        "precision": flags.precision,
        "licence": flags.licence,
        **texts,
    }


def model_card(
    path: Path, about: Mapping[str, str], table: pd.DataFrame, result: Comparison
) -> str:
    """Describe an exported file in markdown."""
    told = {
        name: json.loads(about[name])
        for name in ("class_names", "settings", "folds", "trained_with")
    }
    settings, names = told["settings"], told["class_names"]
    n_samples = round(settings["period"] * settings["sample_rate"])
    licences = (
        table["license"].value_counts()
        if "license" in table.columns
        else {"not stated": len(table)}
    )
    lines = [
        f"# {path.name}",
        "",
        f"Bird species in recordings, by {settings['base_model_name']} with a sound event detection head; "
        f"{len(told['folds'])} fold(s) of experiment {settings['exp_id']}, {about['precision']}.",
        "",
        f"- Licence: {about['licence']}",
        f"- Input `waveform`: (batch, {n_samples}) float32, {settings['period']:g} s at {settings['sample_rate']} Hz, "
        "any level. Repeat a shorter recording whole times, then pad it with zeros.",
        f"- Output `clipwise`: (batch, {len(names)}) probabilities; `framewise`: (batch, frames, {len(names)}), "
        f"a frame each {1e3 * settings['hop_length'] / settings['sample_rate']:g} ms.",
        "- Metadata of the file: class names, settings, folds and versions.",
        "",
        "## Scores",
        "",
        "Each fold on its own validation part. A random scorer reaches the floor: padding flatters.",
        "",
        *(
            f"- fold {row['fold']}, epoch {row['epoch']:g}: {describe_scores(row)}"
            for row in told["folds"]
        ),
        "",
        f"This file against the checkpoint, on {result}."
        + (
            " One fold held each of these clips back; the others were trained on it."
            if len(told["folds"]) > 1
            else ""
        ),
        "",
        "## Data",
        "",
        f"{len(table)} recordings of {table['primary_label'].nunique()} species, {settings['n_folds']} folds. "
        "Their licences:",
        "",
        *(f"- {licence or 'not stated'}: {count}" for licence, count in licences.items()),
    ]
    sections = {
        "Classes": dict(enumerate(names)),
        "Settings": settings,
        "Versions": told["trained_with"],
    }
    for title, rows in sections.items():
        lines += ["", f"## {title}", "", *(f"- {name}: `{value}`" for name, value in rows.items())]
    return "\n".join(lines) + "\n"


# Running ------------------------------------------------------------------------------------------


def choose_checkpoints(path: Path, *, ensemble: bool) -> list[Path]:
    """Find the newest sound best checkpoint of the fold, or with `ensemble` of each fold (UserError)."""
    paths = find_checkpoints(path)
    if ensemble and not (path.is_dir() and fold_folders(path)):
        raise UserError(
            f"--ensemble wants the folder of an experiment, models/Exp_47 say; {path} is not one"
        )
    if len(paths) > 1 and not ensemble:
        raise UserError(
            f"{path} has {len(paths)} folds; name one of them, or put all into one file with --ensemble"
        )
    return paths


def place_output(flags: argparse.Namespace, first: Path, state: Mapping[str, Any]) -> Path:
    """Settle the file's name."""
    suffix = BACKENDS[flags.to]
    name = f"Exp_{state['config']['exp_id']}" + ("" if flags.ensemble else f"_fold_{state['fold']}")
    name += "" if flags.precision == "float32" else f"_{flags.precision}"
    output = flags.output or (flags.model if flags.ensemble else first.parent) / f"{name}{suffix}"
    if output.suffix != suffix or output.is_dir():
        raise UserError(
            f"--output {output}: a file name that ends in {suffix} is wanted for --to {flags.to}"
        )
    if not output.parent.is_dir():
        raise UserError(f"--output {output}: there is no folder {output.parent}")
    return output


def read_parts(
    models: TorchModels, fold: int, given: Config
) -> tuple[pd.DataFrame, pd.DataFrame, Config]:
    """Read the training and the validation part of the fold, and the settings by which their recordings are read."""
    places = {name: getattr(given, name) for name in ("train_dataframe_path", "train_np_dir")}
    config = replace(
        models.config,
        **{name: path for name, path in places.items() if path != getattr(Config(), name)},
    )
    if not config.train_dataframe_path.is_file():
        raise UserError(
            f"{config.train_dataframe_path}: no such file, and the exported file has to be compared on real clips; "
            "say where they are with --root, or --train-dataframe-path and --train-np-dir"
        )
    table = data.check_table(
        data.read_train_table(config.train_dataframe_path), str(config.train_dataframe_path)
    )
    return *data.split_fold(table, fold, config.rare_birds), config


def run(flags: argparse.Namespace, given: Config) -> tuple[Path, Comparison]:
    """Export, compare, put in place and describe.

    Raises:
        UserError: no checkpoint, folds that do not go together, missing packages or recordings, or
            scores too far off.
    """
    check_packages(flags.to)
    paths = choose_checkpoints(flags.model, ensemble=flags.ensemble)
    models = TorchModels(paths, replace(given, device="cpu", amp=False))
    states = [ckpt.read_checkpoint(path) for path in paths]
    if not all(state["history"] for state in states):
        raise UserError(f"{paths[0]}: holds no complete epoch")
    output = place_output(flags, paths[0], states[0])
    parts = [read_parts(models, state["fold"], given) for state in states]
    (train_part, valid_part, config), held_back = parts[0], pd.concat([part[1] for part in parts])
    clips = read_clips(held_back, flags.clips, config, models.class_names)
    about = describe(states, models, flags)
    half, calibration = flags.precision == "float16", None
    if flags.precision == "int8":
        calibration = read_clips(train_part, N_CALIBRATION, config, models.class_names).waveforms
    with tempfile.TemporaryDirectory(prefix="export_") as folder:
        path = Path(folder) / output.with_suffix(".onnx").name
        graph = WaveformModel(models.models, config, half=half and flags.to == "onnx")
        draft(path, graph, config.n_samples, about, calibration)
        if flags.to == "openvino":
            path = convert_to_openvino(path, about, half=half)
        result = compare(open_exported(path)[0], models, clips)
        judge(result, flags.precision, flags.limit)
        if flags.to == "openvino":
            write_file(output.with_suffix(".bin"), path.with_suffix(".bin").read_bytes())
        write_file(output, path.read_bytes())
    card = model_card(output, about, pd.concat([train_part, valid_part]), result)
    write_file(output.with_name(f"{output.name}.md"), card)
    return output, result


def main() -> int:
    """Export what the command line names and say how well the file agrees."""
    flags, config = read_command_line()
    configure_logger(config)
    output, result = run(flags, config)
    print(f"compared on {result}")
    print(
        f"wrote {output} ({output.stat().st_size / 1e6:.1f} MB) and its model card {output.name}.md"
    )
    print(f"next: python predict.py {output} data/test_soundscapes --output submission.csv")
    return 0


if __name__ == "__main__":
    run_main(main)
