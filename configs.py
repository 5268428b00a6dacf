"""Every setting of the pipeline in one validated class, and how it is read.

Defaults stand here, a YAML file overrides them (`--config FILE.yaml`), flags override both
(`--train-bs 16`). A wrong name or value stops at once and says what is allowed.
"""

import argparse
import contextlib
import difflib
import functools
import importlib.metadata
import io
import logging
import os
import platform
import random
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

from pydantic import (
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.dataclasses import dataclass

Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
NotNegative = Annotated[int, Field(ge=0)]
SchedulerValue = int | float | str | list[int]

PATHS_UNDER_ROOT = (
    "train_audio_dir",
    "metadata_path",
    "train_np_dir",
    "train_dataframe_path",
    "models_dir",
)

# The parameters of every scheduler with their defaults, by torch's names; scheduler.py builds them.
SCHEDULER_PARAMS: dict[str, dict[str, SchedulerValue]] = {
    "reduce_lr_on_plateau": {"factor": 0.9, "patience": 5},
    "cosine": {"T_max": 0, "eta_min": 0.0},  # epochs; 0 takes config.epochs
    "cosine_warm_restarts": {"T_0": 10, "T_mult": 2, "eta_min": 0.0},
    "one_cycle": {"pct_start": 0.3, "div_factor": 25.0, "final_div_factor": 1e4},
    "step": {"step_size": 30, "gamma": 0.1},
    "multi_step": {"milestones": [60, 90], "gamma": 0.1},
    "exponential": {"gamma": 0.97},
    "linear_warmup_cosine": {"warmup_epochs": 3.0, "eta_min": 0.0},
    "none": {},
}

# The highest score: the largest float32 below 1. Rounding can take a weighted sum of sigmoids to 1
# and above, where it would tie with the metric's padding rows or be refused by the metric.
BELOW_ONE = 1 - 2**-24

SHOWN_MISTAKES = 5  # in one message
HOW_SETTINGS_ARE_GIVEN = (
    "Settings come from configs.py, then from --config FILE.yaml, then from these flags."
)

DEPENDENCIES = [
    "numpy", "pandas", "scikit-learn", "torch", "torchvision", "timm", "librosa", "soundfile", "soxr", "scipy",
    "torchlibrosa", "albumentations", "colorednoise", "matplotlib", "joblib", "tqdm", "pydantic", "tyro", "PyYAML",
]  # fmt: skip


class UserError(ValueError):
    """A mistake in settings or data that the user can mend: one line on the terminal, exit status 2."""


def available_cpus() -> int:
    """Count the CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(
    kw_only=True,
    config=ConfigDict(
        extra="forbid", validate_default=True, validate_assignment=True, allow_inf_nan=False
    ),
)
class Config:
    """Settings of every stage. Construction and assignment are checked; nothing is read from disk.

    Raises:
        pydantic.ValidationError (a ValueError): unknown field, or a value out of range.
    """

    # Run
    exp_id: NotNegative = 47  # number of the experiment: results go to models/Exp_<exp_id>
    seed: NotNegative = 8  # every random draw follows from it
    debug: bool = False  # a small subset of the recordings, two epochs, and DEBUG logs
    device: str = (
        "auto"  # auto takes CUDA, else Apple's MPS, else the CPU; or cpu, cuda, cuda:1, mps
    )
    deterministic: bool = False  # CUDA too repeats itself, as far as torch can make it; slower
    verify: bool = False  # read every prepared recording in full before training
    profile: bool = (
        False  # log where each epoch's time went; slows a GPU, which is waited for after each part
    )
    num_workers: NotNegative = Field(
        default_factory=lambda: min(8, available_cpus())
    )  # processes that load data

    # Paths: a relative one lies under root
    root: Path = Path(".")  # folder of the data and the results
    train_audio_dir: Path = Path("data/train_audio")  # recordings, <label>/<file>
    metadata_path: Path = Path("data/train_metadata.csv")  # a row per recording
    train_np_dir: Path = Path("train_np")  # prepared recordings, <label>/<file>.npy
    train_dataframe_path: Path = Path("train.csv")  # metadata, labels and folds
    models_dir: Path = Path("models")  # everything training leaves
    train_dir: Path | None = None  # the fold's folder; train.py sets it

    # Recordings
    sample_rate: Count = 32_000  # Hz, of the prepared recordings
    max_seconds: Positive = 30.0  # seconds kept from the start of each recording
    audio_dtype: Literal["float32", "int16"] = (
        "float32"  # of the prepared files; int16 takes half the disk
    )
    trim_db: Positive | None = (
        None  # drop silence at both ends, this many dB below the peak; None keeps it
    )
    file_timeout_s: Positive = 120.0  # seconds one file may take to prepare
    max_bad_fraction: Probability = (
        0.05  # share of bad recordings (all but ok and skipped) that is put up with
    )

    # Folds
    n_folds: Annotated[int, Field(ge=2)] = 5  # parts of the cross-validation
    folds: list[NotNegative] = Field(
        default_factory=lambda: [0, 1, 2, 3, 4]
    )  # the folds train.py trains
    fold_group: str | None = None  # a metadata column, author say, whose values never cross folds
    rare_birds: list[str] = Field(
        default_factory=lambda: ["brcwea1", "lotcor1", "whhsaw1"]
    )  # species kept in the training part of every fold

    # Clip and log-mel
    period: Positive = 5.0  # seconds in a clip
    n_fft: Annotated[int, Field(ge=16, multiple_of=2)] = 2048  # samples in an STFT frame, even
    hop_length: Count = 512  # samples between frames
    n_mels: Annotated[int, Field(ge=8)] = 224  # mel bands
    fmin: Annotated[float, Field(ge=0)] = 20.0  # Hz, lower edge of the lowest band
    fmax: Positive = 16_000.0  # Hz, upper edge of the highest band, at most sample_rate / 2
    top_db: Positive = 80.0  # dB kept below a clip's peak

    # Augmentation of the waveform: chance of each, and its range
    p_noise_injection: Probability = 0.0  # white noise of random amplitude
    noise_injection_max: Positive = 0.04  # largest amplitude, of a peak of 1
    p_gaussian_noise: Probability = 0.0  # white noise at a random SNR
    p_pink_noise: Probability = 0.0  # 1/f noise at a random SNR
    noise_snr_db: tuple[float, float] = (5.0, 20.0)  # dB, range of the SNR of both
    p_pitch_shift: Probability = 0.0  # slow: one phase vocoder a clip
    pitch_shift_semitones: tuple[float, float] = (-2.0, 2.0)  # range of the shift
    p_time_stretch: Probability = 0.0  # slow: one phase vocoder a clip
    time_stretch_rate: tuple[Positive, Positive] = (0.9, 1.1)  # range; above 1 is faster
    p_random_volume: Probability = 0.0  # a constant gain
    p_cosine_volume: Probability = 0.0  # a gain that swings slowly
    volume_db: tuple[float, float] = (-10.0, 10.0)  # dB, range of both gains

    # Augmentation of the image
    frontend: Literal["cpu", "device"] = (
        "cpu"  # what makes training images: the loader's processes, or the device
    )
    max_mixed_birds: Count = 3  # recordings summed into one training image at most
    p_stop_mixing: Probability = 0.3  # chance to stop after each of them
    p_white_noise_image: Probability = 0.9  # noise over the whole image
    p_pink_noise_image: Probability = 0.9  # the log-mel of 1/f noise
    p_band_noise_image: Probability = 0.9  # noise in a band of frequencies
    p_frequency_shaping: Probability = 0.5  # tilt towards the low frequencies
    p_masks: Probability = 0.0  # albumentations' rectangles cut out
    p_spec_augment: Probability = 0.25  # stripes cut out of a batch, in the model

    # Mixing of a batch
    p_mixup: Probability = 0.25  # chance a batch is mixed by MixUp
    mixup_alpha: Positive = 0.5  # of Beta(alpha, alpha), from which lam is drawn
    p_cutmix: Probability = 0.25  # chance a batch, else, is mixed by CutMix
    cutmix_alpha: Positive = 1.0  # of Beta(alpha, alpha)

    # Targets and loss
    label_smoothing: bool = True  # training targets 0.0025 / 0.3 / 0.995 rather than 0 / 0.3 / 1
    loss_name: Literal["bce", "bce_focal", "bce_focal_2way"] = "bce_focal_2way"  # on logits
    focal_alpha: Probability = 0.25  # weight of the positives
    focal_gamma: Annotated[float, Field(ge=0)] = 2.0  # how much easy examples count less
    loss_weights: tuple[float, float] = (
        1.0,
        1.0,
    )  # of the clipwise and the framewise part of the 2-way loss

    # Model
    base_model_name: str = "tf_efficientnet_b0.ns_jft_in1k"  # any timm backbone with feature maps
    pretrained: bool = True  # start from ImageNet weights
    pretrained_path: Path | None = (
        None  # a file with the backbone's weights, where there is no network
    )
    pretrained_checkpoint: Path | None = None  # a TimmSED checkpoint whose encoder is taken over
    dropout: Probability = 0.0  # before and after the head's fully connected layer

    # Optimisation
    epochs: Count = 120
    lr: Positive = 1e-3  # learning rate of AdamW
    weight_decay: Annotated[float, Field(ge=0)] = 1e-6  # of AdamW
    train_bs: Count = 32  # clips in a training batch
    valid_bs: Count = 32  # clips in a validation batch
    accumulation_steps: Count = 1  # batches summed into one optimizer step
    grad_clip: Positive | None = None  # largest gradient norm; None does not clip
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = (
        None  # average the weights and score the average
    )
    max_bad_steps: Count = (
        20  # steps in a row without a finite loss and gradient before the run stops
    )
    early_stopping: Count | None = None  # epochs without a better validation loss before stopping
    scheduler_name: str = "reduce_lr_on_plateau"  # see SCHEDULER_PARAMS for the names
    scheduler_params: dict[str, SchedulerValue] = Field(
        default_factory=dict
    )  # of the scheduler of that name
    amp: bool = True  # mixed precision
    amp_dtype: Literal["auto", "float16", "bfloat16"] = (
        "auto"  # auto: float16 on CUDA, plain float32 elsewhere
    )
    channels_last: bool = True  # memory format; mostly faster, on the CPU too
    compile_model: bool = (
        False  # torch.compile, for whole training batches; the first step takes minutes once
    )

    # Checkpoints
    resume: bool = True  # go on where a stopped run of this experiment ended
    checkpoint_every_steps: NotNegative = (
        0  # optimizer steps between checkpoints within an epoch; 0: only at its end
    )
    checkpoint_every_minutes: Annotated[float, Field(ge=0)] = 0.0  # the same by the clock
    keep_checkpoints: Count = 3  # best checkpoints kept in a fold's folder

    @model_validator(mode="after")
    def _settle_dependent_fields(self) -> "Config":
        """Put relative paths under root; give the chosen scheduler its own default parameters."""
        if self.root != Path("."):
            base = Path(os.path.abspath(self.root))
            for name in PATHS_UNDER_ROOT:
                self.__dict__[name] = base / self.__dict__[name]
        if self.scheduler_params in SCHEDULER_PARAMS.values():  # nothing of the user's own
            self.__dict__["scheduler_params"] = {}
        self.__dict__["scheduler_params"] = {
            **SCHEDULER_PARAMS[self.scheduler_name],
            **self.scheduler_params,
        }
        return self

    @field_validator("scheduler_name")
    @classmethod
    def _known_scheduler(cls, name: str) -> str:
        return choose(name, SCHEDULER_PARAMS, what="scheduler_name")

    @field_validator("sample_rate", "fmin", "fmax")
    @classmethod
    def _below_nyquist(cls, value: float, info: ValidationInfo) -> float:
        now = {**info.data, str(info.field_name): value}  # without those that are no numbers
        if now.keys() >= {"fmax", "sample_rate"} and now["fmax"] > now["sample_rate"] / 2:
            raise ValueError(
                f"fmax={now['fmax']:g} Hz is above half the sample_rate, {now['sample_rate'] / 2:g} Hz"
            )
        if now.keys() >= {"fmin", "fmax"} and now["fmin"] >= now["fmax"]:
            raise ValueError(f"fmin={now['fmin']:g} Hz is not below fmax={now['fmax']:g} Hz")
        return value

    @field_validator("noise_snr_db", "pitch_shift_semitones", "time_stretch_rate", "volume_db")
    @classmethod
    def _ordered(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] > value[1]:
            raise ValueError(f"the lower end comes first, got {value}")
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
    def exp_dir(self) -> Path:
        """Folder of the experiment, over the folds'."""
        return self.models_dir / f"Exp_{self.exp_id}"

    @property
    def report_path(self) -> Path:
        """What prepare_audios.py did to each file."""
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


def choose(name: str, known: Any, *, what: str) -> str:
    """Return a known name; refuse another with the closest and all known ones (UserError)."""
    if name in known:
        return name
    close = difflib.get_close_matches(str(name), list(map(str, known)), n=3)
    hint = f" (did you mean {' or '.join(close)}?)" if close else ""
    raise UserError(
        f"unknown {what} {name!r}{hint}; choose from {', '.join(sorted(map(str, known)))}"
    )


# Reading the settings -----------------------------------------------------------------------------


def load_config(args: Sequence[str] | None = None, *, description: str = "") -> Config:
    """Defaults, then `--config FILE.yaml`, then flags.

    Args:
        args: command line without the program; None takes `sys.argv`.
        description: what `--help` says above the settings.

    Raises:
        UserError: a file that cannot be read, an unknown field or flag, or a value out of range.
        SystemExit: status 0, after `--help`.
    """
    # These three decide what the defaults of the others are, so they are read first.
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--config")
    early.add_argument("--root", default=argparse.SUPPRESS)
    early.add_argument(
        "--scheduler-name", "--scheduler_name", dest="scheduler_name", default=argparse.SUPPRESS
    )
    args = sys.argv[1:] if args is None else list(args)
    if missing := [flag for flag in ("--config", "--root") if args and args[-1] == flag]:
        raise UserError(f"{missing[0]} needs a value")
    first, rest = early.parse_known_args(args)
    settings = read_yaml(Path(first.config)) if first.config else {}
    chosen = {key: value for key, value in vars(first).items() if key != "config"}
    if chosen.get("scheduler_name", settings.get("scheduler_name")) != settings.get(
        "scheduler_name"
    ):
        settings.pop("scheduler_params", None)  # they belong to the scheduler that is not used
    try:
        defaults = Config(**settings | chosen)
    except ValidationError as error:
        raise UserError(_describe(error, first.config or "command line")) from None
    return _parse_flags(rest, defaults, description)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read settings from a YAML file; Config checks the keys."""
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
        if any(
            isinstance(event, yaml.AliasEvent) for event in yaml.parse(text)
        ):  # a few unfold into gigabytes
            raise yaml.YAMLError("an alias (*name) stands for its value; write that out")
        settings = yaml.safe_load(text)
        repr(
            settings
        )  # a message may show any of it, and Python prints no integer of more than 4300 digits
    except (
        OSError,
        ValueError,
        RecursionError,
        yaml.YAMLError,
    ) as error:  # ValueError: a date that cannot be, say
        raise UserError(f"{path}: cannot be read as YAML: {' '.join(str(error).split())}") from None
    if settings is None:
        return {}
    if isinstance(settings, dict) and "versions" in settings:  # a run's own config.yaml
        settings = settings.get("config", settings)
    if not isinstance(settings, dict) or not all(isinstance(key, str) for key in settings):
        raise UserError(f"{path}: expected lines of the form 'field: value'")
    return settings


def _parse_flags(args: Sequence[str], defaults: Config, description: str) -> Config:
    import tyro

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(
                Config,
                args=args,
                default=defaults,
                description=f"{description}\n{HOW_SETTINGS_ARE_GIVEN}",
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        cause = stop.__context__
        if isinstance(cause, ValidationError):
            raise UserError(_describe(cause, "command line")) from None
        raise UserError(_unbox(said.getvalue())) from None


def _describe(error: ValidationError, source: str) -> str:
    """Put pydantic's findings on one line, as `field: message`, without its web addresses."""
    known = [field.name for field in fields(Config)]
    found, lines = error.errors(include_url=False), []
    for item in found[:SHOWN_MISTAKES]:
        name = ".".join(map(str, item["loc"])) or "settings"
        if item["type"] == "unexpected_keyword_argument":
            close = difflib.get_close_matches(name, known, n=3)
            hint = (
                f"did you mean {' or '.join(close)}?"
                if close
                else f"the fields are {', '.join(known)}"
            )
            lines.append(f"{name}: no such field; {hint}")
        else:
            lines.append(
                f"{name}: {item['msg'].removeprefix('Value error, ')} (got {repr(item['input'])[:80]})"
            )
    more = f"; and {len(found) - SHOWN_MISTAKES} more" if len(found) > SHOWN_MISTAKES else ""
    return f"{source}: " + "; ".join(lines) + more


def _unbox(text: str) -> str:
    """Put the words of tyro's framed error message on one line, with our own guess at a mistyped flag."""
    lines = [
        line.strip("│| \t")
        for line in text.splitlines()
        if not line.startswith(("╭", "╰", "+", "-"))
    ]
    words = " ".join("; see" if set(line) <= {"─", "-"} else line for line in lines if line)
    words = re.sub(
        r"^[A-Z][\w ]+ ; see ", "", words
    )  # the title, which stands apart where the frame is ASCII
    if unknown := re.match(r"Unrecognized options: (--[^\s,]+)", words):
        flags = ["--" + field.name.replace("_", "-") for field in fields(Config)]
        close = difflib.get_close_matches(unknown[1].replace("_", "-"), flags, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(close)}?" if close else "--help lists the settings"
        return f"there is no setting {unknown[1]}; {hint}"
    return re.sub(
        r" ; see (Argument helptext: .*? ; see )?For full helptext.*",
        "; --help lists the settings",
        words,
    )


# Running a script ---------------------------------------------------------------------------------


def run_main(main: Callable[[], int | None]) -> NoReturn:
    """Run a script's main: a mistake or a full disk becomes one line on stderr and exit status 2."""
    try:
        sys.exit(main())
    except (UserError, OSError) as error:
        if isinstance(error, OSError) and not getattr(error, "is_for_users", False):
            raise  # not one of files.py's, which name the file and the reason
        logging.getLogger("birdclef").debug("where it happened", exc_info=True)
        message = str(error)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    _stop(
        message
    )  # the error is gone by now, and with it the frames that hold loaders and their workers


def _stop(message: str) -> NoReturn:
    last_line = message.strip().splitlines()[
        -1
    ]  # an error from a loader's worker carries its traceback above it
    print(f"error: {last_line.removeprefix('configs.UserError: ')}", file=sys.stderr)
    sys.exit(2)


def check_command_line(module_name: str, description: str | None) -> None:
    """Answer --help and refuse mistaken settings before a script's heavy imports, if it is run as a script."""
    if module_name != "__main__":
        return
    try:
        load_config(description=description or "")
    except UserError as error:
        _stop(str(error))


def next_command(script: str) -> str:
    """Return the command of the stage that follows, with the settings this one was given."""
    return shlex.join(["python", script, *sys.argv[1:]])


def configure_logger(config: Config) -> logging.Logger:
    """Log lines to stderr, DEBUG ones too when `config.debug`; calling it again adds no handler."""
    logger = logging.getLogger("birdclef")
    logger.setLevel(logging.DEBUG if config.debug else logging.INFO)
    console: Any = next((one for one in logger.handlers if getattr(one, "is_console", False)), None)
    if console is None:
        console = logging.StreamHandler()
        console.is_console = True
        console.setFormatter(
            logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")
        )
        logger.addHandler(console)
    console.stream = sys.stderr  # that of an earlier call may be closed
    return logger


def set_seed(seed: int) -> None:
    """Seed Python, numpy and torch (every device), for what draws from their global generators."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - for libraries that draw from it; ours never do
    torch.manual_seed(seed)


@functools.cache
def versions() -> dict[str, str]:
    """Collect Python, platform, packages and the git commit of this code, for the record of a run."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in DEPENDENCIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    git = [
        "git",
        "-C",
        str(Path(__file__).resolve().parent),
        "describe",
        "--always",
        "--dirty",
        "--abbrev=12",
    ]
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        answer = subprocess.run(git, capture_output=True, text=True, timeout=10, check=False)
        found["git_commit"] = answer.stdout.strip() or "not a git checkout"
    return found
