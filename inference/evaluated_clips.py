"""The recordings of an evaluation that are worth a look: spectrogram, sound, framewise scores."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from audio.prepared import open_recording
from configs import Config, UserError
from inference.detections import Event
from inference.model_files import fold_folders, newest_best
from inference.out_of_fold import OutOfFold
from inference.report import Json, draw_curve, read_clip, show_waveform

logger = logging.getLogger("birdclef.evaluated_clips")

Framewise = Callable[[np.ndarray], np.ndarray]  # samples (n,) to scores (n_frames, C)


class Shown(NamedTuple):
    """A recording to see and hear: its picture and sound, and a curve of framewise percentages."""

    medium: Json
    curve: list[int]


def show_rows(
    rows: Sequence[int],
    species: Sequence[int],
    oof: OutOfFold,
    folder: Path,
    config: Config,
    models: "FoldModels | None",
) -> dict[int, Shown]:
    """Show rows of an evaluation; one whose recording is not there is left out.

    Args:
        rows: of `oof`.
        species: the class whose framewise scores are drawn, of each of them.
        oof: scores and labels.
        folder: prepared recordings, `<name>.npy`, or the recordings themselves.
        config: of the model.
        models: score frames; None draws no curves.
    """
    found: dict[int, Shown] = {}
    for row, number in zip(rows, species, strict=True):
        start_s = 0.0 if oof.starts_s is None else float(oof.starts_s[row])
        name = str(oof.filenames[row])
        try:
            waveform = read_window(folder, name, start_s, config)
        except (OSError, ValueError, RuntimeError) as error:
            logger.info("%s: no picture of %s: %s", folder, name, error)
            continue
        score = None if models is None else models.of(int(oof.folds[row]))
        curve = [] if score is None else draw_curve(score(waveform)[:, number])
        found[row] = Shown(show_waveform(waveform, config), curve)
    return found


def read_window(folder: Path, name: str, start_s: float, config: Config) -> np.ndarray:
    """Read a window of a recording: (n,) float32, n at most `config.n_samples`.

    Raises:
        OSError, ValueError, RuntimeError: it is not there, cannot be read, or ends before.
    """
    prepared = folder / f"{name}.npy"
    if prepared.is_file():
        start = round(start_s * config.sample_rate)
        samples = open_recording(prepared)[start : start + config.n_samples]
        if not len(samples):
            raise ValueError("the recording ends before")
        is_int = samples.dtype == np.int16
        return samples / np.float32(32767) if is_int else np.array(samples, np.float32)

    path = folder / name
    if not path.is_file():  # a submission names recordings without their suffix
        path = next(folder.glob(f"{name}.*"), path)
    event = Event(start_s, start_s + config.period, 0, 0.0)
    return read_clip(path, event, config.sample_rate)


def read_settings(experiment: Path) -> Config | None:
    """Read the settings of an experiment's first fold; None where there are none that fit."""
    import yaml

    for folder in [*fold_folders(experiment), experiment]:
        path = folder / "config.yaml"
        if not path.is_file():
            continue
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        known = {field.name for field in fields(Config)}
        given = {name: value for name, value in content.get("config", {}).items() if name in known}
        try:
            return Config(**given)
        except ValueError as error:
            logger.info("%s: %s", path, " ".join(str(error).split())[:200])
    return None


class FoldModels:
    """Scores frames by the model of a fold, opened when it is first asked for.

    Args:
        experiment: folder of an experiment or a fold.
    """

    def __init__(self, experiment: Path) -> None:
        folders = {folder.name: folder for folder in fold_folders(experiment)}
        self._folders = folders or {experiment.name: experiment}
        self._opened: dict[int, Any] = {}

    def of(self, fold: int) -> Framewise | None:
        """Return what scores frames, None where the fold has no sound checkpoint."""
        if fold not in self._opened:
            self._opened[fold] = self._open(self._folders.get(f"fold_{fold}"))
        models = self._opened[fold]
        if models is None:
            return None

        def framewise(samples: np.ndarray) -> np.ndarray:
            scores = models.score([models.prepare(samples)], frames=True)[2]  # (1, 1, n_frames, C)
            return scores[0, 0, : 1 + len(samples) // models.config.hop_length]

        return framewise

    def _open(self, folder: Path | None) -> Any:
        from inference.scorers import TorchModels

        path = None if folder is None else newest_best(folder)
        if path is None:
            return None
        try:
            return TorchModels([path], Config(device="cpu", num_workers=1))
        except UserError as error:
            logger.info("%s: no framewise scores: %s", path, error)
            return None
