"""Frozen features: what an untrained backbone makes of every clip, kept on disk.

Each recording gives its clips from the start, one after the other, once as they are and, where
there are backgrounds, some times over one of them. Backgrounds give clips, too.
"""

import hashlib
import io
import itertools
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

import transforms
from audio.prepared import open_recording
from catalog.pseudo_labels import PseudoLabels
from catalog.vectors import Vectors
from configs import Config, UserError, settings_where
from files import write_file
from images import clips, recipe
from images.view import View
from images.waveforms import Waveforms
from model import SED

logger = logging.getLogger("birdclef.train")

CLEAN, NOISY, EMPTY = range(3)  # a clip as it is, over a background, of a background alone
FOLDER = "frozen_features"  # in models_dir
CLIPS_AT_ONCE = 16
PROBE_SETTINGS = ("probe_clips", "probe_noisy", "probe_no_bird", "valid_clips", "seed")
NOISE_SETTINGS = ("background_snr_db", "no_bird_class")


@dataclass(frozen=True)
class FrozenClips:
    """Clips and their features.

    Attributes:
        features: (N, n) float32.
        row: (N,) of the table; -1 for a background alone.
        window: (N,) which clip of its recording it is, from 0.
        kind: (N,) CLEAN, NOISY or EMPTY.
    """

    features: np.ndarray
    row: np.ndarray
    window: np.ndarray
    kind: np.ndarray


def measure(table: pd.DataFrame, config: Config, model: SED, device: torch.device) -> FrozenClips:
    """Measure the features of all recordings, or read what an earlier run measured.

    Args:
        table: rows of train.csv (filepath).
        config: settings, whose head is the model's.
        model: its backbone and head say what is measured.
        device: where it runs.
    """
    recordings = Waveforms(table, config, with_backgrounds=config.background_dir is not None)
    path = config.models_dir / FOLDER / f"{_key(table, recordings, config, model)}.npz"
    if path.is_file():
        logger.info("frozen features: read from %s", path)
        with np.load(path) as stored:
            return FrozenClips(**{name: stored[name] for name in FrozenClips.__annotations__})

    plan = list(_plan(recordings, config))
    features = _encode_all(_waveforms(plan, recordings, config), len(plan), config, model, device)
    row, window, kind, _ = np.array(plan).T
    measured = FrozenClips(features, row, window, kind)
    _keep(path, **vars(measured))
    return measured


def measure_windows(
    pseudo: PseudoLabels, config: Config, model: SED, device: torch.device
) -> np.ndarray:
    """Measure the features (n, n_features) float32 of pseudo-labelled windows, or read them.

    Args:
        pseudo: the windows, each measured by its first `period` seconds.
        config: settings, whose head is the model's.
        model: its backbone and head say what is measured.
        device: where it runs.
    """
    rate = config.sample_rate
    places = [
        (os.fsdecode(path), round(start_s * rate), round(end_s * rate))
        for path, start_s, end_s in zip(pseudo.paths, pseudo.starts_s, pseudo.ends_s, strict=True)
    ]
    files = {name: os.stat(name) for name, _, _ in places}
    stamps = [[name, info.st_size, info.st_mtime_ns] for name, info in files.items()]
    path = config.models_dir / FOLDER / f"{_digest(config, model, stamps, places)}.npz"
    if path.is_file():
        with np.load(path) as stored:
            return stored["features"]

    waveforms = (
        transforms.to_float32(open_recording(Path(name))[start:end][: config.n_samples])
        for name, start, end in places
    )
    features = _encode_all(waveforms, len(places), config, model, device)
    _keep(path, features=features)
    return features


def _keep(path: Path, **arrays: np.ndarray) -> None:
    content = io.BytesIO()
    np.savez(content, **arrays)  # type: ignore[arg-type]
    write_file(path, content.getvalue())
    logger.info("frozen features of %d clips: kept in %s", len(arrays["features"]), path)


def _encode_all(
    waveforms: Iterator[np.ndarray], n_clips: int, config: Config, model: SED, device: torch.device
) -> np.ndarray:
    """Make features (n_clips, n) float32 in batches."""
    model = model.to(device).eval()
    starts = range(0, n_clips, CLIPS_AT_ONCE)
    features = [
        encode(list(itertools.islice(waveforms, CLIPS_AT_ONCE)), config, model, device)
        for _ in tqdm(starts, "frozen features", leave=False, disable=None)
    ]
    return np.concatenate(features)


@torch.inference_mode()
def encode(
    waveforms: list[np.ndarray], config: Config, model: SED, device: torch.device
) -> np.ndarray:
    """Make features (B, n) float32 of waveforms, each of a clip or less."""
    view = View(config)
    images = np.stack([recipe.clip_image(waveform, view) for waveform in waveforms])
    batch = torch.from_numpy(images).to(device).expand(-1, config.in_channels, -1, -1)
    return model.clip_features(batch).cpu().numpy()


