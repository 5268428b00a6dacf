"""A folder that a model is shared by, as it is read: weights without code, and settings.

`model.safetensors` holds the weights of all folds, `config.json` settings and class names,
`README.md` the card (`hub_card.py` writes them). Nothing in the folder is run.
"""

import json
from pathlib import Path
from typing import Any

from configs import UserError

HUB_WEIGHTS, SETTINGS, CARD = "model.safetensors", "config.json", "README.md"
HUB_FORMAT = "birdclef hub 1"
ADDRESS = "hf-hub:"  # begins the name of a model on a hub


def is_hub(path: Path) -> bool:
    """Say whether a folder is of this form."""
    return (path / HUB_WEIGHTS).is_file() and (path / SETTINGS).is_file()


def read_hub(weights: Path) -> list[dict[str, Any]]:
    """Read a folder's models, each as a checkpoint's state: model, class_names, config.

    Args:
        weights: its model.safetensors.

    Raises:
        UserError: files that are damaged, or of another form.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    settings = weights.with_name(SETTINGS)
    try:
        about = json.loads(settings.read_text(encoding="utf-8"))
        if about["format"] != HUB_FORMAT:
            raise UserError(f"{settings}: not a file of export.py --to hub, or of another version")
        tensors = load_file(weights)
        states: list[dict[str, Any]] = [{} for _ in about["folds"]]
        common = {"class_names": about["class_names"], "config": about["settings"]}
        for name, value in tensors.items():
            number, _, rest = name.partition(".")
            states[int(number)][rest] = value
    except UserError:
        raise
    except (OSError, ValueError, KeyError, TypeError, IndexError, SafetensorError) as error:
        raise UserError(f"{weights.parent}: cannot be read as a shared model: {error!r}") from None
    return [{"model": state, "epoch": 0, "step": 0, **common} for state in states]


def fetch(address: str) -> Path:
    """Download the folder `hf-hub:owner/name` from Hugging Face's hub, or find it in its cache.

    Only the three files are fetched.

    Raises:
        UserError: it cannot be had, with the reason.
    """
    from huggingface_hub import snapshot_download

    name = address.removeprefix(ADDRESS)
    try:
        return Path(snapshot_download(name, allow_patterns=[HUB_WEIGHTS, SETTINGS, CARD]))
    except Exception as error:  # the library raises many kinds
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{address}: cannot be fetched: {reason}") from None
