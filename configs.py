"""Every setting of the pipeline in one validated class.

Edit the defaults here, override them in a YAML file (`--config FILE.yaml`), and override both by
flags (`--train-bs 16`). A wrong name or value stops at once and says what is allowed.

A setting says everything about itself where it stands: its group in the help, its unit, which
scripts use it, whether a resumed run may change it, and whether a trained model depends on it
(`settings/about.py` says what there is to say). `settings_where` asks them.
"""

import functools
import os
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator
from pydantic.dataclasses import dataclass

from settings.about import Setting, settings_of
from settings.allocator import keep_freed_memory as keep_freed_memory
from settings.groups import (
    CHECKPOINTS,
    EVERY_STAGE,
    MODEL,
    OPTIMISATION,
    PATHS,
    RUN,
    STRICT,
    TARGETS,
    Compiling,
    Count,
    NotNegative,
    NotNegativeFloat,
    Positive,
    Probability,
    Switch,
)
from settings.groups import as_word as as_word
from settings.network import NetworkSettings
from settings.random_state import capture_rng as capture_rng
from settings.random_state import restore_rng as restore_rng
from settings.random_state import set_seed as set_seed
from settings.reading import read_settings
from settings.reading import read_yaml as read_yaml
from settings.running import SHOWN as SHOWN
from settings.running import UserError as UserError
from settings.running import choose as choose
from settings.running import configure_logger as configure_logger
from settings.running import next_command as next_command
from settings.running import run_main as run_main
from settings.running import some as some
from settings.running import stop
from settings.version import __version__ as __version__
from settings.version import versions as versions

SchedulerParams = dict[str, int | float | str | list[int]]

# The highest score: the largest float32 below 1. Rounding can take a weighted sum of sigmoids to 1
# and above, where it would tie with the metric's padding rows or be refused by the metric.
BELOW_ONE = 1 - 2**-24

# An experiment's name is a part of a path and no number's folder.
NAME_PATTERN = r"^([^\s./\\-][^/\\]*)?$"

DEFAULT_SCHEDULER_PARAMS: SchedulerParams = {"factor": 0.9, "patience": 5}  # of the plateau


