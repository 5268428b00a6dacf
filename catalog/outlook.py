"""What preparing will take, said before it begins: hours, disk, time, and what is not kept."""

import math
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from audio.decoder_pool import DecoderPool
from configs import Config, available_cpus

LOOKED_AT = 64  # recordings whose length is read; the others are taken to be like them
SPEED = 500  # seconds of sound that one core prepares in a second, at least
LOOK_TIMEOUT_S = 5.0


def describe_outlook(
    recordings: Sequence[str], jobs: Iterable[str], config: Config, decoders: DecoderPool
) -> list[str]:
    """Say what there is and what preparing it will take, in lines for the log.

    Args:
        recordings: all of them, names below the audio folder.
        jobs: those that are to be prepared.
        config: where they lie and how they are prepared.
        decoders: read the lengths in processes of their own, for a header may crash its reader.
    """
    kinds = Counter(os.path.splitext(name)[1].lower() or "no suffix" for name in recordings)
    counts = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    lines = [f"{len(recordings)} recordings ({counts})"]
    names = sorted(jobs)
    if not names:
        return [f"{lines[0]}, all prepared before"]

    some = [
        names[int(place)] for place in np.linspace(0, len(names) - 1, min(LOOKED_AT, len(names)))
    ]
    paths = [config.train_audio_dir / name for name in some]
    lengths = np.array([decoders.look(path, LOOK_TIMEOUT_S).seconds for path in paths])  # (n,)
    scale = len(names) / len(some)
    most_s = config.max_seconds if config.annotations is None else math.inf
    kept_s = float(np.minimum(lengths, most_s).sum()) * scale
    total_s = float(lengths.sum()) * scale
    return [*lines, *_describe_work(len(names), total_s, kept_s, config)]


def _minutes(minutes: float) -> str:
    return f"{minutes:.0f} minutes" if minutes >= 1.5 else "a minute"


def _describe_work(n_jobs: int, total_s: float, kept_s: float, config: Config) -> list[str]:
    n_bytes = kept_s * config.sample_rate * np.dtype(config.audio_dtype).itemsize
    free = shutil.disk_usage(existing_folder(config.train_np_dir)).free
    minutes = kept_s / (SPEED * max(1, min(config.num_workers, available_cpus()))) / 60
    lines = [
        f"to prepare: {n_jobs} recordings, about {_hours(kept_s)} of sound; {n_bytes / 1e9:.1f} GB "
        f"of {free / 1e9:.0f} GB that are free, {_minutes(minutes)} or less"
    ]
    if n_bytes > free:
        lines.append("that is more than the disk has: --audio-dtype int16 takes half of it")
    if (beyond_s := total_s - kept_s) > 0.01 * total_s:
        lines.append(
            f"{_hours(beyond_s)} of {_hours(total_s)} lie beyond the first "
            f"{config.max_seconds:g} s of a recording and are not used; --max-seconds keeps more"
        )
    return lines


def existing_folder(folder: Path) -> Path:
    """Return a folder, or the nearest one above it that exists."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 360 else f"{seconds / 60:.1f} min"
