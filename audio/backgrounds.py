"""Backgrounds: recordings without birds, to lay under clips or to learn as empty.

They are prepared once, as recordings are, when a training first needs them.
"""

import json
import logging
from pathlib import Path
from typing import Any

from tqdm import tqdm

import files
from audio.decoder_pool import DecoderPool
from configs import Config, UserError, settings_where

logger = logging.getLogger("birdclef.dataset")

BACKGROUND_SUFFIXES = (".ogg", ".oga", ".opus", ".mp3", ".wav", ".flac")
INDEX_NAME = "backgrounds.json"  # what each prepared file was made from, and what came of it
USABLE = ("ok", "truncated")  # these have a prepared file


def prepare_backgrounds(config: Config) -> list[Path]:
    """Prepare the recordings of `background_dir` that are new or have changed.

    They go into `background_np_dir`. Files that cannot be decoded or are silent are left out, with
    a warning.

    Returns:
        The prepared files, in the order of their names; none without a `background_dir`.

    Raises:
        UserError: the folder is missing or holds no recording that can be used.
    """
    folder = config.background_dir
    if folder is None:
        return []
    if not folder.is_dir():
        raise UserError(f"background_dir: {folder}: no such folder")

    recipe = {name: getattr(config, name) for name in settings_where(makes_arrays=True)}
    prepared = prepare_folder(folder, config.background_np_dir, recipe, config.file_timeout_s)
    if not prepared:
        raise UserError(f"background_dir: {folder} holds no recording that can be used")
    return list(prepared.values())


def prepare_folder(
    folder: Path, target_dir: Path, recipe: dict[str, Any], timeout_s: float
) -> dict[str, Path]:
    """Prepare the recordings of a folder that are new or have changed.

    Args:
        folder: searched with its subfolders.
        target_dir: takes `<name>.npy` of each, and an index of what became of them.
        recipe: arguments of `audio.recording.prepare_recording`.
        timeout_s: longest time for one recording.

    Returns:
        The prepared files by the recordings' names, in their order. Recordings that cannot be
        decoded or are silent are left out, with a warning.
    """
    index_path = target_dir / INDEX_NAME
    index = _read_index(index_path)  # by name
    sources = {source.relative_to(folder).as_posix(): source for source in _find(folder)}
    targets = {name: target_dir / f"{name}.npy" for name in sources}
    made_from = {name: _made_from(source, recipe) for name, source in sources.items()}

    def is_done(name: str) -> bool:
        row = index.get(name, {"made_from": ""})
        if row["made_from"] != made_from[name]:
            return False
        return row["status"] not in USABLE or targets[name].is_file()

    jobs = {
        name: {"source": str(source), "target": str(targets[name])} | recipe
        for name, source in sources.items()
        if not is_done(name)
    }
    if jobs:
        for name, status in _prepare(jobs, timeout_s).items():
            index[name] = {"made_from": made_from[name], "status": status}
        files.write_file(index_path, json.dumps(index, indent=1))
        logger.info("prepared %d recordings of %s in %s", len(jobs), folder, target_dir)

    return {name: targets[name] for name in sources if index[name]["status"] in USABLE}


def _find(folder: Path) -> list[Path]:
    found = (path for path in folder.rglob("*") if path.suffix.lower() in BACKGROUND_SUFFIXES)
    return sorted(path for path in found if path.is_file() and not path.name.startswith("."))


def _made_from(source: Path, recipe: dict[str, Any]) -> str:
    """Say what a prepared file depends on: the recording, and the settings of prepare_audios.py."""
    info = source.stat()
    settings = ", ".join(str(value) for value in recipe.values())
    return f"{info.st_size} bytes, {info.st_mtime_ns} ns, {settings}"


def _read_index(path: Path) -> dict[str, dict[str, str]]:
    try:
        index: dict[str, dict[str, str]] = json.loads(path.read_text(encoding="utf-8"))
        return index
    except (OSError, ValueError):  # there is none, or it is damaged: everything is made anew
        return {}


def _prepare(jobs: dict[str, dict[str, Any]], timeout_s: float) -> dict[str, str]:
    """Decode recordings in a process of their own, so that a crash costs one of them.

    Returns:
        What came of each: its status in the words of prepare_audios.py.
    """
    statuses = {}
    with DecoderPool() as decoders:
        for name, job in tqdm(jobs.items(), "preparing", leave=False, disable=None, unit="file"):
            row = decoders.prepare(job, timeout_s)
            statuses[name] = row["status"]
            if row["status"] not in USABLE:
                reason = f"{row['status']}, {row['reason']}"
                logger.warning("background %s is left out: %s", job["source"], reason)
    return statuses
