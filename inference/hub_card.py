"""A folder to share a model by, as it is written: weights, settings, and a card."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from configs import settings_where, versions
from files import write_file
from inference.hub import CARD, HUB_FORMAT, HUB_WEIGHTS, SETTINGS
from inference.model_card import teacher_lines
from inference.scorers import TorchModels
from metrics import describe_scores

NOT_STATED = "not stated"

CARD_EXAMPLE = """\
from pathlib import Path; import configs, soundfile; from inference.scorers import open_models
models = open_models(Path("{folder}"), configs.Config())
clip = models.prepare(soundfile.read("song.wav", dtype="float32")[0])
print(dict(zip(models.class_names, models.score([clip], frames=False)[0].mean(axis=0)[0])))
"""


def write_hub(
    folder: Path,
    states: Sequence[Mapping[str, Any]],
    models: TorchModels,
    table: pd.DataFrame,
    licence: str,
) -> None:
    """Write the folder.

    Args:
        folder: to make; its three files are replaced.
        states: of the checkpoints, as read_checkpoint gives them.
        models: the same, opened; their weights are what is written.
        table: recordings that the folds were trained on, for their licences.
        licence: of the model.

    Raises:
        CannotWriteError: the disk refuses.
    """
    from safetensors.torch import save

    tensors = {
        f"{number}.{name}": value.detach().cpu().contiguous()
        for number, model in enumerate(models.models)
        for name, value in model.state_dict().items()
    }
    everything, local = models.config.to_dict(), settings_where(is_local=True)
    about = {
        "format": HUB_FORMAT,
        "licence": licence,
        "class_names": models.class_names,
        "folds": [{"fold": state["fold"], **state["history"][-1]} for state in states],
        "settings": {name: value for name, value in everything.items() if name not in local},
        "versions": versions(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_file(folder / HUB_WEIGHTS, save(tensors))
    write_file(folder / SETTINGS, json.dumps(about, indent=1, ensure_ascii=False) + "\n")
    write_file(folder / CARD, hub_card(folder.name, about, table))


def hub_card(name: str, about: Mapping[str, Any], table: pd.DataFrame) -> str:
    """Describe a model in markdown, with the head that model hubs read."""
    settings, names = about["settings"], about["class_names"]
    lines = [
        "---", "tags: [audio-classification, bioacoustics, birds]", "---",
        f"# {name}", "",
        f"{len(names)} species in recordings, by {settings['base_model_name']} with a head for "
        f"sound events; {len(about['folds'])} fold(s), whose scores are averaged. Licence: "
        f"{about['licence']}.", "",
        *teacher_lines(settings), "",
        f"It hears {settings['period']:g} s at {settings['sample_rate']} Hz at a time. From a "
        "checkout of the project that made it:", "",
        "```bash", f"python predict.py {name} my/recordings --output found.csv", "```", "",
        "```python", CARD_EXAMPLE.format(folder=name).rstrip(), "```", "",
        f"`song.wav` is mono, at {settings['sample_rate']} Hz.", "",
        "## Scores", "",
        "Each fold on the recordings that it held back. A random scorer reaches the floor.", "",
        *(f"- fold {row['fold']}: {describe_scores(row)}" for row in about["folds"]), "",
        "## Recordings it was trained on", "",
        f"{len(table)} recordings. Their licences:", "",
        *(f"- {licence}: {count}" for licence, count in sum_licences(table).items()), "",
        "## Classes", "",
        ", ".join(f"`{one}`" for one in names),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def sum_licences(table: pd.DataFrame) -> dict[str, int]:
    """Count the licences of recordings, the commonest first; empty ones are not stated."""
    column = next((name for name in ("license", "licence") if name in table), None)
    if column is None:
        return {NOT_STATED: len(table)}
    cells = table[column].fillna("").astype(str).str.strip().replace("", NOT_STATED)
    return {str(name): int(count) for name, count in cells.value_counts().items()}
