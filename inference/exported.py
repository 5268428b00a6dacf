"""Files of export.py, opened with onnxruntime, OpenVINO or ai-edge-litert."""

import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from configs import available_cpus
from network.tflite_file import open_interpreter, read_text

EXPORT_FORMAT = "birdclef waveform 1"  # of the files' inputs, outputs and metadata
ABOUT_FILE = "birdclef.json"  # in a .tflite file: its metadata
LABELS_FILE = "labels.txt"  # and its classes, one a line
INSTALL_TO_RUN = {
    ".onnx": "python -m pip install -r requirements-export.txt",
    ".xml": "python -m pip install -r requirements-export.txt",
    ".tflite": "python -m pip install ai-edge-litert",
}

Session = Callable[[np.ndarray], Sequence[np.ndarray]]  # waveforms to clipwise and framewise scores


def open_exported(path: Path, n_threads: int = 1) -> tuple[Session, dict[str, str]]:
    """Open an exported file with the library it is for.

    Args:
        path: .onnx, .xml or .tflite.
        n_threads: how many threads will score at once; they share the cores.

    Returns:
        What scores waveforms, for any number of threads, and the file's metadata.
    """
    openers = {".xml": _open_openvino, ".tflite": _open_tflite}
    return openers.get(path.suffix, _open_onnx)(path, n_threads)


def is_exported(path: Path) -> bool:
    """Say whether it is a file of a kind that export.py writes."""
    return path.suffix in INSTALL_TO_RUN and path.is_file()


def _open_onnx(path: Path, n_threads: int) -> tuple[Session, dict[str, str]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = max(1, available_cpus() // n_threads)
    if n_threads > 1:  # others have work for the core
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")

    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    about = session.get_modelmeta().custom_metadata_map
    return lambda waveforms: session.run(["clipwise", "framewise"], {"waveform": waveforms}), about


def _open_openvino(path: Path, n_threads: int) -> tuple[Session, dict[str, str]]:
    import openvino

    core = openvino.Core()
    program = core.read_model(path)
    about = {}
    if program.has_rt_info(["birdclef"]):
        names = program.get_rt_info(["birdclef"]).value
        about = {name: program.get_rt_info(["birdclef", name]).value for name in names}

    # Left to itself, OpenVINO computes in bfloat16 where the processor can, which moves scores by
    # up to 0.2.
    how = {
        "INFERENCE_PRECISION_HINT": "f32",
        "NUM_STREAMS": n_threads,
        "INFERENCE_NUM_THREADS": available_cpus(),
    }
    compiled, here = core.compile_model(program, "CPU", how), threading.local()

    def score(waveforms: np.ndarray) -> Sequence[np.ndarray]:
        if not hasattr(here, "request"):
            here.request = compiled.create_infer_request()
        return [np.array(part) for part in here.request.infer({0: waveforms}).values()]

    return score, about


def _open_tflite(path: Path, n_threads: int) -> tuple[Session, dict[str, str]]:
    n_cores, here = max(1, available_cpus() // n_threads), threading.local()
    open_interpreter(path)  # a file that cannot be read is found here
    about = json.loads(read_text(path, ABOUT_FILE) or "{}")

    def score(waveforms: np.ndarray) -> Sequence[np.ndarray]:
        if not hasattr(here, "run"):  # an interpreter is for one thread, and for one clip
            here.run = open_interpreter(path, n_cores).get_signature_runner()
        answers = [here.run(waveform=waveform[None]) for waveform in waveforms]
        return [
            np.concatenate([one[name] for one in answers]) for name in ("clipwise", "framewise")
        ]

    return score, about
