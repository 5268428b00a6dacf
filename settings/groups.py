"""The groups of settings, in the order of the help, and the types that their fields share."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from settings.about import Group

STRICT = ConfigDict(
    extra="forbid", validate_default=True, validate_assignment=True, allow_inf_nan=False
)

INHERITED = STRICT | ConfigDict(defer_build=True)  # for classes that Config inherits

Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegativeFloat = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
NotNegative = Annotated[int, Field(ge=0)]


def as_word(value: Any) -> Any:
    """Make true and false "on" and "off", as YAML reads these words and as earlier versions had."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


Switch = Annotated[Literal["auto", "on", "off"], BeforeValidator(as_word)]
Compiling = Annotated[Literal["auto", "on", "off", "graphs"], BeforeValidator(as_word)]

RUN = Group("run", "train", on_resume="warn")
PATHS = Group("paths", "prepare_audios", "split_data", "train", on_resume="free", is_local=True)
RECORDINGS = Group("recordings", "prepare_audios")
TABLES = Group("tables", "prepare_audios", "split_data")
FOLDS = Group("folds", "split_data")
CLIP = Group("clip and log-mel", "train", on_resume="fixed", identity="clip")
CHOICE = Group("choice of clips", "train")
WAVEFORM = Group("waveform augmentation", "train")
IMAGE = Group("image augmentation", "train")
MIXING = Group("batch mixing", "train")
TARGETS = Group("targets and loss", "train")
SELF_TRAINING = Group("self-training", "train")
MODEL = Group("model", "train")
OPTIMISATION = Group("optimisation", "train")
PROBE = Group("probe", "train")
TEACHER = Group("teacher", "train")
PREDICTION = Group("prediction", "train", on_resume="free")
CHECKPOINTS = Group("checkpoints", "train", on_resume="free")

EVERY_STAGE = "prepare_audios split_data train"
