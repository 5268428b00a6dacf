"""How long the epochs of a run take, and when it must stop: --max-hours."""

import math
import time

SLACK = 1.05  # an epoch may take this many times as long as the longest before it


class OutOfTimeError(Exception):
    """The time of --max-hours is over, or the next epoch does not fit; what is trained is saved."""


def now() -> float:
    """Read the clock that times a run, in seconds."""
    return time.monotonic()


class RunClock:
    """Times the epochs of a run, from here on, over all its folds.

    Args:
        max_hours: that the run may take; None: as long as it needs.
    """

    def __init__(self, max_hours: float | None = None) -> None:
        self.max_hours = max_hours
        self.began = now()
        self.epoch_s: list[float] = []  # of whole epochs, with validation and checkpoints
        self.valid_s: float | None = None  # of the last validation
        self.epoch_began: float | None = None  # None: between two epochs
        self.valid_began: float | None = None  # None: not in validation
        self.first_batch = 0  # of the epoch, that this process trains
        self.is_end_said = False  # in the log: when the run ends

    # Epochs

    def begin_epoch(self, first_batch: int = 0) -> None:
        """Start an epoch at a batch: the first, or one in the midst of an epoch that is resumed."""
        self.epoch_began, self.valid_began = now(), None
        self.first_batch = first_batch

    def begin_validation(self) -> None:
        """Note that the epoch's training is done."""
        self.valid_began = now()

    def end_epoch(self) -> None:
        """Take the epoch's time as that of the epochs to come; a resumed one is no measure."""
        assert self.epoch_began is not None and self.valid_began is not None
        self.valid_s = now() - self.valid_began
        if self.first_batch == 0:
            self.epoch_s.append(now() - self.epoch_began)
        self.epoch_began = self.valid_began = None

    def trained_s(self) -> float:
        """Seconds of training in this epoch; 0 between two epochs."""
        if self.epoch_began is None:
            return 0.0
        end = now() if self.valid_began is None else self.valid_began
        return end - self.epoch_began

    def validated_s(self) -> float:
        """Seconds of validation in this epoch."""
        return 0.0 if self.valid_began is None else now() - self.valid_began

    # --max-hours

    def seconds_to_stop(self) -> float:
        """Seconds until --max-hours is over; infinite without it."""
        if self.max_hours is None:
            return math.inf
        return self.began + 3600 * self.max_hours - now()

    def is_over(self) -> bool:
        """Say whether the time of --max-hours is over."""
        return self.seconds_to_stop() <= 0

    def has_room(self) -> bool:
        """Say whether another epoch fits, judged by the longest so far.

        The first one is always tried. Where it takes longer than there is time, it is stopped in
        its midst and saved.
        """
        return self.seconds_to_stop() > SLACK * max(self.epoch_s, default=0.0)
