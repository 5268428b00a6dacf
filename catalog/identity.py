"""Which files hold one and the same recording, by their names and their bytes.

A name tells when it carries the number of an archive (`XC123456`), the date and time of a recorder
(`SITE1_20230501_050000`), or says that the file is a piece (`walk_part2.wav`, `walk_5_10.wav`). Any
other name, such as `001.wav`, tells nothing: every folder may have its own.
"""

import hashlib
import os
import re
from collections.abc import Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from configs import UserError

COMPARERS = 8  # threads that compare files: they wait for the disk more than they compute

# Archives number their recordings: xeno-canto XC123456, Macaulay Library ML123456, iNaturalist
# iNat123456, Coleccion de Sonidos Ambientales CSA12345 (BirdCLEF+ 2025), Freesound FS12345.
ARCHIVE_ID = re.compile(
    r"(?<![a-z0-9])(xc|xeno[ _-]?canto|ml|macaulay|inat|inaturalist|csa|fs|freesound)"
    r"[ _#-]{0,2}0*([1-9]\d{2,10})(?!\d)",
    re.IGNORECASE,
)
ARCHIVES = {
    "xc": "XC",
    "xenocanto": "XC",
    "ml": "ML",
    "macaulay": "ML",
    "inat": "iNat",
    "inaturalist": "iNat",
    "csa": "CSA",
    "fs": "FS",
    "freesound": "FS",
}
# ESC-50: <fold>-<Freesound number>-<take>-<class>; all takes are from one recording.
ESC50 = re.compile(r"\d-(\d+)-[A-Z](?:-\d+)?")
UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE)
DATE = r"(?:(?:19|20)?\d\d-?(?:0[1-9]|1[0-2])-?(?:0[1-9]|[12]\d|3[01]))"
CLOCK = r"(?:(?:[01]\d|2[0-3])[-:.h]?[0-5]\d[-:.m]?[0-5]\d)"
# As AudioMoth, Song Meter and others name files: 20230501_050000, 2023-05-01 05-00-00.
TIMESTAMP = re.compile(rf"(?<!\d)({DATE})[ _T$-]+({CLOCK})Z?(?!\d)")
# Long enough to be of one recording; counters begin with 0, and a date is of many recordings.
LONG_NUMBER = re.compile(
    rf"(?<![\da-z.])(?!{DATE}(?!\d))([1-9]\d{{5,11}})(?![\da-z])", re.IGNORECASE
)

TIME = r"(\d+(?:\.\d+)?)\s*s?(?:ec)?"
PIECE_PART = re.compile(
    r"[ _.(-]*(?:part|pt|piece|chunk|seg|segment|split|slice|fragment|offset|start)"
    rf"[ _.-]*{TIME}(?:[ _.-]*of[ _.-]*\d+)?\)?",
    re.IGNORECASE,
)
PIECE_CLIP = re.compile(
    rf"[ _.(-]*(?:clip|cut|crop|excerpt|snippet|win|window)[ _.-]*{TIME}\)?", re.IGNORECASE
)
PIECE_SPAN = re.compile(rf"[ _.(-]+{TIME}(?:[ _-]+|to){TIME}\)?", re.IGNORECASE)
ENDING_PIECE = re.compile(r"(?:[ _.(-]+(?:\d+(?:\.\d+)?(?:s|sec|h|m)?|[a-z])\)?)+", re.IGNORECASE)
GENERIC = frozenset(
    ["rec", "recording", "audio", "song", "call", "track", "sound", "bird", "birds", "sample"]
)


class Name(NamedTuple):
    """What a file's name tells: a key that its recording's other files share, and how it tells."""

    key: str
    rule: str


BY_NUMBER, BY_TIME, BY_PIECE, BY_STEM = (
    "number of an archive or in the name",
    "date and time of a recorder",
    "piece of one recording",
    "same name in one folder",
)


# Names --------------------------------------------------------------------------------------------


def archive_id(path: str) -> str:
    """Find an archive's number in a file's name, else in its folders': "XC134880", or ""."""
    for part in reversed(path.split("/")):
        match = ARCHIVE_ID.search(part)
        if match:
            archive = re.sub(r"[ _-]", "", match[1].casefold())
            return ARCHIVES[archive] + match[2]
    return ""


