"""What train.csv was made from, so that training can tell when it is out of date."""

import hashlib
import json
import os
from pathlib import Path

from configs import Config, UserError, next_command


def note_sources(config: Config, table: str) -> dict[str, str]:
    """Note what a table (its text) was made from and how, for check_sources.

    The path of the metadata is relative to the folder of the report, so both can be moved.
    """
    folder = config.fold_report_path.parent
    has_table = config.metadata_path.is_file() and not config.from_folders
    return {
        "metadata": os.path.relpath(config.metadata_path, folder).replace(os.sep, "/"),
        "metadata_sha256": _sha256(config.metadata_path) if has_table else "",
        "table_sha256": hashlib.sha256(table.encode()).hexdigest(),
        "command": next_command("split_data.py"),
    }


def check_sources(config: Config) -> None:
    """Refuse a table whose metadata have changed since: its labels and folds may be out of date.

    There is nothing to compare where the report beside the table is missing or of an older version,
    where the table was changed since, and where the metadata are not there, as on a machine that
    has only what training needs.

    Raises:
        UserError: they have changed.
    """
    try:
        made_from = json.loads(config.fold_report_path.read_bytes())["made_from"]
        metadata = config.fold_report_path.parent / made_from["metadata"]
        is_the_table = _sha256(config.train_dataframe_path) == made_from["table_sha256"]
        noted = made_from["metadata_sha256"]
        is_changed = bool(noted) and metadata.is_file() and _sha256(metadata) != noted
        command = str(made_from["command"])
    except (OSError, ValueError, KeyError, TypeError):
        return

    if is_the_table and is_changed:
        raise UserError(
            f"{metadata} has changed since {config.train_dataframe_path} was made from it; run "
            f"{command} again, or delete {config.fold_report_path} to train on it as it is"
        )


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
