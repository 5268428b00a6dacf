"""What a plan will cost: minutes of each stage, and room on the disk."""

from dataclasses import dataclass

from catalog.outlook import SPEED
from configs import Config
from planning.facts import Facts
from planning.rules import disk_gb, epoch_s

CLIPS_OF_PROBE = 3  # scored clips of a recording that the probe costs, about, with its noisy copies


@dataclass(frozen=True)
class Expected:
    """Costs.

    Attributes:
        prepare_min: minutes of prepare_audios.py, or less.
        probe_min: minutes of probe.py; None without a trial.
        train_min: minutes of train.py for all planned folds; None without a trial.
        disk_gb: room that prepared recordings take.
    """

    prepare_min: float
    probe_min: float | None
    train_min: float | None
    disk_gb: float

    def __str__(self) -> str:
        parts = [f"prepare {_minutes(self.prepare_min)} or less"]
        if self.probe_min is not None and self.train_min is not None:
            parts += [f"probe {_minutes(self.probe_min)}", f"train {_minutes(self.train_min)}"]
        return f"{', '.join(parts)}; {self.disk_gb:.1f} GB of disk"


def expect(facts: Facts, config: Config) -> Expected:
    """Estimate what a plan costs on this machine."""
    kept_s = min(facts.hours * 3600, facts.n_recordings * config.max_seconds)
    if facts.is_annotated:
        kept_s = facts.hours * 3600
    probe = train = None
    if facts.pace is not None:
        n_clips = facts.n_recordings * CLIPS_OF_PROBE * (3 if facts.has_backgrounds else 1)
        probe = n_clips / facts.pace.valid_per_s / 60
        train = epoch_s(facts, config.to_dict()) * config.epochs * len(config.folds) / 60
    kept = disk_gb(facts, config.sample_rate, config.max_seconds, config.audio_dtype)
    return Expected(kept_s / (SPEED * facts.cores) / 60, probe, train, kept)


def _minutes(minutes: float) -> str:
    if minutes >= 120:
        return f"{minutes / 60:.1f} h"
    return f"{max(1, round(minutes))} min"
