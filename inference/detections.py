"""What was found in recordings: scores of windows, timelines and events, and the file that an interrupted run leaves.

Times are seconds from the start of a recording, scores lie in [0, 1), and a species is the number
of its class.
"""

import base64
import binascii
import contextlib
import fcntl
import json
import logging
import os
import shutil
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from configs import UserError

logger = logging.getLogger("birdclef.detections")

AVERAGES = ("probability", "logit", "rank")
PARTIAL_FORMAT = 3  # of the file that an interrupted run leaves
BELOW_ONE = np.float32(
    1 - 2**-24
)  # as in model.py: 1 itself would tie with the padding rows of the metric


class Event(NamedTuple):
    """A species heard from `start_s` to `end_s`; of an event the score is its highest frame, of a window its own."""

    start_s: float
    end_s: float
    species: int
    score: float


@dataclass(frozen=True)
class Recording:
    """What is known of one recording.

    Attributes:
        name: path below the folder that was scored, with slashes.
        status: ok; truncated or non_finite (scored up to there); empty or unreadable (no windows);
            unfinished, of a part of a recording that the next one goes on.
        reason: what is wrong with it, if anything.
        seconds: length of what was decoded.
        starts_s: (n,) float64, start of each window.
        scores: (models, n, C) float32 in a PartialResults, (n, C) after.
        events: found in its timeline, by start; of a part those that ended in it.
    """

    name: str
    status: str
    reason: str
    seconds: float
    starts_s: np.ndarray
    scores: np.ndarray
    events: tuple[Event, ...] = ()


# Scores -------------------------------------------------------------------------------------------


def average_models(scores: np.ndarray, how: str) -> np.ndarray:
    """Average (models, ..., C) probabilities over models as such, or as logits: (..., C) float32 below 1."""
    if how == "logit":
        clipped = np.clip(scores.astype(np.float64), 1e-7, 1 - 1e-7)
        mean = 1 / (1 + np.exp(-np.mean(np.log(clipped / (1 - clipped)), axis=0)))
    else:
        mean = np.mean(scores, axis=0, dtype=np.float64)
    return np.clip(np.asarray(mean, np.float32), 0, BELOW_ONE)


def average_ranks(scores: np.ndarray) -> np.ndarray:
    """Average over models the rank of each window among all n, class by class: (models, n, C) to (n, C) float32.

    A rank is rank / (n + 1), with ties sharing their mean rank, so that it is above 0 and below 1.
    """
    from scipy.stats import rankdata

    ranks = [rankdata(one, axis=0) / (scores.shape[1] + 1) for one in scores]
    return np.asarray(np.mean(ranks, axis=0), np.float32)


def smooth(scores: np.ndarray, weight: float) -> np.ndarray:
    """Average each of (n, C) windows, weight 1, with the one before and the one after, which count `weight` each."""
    total, weights = scores.astype(np.float64), np.ones((len(scores), 1))
    for here, other in ((slice(1, None), slice(None, -1)), (slice(None, -1), slice(1, None))):
        total[here] += weight * scores[other]
        weights[here] += weight
    return np.minimum((total / weights).astype(np.float32), BELOW_ONE)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an OSError of the block into a UserError that names the file."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from None


# An interrupted run -------------------------------------------------------------------------------


def identity(path: Path) -> list[int]:
    """Size in bytes and time of the last change in ns, by which a changed file is known."""
    info = path.stat()
    return [info.st_size, info.st_mtime_ns]


@dataclass
class _Place:
    """Where a recording stands: identity of its file, the offset of each of its parts, windows in all, last state."""

    identity: list[int]
    offsets: list[int]
    n_windows: int = 0
    is_finished: bool = False
    state: dict[str, Any] | None = None


