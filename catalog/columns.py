"""Columns of a table of recordings, by the names that people give them."""

import logging
import re
from collections.abc import Sequence

import pandas as pd

from catalog.filenames import AUDIO_SUFFIX
from configs import SHOWN, UserError

logger = logging.getLogger("birdclef.columns")

GENUS_NAMES = ("genus", "gen")
EPITHET_NAMES = ("species", "sp", "specific_epithet", "epithet")
# Usual names, the first that a table has is taken. Compared without case, spaces, - and _.
LABEL_NAMES = (
    "primary_label", "label", "species_code", "ebird_code", "species", "species_name", "bird",
    "bird_name", "birds", "labels", "class", "class_name", "class_label", "category", "common_name",
    "english_name", "vernacular_name", "scientific_name", "sci_name", "latin_name", "taxon",
    "taxon_name", "manual_id", "annotation", "annotations", "tag", "tags", "target_name", "en",
    "code", "art", "espece", "especie", "target", "y", *EPITHET_NAMES,
)  # fmt: skip
FILENAME_NAMES = (
    "filename", "file_name", "file", "filepath", "file_path", "path", "relative_path", "rel_path",
    "audio_filename", "audio_file", "audio_file_name", "audio_path", "audio_filepath", "audio",
    "recording", "recording_path", "recording_file", "recording_name", "sound_file", "sound_path",
    "sound", "wav", "wav_file", "wav_path", "wavfile", "fname", "full_path", "in_file",
    "begin_path", "begin_file", "clip", "clip_path", "clip_name", "xc_id", "xeno_canto_id",
    "ml_catalog_number", "catalog_number", "asset_id", "recording_id", "id", "name",
)  # fmt: skip
SECONDARY_NAMES = (
    "secondary_labels", "secondary_label", "secondary", "secondary_species", "background",
    "background_species", "background_labels", "background_birds", "background_label",
    "other_species", "other_labels", "additional_species", "also",
)  # fmt: skip
WEB_ADDRESS = re.compile(r"^(https?:)?//", re.IGNORECASE)


def name_columns(
    table: pd.DataFrame, *, label_column: str | None = None, filename_column: str | None = None
) -> pd.DataFrame:
    """Give the columns of labels, file names and further labels BirdCLEF's names.

    Args:
        table: text, as read_table returns it.
        label_column: the column of labels, by its own name; None looks for a usual name.
        filename_column: the same for file names.

    Returns:
        The table with `primary_label`, `filename` and, where there is one, `secondary_labels`. A
        column that had one of these names and is not the one asked for becomes `<name> (original)`.

    Raises:
        UserError: no such column; the message lists the columns and the setting.
    """
    source = table.attrs.get("source", "metadata")
    if label_column is None:
        table = _join_genus(table, source)
    chosen = {
        "primary_label": _choose(table, label_column, LABEL_NAMES, "--label-column", source),
        "filename": _choose(
            table, filename_column, FILENAME_NAMES, "--filename-column", source, is_file=True
        ),
    }
    used = set(chosen.values())
    secondary = _find(table, SECONDARY_NAMES, used)
    if secondary:
        chosen["secondary_labels"] = secondary
    if chosen["primary_label"] == chosen["filename"]:
        raise UserError(
            f"{source}: column {chosen['filename']!r} cannot be both labels and file names; name "
            "them with --label-column and --filename-column"
        )

    renamed = {name: new for new, name in chosen.items() if new != name}
    if not renamed:
        return table
    taken = {name: f"{name} (original)" for name in renamed.values() if name in table.columns}
    what = {"primary_label": "labels", "filename": "file names", "secondary_labels": "other labels"}
    said = ", ".join(f"{what[new]} from column {name!r}" for name, new in renamed.items())
    logger.info("%s: %s", source, said)
    return table.rename(columns={**taken, **renamed})


def _join_genus(table: pd.DataFrame, source: str) -> pd.DataFrame:
    """Put genus before species where both have a column of their own: `major` is no species."""
    by_word = {_word(name): name for name in reversed(table.columns)}
    genus, epithet = (
        next((by_word[_word(name)] for name in names if _word(name) in by_word), None)
        for names in (GENUS_NAMES, EPITHET_NAMES)
    )
    if genus is None or epithet is None or by_word.keys() & {"primarylabel", "label"}:
        return table
    if not table[epithet].str.fullmatch(r"[a-z-]*").all() or not table[genus].str.strip().all():
        return table  # the species has its whole name, or a code

    logger.info("%s: labels are columns %r and %r together", source, genus, epithet)
    return table.assign(**{epithet: table[genus].str.strip() + " " + table[epithet].str.strip()})


def _choose(
    table: pd.DataFrame,
    asked: str | None,
    usual: Sequence[str],
    flag: str,
    source: str,
    *,
    is_file: bool = False,
) -> str:
    if asked is not None:
        found = asked if asked in table.columns else _find(table, [asked], set())
    else:
        found = _find(table, usual, set(), is_file=is_file)
    if found:
        return found

    there = ", ".join(map(repr, table.columns))
    web = [name for name in table.columns if len(table) and _hold(table[name], WEB_ADDRESS)]
    if is_file and web:
        raise UserError(
            f"{source}: column {web[0]!r} holds web addresses that end with no file's name; add a "
            f"column with the names of the files and give it with {flag}"
        )
    if is_file and any(AUDIO_SUFFIX.search(str(name)) for name in table.columns):
        raise UserError(
            f"{source}: has no header, its first row is {there}; add a first row such as "
            "primary_label,filename"
        )
    wanted = repr(asked) if asked is not None else f"{usual[0]!r} (or {', '.join(usual[1:6])}, ...)"
    raise UserError(f"{source}: no column {wanted}; the columns are {there}; choose with {flag}")


def _find(
    table: pd.DataFrame, usual: Sequence[str], used: set[str], *, is_file: bool = False
) -> str | None:
    """Return the column with the first of the usual names that is not used and holds something."""
    by_word = {_word(name): name for name in reversed(table.columns)}
    web = None  # a column of addresses; those that end with a file's name will do
    for name in usual:
        column = by_word.get(_word(name))
        if column is None or column in used:
            continue
        if is_file and _hold(table[column], WEB_ADDRESS):
            web = web or column
            continue
        return column
    return web if web and _hold(table[web], AUDIO_SUFFIX) else None


def _hold(cells: pd.Series, pattern: re.Pattern) -> bool:
    """Say whether the first cells hold a pattern."""
    return all(pattern.search(str(cell)) for cell in cells.head(SHOWN))


def _word(name: object) -> str:
    return re.sub(r"[\W_]+", "", str(name)).casefold()
