"""An exported file against its checkpoints: real clips, the differences, and whether they pass."""

import time
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from catalog.frame_targets import of_clips
from configs import Config, UserError
from dataset import WaveformDataset
from inference.exported import Session
from inference.graph_file import BATCH
from inference.scorers import TorchModels
from metrics import padded_cmap, padded_cmap_floor
from transforms import crop_or_pad

# The largest difference of a score that passes. float32: validation's log-mel is computed in
# float64; that of the graph is up to 3e-3 dB off near the floor, which moved scores of trained
# networks by up to 4e-5. A mistake in window, padding, bank or floor moves them by 1e-2 and more.
# float16: scores moved by 2e-2. int8: cmAP counts.
LIMITS = {"float32": 5e-4, "float16": 0.05, "int8": 1.0}
MAX_CMAP_LOSS = 0.02


@dataclass(frozen=True)
class Clips:
    """Real clips, as waveforms and as validation sees them.

    Attributes:
        waveforms: (N, n_samples).
        images: N of (channels, n_frames, n_mels).
        labels: (N, C), 1 for primary birds.
        n_available: recordings, or windows of annotated ones, that the clips were taken from.
    """

    waveforms: np.ndarray
    images: list[np.ndarray]
    labels: np.ndarray
    n_available: int


def read_clips(part: pd.DataFrame, n_clips: int, config: Config, class_names: list[str]) -> Clips:
    """Take up to `n_clips` rows, evenly spread, through validation's own data set.

    Args:
        part: rows as train.py validates them, windows where labels have a time.
        n_clips: how many.
        config: settings of the model, with the place of the recordings.
        class_names: of the model.
    """
    chosen = np.linspace(0, len(part) - 1, min(n_clips, len(part))).round().astype(int)
    one_each = replace(config, valid_clips=1)
    rows = WaveformDataset(part.iloc[np.unique(chosen)], one_each, "valid", class_names)

    items = [rows[index] for index in range(len(rows))]
    recordings = [rows.waveform(index) for index in range(len(rows))]
    targets = np.stack([of_clips(item["targets"][None])[0].numpy() for item in items])
    return Clips(
        waveforms=np.stack([crop_or_pad(recording, config.n_samples) for recording in recordings]),
        images=[item["image"].numpy() for item in items],
        labels=(targets[:, : len(class_names)] >= 0.5).astype(np.uint8),
        n_available=len(part),
    )


@dataclass(frozen=True)
class Comparison:
    """How a file's scores differ from those of its checkpoints in float32, as in validation.

    Attributes:
        n_clips: that were compared.
        n_available: that there are.
        difference: the largest of any score, silence included.
        cmap: padded cmAP of the file.
        cmap_expected: of the checkpoints.
        floor: of a random scorer.
        ms_per_clip: milliseconds, log-mel included.
        ms_per_clip_expected: of the network alone, in torch.
    """

    n_clips: int
    n_available: int
    difference: float
    cmap: float
    cmap_expected: float
    floor: float
    ms_per_clip: float
    ms_per_clip_expected: float

    def __str__(self) -> str:
        """Say it in one line."""
        return (
            f"{self.n_clips} of {self.n_available} validation clips and silence: "
            f"largest difference of a score {self.difference:.1e}, padded cmAP {self.cmap:.4f} "
            f"(checkpoint {self.cmap_expected:.4f}, floor {self.floor:.4f}), "
            f"{self.ms_per_clip:.0f} ms a clip with its log-mel "
            f"(torch's network alone {self.ms_per_clip_expected:.0f})"
        )


def compare(scorer: Session, models: TorchModels, clips: Clips) -> Comparison:
    """Score real clips and silence with the file and as validation does; take the differences."""
    silence = np.zeros(models.config.n_samples, np.float32)
    silent_image = np.broadcast_to(models.prepare(silence), clips.images[0].shape)
    waveforms, images = [*clips.waveforms, silence], [*clips.images, silent_image]
    scores, expected, difference, took_s = [], [], 0.0, np.zeros(2)

    for start in range(0, len(images), BATCH):
        began = time.perf_counter()
        clipwise, framewise = scorer(np.stack(waveforms[start : start + BATCH]))
        halfway = time.perf_counter()
        answer = models.score(images[start : start + BATCH], frames=True)
        took_s += (halfway - began, time.perf_counter() - halfway)

        clipwise_expected, _, framewise_expected = answer
        assert framewise_expected is not None
        scores.append(clipwise)
        expected.append(np.average(clipwise_expected, axis=0, weights=models.weights))
        difference = max(
            difference,
            largest_gap(clipwise, expected[-1]),
            largest_gap(framewise, np.average(framewise_expected, axis=0, weights=models.weights)),
        )

    n_clips, labels = len(clips.images), clips.labels
    ms_per_clip, ms_per_clip_expected = 1e3 * took_s / len(images)
    return Comparison(
        n_clips=n_clips,
        n_available=clips.n_available,
        difference=difference,
        cmap=padded_cmap(labels, np.nan_to_num(np.concatenate(scores))[:n_clips]),
        cmap_expected=padded_cmap(labels, np.concatenate(expected)[:n_clips]),
        floor=padded_cmap_floor(labels.sum(axis=0, dtype=np.int64), n_clips),
        ms_per_clip=ms_per_clip,
        ms_per_clip_expected=ms_per_clip_expected,
    )


def largest_gap(one: np.ndarray, other: np.ndarray) -> float:
    """Return the largest difference of two arrays; infinity where one of them is not finite."""
    gap = float(np.abs(one - other).max())
    return gap if np.isfinite(gap) else float("inf")


def judge(result: Comparison, precision: str, limit: float | None) -> None:
    """Refuse a file whose scores are too far off (UserError)."""
    limit = LIMITS[precision] if limit is None else limit
    if result.difference > limit:
        raise UserError(
            f"the file's scores differ by up to {result.difference:.2g} from the checkpoint's, "
            f"more than {limit:g}; nothing was written"
        )
    if (loss := result.cmap_expected - result.cmap) > MAX_CMAP_LOSS:
        raise UserError(
            f"{precision} costs {loss:.4f} of padded cmAP ({result.cmap:.4f}; checkpoint "
            f"{result.cmap_expected:.4f}), more than {MAX_CMAP_LOSS:g}; nothing was written"
        )