class PartialResults:
    """The file of what a run has scored, from which an interrupted one goes on.

    Its first line holds the settings, every other one a recording or a part of one, all as JSON,
    arrays in base64. A line that was cut off is dropped. Only one run at a time may have it. The
    frames of unfinished recordings lie in a folder beside, `<name>.frames`; where they are not
    those that the last part counts, the recording begins anew.

    Args:
        path: the file; it is made, or read if its settings are these, or else begun anew.
        settings: all that the scores depend on, in plain types.

    Raises:
        UserError: another run has it, or it cannot be written.
    """

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self.path, self._frames_dir = path, path.with_name(path.name + ".frames")
        self._places: dict[str, _Place] = {}
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(path, "a+b")  # noqa: SIM115 - closed by close
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise UserError(
                f"{path}: another run writes this output; choose another --output"
            ) from None
        self._read(json.loads(json.dumps({"format": PARTIAL_FORMAT, **settings})))
        self._drop_lost_timelines()

    def _read(self, settings: dict[str, Any]) -> None:
        self._file.seek(0)
        old = _parse(self._file.readline())
        if old != settings:
            if old is not None:
                changed = sorted(
                    key for key in old.keys() | settings.keys() if old.get(key) != settings.get(key)
                )
                logger.warning(
                    "%s: %s changed since the interrupted run; starting anew",
                    self.path,
                    ", ".join(changed),
                )
            self._delete_frames()
            self._file.truncate(0)
            self._write(settings)
            return
        sound = self._file.tell()
        for line in self._file:
            row = _parse(line)
            if row is None:
                break
            self._place(row, sound)
            sound += len(line)
        self._file.truncate(sound)

    def _write(self, row: dict[str, Any]) -> None:
        with writing(self.path):
            self._file.write(json.dumps(row, default=_array_to_json).encode() + b"\n")
            self._file.flush()

    def _drop_lost_timelines(self) -> None:
        for name, place in list(self._places.items()):
            frames = None if place.is_finished or place.state is None else place.state["frames"]
            if frames is not None and not _begins_with(
                self.frames_path(name), frames["n_bytes"], frames["crc32"]
            ):
                message = "%s: the frames of %s are gone or changed since the interrupted run; it begins anew"
                logger.warning(message, self.frames_path(name), name)
                del self._places[name]

    def _delete_frames(self) -> None:
        if self._frames_dir.exists():
            shutil.rmtree(self._frames_dir)

    def _place(self, row: dict[str, Any], offset: int) -> None:
        """Note where a line stands; one that begins a recording takes the place of what was there of it."""
        place = self._places.get(row["name"])
        if place is None or row["first"] == 0:
            place = self._places[row["name"]] = _Place(row["identity"], [])
        place.offsets.append(offset)
        place.n_windows += len(row["starts_s"])
        place.is_finished, place.state = row["status"] != "unfinished", row["state"]

    def frames_path(self, name: str) -> Path:
        """Name the file that a recording's frames are collected in; it goes when the recording is added whole."""
        return self._frames_dir / name

    def holds(self, name: str, identity: list[int]) -> bool:
        """Say whether all of a recording is there, as the file with this identity (size, time of change)."""
        place = self._places.get(name)
        return place is not None and place.identity == identity and place.is_finished

    def n_windows(self, name: str, identity: list[int]) -> int:
        """Count the windows that are there of a recording."""
        place = self._places.get(name)
        return place.n_windows if place is not None and place.identity == identity else 0

    def state(self, name: str, identity: list[int]) -> dict[str, Any] | None:
        """Return the state that was added with the last part of a recording."""
        place = self._places.get(name)
        return place.state if place is not None and place.identity == identity else None

    def add(
        self,
        recording: Recording,
        identity: list[int],
        first: int = 0,
        state: dict[str, Any] | None = None,
    ) -> None:
        """Append a recording, with scores (models, n, C), or its part from window `first` on.

        Args:
            recording: the part, of status unfinished unless it is the last.
            identity: of its file.
            first: number of the part's first window.
            state: numbers and arrays in dicts, from which its timeline goes on; its "frames", if
                not None, say that `frames_path` begins with n_bytes of this crc32.
        """
        row = vars(recording) | {"identity": identity, "first": first, "state": state}
        self._place(row, self._file.seek(0, os.SEEK_END))
        self._write(row)
        if recording.status != "unfinished":
            self.frames_path(recording.name).unlink(missing_ok=True)

    def __getitem__(self, name: str) -> Recording:
        """Read a recording back, its parts put together."""
        starts_s, scores, events = [], [], []
        for offset in self._places[name].offsets:
            self._file.seek(offset)
            row = json.loads(self._file.readline(), object_hook=_array_from_json)
            starts_s.append(row["starts_s"])
            scores.append(row["scores"])
            events += [Event(*event) for event in row["events"]]
        del row["identity"], row["first"], row["state"]  # the rest is that of the last part
        row |= {"starts_s": np.concatenate(starts_s), "scores": np.concatenate(scores, axis=1)}
        return Recording(**row | {"events": tuple(sorted(events))})

    def __enter__(self) -> "PartialResults":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        self.close()
        if kind is not None:
            logger.warning("%s keeps what is done; the same command goes on from there", self.path)

    def close(self, *, delete: bool = False) -> None:
        """Close the file; a run that has written its output deletes it first."""
        if delete:
            self._delete_frames()
            self.path.unlink(missing_ok=True)
        self._file.close()


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        return json.loads(line, object_hook=_array_from_json) if line.endswith(b"\n") else None
    except ValueError:
        return None


def _begins_with(path: Path, n_bytes: int, crc32: int) -> bool:
    """Say whether a file is there and its first bytes have this check sum."""
    n_left, found = n_bytes, 0
    try:
        with open(path, "rb") as file:
            while n_left and (block := file.read(min(n_left, 2**20))):
                n_left, found = n_left - len(block), zlib.crc32(block, found)
    except OSError:
        return False
    return n_left == 0 and found == crc32


def _array_to_json(array: np.ndarray) -> dict[str, Any]:
    text = binascii.b2a_base64(np.ascontiguousarray(array).tobytes(), newline=False).decode()
    return {"dtype": array.dtype.str, "shape": array.shape, "base64": text}


def _array_from_json(found: dict[str, Any]) -> Any:
    if "base64" not in found:
        return found
    return np.frombuffer(base64.b64decode(found["base64"]), found["dtype"]).reshape(found["shape"])


class Results:
    """The recordings of a run in order, models averaged and neighbours smoothed, read from disk one by one.

    Args:
        partial: what was found.
        names: of the recordings, in the order wanted.
        average: one of AVERAGES. For ranks all scores are held in memory.
        weight: of a neighbouring window in the smoothing; 0 leaves scores as they are.
    """

    def __init__(
        self, partial: PartialResults, names: Sequence[str], average: str, weight: float = 0.0
    ) -> None:
        self._partial, self._names, self._average, self._weight = (
            partial,
            list(names),
            average,
            weight,
        )
        self._ranks = None
        if average == "rank" and names:
            self._ranks = average_ranks(
                np.concatenate([partial[name].scores for name in names], axis=1)
            )

    def __iter__(self) -> Iterator[Recording]:
        done = 0
        for name in self._names:
            recording = self._partial[name]
            n_windows = recording.scores.shape[1]
            if self._ranks is None:
                scores = average_models(recording.scores, self._average)
            else:
                scores = self._ranks[done : done + n_windows]
            done += n_windows
            yield replace(
                recording, scores=smooth(scores, self._weight) if self._weight else scores
            )
