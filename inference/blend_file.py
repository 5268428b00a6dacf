"""blend.yaml: which models are averaged by which weights."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from configs import UserError
from files import write_file


def write_blend(
    path: Path, experiments: Sequence[Path], weights: np.ndarray, gain: Mapping[str, float]
) -> None:
    """Write the experiments that have a weight, paths relative to the file.

    Args:
        path: blend.yaml.
        experiments: their folders.
        weights: (n_models,) of them.
        gain: what the blend is worth, by name.
    """
    import yaml

    models = [
        {"model": os.path.relpath(one, path.parent), "weight": round(float(weight), 6)}
        for one, weight in zip(experiments, weights, strict=True)
        if weight > 0
    ]
    rounded = {name: round(value, 6) for name, value in gain.items()}
    write_file(path, yaml.safe_dump({"models": models, "macro_ap": rounded}, sort_keys=False))


def read_blend(path: Path) -> list[tuple[Path, float]]:
    """Read the models of a blend and their weights, above 0.

    Raises:
        UserError: it cannot be read, or holds no models with weights.
    """
    import yaml

    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        found = [(path.parent / one["model"], float(one["weight"])) for one in content["models"]]
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: cannot be read: {' '.join(str(error).split())[:200]}") from None
    except (KeyError, TypeError, ValueError):
        raise UserError(
            f"{path}: no blend; it has `models:`, a list of `model: models/Exp_1` and `weight: 0.5`"
        ) from None
    if not found or not all(0 < weight < np.inf for _, weight in found):
        raise UserError(f"{path}: needs models whose weights are above 0")
    return found
