"""What was found in recordings: scores of windows, timelines and events, and the file that an interrupted run leaves.

Times are seconds from the start of a recording, scores lie in [0, 1), and a species is the number of its class.
"""

import base64
import binascii
import contextlib
import fcntl
import json
import logging
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from configs import UserError

logger = logging.getLogger("birdclef.detections")

AVERAGES = ("probability", "logit", "rank")
PARTIAL_FORMAT = 2  # of the file that an interrupted run leaves
BELOW_ONE = np.float32(1 - 2**-24)  # as in model.py: 1 itself would tie with the padding rows of the metric


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
        status: ok; truncated or non_finite (scored up to there); empty or unreadable (no windows); unfinished, of a
            part of a recording that the next one goes on.
        reason: what is wrong with it, if anything.
        seconds: length of what was decoded.
        starts_s: (n,) float64, start of each window.
        scores: (models, n, C) float32 in a PartialResults, (n, C) after.
        events: found in its timeline, by start.
    """

    name: str
    status: str
    reason: str
    seconds: float
    starts_s: np.ndarray
    scores: np.ndarray
    events: tuple[Event, ...] = ()


# Scores --------------------------------------------------------------------------------------------------


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


class Timeline:
    """The mean over overlapping clips, frame by frame, in memory only as far as clips may still come."""

    def __init__(self, n_classes: int) -> None:
        self._first = 0  # the frame that the arrays begin with
        self._total = np.zeros((0, n_classes))
        self._count = np.zeros((0, 1))

    def add(self, first: int, frames: np.ndarray) -> None:
        """Add a clip's frames (n, C), of which the first lies at `first`; none before what `take` gave."""
        begin, end = first - self._first, first - self._first + len(frames)
        if (more := end - len(self._total)) > 0:
            self._total = np.pad(self._total, ((0, more), (0, 0)))
            self._count = np.pad(self._count, ((0, more), (0, 0)))
        self._total[begin:end] += frames
        self._count[begin:end] += 1

    def take(self, before: int) -> np.ndarray:
        """Give out the frames up to `before`, (n, C) float32; NaN where no clip was."""
        n = max(0, before - self._first)
        lacking = max(0, n - len(self._total))
        mean = np.full((n, self._total.shape[1]), np.nan, np.float32)
        np.divide(self._total[:n], self._count[:n], out=mean[: n - lacking], where=self._count[:n] > 0)
        self._total, self._count, self._first = self._total[n:], self._count[n:], self._first + n
        return mean


@dataclass(frozen=True)
class EventRule:
    """An event lasts while the frames are at `low` or above, reaches `high`, and takes `min_s` seconds or more."""

    high: float
    low: float
    min_s: float = 0.0


class EventFinder:
    """Find events in a timeline that comes in pieces.

    Args:
        rule: thresholds and the least duration.
        hop_s: seconds from frame to frame; frame i stands for the time from (i - 1/2) to (i + 1/2) hops.
        n_classes: C.
    """

    def __init__(self, rule: EventRule, hop_s: float, n_classes: int) -> None:
        self.rule, self.hop_s, self.n_frames = rule, hop_s, 0
        self._is_open = np.zeros(n_classes, bool)
        self._began = np.zeros(n_classes, np.int64)
        self._peak = np.zeros(n_classes, np.float32)
        self._found: list[Event] = []

    def add(self, frames: np.ndarray) -> None:
        """Go on with the next frames, (n, C); NaN ends an event."""
        active = frames >= self.rule.low
        for species in np.flatnonzero(self._is_open | active.any(axis=0)):
            begin = 0
            for end in [*np.flatnonzero(np.diff(active[:, species], prepend=self._is_open[species])), len(frames)]:
                if self._is_open[species]:
                    self._peak[species] = frames[begin:end, species].max(initial=self._peak[species])
                if end < len(frames):
                    self._toggle(int(species), self.n_frames + int(end))
                begin = end
        self.n_frames += len(frames)

    def finish(self, seconds: float) -> tuple[Event, ...]:
        """Close what is open and return the events by start, none of them beyond `seconds`."""
        for species in np.flatnonzero(self._is_open):
            self._toggle(int(species), self.n_frames)
        return tuple(sorted(event._replace(end_s=min(event.end_s, seconds)) for event in self._found))

    def _toggle(self, species: int, frame: int) -> None:
        if self._is_open[species]:
            start_s, end_s = (max(0.0, (f - 0.5) * self.hop_s) for f in (int(self._began[species]), frame))
            if self._peak[species] >= self.rule.high and end_s - start_s >= self.rule.min_s:
                self._found.append(Event(start_s, end_s, species, float(self._peak[species])))
        self._is_open[species] ^= True
        self._began[species], self._peak[species] = frame, 0


