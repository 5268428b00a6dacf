"""Noises that are added to training images: uniform noise from a key, and 1/f noise by number.

Both are the same in any process and on any device: an item draws a key or a number from its
generator, not the 70,000 values of an image.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

import transforms


def add_uniform(image: np.ndarray, key: int, offset: float, unit: float) -> None:
    """Add (u + offset) * unit in place; u in [0, 1) follows from the key and the position.

    u is 24 bits of a 32-bit mix of key and position; device_frontend.uniform gives the same.

    Args:
        image: (rows, n_frames) float32, whole rows of an image without gaps.
        key: 0 to 2**32 - 1.
        offset: added to u.
        unit: what the sum is multiplied by.
    """
    _uniform_adder()(image.reshape(-1), np.uint32(key), np.float32(offset), np.float32(unit))


@lru_cache
def _uniform_adder() -> Callable[..., None]:
    from audio.mel_kernel import compiled

    @compiled
    def add(values, key, offset, unit):
        for position in range(len(values)):
            # Weyl's sequence, then "lowbias32" of C. Wellons' search for good mixes
            # (nullprogram.com, 2018)
            x = np.uint32(np.uint32(position) * np.uint32(0x9E3779B9) + key)
            x = np.uint32((x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D))
            x = np.uint32((x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B))
            x = np.uint32(x ^ (x >> np.uint32(16)))
            values[position] += (np.float32(x >> np.uint32(8)) * np.float32(2**-24) + offset) * unit

    return add


class PinkNoiseImages:
    """Log-mel images of 1/f noise, min-max scaled to [0, 1], each made when it is first drawn.

    Image k follows from (seed, k) alone: it is the same in every worker. The noise is synthesised
    by FFT, so it is periodic, with a period of n_frames * hop_length samples, and its frames wrap
    around. An image rolled by r frames is thus exactly that of the noise delayed by r hops.
    `mel_settings` are those of `transforms.mel_power`.
    """

    def __init__(
        self, seed: int, *, n_frames: int, top_db: float, size: int = 32, **mel_settings: Any
    ) -> None:
        self.seed, self.n_frames, self.top_db = seed, n_frames, top_db
        self.size, self.mel_settings = size, mel_settings
        self._images: dict[int, np.ndarray] = {}

    def image(self, k: int) -> np.ndarray:
        """Return image k, 0 to `size` - 1: (n_mels, n_frames) float32, read-only."""
        if k not in self._images:
            self._images[k] = transforms.min_max(self.log_mel(k))
            self._images[k].flags.writeable = False

        return self._images[k]

    def log_mel(self, k: int) -> np.ndarray:
        """Make image k before it is scaled: (n_mels, n_frames) float32, dB."""
        import colorednoise

        hop_length, rng = self.mel_settings["hop_length"], np.random.default_rng((self.seed, k))
        noise = colorednoise.powerlaw_psd_gaussian(1, self.n_frames * hop_length, random_state=rng)

        # Frames at both ends would meet the zeros that mel_power pads with.
        margin = math.ceil(self.mel_settings["n_fft"] / 2 / hop_length)
        wrapped = np.pad(noise, margin * hop_length, mode="wrap")
        power = transforms.mel_power(wrapped, **self.mel_settings)
        inner = power[:, margin : margin + self.n_frames]
        exponent = self.mel_settings.get("power", 2)
        return transforms.power_to_db(inner, self.top_db, exponent=exponent)
