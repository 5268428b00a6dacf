"""The file that a run fills as it goes, from which an interrupted run continues.

Its first line holds the settings. Every other line holds a recording or a part of one, as JSON with
arrays in base64. A last line that was cut off is dropped.
"""

import base64
import binascii
import contextlib
import json
import logging
import shutil
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from configs import UserError
from files import LockedError, locked, shorten
from inference.detections import Event, Recording
from inference.growing_file import GrowingFile

logger = logging.getLogger("birdclef.partial")

PARTIAL_FORMAT = 4


def identity(path: Path) -> list[int]:
    """Return size (bytes) and time of last change (ns), by which a changed file is known."""
    info = path.stat()
    return [info.st_size, info.st_mtime_ns]


class InUseError(UserError):
    """Another run has the file."""


@dataclass
class _Place:
    """Where a recording stands in the file.

    Attributes:
        identity: of the recording's own file.
        offsets: where the line of each part begins, in bytes.
        n_windows: windows in all parts.
        is_finished: whether the last part is there.
        state: what came with the last part.
    """

    identity: list[int]
    offsets: list[int]
    n_windows: int = 0
    is_finished: bool = False
    state: dict[str, Any] | None = None


class PartialResults:
    """What a run has scored so far, on disk.

    Only one run at a time may have the file. The frames of unfinished recordings lie beside it, in
    the folder `<name>.frames`; a recording whose frames are not those that its last part counts
    begins anew.

    Args:
        path: the file; it is made, or read if its settings are these, or else begun anew.
        settings: all that the scores depend on, in plain types.

    Raises:
        InUseError: another run has the file.
        CannotWriteError: the disk refuses.
    """

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self.path = path
        self._frames_dir = path.with_name(path.name + ".frames")
        self._lock_path = path.with_name(path.name + ".lock")
        self._places: dict[str, _Place] = {}

        self._held = contextlib.ExitStack()
        try:
            self._held.enter_context(locked(self._lock_path))
        except LockedError:
            raise InUseError(
                f"{path}: another run is writing this output; choose another --output"
            ) from None
        self._file = GrowingFile(path)
        self._held.callback(self._file.close)

        self._read(json.loads(json.dumps({"format": PARTIAL_FORMAT, **settings})))
        self._drop_lost_timelines()

    def _read(self, settings: dict[str, Any]) -> None:
        """Read what an interrupted run with the same settings left; else begin anew."""
        lines = self._file.file
        lines.seek(0)
        old = _parse(lines.readline())
        if old != settings:
            self._begin(settings, old)
            return

        n_sound = lines.tell()  # bytes in whole lines
        for line in lines:
            row = _parse(line)
            if row is None:
                break
            self._place(row, n_sound)
            n_sound += len(line)
        self._file.truncate(n_sound)

    def _begin(self, settings: dict[str, Any], old: dict[str, Any] | None) -> None:
        if old is not None:
            names = sorted(old.keys() | settings.keys())
            changed = [name for name in names if old.get(name) != settings.get(name)]
            message = "%s: %s changed since the interrupted run; starting anew"
            logger.warning(message, self.path, ", ".join(changed))

        self._delete_frames()
        self._file.truncate(0)
        self._write(settings)

    def _write(self, row: dict[str, Any]) -> None:
        self._file.append(json.dumps(row, default=_array_to_json).encode() + b"\n")

    def _drop_lost_timelines(self) -> None:
        for name, place in list(self._places.items()):
            if place.is_finished or place.state is None or place.state["frames"] is None:
                continue
            frames = place.state["frames"]
            if _begins_with(self.frames_path(name), frames["n_bytes"], frames["crc32"]):
                continue
            message = "%s: the frames of %s are gone or changed since the interrupted run"
            logger.warning(message + "; it begins anew", self.frames_path(name), name)
            del self._places[name]

    def _delete_frames(self) -> None:
        if self._frames_dir.exists():
            shutil.rmtree(self._frames_dir)

    def _place(self, row: dict[str, Any], offset: int) -> None:
        """Note where a line stands. A line that begins a recording replaces its earlier lines."""
        place = self._places.get(row["name"])
        if place is None or row["first"] == 0:
            place = self._places[row["name"]] = _Place(row["identity"], [])
        place.offsets.append(offset)
        place.n_windows += len(row["starts_s"])
        place.is_finished, place.state = row["status"] != "unfinished", row["state"]

    def _place_of(self, name: str, identity: list[int]) -> _Place | None:
        place = self._places.get(name)
        return place if place is not None and place.identity == identity else None

    def frames_path(self, name: str) -> Path:
        """Name the file that collects a recording's frames; it goes when the recording is whole."""
        path = self._frames_dir / name
        return path.with_name(shorten(path.name))

    def holds(self, name: str, identity: list[int]) -> bool:
        """Say whether a recording is there to its end, scored from the file with this identity."""
        place = self._place_of(name, identity)
        return place is not None and place.is_finished

    def n_windows(self, name: str, identity: list[int]) -> int:
        """Count the windows that are there of a recording."""
        place = self._place_of(name, identity)
        return place.n_windows if place is not None else 0

    def state(self, name: str, identity: list[int]) -> dict[str, Any] | None:
        """Return the state that was added with the last part of a recording."""
        place = self._place_of(name, identity)
        return place.state if place is not None else None

    def filled(self, name: str) -> tuple[int, int]:
        """Return the items and images in the batch in which a whole recording ended."""
        state = self._places[name].state or {}
        n_items, n_images = state.get("filled", (0, 0))
        return n_items, n_images

    def add(
        self,
        recording: Recording,
        identity: list[int],
        first: int = 0,
        state: dict[str, Any] | None = None,
    ) -> None:
        """Append a recording, or its part from window `first` on.

        Args:
            recording: with scores (models, n, C); a part but the last has the status unfinished.
            identity: of the recording's file.
            first: number of the part's first window.
            state: numbers and arrays in dicts, from which the recording's timeline goes on. Its
                "frames", if not None, say how `frames_path` begins: n_bytes and their crc32. At the
                end of a recording, what `filled` returns.
        """
        row = vars(recording) | {"identity": identity, "first": first, "state": state}
        self._place(row, self._file.size())
        self._write(row)
        if recording.status != "unfinished":
            self.frames_path(recording.name).unlink(missing_ok=True)

    def __getitem__(self, name: str) -> Recording:
        """Read a recording back, its parts put together."""
        parts = [self._read_line(offset) for offset in self._places[name].offsets]
        events = [Event(*event) for part in parts for event in part["events"]]
        last = parts[-1]

        return Recording(
            name=name,
            status=last["status"],
            reason=last["reason"],
            seconds=last["seconds"],
            starts_s=np.concatenate([part["starts_s"] for part in parts]),
            scores=np.concatenate([part["scores"] for part in parts], axis=1),
            events=tuple(sorted(events)),
            silent=np.concatenate([part["silent"] for part in parts]),
        )

    def _read_line(self, offset: int) -> dict[str, Any]:
        self._file.file.seek(offset)
        return json.loads(self._file.file.readline(), object_hook=_array_from_json)

    def __enter__(self) -> "PartialResults":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        self.close()
        if kind is not None:
            logger.warning("%s keeps what is done; the same command goes on from there", self.path)

    def close(self, *, delete: bool = False) -> None:
        """Close the file; a run that has written its output deletes it first."""
        self._file.close()
        if delete:
            self._delete_frames()
            self.path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # Windows deletes it when it is released
                self._lock_path.unlink()
        self._held.close()


# Lines --------------------------------------------------------------------------------------------


def _parse(line: bytes) -> dict[str, Any] | None:
    """Read a line; None if it was cut off."""
    if not line.endswith(b"\n"):
        return None
    try:
        return json.loads(line, object_hook=_array_from_json)
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
    content = np.ascontiguousarray(array).tobytes()
    text = binascii.b2a_base64(content, newline=False).decode()
    return {"dtype": array.dtype.str, "shape": array.shape, "base64": text}


def _array_from_json(found: dict[str, Any]) -> Any:
    if "base64" not in found:
        return found
    content = base64.b64decode(found["base64"])
    return np.frombuffer(content, found["dtype"]).reshape(found["shape"])
