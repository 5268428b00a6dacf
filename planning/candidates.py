"""What is compared to find the best: the probe, the planned settings, and their neighbours."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from configs import Config, UserError, settings_where
from inference.model_files import fold_folders
from inference.out_of_fold import FILE

THE_PROBE, THE_PLANNED = "probe", "planned"
MIXING_SETTINGS = ("p_mixup", "p_cutmix", "p_waveform_mixup", "p_or_mix")
Changes = Mapping[str, Any]


def _slower(config: Config) -> Changes:
    head_lr = None if config.head_lr is None else config.head_lr / 3
    return {"lr": config.lr / 3, "head_lr": head_lr}


def _unmixed(config: Config) -> Changes:
    return (
        dict.fromkeys(MIXING_SETTINGS, 0.0)
        if any(getattr(config, name) for name in MIXING_SETTINGS)
        else {}
    )


# Settings one step from the planned ones, in the order in which they are tried. Their clips are the
# same, so that the scores of two of them can be averaged.
NEIGHBOURS: dict[str, Callable[[Config], Changes]] = {"unmixed": _unmixed, "slower": _slower}


@dataclass(frozen=True)
class Candidate:
    """Settings that take part.

    Attributes:
        name: probe, planned, or a neighbour's.
        script: that trains it.
        config: its settings.
        folder: that the script leaves.
    """

    name: str
    script: str
    config: Config
    folder: Path


def find_candidates(config: Config, n_neighbours: int) -> list[Candidate]:
    """List the candidates; neighbours take the numbers of experiments after the planned one's."""
    probe_dir = config.exp_dir.with_name(config.exp_dir.name + "_probe")
    found = [
        Candidate(THE_PROBE, "probe.py", config, probe_dir),
        Candidate(THE_PLANNED, "train.py", config, config.exp_dir),
    ]
    changes = {name: change(config) for name, change in NEIGHBOURS.items()}
    names = [name for name, changed in changes.items() if changed][:n_neighbours]
    for number, name in enumerate(names, 1):
        settings = replace(config, exp_id=config.exp_id + number, **changes[name])
        found.append(Candidate(name, "train.py", settings, settings.exp_dir))
    return found


def is_done(candidate: Candidate) -> bool:
    """Say whether all folds of a candidate are there.

    Raises:
        UserError: they are, with other settings than the candidate's.
    """
    summary = candidate.folder / "summary.json"
    if not summary.is_file():
        return False
    there = set(json.loads(summary.read_text(encoding="utf-8"))["folds"])
    if not {str(fold) for fold in candidate.config.folds} <= there:
        return False
    _refuse_other_settings(candidate)
    return all((folder / FILE).is_file() for folder in fold_folders(candidate.folder))


def _refuse_other_settings(candidate: Candidate) -> None:
    """Refuse a folder of an earlier run with settings that make it another candidate."""
    import yaml

    names: tuple[str, ...] = (*settings_where(identity="clip"), "base_model_name", "seed")
    if candidate.script == "train.py":
        names = (
            *names,
            *settings_where(on_resume="fixed"),
            "lr",
            "epochs",
            "train_bs",
            *MIXING_SETTINGS,
        )
    wanted, usual = candidate.config.to_dict(), Config().to_dict()
    for folder in fold_folders(candidate.folder):
        path = folder / "config.yaml"
        # A setting of a later version was at its default before: that is how it came to be.
        stored = usual | yaml.safe_load(path.read_text(encoding="utf-8"))["config"]
        differ = sorted(name for name in set(names) if stored[name] != wanted[name])
        if differ:
            raise UserError(
                f"{path}: trained with another {', '.join(differ[:3])}; give --exp-id a number "
                "that is free, or move that experiment away"
            )
