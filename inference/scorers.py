"""Models that score clips: checkpoints of one or more folds, or a file of export.py.

Torch is imported only where it is needed, so that an exported file runs without it.
"""

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from audio.recording import as_stored
from configs import Config, UserError, keep_freed_memory
from inference.blend_file import read_blend
from inference.exported import EXPORT_FORMAT, INSTALL_TO_RUN, is_exported, open_exported
from inference.hub import ADDRESS, HUB_WEIGHTS, fetch, read_hub
from inference.model_files import N_LOOKS, check_agreement, find_checkpoints, merge_settings
from inference.partial import identity
from transforms import crop_or_pad

# Clips that a core scores at a time: with more, what the layers hand on no longer fits its cache.
# EfficientNet-B0 took 14 ms a clip with 4 on each of two cores, and 28 with 32 on both together.
CPU_BATCH = 4

Answer = tuple[np.ndarray, np.ndarray, np.ndarray | None]  # clipwise, frame maxima, framewise


class TorchModels:
    """Checkpoints of train.py, all of which score each clip just as validation would.

    Args:
        paths: of the checkpoints.
        given: settings of the command line: where it runs is taken from them, all else from the
            checkpoints.

        weights: of the checkpoints in their average; None weighs them alike.

    Attributes:
        weights: the same.
        batch_size: clips for a call of `score`.
        n_threads: how many threads should call it at once, each after `enter_thread`.

    Raises:
        UserError: a damaged checkpoint, or ones that differ in classes or audio settings.
    """

    def __init__(
        self, paths: Sequence[Path], given: Config, weights: tuple[float, ...] | None = None
    ) -> None:
        import torch

        import checkpoint as ckpt
        from images.recipe import clip_image
        from images.view import View
        from model import build_model, pick_amp_dtype, pick_device

        self.device, self.weights = pick_device(given.device), weights
        if self.device.type == "cpu":
            keep_freed_memory()
        self.models: list[torch.nn.Module] = []
        for path, state in _read_states(paths):
            config, names = merge_settings(state["config"], given, path), state["class_names"]
            if not self.models:
                self.config, self.class_names = config, list(names)
            check_agreement(path, config, names, paths[0], self.config, self.class_names)

            model = build_model(config, len(names), load_weights=False)
            state = {**state, "model": ckpt.scored_weights(state)}
            ckpt.load_checkpoint(model, None, state, restore_random_state=False)
            self.models.append(self._place(model))

        self.amp_dtype = pick_amp_dtype(self.config, self.device)
        self.identity = [*(f"{path} {identity(path)}" for path in paths), str(self.amp_dtype)]
        self.batch_size, self.n_threads = share_out(self.config, on_cpu=self.device.type == "cpu")
        self._torch_threads = max(1, torch.get_num_threads() // self.n_threads)
        self._clip_image, self._view = clip_image, View(self.config)

    def _place(self, model: Any) -> Any:
        """Move a network to the device, in its memory format, for evaluation."""
        return model.to(self.device).to(memory_format=self._memory_format()).eval()

    def _memory_format(self) -> Any:
        from network.memory_format import torch_format

        return torch_format(self.config.channels_last != "off")

    def enter_thread(self) -> None:
        """Give a thread that will call `prepare` or `score` its share of the cores."""
        import torch

        torch.set_num_threads(self._torch_threads)  # of this thread alone

    def prepare(self, clip: np.ndarray) -> np.ndarray:
        """Make a clip (n,) float32, n from 1 to n_samples, an image (channels, frames, bands)."""
        return self._clip_image(as_stored(clip, self.config.audio_dtype), self._view)

    def score(self, images: Sequence[np.ndarray], *, frames: bool) -> Answer:
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
        batch = self._batch(images)
        clipwise, frame_max, framewise = [], [], []
        for model in self.models:
            output = self._forward(model, batch)
            clipwise.append(output["clipwise_output"].cpu().numpy())  # (B, C)
            frame_max.append(output["framewise_output"].amax(dim=1).cpu().numpy())  # (B, C)
            if frames:
                framewise.append(output["framewise_output"].cpu().numpy())  # (B, n_frames, C)

        if not np.isfinite(clipwise).all():
            raise UserError("scores are not finite; try --no-amp")
        return np.stack(clipwise), np.stack(frame_max), np.stack(framewise) if frames else None

    def embed(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Say what the first model makes of B clips before its head: (B, n) float32, over time."""
        model: Any = self.models[0]
        batch = self._batch(images)
        with self._inference():
            if model.linear_head is not None:
                features = model.clip_features(batch)  # (B, n)
            else:
                features = model.columns(model.feature_map(batch)).mean(dim=2)  # (B, n)
        return features.float().cpu().numpy()

    def _batch(self, images: Sequence[np.ndarray]) -> Any:
        import torch

        given = torch.from_numpy(np.stack(images)).to(self.device)  # equal channels are one
        batch = given.expand(-1, self.config.in_channels, -1, -1)
        return batch.contiguous(memory_format=self._memory_format())

    def _forward(self, model: Any, batch: Any) -> dict[str, Any]:
        with self._inference():
            return model(batch)

    @contextlib.contextmanager
    def _inference(self) -> Iterator[None]:
        """Run networks without gradients, in the precision of validation."""
        import torch

        amp = torch.autocast(
            self.device.type, dtype=self.amp_dtype, enabled=self.amp_dtype is not None
        )
        with torch.inference_mode(), amp:
            yield


def _read_states(paths: Sequence[Path]) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Read checkpoints, or the models of a shared folder's weights, one by one."""
    import checkpoint as ckpt

    for path in paths:
        if path.suffix == ".safetensors":
            yield from ((path, state) for state in read_hub(path))
        else:
            yield path, ckpt.read_checkpoint(path)


class ExportedModel:
    """A file of export.py, run by its own library; torch is not imported.

    Log-mel and the mean over folds are inside the file, so what `prepare` makes are waveforms.

    Args:
        path: .onnx, .tflite, or .xml with its .bin beside it.
        given: settings of the command line: where it runs is taken from them, all else from the
            file.

    Raises:
        UserError: not a file of export.py, another device than the CPU, or the library that runs it
            is not installed.
    """

    def __init__(self, path: Path, given: Config) -> None:
        if given.device not in ("auto", "cpu"):
            raise UserError(
                f"--device {given.device}: exported files run on the CPU; give a checkpoint instead"
            )
        self.batch_size, self.n_threads = share_out(given, on_cpu=True)
        try:
            self._run, about = open_exported(path, self.n_threads)
        except ModuleNotFoundError as error:
            install = INSTALL_TO_RUN[path.suffix]
            raise UserError(f"{path} needs {error.name}; {install}") from None
        except Exception as error:  # each library raises its own
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{path}: cannot be read: {reason}") from None
        if about.get("format") != EXPORT_FORMAT:
            raise UserError(f"{path}: not a file of export.py, or of another version of it")

        self.config = merge_settings(json.loads(about["settings"]), given, path)
        self.class_names: list[str] = json.loads(about["class_names"])
        self.models, self.weights = [path], None
        self.identity = [f"{path} {identity(path)}"]

    def enter_thread(self) -> None:
        """Do nothing: the library shares out the cores."""

    def prepare(self, clip: np.ndarray) -> np.ndarray:
        """Make a clip (n,) float32, n from 1 to n_samples, a waveform (n_samples,)."""
        return crop_or_pad(as_stored(clip, self.config.audio_dtype), self.config.n_samples)

    def score(self, waveforms: Sequence[np.ndarray], *, frames: bool) -> Answer:
        """Score a batch, as TorchModels.score does, with one model."""
        clipwise, framewise = self._run(np.stack(waveforms))
        if not np.isfinite(clipwise).all():
            raise UserError("scores are not finite; export the model again")
        return clipwise[None], framewise.max(axis=1)[None], framewise[None] if frames else None

    def embed(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        """Stand in for what lies before the head, which the file keeps: (B, C) logits."""
        scores = np.clip(self._run(np.stack(waveforms))[0].astype(np.float64), 1e-6, 1 - 1e-6)
        return np.log(scores / (1 - scores)).astype(np.float32)


def share_out(config: Config, *, on_cpu: bool) -> tuple[int, int]:
    """Settle the clips in a batch and the threads that score batches.

    On a CPU there is a thread for each decoder, with small batches.
    """
    if on_cpu:
        return min(config.valid_bs, CPU_BATCH), max(1, config.num_workers)
    return config.valid_bs, 1


def open_models(path: Path, given: Config) -> TorchModels | ExportedModel:
    """Open what to predict with: an exported file, a shared folder, a blend, or checkpoints.

    A run that is still training may delete a checkpoint before it is read; then look again.
    """
    if is_exported(path):
        return ExportedModel(path, given)
    if path.parts and path.parts[0].startswith(ADDRESS):
        path = fetch("/".join(path.parts))
    if (path / HUB_WEIGHTS).is_file():
        return TorchModels([path / HUB_WEIGHTS], given)

    for _ in range(N_LOOKS - 1):
        paths, weights = find_weighted(path)
        try:
            return TorchModels(paths, given, weights)
        except UserError:
            if all(one.exists() for one in paths):
                raise
    paths, weights = find_weighted(path)
    return TorchModels(paths, given, weights)


def find_weighted(path: Path) -> tuple[list[Path], tuple[float, ...] | None]:
    """Find checkpoints and their weights, which sum to 1; None where they weigh alike.

    The folds of an experiment in a blend share its weight.
    """
    if path.suffix not in (".yaml", ".yml"):
        return find_checkpoints(path), None

    found = [(find_checkpoints(model), weight) for model, weight in read_blend(path)]
    total = sum(weight for _, weight in found)
    weights = [weight / total / len(paths) for paths, weight in found for _ in paths]
    return [one for paths, _ in found for one in paths], tuple(weights)
