"""From a row of train.csv to an augmented log-mel image and its targets.

`python dataset.py --show 6` draws what the model sees: a sheet of training images with their
targets.
"""

import argparse
import logging
import math
import mmap
import os
import re
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
from configs import Config, UserError, configure_logger, load_config, run_main
from images import recipe
from images.noise import PinkNoiseImages

logger = logging.getLogger("birdclef.dataset")

Mode = Literal["train", "valid"]
Key = tuple[int, int]  # (epoch, index)

# Targets of absent, background and primary birds.
SMOOTH_TARGETS = (0.0025, 0.3, 0.995)
HARD_TARGETS = (0.0, 0.3, 1.0)


# The table ----------------------------------------------------------------------------------------


def read_train_table(path: Path) -> pd.DataFrame:
    """Read train.csv with every label as text, so that `NA` and `22961` stay what they are.

    Raises:
        UserError: no such file, or no CSV.
    """
    try:
        return pd.read_csv(
            path, dtype=dict.fromkeys(TEXT_COLUMNS, str), keep_default_na=False, low_memory=False
        )
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run split_data.py first") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as CSV: {error}") from None


TEXT_COLUMNS = (
    "primary_label",
    "secondary_labels",
    "labels",
    "filename",
    "filepath",
    "author",
    "type",
)
NEEDED_COLUMNS = ("primary_label", "labels", "filepath", "kfold")


def check_table(df: pd.DataFrame, source: str = "train.csv") -> pd.DataFrame:
    """Return a copy with text labels and integer folds, after checking what training needs.

    Raises:
        UserError: a needed column is missing, a label is empty, or a fold is no whole number.
    """
    if missing := [name for name in NEEDED_COLUMNS if name not in df.columns]:
        raise UserError(
            f"{source}: no column {', '.join(missing)} (it has {', '.join(map(str, df.columns))}); "
            "run split_data.py first"
        )
    df = df.reset_index(drop=True)
    empty = df["primary_label"].isna() | (df["primary_label"].astype(str) == "")
    if empty.any():
        raise UserError(
            f"{source}: row {int(empty.to_numpy().argmax()) + 2}: primary_label is empty; if the species is called NA, "
            "read the table with keep_default_na=False (dataset.read_train_table does)"
        )
    folds = pd.to_numeric(df["kfold"], errors="coerce")
    if (bad := folds.isna() | (folds % 1 != 0)).any():
        row = int(bad.to_numpy().argmax())
        raise UserError(
            f"{source}: row {row + 2}: kfold {df['kfold'][row]!r} is no whole number; run split_data.py again"
        )
    return df.assign(
        primary_label=df["primary_label"].astype(str),
        labels=df["labels"].fillna("").astype(str),
        filepath=df["filepath"].astype(str),
        kfold=folds.astype(np.int64),
    )


def load_class_names(df: pd.DataFrame) -> list[str]:
    """List the species sorted, so that a class keeps its column from run to run."""
    return sorted(df["primary_label"].astype(str).unique())


def check_prepared(df: pd.DataFrame, train_np_dir: Path) -> None:
    """Check by header and size that every prepared recording is there and whole.

    Raises:
        UserError: some are missing or damaged; the message counts them and names the first.
    """
    faults = []
    for filepath in df["filepath"]:
        path = train_np_dir / filepath
        try:
            open_recording(path)
        except FileNotFoundError:
            faults.append(f"{path} is missing")
        except (OSError, ValueError) as error:
            faults.append(f"{path} is damaged: {error}")
    if faults:
        raise UserError(
            f"{len(faults)} of {len(df)} prepared recordings cannot be used; {faults[0]}; "
            "run prepare_audios.py, then split_data.py"
        )


# As numpy writes the header of one channel: version 1.0, type, samples, and spaces to a multiple of
# 64 bytes.
NPY_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '(<f4|<i2)', 'fortran_order': False, 'shape': \((\d+),\), \} *\n",
    re.DOTALL,
)


