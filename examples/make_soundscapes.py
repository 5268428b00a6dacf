"""Lay held-back recordings over background noise at known times and signal-to-noise ratios.

    python examples/make_soundscapes.py --background DIR --output soundscapes --fold 0 --snr-db -5 0
    5 10 20

takes the prepared recordings that `train.csv` holds back in a fold, so that a model of that fold
never heard them, and writes `soundscapes/soundscape_<number>.ogg` with `soundscapes/labels.csv`:
file, start_s, end_s, primary_label, snr_db of every bird in them. The levels go round, so each
occurs equally often.

Without licence trouble this needs recordings that may be mixed; the mixes of others are for your
own eyes alone.
"""

import argparse
import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile as sf

SAMPLE_RATE = 32_000  # Hz
FADE_S = 0.05  # raised-cosine fade at both ends of a bird and between two pieces of background
BACKGROUND_PEAK = 0.1  # of full scale, so that a bird 20 dB louder still fits


@dataclass(frozen=True)
class Event:
    """One bird in a soundscape: times in seconds, signal-to-noise ratio in dB."""

    file: str
    start_s: float
    end_s: float
    primary_label: str
    snr_db: float


def fade_ends(waveform: np.ndarray, n_samples: int) -> np.ndarray:
    """Fade (n,) in and out over n_samples, at most half of it, with raised cosines."""
    n_samples = min(n_samples, len(waveform) // 2)
    ramp = 0.5 - 0.5 * np.cos(np.pi * (np.arange(n_samples) + 0.5) / max(1, n_samples))
    faded = waveform.astype(np.float32, copy=True)
    faded[:n_samples] *= ramp
    faded[len(faded) - n_samples :] *= ramp[::-1]
    return faded


def make_background(paths: list[Path], n_samples: int, rng: np.random.Generator) -> np.ndarray:
    """Cross-fade random background clips to (n_samples,) float32 of a steady peak."""
    overlap = int(FADE_S * SAMPLE_RATE)
    background = np.zeros(n_samples + overlap, np.float32)
    position = 0
    while position < n_samples:
        clip, rate = sf.read(paths[rng.integers(len(paths))], dtype="float32", always_2d=True)
        if rate != SAMPLE_RATE:
            import soxr

            clip = soxr.resample(clip, rate, SAMPLE_RATE)
        mono = clip.mean(axis=1)
        if len(mono) <= 2 * overlap or not mono.any():
            continue
        piece = fade_ends(mono / np.abs(mono).max() * BACKGROUND_PEAK, overlap)[
            : len(background) - position
        ]
        background[position : position + len(piece)] += piece
        position += len(mono) - overlap
    return background[:n_samples]


def at_snr(bird: np.ndarray, background: np.ndarray, snr_db: float) -> np.ndarray:
    """Scale a bird (n,) to a mean power of snr_db above that of the background (n,)."""
    bird_power, background_power = float(np.mean(bird**2)), float(np.mean(background**2))
    return bird * np.float32(np.sqrt(background_power / bird_power * 10 ** (snr_db / 10)))


def make_soundscape(
    file: str,
    birds: list[tuple[str, np.ndarray, float]],
    background: np.ndarray,
    *,
    bird_s: float,
    rng: np.random.Generator,
) -> tuple[np.ndarray, list[Event]]:
    """Lay birds over a background, each at a random place of an equal span of its own.

    Args:
        file: name for the events.
        birds: (label, waveform (n,), snr_db) of each.
        background: (n_samples,).
        bird_s: longest stretch taken of a bird, seconds.
        rng: draws the stretches and their places.

    Returns:
        The mix (n_samples,) float32 and its events in order.
    """
    mix, events = background.copy(), []
    span = len(background) // len(birds)
    for number, (label, waveform, snr_db) in enumerate(birds):
        length = min(int(bird_s * SAMPLE_RATE), len(waveform), span)
        start_in_bird = loudest_stretch(waveform, length)
        bird = fade_ends(
            waveform[start_in_bird : start_in_bird + length], int(FADE_S * SAMPLE_RATE)
        )
        start = number * span + int(rng.integers(span - length + 1))
        mix[start : start + length] += at_snr(bird, background[start : start + length], snr_db)
        events.append(
            Event(file, start / SAMPLE_RATE, (start + length) / SAMPLE_RATE, label, snr_db)
        )
    return mix, events


def loudest_stretch(waveform: np.ndarray, length: int) -> int:
    """Find the `length` samples of most energy; the rest of a recording may hold no song."""
    energy = np.concatenate([[0.0], np.cumsum(waveform.astype(np.float64) ** 2)])
    return int(np.argmax(energy[length:] - energy[: len(energy) - length]))


def write_ogg(path: Path, waveform: np.ndarray) -> None:
    """Write Ogg Vorbis in blocks of a second; one long write crashes libsndfile."""
    with sf.SoundFile(path, "w", SAMPLE_RATE, 1, format="OGG", subtype="VORBIS") as file:
        for start in range(0, len(waveform), SAMPLE_RATE):
            file.write(waveform[start : start + SAMPLE_RATE])


def read_bird(path: Path) -> np.ndarray:
    """Read a prepared recording as float32, full scale."""
    waveform = np.load(path, allow_pickle=False)
    return waveform.astype(np.float32) / (32767 if waveform.dtype == np.int16 else 1)


def main(args: list[str] | None = None) -> None:
    """Write the soundscapes and their labels."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--train-csv", type=Path, default=Path("train.csv"))
    parser.add_argument("--train-np-dir", type=Path, default=Path("train_np"))
    parser.add_argument(
        "--background", type=Path, required=True, help="folder of clips without birds"
    )
    parser.add_argument("--output", type=Path, default=Path("soundscapes"))
    parser.add_argument("--fold", type=int, default=0, help="whose held-back recordings to use")
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--birds", type=int, default=6, help="in each soundscape")
    parser.add_argument(
        "--bird-seconds", type=float, default=4.0, help="longest stretch of one bird"
    )
    parser.add_argument("--snr-db", type=float, nargs="+", default=[-5.0, 0.0, 5.0, 10.0, 20.0])
    parser.add_argument("--seed", type=int, default=8)
    flags = parser.parse_args(args)

    backgrounds = sorted(
        path
        for path in flags.background.rglob("*")
        if path.suffix.lower() in (".ogg", ".wav", ".flac")
    )
    table = pd.read_csv(
        flags.train_csv, dtype={"primary_label": str, "filepath": str}, keep_default_na=False
    )
    table = table[table["kfold"] == flags.fold].reset_index(drop=True)
    if not backgrounds or table.empty:
        parser.error(
            f"{len(backgrounds)} background clips in {flags.background}, "
            f"{len(table)} recordings in the fold"
        )

    rng = np.random.default_rng(flags.seed)
    flags.output.mkdir(parents=True, exist_ok=True)
    events: list[Event] = []
    for number in range(flags.count):
        rows = table.iloc[rng.choice(len(table), min(flags.birds, len(table)), replace=False)]
        levels = [
            flags.snr_db[(len(events) + position) % len(flags.snr_db)]
            for position in range(len(rows))
        ]
        waveforms = [read_bird(flags.train_np_dir / filepath) for filepath in rows["filepath"]]
        birds = list(zip(rows["primary_label"], waveforms, levels, strict=True))
        file = f"soundscape_{number:03d}.ogg"
        background = make_background(backgrounds, int(flags.seconds * SAMPLE_RATE), rng)
        mix, found = make_soundscape(file, birds, background, bird_s=flags.bird_seconds, rng=rng)
        write_ogg(flags.output / file, mix / max(1.0, float(np.abs(mix).max())))
        events += found
    with (flags.output / "labels.csv").open("w", newline="") as file_out:
        writer = csv.writer(file_out, lineterminator="\n")
        writer.writerow(["file", "start_s", "end_s", "primary_label", "snr_db"])
        writer.writerows(
            [e.file, f"{e.start_s:.4f}", f"{e.end_s:.4f}", e.primary_label, f"{e.snr_db:g}"]
            for e in events
        )
    print(
        f"wrote {flags.count} soundscapes with {len(events)} birds and their labels.csv "
        f"to {flags.output}"
    )


if __name__ == "__main__":
    main()
