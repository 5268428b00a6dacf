"""The channels of a recording made one, block by block, with what misleads in them mended."""

import math

import numpy as np

from audio import signals

HEARD = 2.0**-13  # root mean square, full scale 1, from which a channel has something to tell
# Power of the average, as a share of what independent channels would give, below which they cancel
# each other out. Two channels correlated by r give 1 + r.
CANCELLED = 0.1
MOST_BAD = 0.01  # share of samples that are not finite from which a recording is not used


class Mixer:
    """Makes the channels of one recording one, block by block.

    They are averaged, unless they cancel each other out, as those of a miswired cable do: from
    there on the loudest is used alone. Samples that are not finite become 0. A constant offset is
    taken out.
    """

    def __init__(self) -> None:
        self._alone: int | None = None  # the channel that is used, instead of all
        self._power: np.ndarray | None = None  # (channels,), summed over blocks
        self._offset: float | None = None
        self._remarks: list[str] = []
        self._n_bad = self._n_kept = 0

    def mix(self, block: np.ndarray, *, n_kept: float) -> np.ndarray:
        """Mix (frames, channels) to (frames,) float32, of which the first `n_kept` are kept."""
        mono = block[:, 0] if block.shape[1] == 1 else self._mix_channels(block)  # (frames,)

        n_kept = math.ceil(min(len(mono), n_kept))
        self._n_kept += n_kept
        finite = np.isfinite(mono)
        if not finite.all():
            self._n_bad += n_kept - int(finite[:n_kept].sum())
            mono = np.where(finite, mono, np.float32(0))

        if self._offset is None:
            self._offset, remark = signals.find_offset(mono)
            self._remarks += [remark] if remark else []
        return mono - np.float32(self._offset) if self._offset else mono

    def _mix_channels(self, block: np.ndarray) -> np.ndarray:
        if self._alone is not None:
            return np.ascontiguousarray(block[:, self._alone])

        n_frames, n_channels = block.shape
        mono = block @ np.full(n_channels, 1 / n_channels, np.float32)  # 20 times its mean's speed
        average = np.full(n_frames, 1 / n_frames, np.float32)
        means = average @ block  # (channels,)
        with np.errstate(invalid="ignore", over="ignore"):  # samples that are not finite
            power = average @ np.square(block) - means**2
        self._power = power if self._power is None else self._power + power

        independent = float(power.sum()) / n_channels**2
        of_average = float(mono @ mono) / n_frames - float(means.mean()) ** 2
        if power.max() > HEARD**2 and of_average < CANCELLED * independent:
            self._alone = int(power.argmax())
            remark = f"its channels cancel each other out; channel {self._alone + 1} is used alone"
            self._remarks.append(remark)
            return np.ascontiguousarray(block[:, self._alone])
        return mono

    def remarks(self) -> list[str]:
        """Say what was noticed and mended; samples that are not finite come last."""
        found = [*self._remarks, *self._describe_dead_channels()]
        if not self._n_bad:
            return found
        what = f"{self._n_bad} samples"
        if self.is_broken():
            what = f"{self._n_bad / self._n_kept:.1%} of its samples"
        return [*found, f"{what} are NaN or infinite and were set to 0"]

    def _describe_dead_channels(self) -> list[str]:
        if self._power is None or not np.isfinite(self._power).all() or self._alone is not None:
            return []
        is_dead = self._power < 1e-6 * self._power.max()
        numbers = [str(channel + 1) for channel in np.flatnonzero(is_dead)]
        if not numbers:
            return []
        return [f"no signal in channel {', '.join(numbers)} of {len(self._power)}"]

    def is_broken(self) -> bool:
        """Say whether so many samples are not finite that the recording cannot be used."""
        return self._n_bad > MOST_BAD * self._n_kept
