"""Which files hold one and the same recording."""

import hashlib
import os
from collections.abc import Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from configs import UserError

READERS = 8  # threads that compare files: they wait for the disk more than they compute


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
