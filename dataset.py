"""From a row of train.csv to an augmented log-mel image and its targets.

`python dataset.py --show 6` draws what the model sees: a sheet of training images with their
targets.
"""

import argparse
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch.utils.data import Dataset

import transforms
from audio.mel import check_bands, mel_settings
from audio.prepared import open_recording as open_recording  # "as": callers find it here, too
from catalog.frame_targets import FrameTargets, join, learns_steps
from catalog.mixed_targets import MixedTargets
from catalog.pseudo_labels import PseudoLabels, read_pseudo_labels
from catalog.sampling import row_weights, rows_of_epoch
from catalog.targets import Targets, build_targets
from catalog.teacher_targets import Span, TeacherTargets
from catalog.train_table import check_prepared as check_prepared
from catalog.train_table import check_table as check_table
from catalog.train_table import load_class_names as load_class_names
from catalog.train_table import read_train_table as read_train_table
from catalog.train_table import shrink as shrink
from catalog.train_table import split_fold as split_fold
from catalog.vectors import read_vectors
from configs import Config, UserError, configure_logger, load_config, run_main
from images import clips, recipe
from images.contact_sheet import draw_contact_sheet
from images.noise import PinkNoiseImages
from images.view import View
from images.waveforms import Cut, Waveforms

Mode = Literal["train", "valid"]
Key = tuple[int, int]  # (epoch, index)
# So that what is drawn for them is independent of the rest
MIXING_DRAW, EPOCH_DRAW, PSEUDO_DRAW = 2, 3, 4


class Mixing(NamedTuple):
    """Another clip that is mixed into an item's waveform."""

    partner: int  # row, background or pseudo-labelled window
    lam: float  # of MixUp, share of the item's own clip; NaN: the clips are added
    snr_db: float  # of the sum, power of the item's own clip above the partner's


