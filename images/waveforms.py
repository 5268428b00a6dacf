"""The waveform of a training clip: cut from a recording or a background, and augmented."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

import transforms
from audio.backgrounds import prepare_backgrounds
from audio.prepared import open_recording
from catalog.pseudo_labels import PseudoLabels
from configs import Config, UserError
from images import clips

N_DRAWS = 8  # of a second background, until it is another one


class Cut(NamedTuple):
    """A clip and where in its recording it was cut.

    Attributes:
        waveform: (n_samples,).
        roll: samples by which it is rolled in time.
        start_s: where it begins in its recording, or in its window of one.
        end_s: where it ends.
    """

    waveform: np.ndarray
    roll: int
    start_s: float
    end_s: float


class Waveforms:
    """The prepared recordings of a table and the backgrounds, by number, and clips of them.

    The rows of the table come first, the backgrounds after them, then pseudo-labelled windows. It
    holds their paths in arrays, so the loader's workers share its memory.

    Args:
        df: rows of train.csv (filepath), or windows of recordings, with start_s; it is not changed.
        config: paths, clip and augmentation settings.
        with_backgrounds: prepare the recordings of `background_dir`, too.
        pseudo: pseudo-labelled windows; None: there are none.
    """

    def __init__(
        self,
        df: pd.DataFrame,
        config: Config,
        *,
        with_backgrounds: bool,
        pseudo: PseudoLabels | None = None,
    ) -> None:
        self.config = config
        self.n_rows = len(df)
        self._folder = os.fsencode(config.train_np_dir)
        self._paths = np.array([os.fsencode(path) for path in df["filepath"]])  # (n_rows,) bytes

        # Windows of long recordings: where each row's window starts, in samples.
        self._starts = self.starts_s = None
        if "start_s" in df:
            self.starts_s = df["start_s"].to_numpy(np.float64)
            self._starts = np.rint(self.starts_s * config.sample_rate).astype(np.int64)

        backgrounds = prepare_backgrounds(config) if with_backgrounds else []
        self._backgrounds = np.array([os.fsencode(path) for path in backgrounds])
        self.n_backgrounds = len(backgrounds)
        from_windows = pseudo is not None and bool(config.pseudo_background)
        if with_backgrounds and not backgrounds and not from_windows:
            raise UserError(
                "p_background and negative_share need recordings without birds: name their folder "
                "with --background-dir"
            )

        self._pseudo, self.first_window = pseudo, self.n_rows + self.n_backgrounds
        self._empty = np.flatnonzero(pseudo.is_empty) if pseudo is not None else np.empty(0, int)
        self._folders = folders_of(backgrounds) if config.background_by_folder else []
        self._augment = transforms.build_waveform_augmentation(config)
        self._n_cut = transforms.samples_needed(config)

    def path(self, number: int) -> Path:
        """Return the prepared file of a row or background."""
        return Path(os.fsdecode(self._path(number)))

    def filename(self, number: int) -> str:
        """Name a row as `<label>/<file>`, a background by its file in the prepared folder."""
        if number < self.n_rows:
            name = Path(os.fsdecode(self._paths[number])).as_posix()
        elif number >= self.first_window:
            name = self.path(number).name
        else:
            name = self.path(number).relative_to(self.config.background_np_dir).as_posix()
        return name.removesuffix(".npy")

    def open(self, number: int) -> np.ndarray:
        """Map the recording of a row or background into memory: (n,) float32 or int16.

        Of a row that is a window of a recording, or a pseudo-labelled window, it is that window.

        Raises:
            UserError: it is missing or damaged.
        """
        try:
            recording = open_recording(self._path(number))
            if number >= self.first_window:
                return recording[self._window(number)]
            if self._starts is None or number >= self.n_rows:
                return recording
            start = int(self._starts[number])
            return recording[start : start + self.config.n_samples]
        except FileNotFoundError:
            raise UserError(
                f"{self.path(number)}: no prepared audio for {self.filename(number)}; "
                "run prepare_audios.py first"
            ) from None
        except (OSError, ValueError) as error:
            raise UserError(
                f"{self.path(number)}: cannot be read: {error}; "
                "delete it and run prepare_audios.py again"
            ) from None

    def training_clip(self, number: int, rng: np.random.Generator) -> np.ndarray:
        """Cut a random clip (n_samples,), augment it and scale it to a peak of 1.

        A clip that needs no augmentation goes to the device as it is stored.
        """
        return self.placed_clip(number, rng).waveform

    def placed_clip(self, number: int, rng: np.random.Generator) -> Cut:
        """As `training_clip`, with where it was cut and by how much it was rolled in time."""
        config = self.config
        cut = self._cut(number, rng)
        clip = cut.waveform
        lays_background = config.p_background > 0 and rng.random() < config.p_background
        lays_background &= number < self.first_window  # a soundscape has its own
        if self._augment is None and not lays_background and config.frontend == "device":
            return cut

        waveform = transforms.normalize_peak(transforms.to_float32(clip))
        if self._augment is not None:
            changed = transforms.crop_or_pad(self._augment(waveform, rng), config.n_samples)
            waveform = transforms.normalize_peak(changed)
        if lays_background:
            waveform, first = self._over_background(waveform, rng)
            if config.p_second_background and rng.random() < config.p_second_background:
                waveform, _ = self._over_background(waveform, rng, but=first)
        return cut._replace(waveform=waveform)

    def _window(self, number: int) -> slice:
        """Return the samples of a pseudo-labelled window in its recording."""
        assert self._pseudo is not None
        window = number - self.first_window
        times = (self._pseudo.starts_s[window], self._pseudo.ends_s[window])
        return slice(*(round(time * self.config.sample_rate) for time in times))

    def _path(self, number: int) -> bytes:
        if number >= self.first_window:
            assert self._pseudo is not None
            return bytes(self._pseudo.paths[number - self.first_window])
        if number >= self.n_rows:
            return bytes(self._backgrounds[number - self.n_rows])
        return os.path.join(self._folder, self._paths[number])

    def _cut(self, number: int, rng: np.random.Generator) -> Cut:
        """Cut a clip (n_cut,) that holds a signal, if the recording does, and roll it or not."""
        config, n_cut = self.config, self._n_cut
        recording = self.open(number)
        if self.n_rows <= number < self.first_window:
            return Cut(clips.cut_background(recording, n_cut, rng), 0, 0.0, 0.0)

        start = clips.choose_start(recording, n_cut, config.clip_position, rng)
        if start is None:
            start = transforms.draw_start(len(recording), n_cut, rng)
        clip = clips.cut(recording, start, n_cut)
        if len(recording) > n_cut and not clips.has_signal(clip):
            other = clips.start_with_signal(recording, n_cut, rng)
            if other is not None:
                start, clip = other, clips.cut(recording, other, n_cut)

        times = (start / config.sample_rate, (start + n_cut) / config.sample_rate)
        is_whole = len(recording) <= n_cut
        if config.p_time_shift and rng.random() < config.p_time_shift and is_whole:
            roll = int(rng.integers(len(clip)))
            return Cut(np.roll(clip, roll), roll, *times)
        return Cut(clip, 0, *times)

    def _over_background(
        self, waveform: np.ndarray, rng: np.random.Generator, *, but: int | None = None
    ) -> tuple[np.ndarray, int]:
        """Lay a waveform over a background, which is returned, too: not that one, if it can be."""
        number = self._draw_background(rng)
        for _ in range(N_DRAWS):
            if number != but:
                break
            number = self._draw_background(rng)
        background = clips.cut_background(self.open(number), self.config.n_samples, rng)
        snr_db = rng.uniform(*self.config.background_snr_db)
        noisy = clips.add_at_snr(waveform, transforms.to_float32(background), snr_db)
        return transforms.normalize_peak(noisy), number

    def _draw_background(self, rng: np.random.Generator) -> int:
        """Draw the number of a background, or of a pseudo-labelled window without a bird."""
        share = self.config.pseudo_background if len(self._empty) else 0.0
        if share and (not self.n_backgrounds or rng.random() < share):
            return self.first_window + int(self._empty[rng.integers(len(self._empty))])
        if not self._folders:
            return self.n_rows + int(rng.integers(self.n_backgrounds))
        folder = self._folders[rng.integers(len(self._folders))]
        return self.n_rows + int(folder[rng.integers(len(folder))])


def folders_of(paths: Sequence[Path]) -> list[np.ndarray]:
    """Return the numbers of the files of each folder, each (n,) int, by the folders' names."""
    parents = np.array([str(path.parent) for path in paths])
    return [np.flatnonzero(parents == name) for name in np.unique(parents)]
