"""Scores of frames: their mean over overlapping clips, their file, and the events in them.

All three take a recording in pieces and can go on from their `state`, whose size does not grow with
the recording.
"""

import shutil
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from files import replacing
from inference.detections import Event
from inference.growing_file import GrowingFile


class Timeline:
    """The mean over overlapping clips, frame by frame.

    Only the frames that later clips may still reach are in memory.
    """

    def __init__(self, n_classes: int) -> None:
        self._first = 0  # the frame that the arrays begin with
        self._total = np.zeros((0, n_classes))
        self._count = np.zeros((0, 1))

    def add(self, first: int, frames: np.ndarray) -> None:
        """Add a clip's frames (n, C) from frame `first` on, which `take` has not given out yet."""
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
        np.divide(
            self._total[:n], self._count[:n], out=mean[: n - lacking], where=self._count[:n] > 0
        )
        self._total, self._count, self._first = self._total[n:], self._count[n:], self._first + n
        return mean

    def state(self) -> dict[str, Any]:
        """Copy what `restore` needs: the next frame to give out, sums (n, C) and counts (n, 1)."""
        return {"first": self._first, "total": self._total.copy(), "count": self._count.copy()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a `state`."""
        self._first, self._total, self._count = (
            state["first"],
            state["total"].copy(),
            state["count"].copy(),
        )


class TimelineFile:
    """A timeline written piece by piece to an `.npz`.

    It holds frames (n, C) float32, species (C,) and hop_s; frame i lies at i * hop_s seconds. Until
    `close` the frames are collected in a file of their own, from which a later run goes on; the
    caller deletes it.

    Args:
        path: of the `.npz`.
        pieces: the file that collects frames; what it holds beyond `state` is dropped.
        class_names: C species.
        hop_s: seconds from frame to frame.
        state: of an interrupted run, compared with the file before; None begins anew.

    Raises:
        CannotWriteError: the disk refuses.
    """

    def __init__(
        self,
        path: Path,
        pieces: Path,
        class_names: Sequence[str],
        hop_s: float,
        state: dict[str, int] | None = None,
    ) -> None:
        self.path, self.class_names, self.hop_s = path, list(class_names), hop_s
        self._state = {"n_frames": 0, "n_bytes": 0, "crc32": 0} if state is None else state.copy()
        self._pieces = GrowingFile(pieces)
        self._pieces.truncate(self._state["n_bytes"])

    def add(self, frames: np.ndarray) -> None:
        """Append (n, C) frames."""
        piece = np.ascontiguousarray(frames, "<f4").tobytes()
        self._pieces.append(piece)  # a part that counts them may be written next
        self._state["n_frames"] += len(frames)
        self._state["n_bytes"] += len(piece)
        self._state["crc32"] = zlib.crc32(piece, self._state["crc32"])

    def state(self) -> dict[str, int]:
        """Say how many frames there are, their bytes and check sum."""
        return self._state.copy()

    def discard(self) -> None:
        """Let go of the file of collected frames, which stays."""
        self._pieces.close()

    def close(self) -> None:
        """Put the `.npz` together and give it its name."""
        facts = {"species": np.array(self.class_names), "hop_s": np.float64(self.hop_s)}
        with replacing(self.path) as file, zipfile.ZipFile(file, "w") as archive:
            with archive.open("frames.npy", "w", force_zip64=True) as entry:
                self._copy_frames(entry)
            for name, array in facts.items():
                with archive.open(f"{name}.npy", "w") as entry:
                    np.lib.format.write_array(entry, np.asanyarray(array), allow_pickle=False)
        self._pieces.close()

    def _copy_frames(self, entry: IO[bytes]) -> None:
        shape = (self._state["n_frames"], len(self.class_names))
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(entry, header)
        self._pieces.file.seek(0)
        shutil.copyfileobj(self._pieces.file, entry, 2**20)


@dataclass(frozen=True)
class EventRule:
    """What an event is.

    Its frames all score `low` or more, one of them `high` or more, for at least `min_s` seconds.
    """

    high: float
    low: float
    min_s: float = 0.0


class EventFinder:
    """Find events in a timeline that comes in pieces.

    Args:
        rule: thresholds and the least duration.
        hop_s: seconds from frame to frame; frame i stands for the time from (i - 1/2) to (i + 1/2)
            hops.
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
            for end in [
                *np.flatnonzero(np.diff(active[:, species], prepend=self._is_open[species])),
                len(frames),
            ]:
                if self._is_open[species]:
                    self._peak[species] = frames[begin:end, species].max(
                        initial=self._peak[species]
                    )
                if end < len(frames):
                    self._toggle(int(species), self.n_frames + int(end))
                begin = end
        self.n_frames += len(frames)

    def take(self) -> tuple[Event, ...]:
        """Give out the events that have ended since the last call."""
        found, self._found = tuple(self._found), []
        return found

    def finish(self, seconds: float) -> tuple[Event, ...]:
        """Close what is open and give out what is left, by start, none of it beyond `seconds`."""
        for species in np.flatnonzero(self._is_open):
            self._toggle(int(species), self.n_frames)
        return tuple(
            sorted(event._replace(end_s=min(event.end_s, seconds)) for event in self.take())
        )

    def state(self) -> dict[str, Any]:
        """Copy what `restore` needs.

        The frames so far; by species, (C,) each: whether it is heard, since when, and its peak.
        """
        arrays = {"is_open": self._is_open, "began": self._began, "peak": self._peak}
        return {"n_frames": self.n_frames} | {name: array.copy() for name, array in arrays.items()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a `state`."""
        self.n_frames = state["n_frames"]
        self._is_open, self._began, self._peak = (
            state[name].copy() for name in ("is_open", "began", "peak")
        )

    def _toggle(self, species: int, frame: int) -> None:
        if self._is_open[species]:
            start_s, end_s = (
                max(0.0, (f - 0.5) * self.hop_s) for f in (int(self._began[species]), frame)
            )
            if self._peak[species] >= self.rule.high and end_s - start_s >= self.rule.min_s:
                self._found.append(Event(start_s, end_s, species, float(self._peak[species])))
        self._is_open[species] ^= True
        self._began[species], self._peak[species] = frame, 0
