"""The facts that settings follow from: of the archive, the machine, and what the user wants."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from configs import Config
from planning.archive import Archive, Grouping, usual_rate
from planning.machine import Machine
from planning.sound import Measured, pool_calls


@dataclass(frozen=True)
class Pace:
    """What a short trial measured.

    Attributes:
        batch: the largest batch that was tried and fits.
        train_per_s: clips that are trained on in a second, with making their images.
        valid_per_s: clips that are scored in a second.
    """

    batch: int
    train_per_s: float
    valid_per_s: float


@dataclass(frozen=True)
class Facts:
    """All that a rule may look at.

    Attributes:
        n_recordings, hours, seconds, longest_s: number of recordings, their length together, the
            median length and that of the longest tenth, by their headers.
        n_species, least, median, most: species, and recordings of the rarest, the median and the
            commonest one.
        labels_a_row, background_share: labels of a recording; recordings with a further label.
        usual_rate: the highest native rate that a tenth of the recordings have, Hz.
        used_hz: the highest frequency recorded, in the median recording.
        low_hz, high_hz: between them lie 99 % of what stands out, in 19 of 20 recordings.
        call_s, short_call_s: half, and a tenth, of what stands out is in calls of at most this.
        active_share: share of the median recording that stands out.
        stereo_share, clipped_share, silent_share: recordings with two channels or more, clipped
            ones; seconds without sound.
        loudness_db: level of the median recording, dB re full scale.
        n_copies: recordings that are one of another name, or that sound the same.
        groupings, published_folds: columns for folds; number of folds in a column `fold`.
        is_annotated, label_s: whether labels have a time, and the median length of one.
        has_backgrounds: whether there is a folder of recordings without birds.
        cores, memory_gb, device, device_gb, disk_gb: of the machine.
        hours_wanted: hours that training may take; None: no limit.
        pace: what the trial measured; None: no trial.
    """

    n_recordings: int
    hours: float
    seconds: float
    longest_s: float
    n_species: int
    least: int
    median: float
    most: int
    labels_a_row: float
    background_share: float
    usual_rate: int
    used_hz: float
    low_hz: float
    high_hz: float
    call_s: float
    short_call_s: float
    active_share: float
    stereo_share: float
    clipped_share: float
    silent_share: float
    loudness_db: float
    n_copies: int
    groupings: tuple[Grouping, ...]
    published_folds: int
    is_annotated: bool
    label_s: float
    has_backgrounds: bool
    cores: int
    memory_gb: float
    device: str
    device_gb: float
    disk_gb: float
    hours_wanted: float | None = None
    pace: Pace | None = None

    def with_pace(self, pace: Pace) -> "Facts":
        """Return the facts with what a trial measured."""
        return replace(self, pace=pace)


def collect(archive: Archive, machine: Machine, config: Config, hours: float | None) -> Facts:
    """Sum up what was seen.

    Args:
        archive: as look_at_archive returns it.
        machine: as look_at_machine returns it.
        config: what the user has set.
        hours: that training may take.
    """
    seconds, counts = archive.seconds, archive.counts
    channels = np.array([header.channels for header in archive.headers.values()])
    return Facts(
        n_recordings=len(seconds),
        hours=float(seconds.sum() / 3600),
        seconds=float(np.median(seconds)),
        longest_s=float(np.percentile(seconds, 90)),
        n_species=len(counts),
        least=int(counts.min()) if len(counts) else 0,
        median=float(counts.median()) if len(counts) else 0.0,
        most=int(counts.max()) if len(counts) else 0,
        labels_a_row=archive.labels_a_row,
        background_share=archive.background_share,
        usual_rate=usual_rate(list(archive.headers.values())),
        **_sound_facts(archive.sample),
        stereo_share=float((channels > 1).mean()),
        n_copies=archive.n_copies,
        groupings=archive.groupings,
        published_folds=archive.published_folds,
        is_annotated=config.annotations is not None,
        label_s=float(np.median(archive.labels_s)) if len(archive.labels_s) else 0.0,
        has_backgrounds=config.background_dir is not None,
        cores=machine.cores,
        memory_gb=machine.memory_gb,
        device=machine.device,
        device_gb=machine.device_gb,
        disk_gb=machine.disk_gb,
        hours_wanted=hours,
    )


# Facts of sound where nothing could be listened to
UNHEARD = {
    "used_hz": 16_000.0, "low_hz": 50.0, "high_hz": 16_000.0, "call_s": 0.1, "short_call_s": 0.1,
    "active_share": 0.0, "clipped_share": 0.0, "silent_share": 0.0, "loudness_db": 0.0,
}  # fmt: skip


def _sound_facts(sample: tuple[Measured, ...]) -> dict[str, Any]:
    if not sample:
        return dict(UNHEARD)
    calls = pool_calls(sample)
    if not len(calls):
        calls = np.array([one.seconds for one in sample])
    return {
        "used_hz": float(np.median([one.used_hz for one in sample])),
        "low_hz": float(np.percentile([one.low_hz for one in sample], 5)),
        "high_hz": float(np.percentile([one.high_hz for one in sample], 95)),
        "call_s": call_length(calls, 0.5),
        "short_call_s": call_length(calls, 0.1),
        "active_share": float(np.median([one.active_share for one in sample])),
        "clipped_share": float(np.mean([one.clipped for one in sample])),
        "silent_share": float(np.mean([one.silent_share for one in sample])),
        "loudness_db": float(np.median([one.loudness_db for one in sample])),
    }


def call_length(calls: np.ndarray, share: float) -> float:
    """The length, in seconds, up to which calls make up a share of the time of all (n,) calls.

    Weighed by their length, for what flickers for an instant is many calls and little time.
    """
    ordered = np.sort(calls)
    place = np.searchsorted(np.cumsum(ordered), share * ordered.sum())
    return float(ordered[min(place, len(ordered) - 1)])