def available_cpus() -> int:
    """Count the CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(kw_only=True, config=STRICT)
class Config(NetworkSettings):
    """Settings of every stage. Construction and assignment are checked; nothing is read from disk.

    Those of recordings, tables and folds stand in `settings/archive.py`, those of a clip and of
    what is done to it in `settings/sound.py`, those of the head in `settings/network.py`.

    Raises:
        pydantic.ValidationError (a ValueError): unknown field, or a value out of range.
    """

    # Run
    exp_id: NotNegative = RUN(47, "number of the experiment; results go to models/Exp_<exp_id>")
    name: Annotated[str, Field(pattern=NAME_PATTERN)] = RUN(
        "", "name of the experiment, which finds its folder as the number does", on_resume="free"
    )
    notes: str = RUN("", "what you want to remember of the experiment", on_resume="free")
    seed: NotNegative = RUN(8, "seed of every random draw", used_by="split_data train")
    debug: bool = RUN(
        False, "log DEBUG lines; train.py also takes a small subset and two epochs",
        used_by=EVERY_STAGE, on_resume="free",
    )  # fmt: skip
    device: str = RUN(
        "auto", "auto (CUDA, else Apple's MPS, else the CPU), cpu, cuda, cuda:1 or mps",
        on_resume="free", for_prediction="given", is_local=True,
    )  # fmt: skip
    deterministic: bool = RUN(False, "use deterministic CUDA algorithms; slower")
    verify: bool = RUN(
        False, "read every prepared recording in full before training", on_resume="free"
    )
    profile: bool = RUN(
        False, "log how long each part of an epoch took; slower on a GPU", on_resume="free"
    )
    num_workers: NotNegative = RUN(
        lambda: min(8, available_cpus()), "processes that prepare recordings or load data",
        used_by="prepare_audios train", on_resume="free", for_prediction="given", is_local=True,
    )  # fmt: skip
    kaggle: bool = RUN(
        False, "take folders, weights and hours from a Kaggle notebook; found by itself there",
        used_by=EVERY_STAGE, on_resume="free", is_local=True,
    )  # fmt: skip

    refit: bool = RUN(
        False, "train on all rows, as long as the folds of the experiment found best",
        on_resume="fixed",
    )  # fmt: skip
    find_lr: bool = RUN(
        False, "try rising learning rates on the first fold and draw the losses", on_resume="free"
    )
    soup: NotNegative = RUN(
        0, "average each fold's last N best checkpoints, in place of training; 0: train",
        on_resume="fixed",
    )  # fmt: skip
    soup_from: list[Path] = RUN(
        list, "checkpoints and experiments to average in place of the experiment's own",
        on_resume="free", is_local=True,
    )  # fmt: skip
    soup_greedy: bool = RUN(
        False, "leave out of the soup what makes it worse on the validation part",
        on_resume="fixed",
    )  # fmt: skip
    log: list[Literal["tensorboard", "wandb"]] = RUN(
        list, "follow the run elsewhere as well; history.csv stays the truth", on_resume="free"
    )
    worst_clips: NotNegative = RUN(
        12, "validation clips with the highest loss that a fold's worst_clips.png shows; 0: none",
        on_resume="free",
    )  # fmt: skip
    max_hours: Positive | None = RUN(
        None, "stop after the last epoch that ends within this time; the same command goes on",
        unit="hours", on_resume="free",
    )  # fmt: skip

    # Paths: a relative one lies under root
    root: Path = PATHS(Path("."), "folder of the data and the results")
    train_audio_dir: Path = PATHS(
        Path("data/train_audio"), "recordings, <label>/<file>",
        used_by="prepare_audios split_data", under_root=True,
    )  # fmt: skip
    metadata_path: Path = PATHS(
        Path("data/train_metadata.csv"), "table with a row a recording",
        used_by="prepare_audios split_data", under_root=True,
    )  # fmt: skip
    train_np_dir: Path = PATHS(
        Path("train_np"), "prepared recordings, <label>/<file>.npy", under_root=True
    )
    train_dataframe_path: Path = PATHS(
        Path("train.csv"), "table of prepared recordings with labels and folds",
        used_by="split_data train", under_root=True,
    )  # fmt: skip
    background_dir: Path | None = PATHS(
        None, "recordings without birds: background noise, and clips to learn as empty",
        used_by="train", under_root=True,
    )  # fmt: skip
    models_dir: Path = PATHS(
        Path("models"), "folder for checkpoints, histories and logs",
        used_by="train", under_root=True,
    )  # fmt: skip
    train_dir: Path | None = PATHS(None, "folder of a fold; train.py sets it", used_by="none")

    # Targets and loss
    label_smoothing: bool = TARGETS(
        True, "train on targets 0.0025, 0.3 and 0.995 in place of 0, 0.3 and 1"
    )
    smoothing: Probability | None = TARGETS(
        None, "fraction of each target that is spread over all classes; none: label_smoothing"
    )
    secondary_targets: Literal["soft", "positive", "masked"] = TARGETS(
        "soft", "secondary birds: soft (secondary_value), positive (as primary), masked (no loss)"
    )
    secondary_value: Probability = TARGETS(0.3, "target of soft secondary birds")
    no_bird_class: bool = TARGETS(
        False, "a class of its own for clips without a bird, the last one",
        on_resume="fixed", identity="network",
    )  # fmt: skip
    loss_name: str = TARGETS("bce_focal_2way", "loss; losses/named.py has the list")
    focal_alpha: Probability = TARGETS(0.25, "weight of the positives in the focal loss")
    focal_gamma: NotNegativeFloat = TARGETS(
        2.0, "focusing exponent of the focal loss: the higher, the less easy examples count"
    )
    loss_weights: tuple[float, float] = TARGETS(
        (1.0, 1.0), "weights of the clipwise and the framewise part of the 2-way loss"
    )

    # Model
    base_model_name: str = MODEL(
        "tf_efficientnet_b0.ns_jft_in1k", "backbone: any timm model with feature maps",
        on_resume="fixed", identity="network",
    )  # fmt: skip
    pretrained: bool = MODEL(True, "start from ImageNet weights")
    pretrained_path: Path | None = MODEL(
        None, "file with the backbone's weights, for machines without a network", is_local=True
    )
    pretrained_checkpoint: Path | None = MODEL(
        None, "checkpoint of this project to take the backbone from", is_local=True
    )
    dropout: Probability = MODEL(0.0, "dropout before and after the head's first layer")

    # Optimisation
    epochs: Count = OPTIMISATION(120, "number of epochs to train", on_resume="planned")
    lr: Positive = OPTIMISATION(1e-3, "learning rate of AdamW")
    weight_decay: NotNegativeFloat = OPTIMISATION(1e-6, "weight decay of AdamW")
    train_bs: Count | Literal["auto"] = OPTIMISATION(
        32, "batch size in training; auto: the largest that fits, found once", unit="clips",
        on_resume="counted",
    )  # fmt: skip
    valid_bs: Count = OPTIMISATION(
        32, "batch size in validation", unit="clips", on_resume="free", for_prediction="given"
    )
    accumulation_steps: Count = OPTIMISATION(
        1, "batches whose gradients are summed for one optimizer step", on_resume="counted"
    )
    last_batch: Literal["auto", "keep", "fill", "drop"] = OPTIMISATION(
        "auto", "a last batch that is too small; fill: by the epoch's first clips; auto: on CUDA",
        on_resume="counted",
    )  # fmt: skip
    grad_clip: Positive | None = OPTIMISATION(None, "clip the norm of the gradient to this")
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = OPTIMISATION(
        None, "decay of the averaged weights (EMA), which validation then scores"
    )
    max_bad_steps: Count = OPTIMISATION(
        20, "steps in a row with a loss or gradient that is not finite, before the run stops"
    )
    early_stopping: Count | None = OPTIMISATION(
        None, "epochs without a better validation loss before a fold stops"
    )
    scheduler_name: str = OPTIMISATION(
        "reduce_lr_on_plateau", "learning-rate schedule; scheduler.py has the list",
        on_resume="fixed",
    )  # fmt: skip
    scheduler_params: SchedulerParams = OPTIMISATION(
        DEFAULT_SCHEDULER_PARAMS.copy,
        "parameters of the schedule, such as --scheduler-params.patience 9", on_resume="fixed",
    )  # fmt: skip
    amp: bool = OPTIMISATION(True, "mixed precision", for_prediction="if given")
    amp_dtype: Literal["auto", "float16", "bfloat16"] = OPTIMISATION(
        "auto",
        "type in mixed precision; auto: float16 on CUDA, no mixed precision elsewhere",
        for_prediction="if given",
    )
    channels_last: Switch = OPTIMISATION(
        "auto", "memory format: channels_last or not; auto: by the backbone on CUDA, else on"
    )
    compile_model: Compiling = OPTIMISATION(
        "auto", "torch.compile of whole batches; graphs: captured, too; auto: long CUDA runs"
    )

    # Checkpoints
    resume: bool = CHECKPOINTS(True, "go on where a stopped run of this experiment ended")
    checkpoint_every_steps: NotNegative = CHECKPOINTS(
        0, "optimizer steps between checkpoints inside an epoch; 0: only at its end"
    )
    checkpoint_every_minutes: NotNegativeFloat = CHECKPOINTS(
        0.0, "minutes between checkpoints inside an epoch; 0: only at its end"
    )
    keep_checkpoints: Count = CHECKPOINTS(3, "best checkpoints kept in a fold's folder")

    @model_validator(mode="after")
    def _settle_dependent_fields(self) -> "Config":
        """Put relative paths under root; the plateau's parameters go with the plateau."""
        if self.root != Path("."):
            base = Path(os.path.abspath(self.root))
            for name in settings_where(under_root=True):
                path = self.__dict__[name]
                self.__dict__[name] = None if path is None else base / path

        is_plateau = self.scheduler_name == "reduce_lr_on_plateau"
        if not is_plateau and self.scheduler_params == DEFAULT_SCHEDULER_PARAMS:
            self.__dict__["scheduler_params"] = {}
        if is_plateau:
            self.__dict__["scheduler_params"] = DEFAULT_SCHEDULER_PARAMS | self.scheduler_params
        return self

    @field_validator("sample_rate", "fmin", "fmax")
    @classmethod
    def _below_nyquist(cls, value: float, info: ValidationInfo) -> float:
        now = {**info.data, str(info.field_name): value}  # without those that are no numbers
        if now.keys() >= {"fmax", "sample_rate"} and now["fmax"] > now["sample_rate"] / 2:
            half = now["sample_rate"] / 2
            raise ValueError(f"fmax={now['fmax']:g} Hz is above half the sample_rate, {half:g} Hz")
        if now.keys() >= {"fmin", "fmax"} and now["fmin"] >= now["fmax"]:
            raise ValueError(f"fmin={now['fmin']:g} Hz is not below fmax={now['fmax']:g} Hz")
        return value

    @property
    def n_samples(self) -> int:
        """Samples in a clip."""
        return round(self.period * self.sample_rate)

    @property
    def n_frames(self) -> int:
        """STFT frames in a clip, centred."""
        return 1 + self.n_samples // self.hop_length

    @property
    def batch_size(self) -> int:
        """Clips of a training batch (ValueError: train.py has not settled it yet)."""
        if self.train_bs == "auto":
            raise ValueError("train_bs is auto; train.py finds the number")
        return self.train_bs

    @property
    def image_frames(self) -> int:
        """Frames of the image that the network sees: those of the STFT, unless it is resized."""
        return self.n_frames if self.image_size is None else self.image_size[0]

    @property
    def image_bands(self) -> int:
        """Bands of that image."""
        return self.n_mels if self.image_size is None else self.image_size[1]

    @property
    def learns_frames(self) -> bool:
        """Whether labels with a time can teach single frames: in a 2-way loss of single clips.

        Clips that are stretched or cropped in time would no longer fit them.
        """
        keeps_time = not (self.p_time_stretch or self.p_speed or self.p_resized_crop)
        is_two_way = self.loss_name.endswith("_2way") and self.loss_weights[1] > 0
        compares_clips = self.loss_name.startswith("soft_auc")
        return self.frame_labels != "never" and is_two_way and not compares_clips and keeps_time

    @property
    def distills(self) -> bool:
        """Whether training learns from a teacher's vectors, at least in its first epochs."""
        return self.distill_weight > 0 or self.distill_epochs > 0

    @property
    def has_softmax_scores(self) -> bool:
        """Whether scores are the softmax over classes: with a cross-entropy loss, or if asked."""
        if self.score_by == "auto":
            return self.loss_name.startswith("cross_entropy")
        return self.score_by == "softmax"

    @property
    def background_np_dir(self) -> Path:
        """Prepared backgrounds, beside the prepared recordings."""
        return self.train_np_dir.with_name(self.train_np_dir.name + "_background")

    @property
    def exp_dir(self) -> Path:
        """Folder of the experiment, which holds a folder for each fold; a soup's is beside it."""
        return self.models_dir / (f"Exp_{self.exp_id}" + ("_soup" if self.soup else ""))

    @property
    def report_path(self) -> Path:
        """What prepare_audios.py did to each recording."""
        return self.train_np_dir / "prepare_report.csv"

    @property
    def fold_report_path(self) -> Path:
        """What split_data.py found, beside train.csv."""
        return self.train_dataframe_path.with_name(self.train_dataframe_path.stem + "_folds.json")

    def fold_dir(self, fold: int) -> Path:
        """Folder of one fold."""
        return self.exp_dir / f"fold_{fold}"

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain types: what goes into YAML and checkpoints."""
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self)}


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return dict(value) if isinstance(value, dict) else value


@functools.cache
def settings() -> dict[str, Setting]:
    """What each field of Config says about itself, by name, in their order."""
    return settings_of(Config)


def settings_where(**wanted: Any) -> tuple[str, ...]:
    """Name the fields that say all of this of themselves: `settings_where(on_resume="fixed")`."""
    return tuple(
        name
        for name, setting in settings().items()
        if all(getattr(setting, key) == value for key, value in wanted.items())
    )


# Scripts ------------------------------------------------------------------------------------------


def load_config(
    args: Sequence[str] | None = None, *, description: str = "", script: str = "train"
) -> Config:
    """Read defaults, then `--config FILE.yaml`, then flags.

    Args:
        args: command line without the program; None takes `sys.argv`.
        description: what `--help` says above the settings.
        script: name of the script without .py; `--help` shows the settings that it uses. Flags of
            the other scripts are taken too, so that one set of flags serves every stage.

    Raises:
        UserError: a file that cannot be read, an unknown field or flag, or a value out of range.
        SystemExit: status 0, after `--help`.
    """
    return read_settings(Config, args, description=description, script=script)


def check_command_line(module_name: str, description: str | None, script: str = "train") -> None:
    """Answer --help and refuse mistakes before a script's heavy imports, if it is run as one."""
    if module_name != "__main__":
        return
    try:
        load_config(description=(description or "").partition("\n")[0], script=script)
    except UserError as error:
        stop(str(error))
