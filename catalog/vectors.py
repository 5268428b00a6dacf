"""A file of vectors: what some network made of each moment of each recording.

The file is an .npz with four arrays, or a Parquet table with three columns and the metadata:

- `recording` (N,) text: `<label>/<file>`, as train.csv has it in `filepath`, without .npy
- `start_s` (N,) float64: where in the recording the window begins that the vector is of
- `vector` (N, n) float32
- `about`, text, JSON (of Parquet the key `about` of its metadata): `source`, the network;
  `licence`, of its weights; `window_s`, length of the windows

It is written and read without pickle. Rows are sorted by recording and start.
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from configs import UserError
from files import write_file

NAMES = ("recording", "start_s", "vector")
DIGEST_LETTERS = 12


@dataclass(frozen=True)
class About:
    """Where vectors come from.

    Attributes:
        source: the network.
        licence: of its weights, as far as it is known.
        window_s: seconds that a vector is of.
    """

    source: str
    licence: str
    window_s: float


class Vectors:
    """The vectors of recordings, to be asked for by recording and time.

    Args:
        recording: (N,) text, in ascending order.
        start_s: (N,) float64, ascending in each recording.
        vector: (N, n) float32.
        about: where they come from.
        digest: of the file.
    """

    def __init__(
        self,
        recording: np.ndarray,
        start_s: np.ndarray,
        vector: np.ndarray,
        about: About,
        digest: str = "",
    ) -> None:
        self.about, self.digest, self.vector = about, digest, vector
        self.middle_s = start_s + about.window_s / 2
        names, first = np.unique(recording, return_index=True)
        ends = np.append(first[1:], len(recording))
        self._rows = {
            str(name): slice(int(start), int(end))
            for name, start, end in zip(names, first, ends, strict=True)
        }

    @property
    def size(self) -> int:
        """Numbers in a vector."""
        return self.vector.shape[1]

    @property
    def source(self) -> str:
        """Name the network, its licence and the file, in a line for settings and cards."""
        return f"{self.about.source} ({self.about.licence}), vectors {self.digest}"

    def __contains__(self, recording: str) -> bool:
        return recording in self._rows

    def of_clip(self, recording: str, start_s: float, end_s: float) -> np.ndarray:
        """Average the vectors whose windows have their middle in the clip; else take the nearest.

        Args:
            recording: `<label>/<file>`.
            start_s: of the clip, in the recording.
            end_s: its end.

        Returns:
            (n,) float32.

        Raises:
            KeyError: no vector is of this recording.
        """
        rows = self._rows[recording]
        return mean_within(self.middle_s[rows], self.vector[rows], start_s, end_s)

    def rows_of(self, recordings: Sequence[str]) -> np.ndarray:
        """Say where the vectors of recordings lie: (m, 2) int64, first and end; 0, 0 for none."""
        nothing = slice(0, 0)
        found = [self._rows.get(name, nothing) for name in recordings]
        return np.array([(rows.start, rows.stop) for rows in found], np.int64).reshape(-1, 2)

    def check_covers(self, recordings: Sequence[str], path: Path | None) -> None:
        """Refuse a table that lacks recordings.

        Raises:
            UserError: some are not in it; the message names the first.
        """
        if missing := [name for name in recordings if name not in self]:
            raise UserError(
                f"{path}: no vectors of {len(missing)} of {len(recordings)} recordings, the first: "
                f"{missing[0]}; run embed.py again on all prepared recordings"
            )


def mean_within(
    middle_s: np.ndarray, vector: np.ndarray, start_s: float, end_s: float
) -> np.ndarray:
    """Average the vectors (m, n) whose window's middle lies from start_s to end_s: (n,) float32.

    Without any, the nearest is taken. Middles (m,) ascend, m >= 1.
    """
    first, last = np.searchsorted(middle_s, (start_s, end_s))
    if first == last:
        first = int(np.abs(middle_s - (start_s + end_s) / 2).argmin())
        last = first + 1
    return vector[first:last].mean(axis=0, dtype=np.float64).astype(np.float32)


# Files --------------------------------------------------------------------------------------------


def write_vectors(
    path: Path, recording: Sequence[str], start_s: np.ndarray, vector: np.ndarray, about: About
) -> None:
    """Write a file of vectors: .npz, or .parquet where pyarrow is installed.

    Args:
        path: where to.
        recording: N names.
        start_s: (N,) seconds.
        vector: (N, n).
        about: where they come from.

    Raises:
        UserError: another suffix, or pyarrow is wanted and not installed.
    """
    order = np.lexsort((start_s, np.array(recording)))
    columns: dict[str, Any] = {
        "recording": np.array(recording)[order],
        "start_s": np.asarray(start_s, np.float64)[order],
        "vector": np.asarray(vector, np.float32)[order],
    }
    text, content = json.dumps(vars(about)), io.BytesIO()
    if check_suffix(path) == ".npz":
        np.savez(content, about=np.array(text), **columns)
    else:
        import pyarrow
        import pyarrow.parquet

        columns["vector"] = list(columns["vector"])
        table = pyarrow.table(columns).replace_schema_metadata({"about": text})
        pyarrow.parquet.write_table(table, content)
    write_file(path, content.getvalue())


def check_suffix(path: Path) -> str:
    """Return the suffix of a file of vectors.

    Raises:
        UserError: it is neither .npz nor .parquet, or there is no pyarrow for the latter.
    """
    if path.suffix not in (".npz", ".parquet"):
        raise UserError(f"{path}: a file of vectors ends in .npz or .parquet")
    if path.suffix == ".parquet":
        try:
            import pyarrow  # noqa: F401
        except ModuleNotFoundError:
            raise UserError(
                f"{path} needs pyarrow; python -m pip install -r requirements-export.txt"
            ) from None
    return path.suffix


def read_vectors(path: Path) -> Vectors:
    """Read a file of vectors and check it.

    Raises:
        UserError: it is not there, not such a file, or a row of it is no vector of a moment.
    """
    suffix = check_suffix(path)
    try:
        content = path.read_bytes()
        columns = _read_npz(content) if suffix == ".npz" else _read_parquet(content)
    except (OSError, ValueError, TypeError, KeyError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: no file of vectors: {reason}; embed.py writes them") from None

    recording, start_s, vector = (columns[name] for name in NAMES)
    fault = _fault(recording, start_s, vector)
    if fault:
        raise UserError(f"{path}: {fault}")

    order = np.lexsort((start_s, recording))
    digest = hashlib.sha256(content).hexdigest()[:DIGEST_LETTERS]
    about = About(
        str(columns["about"].get("source", "unknown network")),
        str(columns["about"].get("licence", "licence not stated")),
        float(columns["about"].get("window_s", 0.0)),
    )
    return Vectors(
        recording[order],
        start_s[order].astype(np.float64),
        vector[order].astype(np.float32),
        about,
        digest,
    )


def _read_npz(content: bytes) -> dict[str, Any]:
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:
        columns: dict[str, Any] = {name: stored[name] for name in NAMES}
        columns["about"] = json.loads(str(stored["about"])) if "about" in stored else {}
    return columns


def _read_parquet(content: bytes) -> dict[str, Any]:
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(pyarrow.BufferReader(content))
    about = (table.schema.metadata or {}).get(b"about", b"{}")
    return {
        "recording": np.array(table["recording"].to_pylist()),
        "start_s": np.array(table["start_s"].to_pylist()),
        "vector": np.array(table["vector"].to_pylist()),
        "about": json.loads(about),
    }


def _fault(recording: np.ndarray, start_s: np.ndarray, vector: np.ndarray) -> str:
    """Say what is wrong with the columns; "" for nothing."""
    if recording.ndim != 1 or recording.dtype.kind != "U":
        return f"recording is {recording.dtype} {recording.shape}, not a column of names"
    if vector.ndim != 2 or vector.dtype.kind != "f" or not vector.size:
        return f"vector is {vector.dtype} {vector.shape}, not (N, n) floats, each row of one length"
    if start_s.shape != recording.shape or start_s.dtype.kind not in "fiu":
        return f"start_s is {start_s.dtype} {start_s.shape}, not a number a recording"
    if len(vector) != len(recording):
        return f"{len(vector)} vectors for {len(recording)} names"

    is_bad = ~np.isfinite(vector).all(axis=1) | ~(np.isfinite(start_s) & (start_s >= 0))
    if is_bad.any():
        row = int(is_bad.argmax())
        return (
            f"row {row}, {recording[row]} at {start_s[row]:g} s: vectors and seconds are finite, "
            "seconds 0 or more"
        )
    return ""
