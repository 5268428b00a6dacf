"""What the network says of one recording, put together window by window."""

import functools
from typing import Any

import numpy as np

from inference import windows
from inference.detections import Event, Recording, average_models
from inference.partial import PartialResults
from inference.stream import Stream
from inference.text_files import named_after
from inference.timeline import EventFinder, Timeline, TimelineFile
from inference.windows import Item, Models, Plan


class Tally:
    """Collects the scores of one recording and hands parts of it to the partial results.

    With each part goes the state of the timeline, from which a Tally of the next run goes on.
    """

    def __init__(
        self, name: str, models: Models, plan: Plan, partial: PartialResults, identity: list[int]
    ) -> None:
        self.name, self.plan, self.config = name, plan, models.config
        self.n_models, self.class_names = len(models.models), models.class_names
        self._keep = functools.partial(partial.add, identity=identity)

        self._first = partial.n_windows(name, identity)  # number of the window the lists begin with
        self._starts: list[int] = []
        self._scores: list[np.ndarray] = []  # (models, C), averaged over the clips of a window
        self._silent: list[bool] = []
        self._n_heard = 0  # windows with a signal

        self._hop_s = self.config.hop_length / self.config.sample_rate
        self._timeline = Timeline(len(self.class_names))
        self._events: EventFinder | None = None
        if plan.events is not None:
            self._events = EventFinder(plan.events, self._hop_s, len(self.class_names))
        self._file: TimelineFile | None = None
        self._pieces, self._pieces_state = partial.frames_path(name), None

        if (state := partial.state(name, identity)) is not None:
            self._restore(state)

    def add(self, item: Item, scores: np.ndarray, frames: np.ndarray | None) -> None:
        """Add a clip's scores (models, C) and frames (models, n_frames, C)."""
        if (
            frames is not None
        ):  # no later clip reaches back further than this; a part keeps the rest
            earliest = item.start + min(0, *self.plan.shifts(self.config), 0)
            self._pass_on(self._frame(max(0, earliest)))

        if not self._starts or self._starts[-1] != item.start:
            if len(self._starts) == windows.KEPT_WINDOWS:
                self._keep_windows("unfinished", "", item.start / self.config.sample_rate)
            self._starts.append(item.start)
            self._scores.append(np.zeros_like(scores))
            self._silent.append(item.image is None)
            self._n_heard += item.image is not None
        self._scores[-1] += scores / np.float32(1 + len(self.plan.shifts_s))

        if frames is not None:
            mean = average_models(frames, self.plan.average, self.plan.weights)
            self._timeline.add(self._frame(item.begin), mean)

    def reached(self, item: Item) -> tuple[float, float]:
        """Return the seconds scored with this clip, and those that the header promises, or 0."""
        samples = min(item.start + self.plan.stride(self.config), item.source.end)
        rate = self.config.sample_rate
        return samples / rate, item.source.expected / rate

    def finish(self, source: Stream, filled: tuple[int, int] = (0, 0)) -> float:
        """Close the recording; return its length in seconds.

        Args:
            source: the recording, decoded to its end.
            filled: as `Item.filled` of that end; the next run's batches go on from it.
        """
        status, reason = source.fault
        n_before = self._first * self.plan.stride(self.config)
        end = max(source.end, n_before)  # an earlier run may have decoded more
        if end:
            status = {"": "ok", "unreadable": "truncated"}.get(status, status)
            if status == "ok" and not self._n_heard:
                status, reason = "silent", "no signal from beginning to end"
            if self.plan.needs_frames:
                self._pass_on(1 + end // self.config.hop_length)
        elif not status:
            status, reason = "empty", "no samples"

        if self._file is not None:
            self._file.close()
        seconds = end / self.config.sample_rate
        self._keep_windows(status, reason, seconds, filled)
        return seconds

    def discard(self) -> None:
        """Give the recording up; what was handed to the partial results stays there."""
        if self._file is not None:
            self._file.discard()

    def _keep_windows(
        self, status: str, reason: str, seconds: float, filled: tuple[int, int] = (0, 0)
    ) -> None:
        """Hand the windows since the last part to the partial results."""
        is_part = status == "unfinished"
        events: tuple[Event, ...] = ()
        if self._events is not None:
            events = self._events.take() if is_part else self._events.finish(seconds)

        scores = np.zeros((self.n_models, 0, len(self.class_names)), np.float32)
        if self._scores:
            scores = np.stack(self._scores, axis=1)
        silent = np.array(self._silent, bool)
        scores[:, silent] = 0  # whatever was heard in clips shifted away from silence

        starts_s = np.array(self._starts) / self.config.sample_rate
        recording = Recording(self.name, status, reason, seconds, starts_s, scores, events, silent)
        state = self._state() if is_part else {"filled": list(filled)}
        self._keep(recording, first=self._first, state=state)

        self._first += len(self._starts)
        self._starts, self._scores, self._silent = [], [], []

    def _state(self) -> dict[str, Any]:
        return {
            "n_heard": self._n_heard,
            "timeline": self._timeline.state(),
            "events": None if self._events is None else self._events.state(),
            "frames": None if self._file is None else self._file.state(),
        }

    def _restore(self, state: dict[str, Any]) -> None:
        self._n_heard = state["n_heard"]
        self._timeline.restore(state["timeline"])
        if self._events is not None:
            self._events.restore(state["events"])
        self._pieces_state = state["frames"]

    def _frame(self, sample: int) -> int:
        """Return the nearest frame of the recording's grid."""
        return (2 * sample + self.config.hop_length) // (2 * self.config.hop_length)

    def _pass_on(self, before: int) -> None:
        """Hand the timeline's frames up to `before` to the events and the file."""
        frames = self._timeline.take(before)
        if self._events is not None:
            self._events.add(frames)
        if self.plan.frames_dir is None:
            return

        species = self.plan.frame_species
        if species is None:
            species = tuple(range(len(self.class_names)))
        if self._file is None:
            names = [self.class_names[one] for one in species]
            path = named_after(self.plan.frames_dir, self.name, ".npz")
            self._file = TimelineFile(path, self._pieces, names, self._hop_s, self._pieces_state)
        self._file.add(frames[:, list(species)])