class WaveformDataset(Dataset[dict[str, torch.Tensor]]):
    """Clips of prepared recordings as images with targets.

    An item is the same for any number of workers, on any of them and after a resume: each random
    draw comes from a generator seeded with (seed, epoch, index). The data set holds a few arrays
    and no Python object a row, so workers share its memory.

    Items are numbered from 0 to len - 1. In training (seed, epoch) decides which row, or which
    background, each one shows; with the default settings item k shows row k. In validation each row
    has one item, or with `valid_clips` up to that many, one after the other.

    Args:
        df: rows of train.csv (filepath, primary_label, labels); it is not changed.
        config: paths, clip, log-mel and augmentation settings.
        mode: "train" crops at random, mixes and augments; "valid" takes the first `period` seconds
            as they are.
        class_names: species in the order of the target columns; None takes those of df, sorted.

    Raises:
        UserError: a label is not among the classes, a mel band is empty, or there are no
            backgrounds where settings ask for some.
    """

    def __init__(
        self, df: pd.DataFrame, config: Config, mode: Mode, class_names: Sequence[str] | None = None
    ) -> None:
        if mode not in ("train", "valid"):
            raise ValueError(f"unknown mode {mode!r}; choose train or valid")
        if len(df) == 0:
            raise ValueError(f"the table for mode {mode!r} has no rows")
        check_bands(config)

        self.config = config = replace(config)  # a copy: the caller may go on to change its own
        self.mode = mode
        self.class_names = list(class_names) if class_names is not None else load_class_names(df)
        needs_backgrounds = mode == "train" and (config.p_background or config.negative_share)
        self._pseudo: PseudoLabels | None = None
        if mode == "train" and config.pseudo_labels is not None:
            self._pseudo = read_pseudo_labels(config.pseudo_labels, self.class_names)
        self._waveforms = Waveforms(
            df, config, with_backgrounds=bool(needs_backgrounds), pseudo=self._pseudo
        )
        targets = build_targets(df, config, mode, self.class_names)
        self._targets = self._mixed_targets(targets)
        self._steps = None  # targets of the moments of a clip, where labels have a time
        if learns_steps(df, config):
            self._steps = FrameTargets(df, config, self.class_names, targets)
        self._teacher: TeacherTargets | None = None
        if mode == "train" and config.distills and config.teacher_embeddings is not None:
            path = config.teacher_embeddings
            self._teacher = TeacherTargets(read_vectors(path), df, path)

        self.view = View(config)
        self.pink = PinkNoiseImages(
            config.seed, n_frames=config.n_frames, top_db=config.top_db, **mel_settings(config)
        )
        self._lay_out_items(df)

    def _mixed_targets(self, targets: Targets) -> Targets | MixedTargets:
        """Add pseudo-labelled windows and the limits of the settings, in training."""
        config = self.config
        if self.mode == "valid" or (self._pseudo is None and config.label_cap is None):
            return targets
        return MixedTargets(
            targets,
            self._pseudo,
            first_window=self._waveforms.first_window,
            power=config.pseudo_power,
            label_cap=config.label_cap,
            pseudo_cap=config.pseudo_cap,
        )

    def _lay_out_items(self, df: pd.DataFrame) -> None:
        """Settle how many items there are, and in validation which rows and windows they show."""
        config = self.config
        self.n_rows = len(df)
        self._weights, self._epoch = None, (-1, np.empty(0, np.int64))
        if self.mode == "train":
            self._weights = row_weights(
                self._targets.primary,
                df.get("rating"),
                sampling=config.sampling,
                by_rating=config.rating_weights,
            )
            self._n_clips = self.n_rows * config.clips_per_recording
            share = config.negative_share
            self._n_items = self._n_clips + round(self._n_clips * share / (1 - share))
            return

        n_windows = np.ones(self.n_rows, np.int64)
        if config.valid_clips > 1:
            lengths = [len(self._waveforms.open(row)) for row in range(self.n_rows)]
            n_windows = clips.windows_of(np.array(lengths), config)
        self._first_item = np.cumsum(n_windows) - n_windows  # (n_rows,)
        self._n_items = int(n_windows.sum())

    @property
    def is_timed(self) -> bool:
        """Whether targets are those of a clip and of its steps, (1 + n_steps, n_classes)."""
        return self._steps is not None

    @property
    def has_masks(self) -> bool:
        """Whether some targets are NaN, of which nothing is learnt."""
        return self._targets.has_masks

    @property
    def vector_size(self) -> int:
        """Numbers in the teacher's vector of each training item, `vector` in it; 0: it has none."""
        return 0 if self._teacher is None else self._teacher.size

    def __len__(self) -> int:
        return self._n_items

    def __getitem__(self, key: int | Key) -> dict[str, torch.Tensor]:
        """Make one item.

        Args:
            key: (epoch, index), as EpochSampler hands them out; an index alone means epoch 0.

        Returns:
            `image` (in_channels, image_frames, image_bands) float32, equal channels as views of one
            plane, and `targets` (n_classes,) float32, with `no_bird_class` one more; NaN where a
            target is masked. If `is_timed`, those of the clip's steps come behind them:
            (1 + n_steps, n_classes); see catalog/frame_targets.py. With a teacher also `vector`
            (vector_size,) float32, NaN where there is none; see catalog/teacher_targets.py.

            With `frontend="device"` a training item holds what DeviceFrontend makes the image from
            instead: `waveforms` (n_birds, n_samples) float32 or int16, `bird_draws` (n_birds, 2),
            `draws` (12,), and what the settings ask for of `masks` (n_mels, n_frames) bool,
            `band_gains` (n_mels,) and `crops` (4,).
        """
        if not 0 <= self._index(key) < len(self):
            raise IndexError(f"item {self._index(key)} of {len(self)}")

        if self.mode == "valid":
            row, window = self._valid_window(self._index(key))
            start = window * self.config.n_samples
            image = recipe.clip_image(self.waveform(row)[start:], self.view)
            timed = torch.from_numpy(self._timed_targets([row], [0]))
            return {"image": self._channels(image), "targets": timed}

        ingredients, targets = self._draw_item(key)
        if self.config.frontend == "device":
            return {**ingredients.tensors(), **targets}
        image = recipe.training_image(ingredients, self.view, self.pink)
        return {"image": self._channels(image), **targets}

    def __getitems__(self, keys: Sequence[Key]) -> list[dict[str, Any]]:
        """Make the items of a batch, as torch's loader asks for them.

        Waveforms for a device are lists of (n_samples,) arrays, parts of mapped files: `collate`
        copies them where they are to lie, and nothing does before.
        """
        if self.mode == "valid" or self.config.frontend != "device":
            return [self[key] for key in keys]
        drawn = map(self._draw_item, keys)
        return [{**ingredients.loose(), **targets} for ingredients, targets in drawn]

    def _draw_item(self, key: int | Key) -> tuple[recipe.Ingredients, dict[str, torch.Tensor]]:
        """Draw all that a training item is made from, and make its targets."""
        rng, mixing = self._rng(key), self._draw_mixing(key)
        birds = self._draw_birds(key, rng, is_mixed=mixing is not None)
        heard = birds if mixing is None else [*birds, mixing.partner]
        cuts = [self._waveforms.placed_clip(bird, rng) for bird in heard]
        waveforms, targets = self._put_together(heard, cuts, mixing)
        return recipe.draw_ingredients(waveforms, self.config, self.pink.size, rng), targets

    def _channels(self, image: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(image).expand(self.config.in_channels, -1, -1)

    # Rows

    def path(self, row: int) -> Path:
        """Return the prepared file of a row."""
        return self._waveforms.path(row)

    def waveform(self, row: int) -> np.ndarray:
        """Map what a row shows into memory: (n,), its recording or its window of one."""
        return self._waveforms.open(row)

    def filename(self, row: int) -> str:
        """Name a row as `<label>/<file>`, relative to the prepared folder."""
        return self._waveforms.filename(row)

    def filenames(self) -> list[str]:
        """Name all rows, in order."""
        return [self.filename(row) for row in range(self.n_rows)]

    @property
    def starts_s(self) -> np.ndarray | None:
        """Where each row begins in its recording, (n_rows,) seconds; None: rows are recordings."""
        return self._waveforms.starts_s

    def average_windows(self, values: np.ndarray) -> np.ndarray:
        """Average what was found for the items of validation, (n_items, C), over rows: (n_rows, C).

        Where each row has one item, the values are returned as they are.
        """
        if self._n_items == self.n_rows:
            return values
        n_windows = np.diff(self._first_item, append=self._n_items)
        sums = np.add.reduceat(values.astype(np.float64), self._first_item, axis=0)
        return (sums / n_windows[:, None]).astype(values.dtype)

    def birds_of(self, key: int | Key) -> list[int]:
        """List the rows that a training item mixes, its own first; backgrounds come after them."""
        if self.mode == "valid":
            return [self._valid_window(self._index(key))[0]]
        mixing = self._draw_mixing(key)
        birds = self._draw_birds(key, self._rng(key), is_mixed=mixing is not None)
        return birds if mixing is None else [*birds, mixing.partner]

    def targets_of(self, birds: Sequence[int]) -> np.ndarray:
        """Make the targets (n_classes,) float32 of rows heard together."""
        return self._targets.of(birds)

    def _timed_targets(self, birds: Sequence[int], rolls: Sequence[int]) -> np.ndarray:
        """As `targets_of`, with the targets of the steps behind them where labels have a time."""
        targets = self.targets_of(birds)
        if self._steps is None:
            return targets
        steps = self._steps.of(birds, rolls)
        if max(birds) >= self._waveforms.first_window:  # its labels are of the whole window
            steps = np.full_like(steps, np.nan)
        return join(targets, steps)

    def first_item(self, row: int) -> int:
        """Return the item of validation that shows a row's first clip."""
        return int(self._first_item[row])

    # Which row an item shows

    def _index(self, key: int | Key) -> int:
        return key[1] if isinstance(key, tuple) else int(key)

    def _valid_window(self, index: int) -> tuple[int, int]:
        """Return the row of a validation item, and which of its clips it is."""
        row = int(np.searchsorted(self._first_item, index, side="right")) - 1
        return row, index - int(self._first_item[row])

    def _shown(self, epoch: int, index: int) -> int:
        """Return the row, background or pseudo-labelled window that an item shows in an epoch."""
        if self._pseudo is not None and index < self._n_clips and self.config.pseudo_share:
            rng = self._rng((epoch, index), PSEUDO_DRAW)
            if rng.random() < self.config.pseudo_share:
                return self._draw_window(rng)
        if self._weights is None and index < self._n_clips:
            return index % self.n_rows

        if self._epoch[0] != epoch:
            rng = np.random.default_rng((self.config.seed, epoch, 0, 0, EPOCH_DRAW))
            rows = rows_of_epoch(self.n_rows, self._n_clips, self._weights, rng)
            n_negatives, n_backgrounds = (
                self._n_items - self._n_clips,
                self._waveforms.n_backgrounds,
            )
            turn = rng.permutation(max(n_negatives, n_backgrounds)) % max(1, n_backgrounds)
            self._epoch = (epoch, np.concatenate([rows, self.n_rows + turn[:n_negatives]]))
        return int(self._epoch[1][index])

    # What is drawn for an item

    def _rng(self, key: int | Key, *purpose: int) -> np.random.Generator:
        epoch, index = key if isinstance(key, tuple) else (0, int(key))
        return np.random.default_rng((self.config.seed, epoch, index, *purpose))

    def _draw_birds(self, key: int | Key, rng: np.random.Generator, *, is_mixed: bool) -> list[int]:
        """Draw the rows whose mel powers an image sums: its own, then up to max_mixed_birds - 1.

        An item that is mixed as a waveform, or has no bird, is not summed with others.
        """
        epoch = key[0] if isinstance(key, tuple) else 0
        birds = [self._shown(epoch, self._index(key))]
        if is_mixed or self._targets.is_without_bird(birds[0]):
            return birds

        while len(birds) < self.config.max_mixed_birds:
            if rng.random() < self.config.p_stop_mixing:
                break
            birds.append(self._shown(epoch, int(rng.integers(self._n_items))))
        return birds

    def _draw_mixing(self, key: int | Key) -> Mixing | None:
        """Draw whether another clip is mixed into an item's waveform, which, and how loud."""
        config, epoch = self.config, key[0] if isinstance(key, tuple) else 0
        if (window := self._draw_pseudo_mixing(key, epoch)) is not None:
            return window
        if not config.p_waveform_mixup and not config.p_or_mix:
            return None

        rng = self._rng(key, MIXING_DRAW)
        partner = self._shown(epoch, int(rng.integers(self._n_items)))
        if rng.random() < config.p_waveform_mixup:
            alpha = config.waveform_mixup_alpha
            return Mixing(partner, float(rng.beta(alpha, alpha)), 0.0)

        own = self._shown(epoch, self._index(key))
        if rng.random() < config.p_or_mix and not self._targets.is_without_bird(own):
            return Mixing(partner, math.nan, rng.uniform(*config.or_mix_snr_db))
        return None

    def _draw_window(self, rng: np.random.Generator) -> int:
        """Draw a pseudo-labelled window, and return its number."""
        assert self._pseudo is not None
        return self._waveforms.first_window + self._pseudo.draw(rng, self.config.pseudo_empty)

    def _draw_pseudo_mixing(self, key: int | Key, epoch: int) -> Mixing | None:
        """Draw whether a labelled clip is mixed up with a pseudo-labelled window, and which."""
        config = self.config
        if self._pseudo is None or not config.p_pseudo_mixup:
            return None
        if self._shown(epoch, self._index(key)) >= self._waveforms.first_window:
            return None

        rng = self._rng(key, PSEUDO_DRAW, 1)
        if rng.random() >= config.p_pseudo_mixup:
            return None
        alpha = config.waveform_mixup_alpha
        return Mixing(self._draw_window(rng), float(rng.beta(alpha, alpha)), 0.0)

    def _put_together(
        self, heard: Sequence[int], cuts: Sequence[Cut], mixing: Mixing | None
    ) -> tuple[list[np.ndarray], dict[str, torch.Tensor]]:
        """Make the waveforms of an item, mixed or not, its targets, and the teacher's vector."""
        if mixing is None:
            waveforms = [cut.waveform for cut in cuts]
            targets = self._timed_targets(heard, [cut.roll for cut in cuts])
        else:
            mixed, targets = self._mix(heard, cuts, mixing)
            waveforms = [mixed]

        found = {"targets": targets}
        if self._teacher is not None:
            spans = [Span(cut.start_s, cut.end_s) for cut in cuts]
            share = math.nan if mixing is None else mixing.lam
            found["vector"] = self._teacher.of(heard, spans, share)
        return waveforms, {name: torch.from_numpy(value) for name, value in found.items()}

    def _mix(
        self, heard: Sequence[int], cuts: Sequence[Cut], mixing: Mixing
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mix the second clip into the first; return what comes of it, and its targets."""
        rolls = [cut.roll for cut in cuts]
        own, other = (
            transforms.normalize_peak(transforms.to_float32(cut.waveform)) for cut in cuts
        )
        if math.isnan(mixing.lam):
            mixed = clips.add_at_snr(own, other, mixing.snr_db)
            targets = self._timed_targets(heard, rolls)
        else:
            mixed, lam = clips.blend(own, other, mixing.lam), np.float32(mixing.lam)
            of_own, of_other = (
                self._timed_targets([bird], [roll]) for bird, roll in zip(heard, rolls, strict=True)
            )
            targets = lam * of_own + (1 - lam) * of_other
        return transforms.normalize_peak(mixed), targets


def main() -> int:
    """Draw a contact sheet of training images."""
    own = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    own.add_argument("--show", type=int, default=6)
    own.add_argument("--mode", choices=("train", "valid"), default="train")
    own.add_argument("--save", type=Path, default=Path("training_images.png"))
    flags, rest = own.parse_known_args()
    config = load_config(
        rest,
        description="Draw what the model sees: --show N images of --mode train or valid, "
        "into --save FILE.png.",
    )
    configure_logger(config)
    if flags.show < 1:
        raise UserError(f"--show {flags.show}: at least one image")

    table = config.train_dataframe_path
    df = check_table(read_train_table(table), str(table))
    check_prepared(df, config.train_np_dir)

    dataset = WaveformDataset(df, replace(config, frontend="cpu"), flags.mode)
    saved = draw_contact_sheet(dataset, flags.show, flags.save)
    print(f"wrote {saved}: {flags.show} images as the model sees them in {flags.mode} mode")
    return 0


if __name__ == "__main__":
    run_main(main)
