"""Kaggle's folders: where the competition and the weights lie, and how long a session lasts.

Kaggle mounts what is attached to a notebook under /kaggle/input, read-only: since 2025 as
`competitions/<name>` and `datasets/<owner>/<name>`, before that as `<name>`. What is written to
/kaggle/working is kept when a session ends.
"""

import os
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from settings.running import UserError

STAND_IN = "BIRDCLEF_KAGGLE"  # environment variable: a folder to take in place of /kaggle
RUN_TYPE = "KAGGLE_KERNEL_RUN_TYPE"  # environment variable that Kaggle sets in every notebook
SESSION_HOURS = 11.5  # of the 12 that a session lasts; the rest is for what follows training
LEVELS_BELOW_INPUT = 4

TRAIN_FOLDERS = ("train_audio", "train_short_audio")  # the latter in 2021
METADATA = ("train_metadata.csv", "train.csv")  # the latter since 2025
TEST_FOLDER, SAMPLE, SUBMISSION = "test_soundscapes", "sample_submission.csv", "submission.csv"
FULL_FOLDERS = {*TRAIN_FOLDERS, TEST_FOLDER, "train_soundscapes", "unlabeled_soundscapes"}
WEIGHT_SUFFIXES = (".safetensors", ".pth", ".bin")


def kaggle_folder() -> Path:
    """Return /kaggle, or the folder that stands in for it."""
    return Path(os.environ.get(STAND_IN, "/kaggle"))


def wants_kaggle(given: bool | None) -> bool:
    """Say whether Kaggle's folders are to be taken: as given, else if this is a Kaggle notebook."""
    if given is not None:
        return given
    return RUN_TYPE in os.environ and (kaggle_folder() / "input").is_dir()


def is_asked_for(args: Sequence[str]) -> bool:
    """Say the same from a command line."""
    given = None
    for word in args:
        given = {"--kaggle": True, "--no-kaggle": False}.get(word, given)
    return wants_kaggle(given)


def kaggle_settings(*, has_root: bool = False) -> dict[str, Any]:
    """Settings that follow from Kaggle's folders; what is given to a script overrides them.

    The hub of weights is not asked: notebooks of a competition have no network.

    Args:
        has_root: a root is given, so the recordings are those below it, not the competition's.

    Raises:
        UserError: there are no such folders.
    """
    folder = kaggle_folder()
    if not (folder / "input").is_dir():
        raise UserError(
            f"kaggle: there is no {folder / 'input'}; this is no Kaggle notebook, leave out "
            f"--kaggle (or name another folder in {STAND_IN})"
        )

    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    found: dict[str, Any] = {"kaggle": True, "root": folder / "working"}
    found["max_hours"] = SESSION_HOURS
    competition = None if has_root else find_competition()
    if competition is not None:
        found |= _recordings_of(competition)
    return found


def _recordings_of(competition: Path) -> dict[str, Path]:
    names = [name for name in TRAIN_FOLDERS if (competition / name).is_dir()]
    found = {"train_audio_dir": competition / names[0]} if names else {}
    for name in METADATA:
        if (competition / name).is_file():
            return found | {"metadata_path": competition / name}
    return found


def find_competition() -> Path | None:
    """Find the folder of a BirdCLEF competition; of several the last by name, so the newest."""
    kinds = {*TRAIN_FOLDERS, TEST_FOLDER}
    found = [folder for folder, folders, _ in _attached() if kinds & folders]
    return max(found, key=lambda folder: folder.name, default=None)


def find_weights(name: str) -> Path | None:
    """Find an attached file with a backbone's weights: named after it, with or without its tag.

    Args:
        name: timm's, `tf_efficientnet_b0.ns_jft_in1k`.
    """
    stems = (name, name.partition(".")[0])
    wanted = [stem + suffix for stem in stems for suffix in WEIGHT_SUFFIXES]
    for folder, _, files in _attached():
        for one in wanted:
            if one in files:
                return folder / one
    return None


def submission_places() -> dict[str, Path | None]:
    """Say where predict.py finds the hidden recordings and what it writes.

    Returns:
        `recordings`, `output` and `sample_submission` (None where the competition has none).

    Raises:
        UserError: no competition is attached.
    """
    competition = find_competition()
    if competition is None:
        raise UserError(
            f"{kaggle_folder() / 'input'}: no competition with {TEST_FOLDER}/ is attached; attach "
            "it, or name the recordings and --output"
        )
    sample = competition / SAMPLE
    return {
        "recordings": competition / TEST_FOLDER,
        "output": kaggle_folder() / "working" / SUBMISSION,
        "sample_submission": sample if sample.is_file() else None,
    }


def _attached() -> Iterator[tuple[Path, set[str], set[str]]]:
    """Walk through the upper folders of /kaggle/input, breadth first and by name.

    Yields:
        A folder, and the names of the folders and of the files in it. Folders full of recordings,
        and what lies below a folder with those, are passed over.
    """
    to_do = deque([(kaggle_folder() / "input", 0)])
    while to_do:
        folder, level = to_do.popleft()
        with os.scandir(folder) as entries:
            items = sorted((entry.name, entry.is_dir()) for entry in entries)
        folders = {name for name, is_folder in items if is_folder}
        yield folder, folders, {name for name, is_folder in items if not is_folder}

        if level < LEVELS_BELOW_INPUT and not folders & FULL_FOLDERS:
            to_do += [(folder / name, level + 1) for name, is_folder in items if is_folder]
