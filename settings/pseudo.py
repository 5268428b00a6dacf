"""The settings of self-training: how windows that a model has labelled enter a training."""

from pathlib import Path

from pydantic.dataclasses import dataclass

from settings.archive import ArchiveSettings
from settings.groups import INHERITED, SELF_TRAINING, Positive, Probability


@dataclass(kw_only=True, config=INHERITED)
class PseudoSettings(ArchiveSettings):
    """The settings of pseudo-labelled windows; `configs.Config` adds all others."""

    pseudo_labels: Path | None = SELF_TRAINING(
        None, "windows of soundscapes that pseudo_label.py has labelled, to train on, too",
        on_resume="free", under_root=True, is_local=True,
    )  # fmt: skip
    pseudo_share: Probability = SELF_TRAINING(
        0.5, "chance that such a window, drawn by its weight, takes the place of a clip"
    )
    p_pseudo_mixup: Probability = SELF_TRAINING(
        0.0, "chance of MixUp of a labelled clip with such a window, by waveform_mixup_alpha"
    )
    pseudo_empty: Probability = SELF_TRAINING(
        0.0, "fraction of the windows drawn that are ones in which the models found nothing"
    )
    pseudo_background: Probability = SELF_TRAINING(
        0.0, "fraction of backgrounds that are windows in which the models found nothing"
    )
    pseudo_power: Positive = SELF_TRAINING(
        1.0, "exponent of the models' scores: above 1 doubtful labels count less"
    )
    label_cap: Positive | None = SELF_TRAINING(
        None, "largest sum of the targets of a labelled clip; larger ones are scaled down"
    )
    pseudo_cap: Positive | None = SELF_TRAINING(
        None, "largest sum of the targets of a pseudo-labelled window"
    )