def recording_names(filenames: pd.Series) -> pd.DataFrame:
    """Say of each file what recording it holds, as far as names tell.

    Args:
        filenames: POSIX paths.

    Returns:
        `key`, the same for files of one recording, and `rule`, how it was found.
    """
    names = [recognise(path) for path in filenames]
    table = pd.DataFrame(names, columns=["key", "rule"], index=filenames.index, dtype=object)
    for rows in _chains(filenames):
        table.loc[rows, "key"] = "chain " + filenames[rows[0]]
        table.loc[rows, "rule"] = BY_PIECE
    return table


def recognise(path: str) -> Name:
    """Find the key of a path's recording in its name alone."""
    folder, _, file = path.rpartition("/")
    stem, _ = os.path.splitext(file)
    if number := archive_id(path):
        return Name(number, BY_NUMBER)
    if match := ESC50.fullmatch(stem):
        return Name(f"FS{match[1]}", BY_NUMBER)
    if match := UUID.search(stem):
        return Name(match[0].casefold(), BY_NUMBER)
    if match := TIMESTAMP.search(stem):
        return _recognise_time(folder, stem, match)
    if match := LONG_NUMBER.search(stem):
        return Name(match[1], BY_NUMBER)

    for pattern in (PIECE_PART, PIECE_CLIP):
        match = _match_end(pattern, stem)
        base = stem[: match.start()] if match else ""
        if base and not (pattern is PIECE_CLIP and _is_generic(base, folder)):
            return Name(f"{folder}/{base}".casefold(), BY_PIECE)
    return Name(f"{folder}/{stem}", BY_STEM)


def _recognise_time(folder: str, stem: str, match: re.Match[str]) -> Name:
    """A recorder's name and time are of one recording; the time alone is, if it was cut."""
    recorder = re.sub(r"[\W_]+", "", stem[: match.start()]).casefold()
    when = re.sub(r"\D", "", match[1] + match[2])
    is_piece = ENDING_PIECE.fullmatch(stem[match.end() :]) or _match_end(PIECE_PART, stem)
    if recorder or is_piece:
        return Name(f"{recorder} {when}", BY_TIME)
    return Name(f"{folder}/{stem}", BY_STEM)


def _match_end(pattern: re.Pattern[str], stem: str) -> re.Match[str] | None:
    """Match a pattern at the end of a stem."""
    return next((found for found in pattern.finditer(stem) if found.end() == len(stem)), None)


def _is_generic(base: str, folder: str) -> bool:
    """Say whether a name is that of its folder, a number or a word for any recording."""
    word = re.sub(r"[\W\d_]+", "", base).casefold()
    folders = {re.sub(r"[\W\d_]+", "", part).casefold() for part in folder.split("/")}
    return not word or word in GENERIC or word in folders


def _chains(filenames: pd.Series) -> list[list]:
    """Find files whose names end in seconds that follow each other: `_0_5`, `_5_10`, `_10_15`."""
    found: dict[str, list] = {}
    for row, path in filenames.items():
        stem, _ = os.path.splitext(path)
        match = _match_end(PIECE_SPAN, stem)
        if match and float(match[1]) < float(match[2]):
            span = (float(match[1]), float(match[2]), row)
            found.setdefault(stem[: match.start()].casefold(), []).append(span)

    chains = []
    for spans in found.values():
        starts, ends = {start for start, _, _ in spans}, {end for _, end, _ in spans}
        if len(starts & ends) >= max(1, len(spans) // 2):
            chains.append([row for _, _, row in spans])
    return chains


# Bytes --------------------------------------------------------------------------------------------


def content_ids(paths: Sequence[str | Path]) -> np.ndarray:
    """Number files by their content: (n_files,) int, equal for two files where every byte is.

    Size and a block from the middle tell most apart; the others are read whole.

    Raises:
        UserError: a file cannot be read.
    """
    ids = np.zeros(len(paths), dtype=np.int64)
    with ThreadPool(COMPARERS) as pool:
        for digest in (_quick_digest, _whole_digest):
            shared = np.flatnonzero(pd.Series(ids).duplicated(keep=False))
            values = pool.imap(digest, [paths[int(i)] for i in shared], chunksize=64)
            bar = tqdm(values, "looking for copies", len(shared), leave=False, disable=None)
            try:
                found = list(bar)
            except OSError as error:
                raise UserError(f"{error.filename}: cannot be read: {error.strerror}") from None
            ids[shared] = ids.max(initial=0) + 1 + pd.factorize(np.array(found, dtype=object))[0]
    return pd.factorize(ids)[0]


def _quick_digest(path: str | Path) -> bytes:
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(size // 2)
        return hashlib.blake2b(b"%d %s" % (size, file.read(4096))).digest()


def _whole_digest(path: str | Path) -> bytes:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "blake2b").digest()
