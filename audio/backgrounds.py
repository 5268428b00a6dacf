"""Backgrounds: recordings without birds, to lay under clips or to learn as empty.

They are prepared once, as recordings are, when a training first needs them.
"""

import json
import logging
from pathlib import Path

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

    index_path = config.background_np_dir / INDEX_NAME
    index = _read_index(index_path)  # by name
    names = {source: source.relative_to(folder).as_posix() for source in _find(folder)}
    made_from = {source: _made_from(source, config) for source in names}

    def is_done(source: Path) -> bool:
        row = index.get(names[source], {"made_from": ""})
        if row["made_from"] != made_from[source]:
            return False
        return row["status"] not in USABLE or _target(source, config).is_file()

    todo = [source for source in names if not is_done(source)]
    if todo:
        for source, status in _prepare(todo, config).items():
            index[names[source]] = {"made_from": made_from[source], "status": status}
        files.write_file(index_path, json.dumps(index, indent=1))

    usable = [source for source in names if index[names[source]]["status"] in USABLE]
    if not usable:
        raise UserError(f"background_dir: {folder} holds no recording that can be used")
    return [_target(source, config) for source in usable]


def _find(folder: Path) -> list[Path]:
    found = (path for path in folder.rglob("*") if path.suffix.lower() in BACKGROUND_SUFFIXES)
    return sorted(path for path in found if path.is_file() and not path.name.startswith("."))


def _target(source: Path, config: Config) -> Path:
    assert config.background_dir is not None
    name = source.relative_to(config.background_dir).as_posix()
    return config.background_np_dir / f"{name}.npy"


def _made_from(source: Path, config: Config) -> str:
    """Say what a prepared file depends on: the recording, and the settings of prepare_audios.py."""
    info = source.stat()
    recipe = (str(getattr(config, name)) for name in settings_where(makes_arrays=True))
    return f"{info.st_size} bytes, {info.st_mtime_ns} ns, {', '.join(recipe)}"


def _read_index(path: Path) -> dict[str, dict[str, str]]:
    try:
        index: dict[str, dict[str, str]] = json.loads(path.read_text(encoding="utf-8"))
        return index
    except (OSError, ValueError):  # there is none, or it is damaged: everything is made anew
        return {}


def _prepare(sources: list[Path], config: Config) -> dict[Path, str]:
    """Decode recordings in a process of their own, so that a crash costs one of them.

    Returns:
        What came of each: its status in the words of prepare_audios.py.
    """
    recipe = {name: getattr(config, name) for name in settings_where(makes_arrays=True)}
    statuses = {}
    with DecoderPool() as decoders:
        for source in tqdm(sources, "backgrounds", leave=False, disable=None, unit="file"):
            paths = {"source": str(source), "target": str(_target(source, config))}
            row = decoders.prepare(paths | recipe, config.file_timeout_s)
            statuses[source] = row["status"]
            if row["status"] not in USABLE:
                logger.warning(
                    "background %s is left out: %s, %s", source, row["status"], row["reason"]
                )
    logger.info("prepared %d backgrounds in %s", len(statuses), config.background_np_dir)
    return statuses