def with_vectors(
    clips: FrozenClips, table: pd.DataFrame, vectors: Vectors, config: Config
) -> FrozenClips:
    """Put a teacher's vectors behind the features of clips; one over a background has its clip's.

    Args:
        clips: their features may be none, (N, 0).
        table: rows of train.csv (filepath), those of the clips.
        vectors: of all recordings of the table.
        config: settings of the clip.

    Raises:
        UserError: there are clips of backgrounds alone, of which there are no vectors, or the
            vectors lack a recording.
    """
    if (clips.kind == EMPTY).any():
        raise UserError(
            "teacher_embeddings: there are no vectors of backgrounds alone; --without-no-bird-class"
        )
    names = [name.removesuffix(".npy") for name in table["filepath"]]
    vectors.check_covers(names, config.teacher_embeddings)
    starts_s = table["start_s"].to_numpy(float) if "start_s" in table else np.zeros(len(table))

    own = []
    for row, window in zip(clips.row, clips.window, strict=True):
        start_s = starts_s[row] + window * config.period
        own.append(vectors.of_clip(names[row], start_s, start_s + config.period))
    return replace(clips, features=np.hstack([clips.features, np.stack(own)]))


def list_clips(table: pd.DataFrame, config: Config) -> FrozenClips:
    """List the clips of recordings as they are, without features (N, 0)."""
    config = replace(config, probe_noisy=0, no_bird_class=False)
    plan = list(_plan(Waveforms(table, config, with_backgrounds=False), config))
    row, window, kind, _ = np.array(plan).T
    return FrozenClips(np.zeros((len(plan), 0), np.float32), row, window, kind)


# Which clips --------------------------------------------------------------------------------------


def _plan(recordings: Waveforms, config: Config) -> Iterator[tuple[int, int, int, int]]:
    """List the clips: row, window, kind, and which copy or background."""
    lengths = np.array([len(recordings.open(row)) for row in range(recordings.n_rows)])
    n_fitted = clips.windows_of(lengths, replace(config, valid_clips=config.probe_clips))
    n_scored = clips.windows_of(lengths, config)

    for row in range(recordings.n_rows):
        for window in range(max(n_fitted[row], n_scored[row])):
            yield row, window, CLEAN, 0
            if recordings.n_backgrounds and window < n_fitted[row]:
                for copy in range(config.probe_noisy):
                    yield row, window, NOISY, copy

    if config.no_bird_class:
        for number in range(recordings.n_backgrounds):
            for window in range(config.probe_no_bird):
                yield -1, window, EMPTY, number


def _waveforms(
    plan: list[tuple[int, int, int, int]], recordings: Waveforms, config: Config
) -> Iterator[np.ndarray]:
    """Make the waveform of each clip."""
    n_samples = config.n_samples
    for row, window, kind, number in plan:
        rng = np.random.default_rng((config.seed, row + 1, window, kind, number))
        if kind == EMPTY:
            background = recordings.open(recordings.n_rows + number)
            yield clips.cut_background(background, n_samples, rng)
            continue

        clip = transforms.to_float32(recordings.open(row)[window * n_samples :][:n_samples])
        if kind == NOISY:
            chosen = recordings.n_rows + int(rng.integers(recordings.n_backgrounds))
            noise = clips.cut_background(recordings.open(chosen), n_samples, rng)
            whole = transforms.crop_or_pad(clip, n_samples)
            snr_db = rng.uniform(*config.background_snr_db)
            clip = clips.add_at_snr(whole, transforms.to_float32(noise), snr_db)
        yield clip


def _key(table: pd.DataFrame, recordings: Waveforms, config: Config, model: SED) -> str:
    """Identify the features by all that they depend on: settings, weights and recordings."""
    settings = config.to_dict()
    n_files = recordings.n_rows + recordings.n_backgrounds
    paths = [recordings.path(number) for number in range(n_files)]
    files = [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in paths]
    starts = table["start_s"].to_list() if "start_s" in table else []
    of_probe = {name: settings[name] for name in (*PROBE_SETTINGS, *NOISE_SETTINGS)}
    return _digest(config, model, files, starts, of_probe)


def _digest(config: Config, model: SED, *about: Any) -> str:
    """Identify features by the clip's settings, the weights and what else they depend on."""
    settings = config.to_dict()
    of_clip = {name: settings[name] for name in settings_where(identity="clip")}
    head = vars(model.head) | {"softmax": None, "no_bird": None}
    digest = hashlib.sha256(json.dumps([of_clip, head, *about], sort_keys=True).encode())
    weights = {**model.encoder.state_dict(), "mean": model.mean, "std": model.std}
    for name, value in weights.items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
