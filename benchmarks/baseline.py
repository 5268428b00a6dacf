"""The straightforward way to do what this project does; the benchmarks compare with it.

The same recipe and the same numbers, with the usual means: each item loads a whole `.npy` and takes
librosa's mel, noise is float64, pink-noise images are made beforehand, albumentations normalises
each image, scikit-learn computes the metric, and librosa resamples recordings that are decoded
whole.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from configs import Config

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def prepare(source: Path, target: Path, sample_rate: int, max_seconds: float) -> None:
    """Decode the whole recording, average its channels, resample with librosa, cut and save."""
    import librosa
    import soundfile

    waveform, native_rate = soundfile.read(source, dtype="float32")
    if waveform.ndim > 1:
        waveform = waveform.mean(axis=1)
    if native_rate != sample_rate:
        waveform = librosa.resample(y=waveform, orig_sr=native_rate, target_sr=sample_rate)
    target.parent.mkdir(parents=True, exist_ok=True)
    np.save(target, waveform[: round(max_seconds * sample_rate)])


def padded_cmap(labels: np.ndarray, scores: np.ndarray, padding_factor: int = 5) -> float:
    """Padded cmAP by scikit-learn: labels and scores (N, C)."""
    from sklearn.metrics import average_precision_score

    ones = np.ones((padding_factor, labels.shape[1]))
    return average_precision_score(
        np.vstack([labels, ones]), np.vstack([scores, ones]), average="macro"
    )


def mel_spectrogram(waveform: np.ndarray, config: Config) -> np.ndarray:
    """Librosa's mel power (n_mels, n_frames) of a waveform (n,)."""
    import librosa

    return librosa.feature.melspectrogram(
        y=waveform,
        sr=config.sample_rate,
        n_fft=config.n_fft,
        hop_length=config.hop_length,
        n_mels=config.n_mels,
        fmin=config.fmin,
        fmax=config.fmax,
    )


def random_power(image: np.ndarray, power: float, c: float, rng: np.random.Generator) -> np.ndarray:
    """Scale to [0, 1] and raise to U[0, 1] * power + c."""
    image = image - image.min()
    image = image / (image.max() + 1e-7)
    return image ** (rng.random() * power + c)


class BaselineDataset(torch.utils.data.Dataset):
    """Rows of train.csv as images and targets, the recipe of `WaveformDataset` in the usual words.

    Args:
        df: rows of train.csv.
        config: as for WaveformDataset.
        mode: "train" or "valid".
        n_pink: pink-noise images made at construction; people make 2000.
    """

    def __init__(self, df: pd.DataFrame, config: Config, mode: str, n_pink: int = 2000) -> None:
        os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
        import albumentations as A

        self.rows: list[Any] = df.to_dict("records")
        self.config, self.mode = config, mode
        self.class_names = sorted(df["primary_label"].unique())
        self.normalize = A.Normalize(
            mean=IMAGENET_MEAN, std=IMAGENET_STD, max_pixel_value=1.0, p=1.0
        )
        self.pink = [self._pink_image(k) for k in range(n_pink)] if mode == "train" else []

    def _pink_image(self, k: int) -> np.ndarray:
        import colorednoise
        import librosa

        noise = colorednoise.powerlaw_psd_gaussian(1, self.config.n_samples, random_state=k)
        image = librosa.power_to_db(mel_spectrogram(noise, self.config), ref=np.max)
        return (image - image.min()) / (image.max() - image.min())

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Make the image (3, n_frames, n_mels) and the targets (n_classes,) of a row."""
        import librosa

        rng = np.random.default_rng((self.config.seed, index))
        birds = [self.rows[index]]
        while self.mode == "train" and len(birds) < self.config.max_mixed_birds:
            if rng.random() < self.config.p_stop_mixing:
                break
            birds.append(self.rows[rng.integers(len(self.rows))])

        power: Any = 0
        for bird in birds:
            mel = mel_spectrogram(self._clip(bird, rng), self.config)
            if self.mode == "train":
                mel = random_power(mel, 3, 0.5, rng) * rng.uniform(1, 101)
            power += mel

        image = (librosa.power_to_db(power, ref=np.max, top_db=self.config.top_db) + 80) / 80
        if self.mode == "train":
            image = self._augment(image, rng)

        image = image - image.min()
        image = (image / (image.max() + 1e-7)).astype(np.float32)
        color = np.stack([image] * 3, axis=-1)  # (n_mels, n_frames, 3)
        color = self.normalize(image=color)["image"].transpose(2, 1, 0)
        return {
            "image": torch.from_numpy(np.ascontiguousarray(color)),
            "targets": self._targets(birds),
        }

    def _clip(self, bird: dict[str, Any], rng: np.random.Generator) -> np.ndarray:
        n_samples = self.config.n_samples
        waveform = np.load(self.config.train_np_dir / bird["filepath"])
        if waveform.dtype == np.int16:
            waveform = waveform / 32767
        if len(waveform) < n_samples:
            waveform = np.pad(waveform, (0, n_samples - len(waveform)))

        start = rng.integers(len(waveform) - n_samples + 1) if self.mode == "train" else 0
        waveform = waveform[start : start + n_samples]
        return waveform / (np.abs(waveform).max() + 1e-7)

    def _augment(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        config, (n_mels, n_frames) = self.config, image.shape
        if rng.random() < config.p_white_noise_image:
            noise = rng.random((n_mels, n_frames)) + 10
            image = image + noise * image.mean() * 0.05 * rng.uniform(0.3, 1.3)

        if rng.random() < config.p_pink_noise_image:
            pink = self.pink[rng.integers(len(self.pink))]
            image = image + (pink + 2.5) * 4 * image.mean() * 0.05 * rng.uniform(0.3, 1.3)

        if rng.random() < config.p_band_noise_image:
            start = rng.integers(n_mels // 2 + 1)
            stop = rng.integers(min(start + 20, n_mels), n_mels + 1)
            noise = (rng.random((stop - start, n_frames)) + 9) * 0.05
            strength = image.mean() * 0.05 * rng.uniform(0.3, 1.3)
            image[start:stop] = image[start:stop] + noise * strength

        if rng.random() < config.p_frequency_shaping:
            ramp = int(rng.integers(n_mels // 2, n_mels + 1))
            x = rng.uniform(0, 0.5)
            gain = np.concatenate([1 - x * np.arange(ramp) / ramp, np.full(n_mels - ramp, 1 - x)])
            image = image * gain[:, None]
            image = image / image.max()

        return random_power(image, 2, 0.7, rng)

    def _targets(self, birds: list[dict[str, Any]]) -> torch.Tensor:
        smooth = self.mode == "train" and self.config.label_smoothing
        absent, background, primary = (0.0025, 0.3, 0.995) if smooth else (0.0, 0.3, 1.0)
        targets = np.full(len(self.class_names), absent)
        heard = [name for bird in birds for name in str(bird["labels"]).split()]
        singing = [bird["primary_label"] for bird in birds]
        for value, names in [(background, heard), (primary, singing)]:
            for name in names:
                if name in self.class_names:
                    targets[self.class_names.index(name)] = value
        return torch.tensor(targets, dtype=torch.float32)
