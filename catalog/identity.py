"""Which files hold one and the same recording."""

import hashlib
import os
import re
from collections.abc import Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from configs import UserError

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

READERS = 8  # threads that compare files: they wait for the disk more than they compute


def archive_id(path: str) -> str:
    """Find an archive's number in a file's name, else in its folders': "XC134880", or ""."""
    for part in reversed(path.split("/")):
        if match := ARCHIVE_ID.search(part):
            archive = re.sub(r"[ _-]", "", match[1].casefold())
            return ARCHIVES[archive] + match[2]
    return ""


def recording_ids(filenames: pd.Series) -> pd.Series:
    """Name recordings by their file name alone: `afpwag1/XC118441.ogg` is XC118441."""
    return filenames.map(lambda name: os.path.splitext(name.rsplit("/", 1)[-1])[0])


def content_ids(paths: Sequence[str | Path]) -> np.ndarray:
    """Number files by their content: (n_files,) int, equal for two files where every byte is.

    Size and a block from the middle tell most apart; the others are read whole.

    Raises:
        UserError: a file cannot be read.
    """
    ids = np.zeros(len(paths), dtype=np.int64)
    with ThreadPool(READERS) as pool:
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
