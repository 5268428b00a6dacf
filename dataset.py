"""From a row of train.csv to an augmented log-mel image and its targets.

`python dataset.py --show 6` draws what the model sees: a sheet of training images with their
targets.
"""

import argparse
import math
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch
from torch.utils.data import Dataset

import transforms
from audio.mel import mel_settings
from audio.prepared import open_recording as open_recording  # "as": callers find it here, too
from catalog.targets import Targets
from catalog.train_table import check_prepared as check_prepared
from catalog.train_table import check_table as check_table
from catalog.train_table import load_class_names as load_class_names
from catalog.train_table import read_train_table as read_train_table
from catalog.train_table import shrink as shrink
from catalog.train_table import split_fold as split_fold
from configs import Config, UserError, configure_logger, load_config, run_main
from images import recipe
from images.contact_sheet import draw_contact_sheet
from images.noise import PinkNoiseImages

Mode = Literal["train", "valid"]
Key = tuple[int, int]  # (epoch, index)


class WaveformDataset(Dataset[dict[str, torch.Tensor]]):
    """Clips of prepared recordings as images with targets.

    An item is the same for any number of workers, on any of them and after a resume: each random
    draw comes from a generator seeded with (seed, epoch, index). The data set holds a few arrays
    and no Python object a row, so workers share its memory.

    Args:
        df: rows of train.csv (filepath, primary_label, labels); it is not changed.
        config: paths, clip, log-mel and augmentation settings.
        mode: "train" crops at random, mixes and augments; "valid" takes the first `period` seconds
            as they are.
        class_names: species in the order of the target columns; None takes those of df, sorted.
    """

    def __init__(
        self, df: pd.DataFrame, config: Config, mode: Mode, class_names: Sequence[str] | None = None
    ) -> None:
        if mode not in ("train", "valid"):
            raise ValueError(f"unknown mode {mode!r}; choose train or valid")
        if len(df) == 0:
            raise ValueError(f"the table for mode {mode!r} has no rows")

        self.config = replace(config)  # a copy: the caller may go on to change its own
        self.mode = mode
        self.class_names = list(class_names) if class_names is not None else load_class_names(df)
        self._folder = os.fsencode(config.train_np_dir)
        self._paths = np.array([os.fsencode(path) for path in df["filepath"]])  # (n,) bytes
        self._targets = Targets(df, self.class_names)

        self._mel = mel_settings(config)
        self._augment_waveform = transforms.build_waveform_augmentation(config)
        self.pink = PinkNoiseImages(
            config.seed, n_frames=config.n_frames, top_db=config.top_db, **self._mel
        )

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, key: int | Key) -> dict[str, torch.Tensor]:
        """Make one item.

        Args:
            key: (epoch, index), as EpochSampler hands them out; an index alone means epoch 0.

        Returns:
            `image` (3, n_frames, n_mels) float32 in [0, 1], three views of one plane, and `targets`
            (n_classes,) float32. With `frontend="device"` a training item holds what DeviceFrontend
            makes the image from instead: `waveforms` (n_birds, n_samples) float32 or int16,
            `bird_draws` (n_birds, 2), `draws` (12,), and, where p_masks is not 0, `masks` (n_mels,
            n_frames) bool.
        """
        rng = self._rng(key)
        birds = self.birds_of(key, rng)
        targets = torch.from_numpy(self.targets_of(birds))

        if self.mode == "valid":
            image = recipe.clip_image(self._open(birds[0]), self.config)
        else:
            ingredients = self._draw_ingredients(birds, rng)
            if self.config.frontend == "device":
                return {**ingredients.tensors(), "targets": targets}
            image = recipe.training_image(ingredients, self.config, self.pink)

        plane = transforms.min_max(np.ascontiguousarray(image.T))  # (n_frames, n_mels)
        return {"image": torch.from_numpy(plane).expand(3, -1, -1), "targets": targets}

    # Rows

    def path(self, row: int) -> Path:
        """Return the prepared file of a row."""
        return self.config.train_np_dir / os.fsdecode(self._paths[row])

    def filename(self, row: int) -> str:
        """Name a row as `<label>/<file>`, relative to the prepared folder."""
        return Path(os.fsdecode(self._paths[row])).as_posix().removesuffix(".npy")

    def filenames(self) -> list[str]:
        """Name all rows, in order."""
        return [self.filename(row) for row in range(len(self))]

    def birds_of(self, key: int | Key, rng: np.random.Generator | None = None) -> list[int]:
        """Draw the rows that an item mixes: its own, then up to `max_mixed_birds` - 1 others."""
        rng = rng or self._rng(key)
        birds = [key[1] if isinstance(key, tuple) else int(key)]
        while self.mode == "train" and len(birds) < self.config.max_mixed_birds:
            if rng.random() < self.config.p_stop_mixing:
                break
            birds.append(int(rng.integers(len(self))))
        return birds

    def targets_of(self, birds: Sequence[int]) -> np.ndarray:
        """Make the targets (n_classes,) float32 of rows heard together."""
        smooth = self.mode == "train" and self.config.label_smoothing
        return self._targets.of(birds, smooth=smooth)

    # What is drawn for an item

    def _rng(self, key: int | Key) -> np.random.Generator:
        epoch, index = key if isinstance(key, tuple) else (0, int(key))
        return np.random.default_rng((self.config.seed, epoch, index))

    def _draw_ingredients(
        self, birds: Sequence[int], rng: np.random.Generator
    ) -> recipe.Ingredients:
        """Draw all that a training image is made from, in one order whatever makes it."""
        waveforms = [self._waveform(bird, rng) for bird in birds]
        bird_draws = [recipe.draw_bird(rng) for _ in birds]
        draws = recipe.draw_steps(self.config, self.pink.size, rng)
        mask = recipe.draw_mask(self.config, rng)
        return recipe.Ingredients(waveforms, bird_draws, draws, mask)

    def _waveform(self, bird: int, rng: np.random.Generator) -> np.ndarray:
        """Cut a random clip (n_samples,), augment it and scale it to a peak of 1.

        A clip that needs no augmentation goes to the device as it is stored.
        """
        config, augment = self.config, self._augment_waveform
        n_samples = config.n_samples
        if config.p_time_stretch:  # after the fastest stretch, a whole clip is left
            n_samples = math.ceil(n_samples * max(1.0, config.time_stretch_rate[1]))

        clip = transforms.cut_clip(self._open(bird), n_samples, rng)
        if augment is None and config.frontend == "device":
            return clip

        waveform = transforms.normalize_peak(transforms.to_float32(clip))
        if augment is None:
            return waveform
        augmented = transforms.crop_or_pad(augment(waveform, rng), config.n_samples)
        return transforms.normalize_peak(augmented)

    def _open(self, row: int) -> np.ndarray:
        try:
            return open_recording(os.path.join(self._folder, self._paths[row]))
        except FileNotFoundError:
            raise UserError(
                f"{self.path(row)}: no prepared audio for {self.filename(row)}; "
                "run prepare_audios.py first"
            ) from None
        except (OSError, ValueError) as error:
            raise UserError(
                f"{self.path(row)}: cannot be read: {error}; "
                "delete it and run prepare_audios.py again"
            ) from None


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

    saved = draw_contact_sheet(WaveformDataset(df, config, flags.mode), flags.show, flags.save)
    print(f"wrote {saved}: {flags.show} images as the model sees them in {flags.mode} mode")
    return 0


if __name__ == "__main__":
    run_main(main)