class TimelineFile:
    """A timeline written piece by piece to an `.npz`: frames (n, C) float32, species (C,) and hop_s.

    Frame i lies at i * hop_s seconds. Until `close` it is a nameless file beside, which a killed run does not leave.
    """

    def __init__(self, path: Path, class_names: Sequence[str], hop_s: float) -> None:
        self.path, self.class_names, self.hop_s, self.n_frames = path, list(class_names), hop_s, 0
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._pieces = tempfile.TemporaryFile(dir=path.parent)  # noqa: SIM115 - closed by close

    def add(self, frames: np.ndarray) -> None:
        """Append (n, C) frames."""
        with writing(self.path):
            self._pieces.write(np.ascontiguousarray(frames, np.float32).tobytes())
        self.n_frames += len(frames)

    def discard(self) -> None:
        """Forget the timeline; no file is left."""
        self._pieces.close()

    def close(self) -> None:
        """Put the file together and give it its name."""
        part = self.path.with_name(self.path.name + ".part")
        shape = (self.n_frames, len(self.class_names))
        with writing(self.path), self._pieces, zipfile.ZipFile(part, "w") as archive:
            with archive.open("frames.npy", "w", force_zip64=True) as entry:
                header = {"descr": "<f4", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(entry, header)
                self._pieces.seek(0)
                shutil.copyfileobj(self._pieces, entry, 2**20)
            for name, array in {"species": np.array(self.class_names), "hop_s": np.float64(self.hop_s)}.items():
                with archive.open(f"{name}.npy", "w") as entry:
                    np.lib.format.write_array(entry, np.asanyarray(array), allow_pickle=False)
        os.replace(part, self.path)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an OSError of the block into a UserError that names the file."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from None


# An interrupted run --------------------------------------------------------------------------------------


def identity(path: Path) -> list[int]:
    """Size in bytes and time of the last change in ns, by which a changed file is known."""
    info = path.stat()
    return [info.st_size, info.st_mtime_ns]


@dataclass
class _Place:
    """Where a recording stands in the file: its file's identity, the offset of each of its parts, windows in all."""

    identity: list[int]
    offsets: list[int]
    n_windows: int
    is_finished: bool


class PartialResults:
    """The file of what a run has scored, from which an interrupted one goes on.

    Its first line holds the settings, every other one a recording or a part of one, all as JSON, scores in base64. A
    line that was cut off is dropped. Only one run at a time may have it.

    Args:
        path: the file; it is made, or read if its settings are these, or else begun anew.
        settings: all that the scores depend on, in plain types.

    Raises:
        UserError: another run has it, or it cannot be written.
    """

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self.path = path
        self._places: dict[str, _Place] = {}
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(path, "a+b")  # noqa: SIM115 - closed by close
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise UserError(f"{path}: another run writes this output; choose another --output") from None
        self._read(json.loads(json.dumps({"format": PARTIAL_FORMAT, **settings})))

    def _read(self, settings: dict[str, Any]) -> None:
        self._file.seek(0)
        old = _parse(self._file.readline())
        if old != settings:
            if old is not None:
                changed = sorted(key for key in old.keys() | settings.keys() if old.get(key) != settings.get(key))
                logger.warning("%s: %s changed since the interrupted run; starting anew", self.path, ", ".join(changed))
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
            self._file.write(json.dumps(row).encode() + b"\n")
            self._file.flush()

    def _place(self, row: dict[str, Any], offset: int) -> None:
        """Note where a line stands; one that begins a recording takes the place of what was there of it."""
        place = self._places.get(row["name"])
        if place is None or row["first"] == 0:
            place = self._places[row["name"]] = _Place(row["identity"], [], 0, False)
        place.offsets.append(offset)
        place.n_windows += len(row["starts_s"])
        place.is_finished = row["status"] != "unfinished"

    def holds(self, name: str, identity: list[int]) -> bool:
        """Say whether all of a recording is there, as the file with this identity (size, time of change)."""
        place = self._places.get(name)
        return place is not None and place.identity == identity and place.is_finished

    def n_windows(self, name: str, identity: list[int]) -> int:
        """Count the windows that are there of a recording."""
        place = self._places.get(name)
        return place.n_windows if place is not None and place.identity == identity else 0

    def add(self, recording: Recording, identity: list[int], first: int = 0) -> None:
        """Append a recording, with scores (models, n, C), or its part from window `first` on."""
        row = vars(recording) | {"identity": identity, "first": first, "starts_s": recording.starts_s.tolist()}
        row |= {"shape": recording.scores.shape, "scores": _to_text(recording.scores)}
        self._place(row, self._file.seek(0, os.SEEK_END))
        self._write(row)

    def __getitem__(self, name: str) -> Recording:
        """Read a recording back, its parts put together."""
        starts_s, scores = [], []
        for offset in self._places[name].offsets:
            self._file.seek(offset)
            row = json.loads(self._file.readline())
            starts_s += row.pop("starts_s")
            scores.append(np.frombuffer(base64.b64decode(row.pop("scores")), "<f4").reshape(row.pop("shape")))
        events = tuple(Event(*event) for event in row.pop("events"))  # of the last part, as is all the rest
        del row["identity"], row["first"]
        row |= {"starts_s": np.array(starts_s, np.float64), "scores": np.concatenate(scores, axis=1)}
        return Recording(**row, events=events)

    def __enter__(self) -> "PartialResults":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        self.close()
        if kind is not None:
            logger.warning("%s keeps what is done; the same command goes on from there", self.path)

    def close(self, *, delete: bool = False) -> None:
        """Close the file; a run that has written its output deletes it first."""
        if delete:
            self.path.unlink(missing_ok=True)
        self._file.close()


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        return json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None


def _to_text(scores: np.ndarray) -> str:
    return binascii.b2a_base64(np.ascontiguousarray(scores, "<f4").tobytes(), newline=False).decode()


class Results:
    """The recordings of a run in order, models averaged and neighbours smoothed, read from disk one by one.

    Args:
        partial: what was found.
        names: of the recordings, in the order wanted.
        average: one of AVERAGES. For ranks all scores are held in memory.
        weight: of a neighbouring window in the smoothing; 0 leaves scores as they are.
    """

    def __init__(self, partial: PartialResults, names: Sequence[str], average: str, weight: float = 0.0) -> None:
        self._partial, self._names, self._average, self._weight = partial, list(names), average, weight
        self._ranks = None
        if average == "rank" and names:
            self._ranks = average_ranks(np.concatenate([partial[name].scores for name in names], axis=1))

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
            yield replace(recording, scores=smooth(scores, self._weight) if self._weight else scores)
