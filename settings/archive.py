"""The settings of an archive: its recordings, the tables that name them, and the folds."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from settings.groups import (
    EVERY_STAGE,
    FOLDS,
    INHERITED,
    RECORDINGS,
    TABLES,
    Count,
    NotNegative,
    Positive,
    Probability,
)


@dataclass(kw_only=True, config=INHERITED)
class ArchiveSettings:
    """The settings of recordings, tables and folds."""

    # Recordings
    sample_rate: Count = RECORDINGS(
        32_000, "sample rate of the prepared recordings", unit="Hz", used_by=EVERY_STAGE,
        on_resume="fixed", identity="clip", makes_arrays=True,
    )  # fmt: skip
    max_seconds: Positive = RECORDINGS(
        30.0, "length kept from the start of each recording", unit="s", makes_arrays=True
    )
    audio_dtype: Literal["float32", "int16"] = RECORDINGS(
        "float32", "type of the prepared samples; int16 takes half the disk",
        identity="clip", makes_arrays=True,
    )  # fmt: skip
    trim_db: Positive | None = RECORDINGS(
        None, "cut off the ends of a recording that stay this far below its peak",
        unit="dB", makes_arrays=True,
    )  # fmt: skip
    voice: Literal["off", "flag", "cut"] = RECORDINGS(
        "off", "people who speak in a recording: say in the report for how long, or cut them out; "
        "needs requirements-voice.txt and takes about four times as long",
    )  # fmt: skip
    annotations: Path | None = RECORDINGS(
        None, "table or folder of tables of labels with a time (Raven, Audacity, BirdNET, CSV); "
        "recordings are then kept whole and cut into windows", used_by=EVERY_STAGE,
        under_root=True, is_local=True,
    )  # fmt: skip
    label_overlap: Probability = RECORDINGS(
        0.25, "overlap from which such a label counts in a window, of the shorter of the two",
        used_by="train",
    )  # fmt: skip
    frame_labels: Literal["auto", "always", "never"] = RECORDINGS(
        "auto", "teach single frames by the labels' times: auto leaves out grids of clips "
        "(BirdNET, BirdCLEF), in which a bird sings somewhere", used_by="train",
    )  # fmt: skip
    unlabelled: Literal["negative", "unknown"] = RECORDINGS(
        "negative", "windows without a label in annotated recordings: no bird, or left out",
        used_by="train",
    )  # fmt: skip
    empty_windows: Annotated[float, Field(ge=0, lt=1)] = RECORDINGS(
        0.5, "largest fraction of annotated training windows that have no label", used_by="train"
    )
    follow_links: bool = RECORDINGS(
        False, "read what lies behind links that lead out of the folder of recordings",
        used_by="prepare_audios split_data", on_resume="free", for_prediction="given",
    )  # fmt: skip
    file_timeout_s: Positive = RECORDINGS(
        120.0, "longest time for one recording; then it counts as unreadable", unit="s",
        on_resume="free", for_prediction="given",
    )  # fmt: skip
    max_bad_fraction: Probability = RECORDINGS(
        0.05, "largest fraction of bad recordings before prepare_audios.py exits with status 1"
    )

    # Tables
    label_column: str | None = TABLES(
        None, "metadata column of the labels; none finds the usual names, such as species"
    )
    filename_column: str | None = TABLES(
        None, "metadata column of the file names; none finds the usual names, such as file"
    )
    from_folders: bool = TABLES(
        False, "use no table: the folder that a recording lies in is its label"
    )
    non_species: Literal["leave_out", "negatives", "classes"] = TABLES(
        "leave_out", "recordings labelled Background, noise, nocall, _trash and the like: leave "
        "them out, train on them as negatives (no bird), or as classes like any other",
    )  # fmt: skip

    # Folds
    n_folds: Annotated[int, Field(ge=2)] = FOLDS(5, "number of folds of the cross-validation")
    folds: Annotated[list[NotNegative], Field(min_length=1)] = FOLDS(
        lambda: [0, 1, 2, 3, 4], "folds to train, one after the other",
        used_by="train", on_resume="free",
    )  # fmt: skip
    fold_group: str | None = FOLDS(
        None, "column, such as author, whose rows share a fold; none: only copies do"
    )
    find_copies: bool = FOLDS(True, "keep recordings that sound the same in one fold")
    rare_birds: list[str] = FOLDS(
        lambda: ["brcwea1", "lotcor1", "whhsaw1"],
        "species that stay in the training part of every fold", used_by="train",
    )  # fmt: skip
