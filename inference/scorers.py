"""Models that score clips: checkpoints of one or more folds, or a file of export.py.

Torch is imported only where it is needed, so that an exported file runs without it.
"""

import json
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from audio.recording import as_stored
from configs import Config, UserError, available_cpus, settings_where
from inference.partial import identity
from transforms import crop_or_pad, mono_to_color

logger = logging.getLogger("birdclef.scorers")

# Clips that a core scores at a time: with more, what the layers hand on no longer fits its cache.
# EfficientNet-B0 took 14 ms a clip with 4 on each of two cores, and 28 with 32 on both together.
CPU_BATCH = 4

EXPORT_FORMAT = "birdclef waveform 1"  # what inputs, outputs and metadata of export.py's files are

Session = Callable[[np.ndarray], Sequence[np.ndarray]]  # waveforms to clipwise and framewise scores


class TorchModels:
    """Checkpoints of train.py, all of which score each clip just as validation would.

    Args:
        paths: of the checkpoints.
        given: settings of the command line: where it runs is taken from them, all else from the
            checkpoints.

    Attributes:
        batch_size: clips for a call of `score`.
        n_threads: how many threads should call it at once, each after `enter_thread`.

    Raises:
        UserError: a damaged checkpoint, or ones that differ in classes or audio settings.
    """

    def __init__(self, paths: Sequence[Path], given: Config) -> None:
        import torch

        import checkpoint as ckpt
        from images.recipe import clip_image
        from model import build_model, pick_amp_dtype, pick_device

        self.device = pick_device(given.device)
        self.models: list[torch.nn.Module] = []
        for path in paths:
            state = ckpt.read_checkpoint(path)
            config = merge_settings(state["config"], given, path)
            if not self.models:
                self.config, self.class_names = config, list(state["class_names"])
                self._memory_format = (
                    torch.channels_last if config.channels_last else torch.contiguous_format
                )
            check_agreement(
                path, config, state["class_names"], paths[0], self.config, self.class_names
            )
            model = build_model(config, len(self.class_names), load_weights=False)
            weights = (
                state["ema"] if state.get("ema") is not None else state["model"]
            )  # what validation scored
            ckpt.load_checkpoint(
                model, None, {**state, "model": weights}, restore_random_state=False
            )
            self.models.append(model.to(self.device).to(memory_format=self._memory_format).eval())
        self.amp_dtype = pick_amp_dtype(self.config, self.device)
        self.identity = [*(f"{path} {identity(path)}" for path in paths), str(self.amp_dtype)]
        self.batch_size, self.n_threads = share_out(self.config, on_cpu=self.device.type == "cpu")
        self._torch_threads = max(1, torch.get_num_threads() // self.n_threads)
        self._clip_image = clip_image

    def enter_thread(self) -> None:
        """Make ready a thread that will call `prepare` or `score`: the cores are shared out, not fought over."""
        import torch

        torch.set_num_threads(self._torch_threads)  # of this thread alone

    def prepare(self, clip: np.ndarray) -> np.ndarray:
        """Make a clip (n,) float32, n from 1 to n_samples, an image (n_frames, n_mels), one of three equal channels."""
        return mono_to_color(
            self._clip_image(as_stored(clip, self.config.audio_dtype), self.config).T
        )[0]

    def score(
        self, images: Sequence[np.ndarray], *, frames: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Score a batch.

        Args:
            images: B of what `prepare` returns.
            frames: whether framewise scores are wanted.

        Returns:
            Clipwise scores and frame maxima, (models, B, C) float32; framewise scores (models, B,
            n_frames, C) or None.

        Raises:
            UserError: scores that are not finite.
        """
        import torch

        one_channel = torch.from_numpy(np.stack(images))[:, None].to(
            self.device
        )  # (B, 1, n_frames, n_mels)
        batch = one_channel.expand(-1, 3, -1, -1).contiguous(memory_format=self._memory_format)
        answers = []
        for model in self.models:
            with (
                torch.inference_mode(),
                torch.autocast(
                    self.device.type, dtype=self.amp_dtype, enabled=self.amp_dtype is not None
                ),
            ):
                output = model(batch)
            framewise = output["framewise_output"]  # (B, n_frames, C)
            parts = [
                output["clipwise_output"],
                framewise.amax(dim=1),
                *([framewise] if frames else []),
            ]
            answers.append([part.cpu().numpy() for part in parts])
        clipwise, frame_max, *framewise = (np.stack(parts) for parts in zip(*answers, strict=True))
        if not np.isfinite(clipwise).all():
            raise UserError("scores are not finite; try --no-amp")
        return clipwise, frame_max, framewise[0] if frames else None


class ExportedModel:
    """A file of export.py, run by onnxruntime or OpenVINO; torch is not imported.

    Log-mel and the mean over folds are inside the file, so what `prepare` makes are waveforms.

    Args:
        path: .onnx, or .xml with its .bin beside it.
        given: settings of the command line: where it runs is taken from them, all else from the
            file.

    Raises:
        UserError: not a file of export.py, another device than the CPU, or the library that runs it
            is not installed.
    """

    def __init__(self, path: Path, given: Config) -> None:
        if given.device not in ("auto", "cpu"):
            raise UserError(
                f"--device {given.device}: exported files are run on the CPU; give a checkpoint instead"
            )
        self.batch_size, self.n_threads = share_out(given, on_cpu=True)
        try:
            self._run, about = open_exported(path, self.n_threads)
        except ModuleNotFoundError as error:
            raise UserError(
                f"{path} needs {error.name}; python -m pip install -r requirements-export.txt"
            ) from None
        except Exception as error:  # each library raises its own
            raise UserError(
                f"{path}: cannot be read: {' '.join(str(error).split())[:200]}"
            ) from None
        if about.get("format") != EXPORT_FORMAT:
            raise UserError(f"{path}: not a file of export.py, or of another version of it")
        self.config = merge_settings(json.loads(about["settings"]), given, path)
        self.class_names: list[str] = json.loads(about["class_names"])
        self.models = [path]
        self.identity = [f"{path} {identity(path)}"]

    def enter_thread(self) -> None:
        """Make ready a thread that will call `prepare` or `score`: there is nothing to do."""

    def prepare(self, clip: np.ndarray) -> np.ndarray:
        """Make a clip (n,) float32, n from 1 to n_samples, a waveform (n_samples,)."""
        return crop_or_pad(as_stored(clip, self.config.audio_dtype), self.config.n_samples)

    def score(
        self, waveforms: Sequence[np.ndarray], *, frames: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Score a batch, as TorchModels.score does, with one model."""
        clipwise, framewise = self._run(np.stack(waveforms))
        if not np.isfinite(clipwise).all():
            raise UserError("scores are not finite; export the model again")
        return clipwise[None], framewise.max(axis=1)[None], framewise[None] if frames else None


def share_out(config: Config, *, on_cpu: bool) -> tuple[int, int]:
    """Settle clips in a batch and threads that score batches: on a CPU one for each decoder, with small batches."""
    return (
        (min(config.valid_bs, CPU_BATCH), max(1, config.num_workers))
        if on_cpu
        else (config.valid_bs, 1)
    )


def open_exported(path: Path, n_threads: int = 1) -> tuple[Session, dict[str, str]]:
    """Open an exported file with the library it is for.

    Args:
        path: .onnx or .xml.
        n_threads: how many threads will score at once; they share the cores.

    Returns:
        What scores waveforms, for any number of threads, and the file's metadata.
    """
    return (_open_openvino if path.suffix == ".xml" else _open_onnx)(path, n_threads)


def _open_onnx(path: Path, n_threads: int) -> tuple[Session, dict[str, str]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = max(1, available_cpus() // n_threads)
    if n_threads > 1:
        options.add_session_config_entry(
            "session.intra_op.allow_spinning", "0"
        )  # others have work for the core
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
    # Left to itself it computes in bfloat16 where the processor can, which moves scores by up to
    # 0.2.
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


def open_models(path: Path, given: Config) -> TorchModels | ExportedModel:
    """Open what to predict with: an exported file, or checkpoints (see find_checkpoints)."""
    if path.suffix in (".onnx", ".xml") and path.is_file():
        return ExportedModel(path, given)
    return TorchModels(find_checkpoints(path), given)


def merge_settings(trained: dict[str, Any], given: Config, path: Path) -> Config:
    """Make the settings of a run: a checkpoint's own, and where and how it runs as given.

    Raises:
        UserError: another value was given for what the checkpoint fixes.
    """
    default = Config()
    trained = {field.name: trained[field.name] for field in fields(Config) if field.name in trained}
    for name in (*settings_where(identity="clip"), *settings_where(identity="network")):
        if (value := getattr(given, name)) not in (getattr(default, name), trained.get(name)):
            raise UserError(
                f"{name}: {path} was trained with {trained.get(name)!r}; {value!r} cannot be had from it"
            )
    changed = {name: getattr(given, name) for name in settings_where(for_prediction="given")}
    for name in settings_where(for_prediction="if given"):
        if getattr(given, name) != getattr(default, name):
            changed[name] = getattr(given, name)
    try:
        return Config(**trained | changed)
    except ValidationError as error:
        raise UserError(
            f"{path}: its settings are no model's: {error.errors(include_url=False)[0]['msg']}"
        ) from None


def check_agreement(
    path: Path,
    config: Config,
    class_names: list[str],
    first: Path,
    first_config: Config,
    first_names: list[str],
) -> None:
    """Refuse a fold whose scores cannot be averaged with the first one's (UserError)."""
    if class_names != first_names:
        differ = ", ".join(sorted(set(class_names) ^ set(first_names))[:5]) or "their order"
        raise UserError(f"{path} and {first} have other classes ({differ}) and cannot be averaged")
    for name in settings_where(identity="clip"):
        one, other = getattr(config, name), getattr(first_config, name)
        if one != other:
            raise UserError(
                f"{path} has {name}={one!r}, {first} {other!r}; they cannot be averaged"
            )


def find_checkpoints(path: Path) -> list[Path]:
    """Find what to predict with: a checkpoint, the best one of a fold's folder, or those of an experiment's folds.

    The best is the newest by epoch number; a damaged one is passed over with a warning.

    Raises:
        UserError: there is none; the message says where it looked.
    """
    from checkpoint import CheckpointError, named_checkpoints, read_checkpoint

    if path.is_file():
        return [path]
    if not path.is_dir():
        near = (
            sorted(str(other) for other in path.parent.glob("Exp_*"))
            if path.parent.is_dir()
            else []
        )
        raise UserError(
            f"{path}: no such model" + (f"; there are {', '.join(near)}" if near else "")
        )
    folds = [fold for fold in path.glob("fold_*") if fold.name[5:].isdigit() and fold.is_dir()]
    found = []
    for folder in sorted(folds, key=lambda fold: int(fold.name[5:])) or [path]:
        for item in reversed(named_checkpoints(folder)):
            try:
                read_checkpoint(item.path)
            except CheckpointError as error:
                logger.warning("%s; looking for the one before", error)
                continue
            found.append(item.path)
            break
        else:
            logger.warning("%s holds no sound checkpoint of a best epoch; it is left out", folder)
    if not found:
        raise UserError(
            f"{path}: no model in it: neither Exp_*_epoch_*.pth nor fold_*/ with one; train.py makes them"
        )
    return found
