"""The graph of a waveform model as an .onnx or OpenVINO file."""

import contextlib
import importlib.util
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from configs import UserError
from inference.waveform_model import WaveformModel

OPSET = 18
N_FIRST = 3  # convolutions of an encoder kept in float32; in int8 they double the differences
BATCH = 8  # clips at a time
NEEDED = {
    "onnx": ("onnx", "onnxruntime", "onnxscript"),
    "openvino": ("onnx", "onnxscript", "openvino"),
    "tflite": ("ai_edge_litert", "litert_converter", "litert_torch"),
}
REQUIREMENTS_OF = {"tflite": "--no-deps -r requirements-tflite.txt"}  # of others: for export


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
    missing = [name for name in NEEDED[backend] if importlib.util.find_spec(name) is None]
    if missing:
        install = REQUIREMENTS_OF.get(backend, "-r requirements-export.txt")
        raise UserError(f"{', '.join(missing)} missing; python -m pip install {install}")


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
    """Turn an encoder's convolutions into int8, in place; its first few, log-mel and head are not.

    Args:
        path: the .onnx file.
        waveforms: clips (N, n_samples), from which the range of each activation is learned.
    """
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
            network = node.input[1].partition(".encoder.")[0]
            convolutions.setdefault(network, []).append(node.name)

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
