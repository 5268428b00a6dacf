"""The settings of the head, of how fast which part learns, and of the probe."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from settings.groups import (
    IMAGE,
    INHERITED,
    MODEL,
    OPTIMISATION,
    PREDICTION,
    PROBE,
    TEACHER,
    Count,
    NotNegative,
    Positive,
    Probability,
)
from settings.sound import SoundSettings


@dataclass(kw_only=True, config=INHERITED)
class NetworkSettings(SoundSettings):
    """The settings of the head and of its training; `configs.Config` adds all others."""

    # Model
    head: Literal["sed", "linear"] = MODEL(
        "sed", "head: with a hidden layer (sed), or a classifier of standardised segments (linear)",
        on_resume="fixed", identity="network",
    )  # fmt: skip
    head_input: Literal["mean", "rows"] = MODEL(
        "mean", "average the map's rows of frequency, or keep them side by side",
        on_resume="fixed", identity="network",
    )  # fmt: skip
    head_block: Annotated[int, Field(le=-1)] | None = MODEL(
        None, "block whose map the head sees: -1 the last before the final layers; none: the end",
        on_resume="fixed", identity="network",
    )  # fmt: skip
    pooling: Literal["attention", "mean", "max", "gem", "log_mean_exp"] = MODEL(
        "attention", "how the segments' logits become the clip's; gem pools features",
        on_resume="fixed", identity="network",
    )  # fmt: skip
    mel_statistics: NotNegative = MODEL(
        0, "bands whose mean, deviation and maximum the head sees, too; 0: none",
        on_resume="fixed", identity="network",
    )  # fmt: skip
    score_by: Literal["auto", "sigmoid", "softmax"] = MODEL(
        "auto", "how logits become scores; auto: softmax with a cross-entropy loss, else sigmoid",
        on_resume="fixed", identity="network",
    )  # fmt: skip
    p_late_stripes: Probability = IMAGE(
        0.0, "chance of stripes, as p_stripes, that the band statistics do not see"
    )

    # Optimisation
    head_lr: Positive | None = OPTIMISATION(
        None, "learning rate of the head; none: lr", on_resume="fixed"
    )
    layer_decay: Annotated[float, Field(gt=0, le=1)] = OPTIMISATION(
        1.0, "each layer of the backbone learns this much slower than the one after it",
        on_resume="fixed",
    )  # fmt: skip
    frozen_epochs: NotNegative = OPTIMISATION(
        0, "first epochs in which the head alone is trained", on_resume="fixed"
    )
    freeze: Literal["none", "all"] = OPTIMISATION(
        "none", "all: fit a linear head to the frozen backbone, as probe.py, in place of training",
        on_resume="fixed",
    )  # fmt: skip
    frozen_statistics: Literal["never", "first", "always"] = OPTIMISATION(
        "never", "keep batch statistics as they are: in the frozen epochs (first), or always",
        on_resume="fixed",
    )  # fmt: skip
    monitor: Literal["valid_loss", "macro_ap", "macro_roc_auc", "cmap_pad_5", "last"] = (
        OPTIMISATION(
            "valid_loss",
            "what the best epoch is best in; last: the newest is kept",
            on_resume="fixed",
        )  # fmt: skip
    )

    average_epochs: NotNegative = OPTIMISATION(
        0, "last epochs whose weights are averaged at the end of a fold; 0: none",
        on_resume="fixed",
    )  # fmt: skip

    # Probe
    probe_below: NotNegative = PROBE(
        0, "train.py fits the probe first where a fold trains on fewer recordings; 0: never",
        on_resume="fixed",
    )  # fmt: skip
    probe_start: bool = PROBE(
        False, "training starts from the probe's regression; it needs head: linear",
        on_resume="fixed",
    )  # fmt: skip
    probe_clips: Count = PROBE(3, "most clips of a recording that the probe is fitted to")
    probe_noisy: NotNegative = PROBE(
        2, "copies of each clip over a background, where there is a background_dir"
    )
    probe_no_bird: NotNegative = PROBE(
        6, "clips of each background that the class for no bird is fitted to"
    )
    probe_c: Annotated[list[Positive], Field(min_length=1)] = PROBE(
        lambda: [0.003, 0.01, 0.03],
        "inverse strengths of its regularisation; the best on the training folds is taken",
    )
    probe_shrinkage: Annotated[list[Probability], Field(min_length=1)] = PROBE(
        lambda: [0.2, 1.0],
        "whitens by the scatter within recordings, shrunk so far; 1: not; chosen likewise",
    )

    # Teacher
    teacher_embeddings: Path | None = TEACHER(
        None, "file of vectors that embed.py wrote, to fit to or to be taught by",
        under_root=True, on_resume="free", is_local=True,
    )  # fmt: skip
    teacher_features: Literal["joined", "alone"] = TEACHER(
        "joined", "probe.py fits to the vectors beside the network's features, or to them alone"
    )
    distill_weight: Probability = TEACHER(
        0.0, "share of the loss that is the distance to the teacher's vectors; 0: none",
        on_resume="fixed",
    )  # fmt: skip
    distill_epochs: NotNegative = TEACHER(
        0, "first epochs that learn from the teacher's vectors alone", on_resume="fixed"
    )
    teacher_source: str = TEACHER(
        "", "the teacher, its licence and its file; the scripts set it",
        used_by="none", on_resume="fixed",
    )  # fmt: skip

    # What predict.py does with a model of this training, unless its flags say otherwise
    predict_score: Literal["clipwise", "framewise_max", "mix"] = PREDICTION(
        "clipwise", "which output predict.py takes: its --score, where that is not given"
    )
    predict_shifts: list[float] = PREDICTION(
        list, "further clips of each window that predict.py averages: its --shifts", unit="s"
    )