def open_recording(path: Path | bytes) -> np.ndarray:
    """Map a prepared recording into memory: (n,) float32 or int16, n >= 1, read-only.

    As np.load does with mmap_mode="r", without its time, most of which goes into reading the header
    as Python.

    Raises:
        OSError: it is missing or cannot be read.
        ValueError: it is cut, empty, or not as prepare_audios.py writes it.
    """
    with open(path, "rb", buffering=0) as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    header = NPY_HEADER.match(data)
    if not header:
        raise ValueError("it is not one channel of float32 or int16 in a .npy file")
    recording = np.frombuffer(data, header[1].decode(), offset=header.end())
    if not 0 < len(recording) == int(header[2]):
        raise ValueError("its size does not fit its header")
    return recording


def split_fold(
    df: pd.DataFrame, fold: int, rare_birds: list[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Divide the table into the training and the validation part of a fold.

    Rare birds, and every species whose recordings would all be held back, stay in the training
    part: a species that was never seen cannot be scored.

    Returns:
        Copies of the rows (training, validation), in the order of df.

    Raises:
        UserError: one of the parts would be empty.
    """
    held_back = df["kfold"] == fold
    seen = set(df.loc[~held_back, "primary_label"])
    rare = df["primary_label"].isin(rare_birds) | ~df["primary_label"].isin(seen)
    moved = held_back & rare
    if moved.any():
        logger.info("fold %d: %d recordings of %d rare species are trained on and not validated",
                    fold, moved.sum(), df.loc[moved, "primary_label"].nunique())  # fmt: skip
    valid = held_back & ~rare
    if not valid.any() or valid.all():
        raise UserError(
            f"fold {fold} has {int(valid.sum())} of {len(df)} recordings to validate on; split the data again"
        )
    return df[~valid].copy(), df[valid].copy()


def shrink(df: pd.DataFrame, fold: int, config: Config) -> tuple[pd.DataFrame, Config]:
    """Keep at most 64 recordings of each part and two epochs, to try the whole path quickly."""
    held_back = df["kfold"] == fold
    small = pd.concat([df[~held_back].head(64), df[held_back].head(64)]).sort_index()
    return small, replace(config, epochs=min(2, config.epochs))


# The data set -------------------------------------------------------------------------------------


class WaveformDataset(Dataset[dict[str, torch.Tensor]]):
    """Clips of prepared recordings as images with targets.

    An item is the same for any number of workers, on any of them and after a resume: each random
    draw comes from a generator seeded with (seed, epoch, index). The data set itself holds three
    arrays and no Python object a row, so workers share its memory.

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
        self.config = replace(config)  # later changes of the caller's do not reach it
        self.mode = mode
        self.class_names = list(class_names) if class_names is not None else load_class_names(df)
        self._paths = np.array([os.fsencode(path) for path in df["filepath"]])  # (n,) bytes
        self._folder = os.fsencode(config.train_np_dir)
        self._primary, self._background, self._background_start = _encode_labels(
            df, self.class_names
        )
        self._augment_waveform = transforms.build_waveform_augmentation(config)
        self._mel = mel_settings(config)
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
            (n_classes,) float32. With `frontend="device"` a training item has what DeviceFrontend
            makes the image from instead: `waveforms` (n_birds, n_samples) float32 or int16,
            `bird_draws` (n_birds, 2), `draws` (12,), and, where p_masks is not 0, `masks` (n_mels,
            n_frames) bool.
        """
        rng = self._rng(key)
        birds = self.birds_of(key, rng)
        targets = torch.from_numpy(self.targets_of(birds))
        if self.mode == "train":
            ingredients = self._draw_ingredients(birds, rng)
            if self.config.frontend == "device":
                return {**ingredients.tensors(), "targets": targets}
            image = self._training_image(ingredients)
        else:
            image = recipe.clip_image(self._open(birds[0]), self.config)
        plane = transforms.min_max(np.ascontiguousarray(image.T))  # (n_frames, n_mels)
        return {"image": torch.from_numpy(plane).expand(3, -1, -1), "targets": targets}

    def path(self, index: int) -> Path:
        """Return the prepared file of a row."""
        return self.config.train_np_dir / os.fsdecode(self._paths[index])

    def filename(self, index: int) -> str:
        """Name a row as `<label>/<file>`, relative to the prepared folder."""
        return Path(os.fsdecode(self._paths[index])).as_posix().removesuffix(".npy")

    def filenames(self) -> list[str]:
        """Name all rows, in order."""
        return [self.filename(index) for index in range(len(self))]

    def birds_of(self, key: int | Key, rng: np.random.Generator | None = None) -> list[int]:
        """Draw the rows mixed into an item: its own first, then up to `max_mixed_birds` - 1 others."""
        rng = rng or self._rng(key)
        birds = [key[1] if isinstance(key, tuple) else int(key)]
        while self.mode == "train" and len(birds) < self.config.max_mixed_birds:
            if rng.random() < self.config.p_stop_mixing:
                break
            birds.append(int(rng.integers(len(self))))
        return birds

    def targets_of(self, birds: Sequence[int]) -> np.ndarray:
        """Make the targets (n_classes,) float32 of rows heard together; primary wins over background."""
        smooth = self.mode == "train" and self.config.label_smoothing
        absent, background, primary = SMOOTH_TARGETS if smooth else HARD_TARGETS
        targets = np.full(len(self.class_names), absent, np.float32)
        for bird in birds:
            targets[self._background_of(bird)] = background
        targets[self._primary[list(birds)]] = primary
        return targets

    def _background_of(self, bird: int) -> np.ndarray:
        return self._background[self._background_start[bird] : self._background_start[bird + 1]]

    def _rng(self, key: int | Key) -> np.random.Generator:
        epoch, index = key if isinstance(key, tuple) else (0, int(key))
        return np.random.default_rng((self.config.seed, epoch, index))

    def _draw_ingredients(
        self, birds: Sequence[int], rng: np.random.Generator
    ) -> recipe.Ingredients:
        """Take all draws of a training image, in one order whatever makes it."""
        config = self.config
        waveforms = [self._waveform(bird, rng) for bird in birds]
        bird_draws = [recipe.draw_bird(rng) for _ in birds]
        draws = recipe.draw_steps(config, self.pink.size, rng)
        mask = None
        if config.p_masks:
            shape = (config.n_mels, config.n_frames)
            mask = (
                transforms.draw_rectangles(shape, rng)
                if rng.random() < config.p_masks
                else np.zeros(shape, bool)
            )
        return recipe.Ingredients(waveforms, bird_draws, draws, mask)

    def _training_image(self, ingredients: recipe.Ingredients) -> np.ndarray:
        """Mix the birds' mel powers and go through the recipe's steps: (n_mels, n_frames)."""
        powers = [
            transforms.mel_power(one, **self._mel, dtype=np.float32)
            for one in ingredients.waveforms
        ]
        image = recipe.to_unit_image(
            recipe.mix_birds(powers, ingredients.bird_draws), self.config.top_db
        )
        image = recipe.apply_steps(image, ingredients.draws, self.pink)
        if ingredients.mask is not None:
            image[ingredients.mask] = image.min()
        return image

    def _waveform(self, bird: int, rng: np.random.Generator) -> np.ndarray:
        """Cut and augment a random clip: (n_samples,) with peak 1, or as it is, if all the rest is left to a device."""
        config, augment = self.config, self._augment_waveform
        n_samples = config.n_samples
        if config.p_time_stretch:  # what the fastest stretch leaves is a whole clip
            n_samples = math.ceil(n_samples * max(1.0, config.time_stretch_rate[1]))
        clip = transforms.cut_clip(self._open(bird), n_samples, rng)
        if augment is None and config.frontend == "device":
            return clip
        waveform = transforms.normalize_peak(transforms.to_float32(clip))
        if augment is not None:
            stretched = augment(waveform, rng)
            waveform = transforms.normalize_peak(
                transforms.crop_or_pad(stretched, config.n_samples)
            )
        return waveform

    def _open(self, bird: int) -> np.ndarray:
        try:
            return open_recording(os.path.join(self._folder, self._paths[bird]))
        except FileNotFoundError:
            raise UserError(
                f"{self.path(bird)}: no prepared audio for {self.filename(bird)}; run prepare_audios.py first"
            ) from None
        except (OSError, ValueError) as error:
            raise UserError(
                f"{self.path(bird)}: cannot be read: {error}; delete it and run prepare_audios.py again"
            ) from None


def _encode_labels(
    df: pd.DataFrame, class_names: list[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Turn labels into class numbers.

    Returns:
        primary (n,) int32; background numbers of all rows one after the other, int32; and where
        each row's begin, (n + 1,) int64.
    """
    number = {name: position for position, name in enumerate(class_names)}
    unknown_primary = sorted(set(df["primary_label"].astype(str)) - number.keys())
    if unknown_primary:
        raise UserError(
            f"primary_label {', '.join(unknown_primary[:5])} is not among the {len(class_names)} classes"
        )
    primary = df["primary_label"].astype(str).map(number).to_numpy(np.int32)
    exploded = (
        df["labels"].fillna("").astype(str).str.split().reset_index(drop=True).explode().dropna()
    )
    codes = exploded.map(number)
    outside = exploded[codes.isna()]
    if len(outside):
        logger.info(
            "%d background labels of %d species outside the classes are ignored",
            len(outside),
            outside.nunique(),
        )
    known = codes.dropna().astype(np.int32)
    known = known[known.to_numpy() != primary[known.index.to_numpy()]]
    starts = np.searchsorted(known.index.to_numpy(), np.arange(len(df) + 1))
    return primary, known.to_numpy(), starts.astype(np.int64)


# What the model sees ------------------------------------------------------------------------------


def draw_contact_sheet(dataset: WaveformDataset, n_images: int, save_path: Path) -> Path:
    """Draw images of rows spread over the table with their targets, low frequencies at the bottom, and save a PNG."""
    from matplotlib.figure import Figure

    config, columns = dataset.config, min(3, n_images)
    rows = -(-n_images // columns)
    figure = Figure(figsize=(4.2 * columns, 2.9 * rows), layout="constrained")
    for position in range(n_images):
        item = dataset[1, position * len(dataset) // n_images]
        axes = figure.add_subplot(rows, columns, position + 1, xlabel="seconds", ylabel="mel band")
        extent = (0.0, config.period, 0, config.n_mels)
        axes.imshow(
            item["image"][0].numpy().T, origin="lower", aspect="auto", cmap="magma", extent=extent
        )
        axes.set_title(
            _describe_targets(item["targets"].numpy(), dataset.class_names), fontsize=8, loc="left"
        )
    figure.savefig(save_path, dpi=120)
    return save_path


def _describe_targets(targets: np.ndarray, class_names: Sequence[str]) -> str:
    heard = [number for number in np.argsort(-targets, kind="stable") if targets[number] >= 0.1]
    return ",  ".join(f"{class_names[number]} {targets[number]:g}" for number in heard) or "no bird"


def main() -> int:
    """Draw a contact sheet of training images."""
    own = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    own.add_argument("--show", type=int, default=6)
    own.add_argument("--mode", choices=("train", "valid"), default="train")
    own.add_argument("--save", type=Path, default=Path("training_images.png"))
    flags, rest = own.parse_known_args()
    config = load_config(
        rest,
        description="Draw what the model sees: --show N images of --mode train or valid, into --save FILE.png.",
    )
    configure_logger(config)
    if flags.show < 1:
        raise UserError(f"--show {flags.show}: at least one image")
    df = check_table(
        read_train_table(config.train_dataframe_path), str(config.train_dataframe_path)
    )
    check_prepared(df, config.train_np_dir)
    saved = draw_contact_sheet(WaveformDataset(df, config, flags.mode), flags.show, flags.save)
    print(f"wrote {saved}: {flags.show} images as the model sees them in {flags.mode} mode")
    return 0


if __name__ == "__main__":
    run_main(main)
