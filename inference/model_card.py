"""The metadata of an exported file, and the model card that describes it."""

import contextlib
import importlib.metadata
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from configs import settings_where, versions
from inference.comparison import Comparison
from inference.exported import EXPORT_FORMAT
from inference.scorers import TorchModels
from metrics import describe_scores


def describe(
    states: Sequence[dict[str, Any]], models: TorchModels, precision: str, licence: str
) -> dict[str, str]:
    """Collect the metadata of the file as texts by name; all but the first three are JSON."""
    everything, local = models.config.to_dict(), settings_where(is_local=True)
    parts: dict[str, Any] = {
        "class_names": models.class_names,
        "settings": {name: value for name, value in everything.items() if name not in local},
        "folds": [_last_row(state) for state in states],
        "trained_with": states[0]["versions"],
        "exported_with": versions() | _converters(),
    }
    if models.weights is not None:
        parts["networks"] = [
            {"base_model_name": state["config"]["base_model_name"], "weight": round(weight, 6)}
            for state, weight in zip(states, models.weights, strict=True)
        ]
    about = {"format": EXPORT_FORMAT, "precision": precision, "licence": licence}
    return about | {name: json.dumps(part, ensure_ascii=False) for name, part in parts.items()}


def _converters() -> dict[str, str]:
    found = {}
    for name in ("onnx", "openvino", "litert-torch"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def model_card(
    path: Path, about: Mapping[str, str], table: pd.DataFrame, result: Comparison
) -> str:
    """Describe an exported file in markdown.

    Args:
        path: the file.
        about: its metadata, as `describe` made it.
        table: recordings that it was trained on and compared on.
        result: of the comparison.
    """
    names, settings, folds, trained_with = (
        json.loads(about[name]) for name in ("class_names", "settings", "folds", "trained_with")
    )
    lines = [
        f"# {path.name}",
        "",
        f"Bird species in recordings, by {settings['base_model_name']} with a sound event "
        f"detection head; {len(folds)} fold(s) of experiment {settings['exp_id']}, "
        f"{about['precision']}.",
        "",
        f"- Licence: {about['licence']}",
        *teacher_lines(settings),
        *_interface(settings, len(names), "1" if path.suffix == ".tflite" else "batch"),
        "- Metadata of the file: class names, settings, folds and versions.",
        *_scores(folds, result),
        *_data(table, settings["n_folds"]),
    ]
    if "networks" in about:
        lines += ["", "## Networks in the mean", ""]
        lines += [
            f"- {one['base_model_name']}: weight {one['weight']:g}"
            for one in json.loads(about["networks"])
        ]
    sections = {
        "Classes": dict(enumerate(names)),
        "Settings": settings,
        "Versions": trained_with,
    }
    for title, rows in sections.items():
        lines += ["", f"## {title}", "", *(f"- {name}: `{value}`" for name, value in rows.items())]
    return "\n".join(lines) + "\n"


def teacher_lines(settings: Mapping[str, Any]) -> list[str]:
    """Name the network that a model was taught by, with the licence of its weights, if any."""
    if not settings.get("teacher_source"):
        return []
    return [
        f"- Taught by {settings['teacher_source']}. What that licence asks of networks that are "
        "taught so, ask its owner."
    ]


def _interface(settings: Mapping[str, Any], n_classes: int, batch: str) -> list[str]:
    n_samples = round(settings["period"] * settings["sample_rate"])
    frame_ms = 1e3 * settings["hop_length"] / settings["sample_rate"]
    return [
        f"- Input `waveform`: ({batch}, {n_samples}) float32, {settings['period']:g} s at "
        f"{settings['sample_rate']} Hz, any level. Repeat a shorter recording whole times, then "
        "pad it with zeros.",
        f"- Output `clipwise`: ({batch}, {n_classes}) probabilities; `framewise`: ({batch}, "
        f"frames, {n_classes}), a frame each {frame_ms:g} ms.",
    ]


def _scores(folds: Sequence[Mapping[str, Any]], result: Comparison) -> list[str]:
    told = f"This file against the checkpoint, on {result}."
    if len(folds) > 1:
        told += " One fold held each of these clips back; the others were trained on it."
    return [
        "",
        "## Scores",
        "",
        "Each fold on its own validation part. A random scorer reaches the floor: padding "
        "flatters.",
        "",
        *(_scores_of(row) for row in folds),
        "",
        told,
    ]


def _scores_of(row: Mapping[str, Any]) -> str:
    if "cmap_pad_5" not in row:
        return f"- trained on all folds for {row['epoch']:g} epochs: nothing is left to score on"
    return f"- fold {row['fold']}, epoch {row['epoch']:g}: {describe_scores(row)}"


def _last_row(state: Mapping[str, Any]) -> dict[str, float]:
    """Take a fold's last epoch without what was not measured: JSON has no NaN."""
    row = {"fold": state["fold"], **state["history"][-1]}
    return {name: value for name, value in row.items() if not math.isnan(value)}


def _data(table: pd.DataFrame, n_folds: int) -> list[str]:
    licences: Mapping[Any, int] = {"not stated": len(table)}
    if "license" in table.columns:
        licences = table["license"].value_counts().to_dict()
    n_species = table["primary_label"].nunique()
    return [
        "",
        "## Data",
        "",
        f"{len(table)} recordings of {n_species} species, {n_folds} folds. Their licences:",
        "",
        *(f"- {licence or 'not stated'}: {count}" for licence, count in licences.items()),
    ]
