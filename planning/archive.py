"""What an archive holds: headers of all recordings, the table, and how a sample of them sounds."""

import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from audio.decoder import Header
from audio.decoder_pool import DecoderPool
from audio.kinds import list_recordings
from catalog.annotated import day_of, site_of
from catalog.annotations import read_annotations
from catalog.fingerprint import find_same_sound
from catalog.identity import recording_names
from catalog.labels import NO_BIRD, add_labels, join_labels
from catalog.metadata import read_archive, tidy_archive
from catalog.report import WITH_AUDIO
from configs import Config, UserError, available_cpus
from planning.sound import Measured, measure

SAMPLED = 200  # recordings that are listened to
SAMPLED_S = 20.0  # seconds of each, from its start
HEADER_TIMEOUT_S = 10.0
RATE_SHARE = 0.1  # of the recordings that have a rate, for it to count
LOWEST_RATE = 16_000  # Hz, at which any recording is looked at
# Columns that may say who or what made a recording, the first that fits is taken
GROUP_COLUMNS = ("site", "location", "locality", "recorder", "author", "recordist", "day")


@dataclass(frozen=True)
class Grouping:
    """A column whose rows could share a fold.

    Attributes:
        column: its name.
        n_groups: different values.
        scorable: species with recordings in two groups or more, of those that have two recordings.
    """

    column: str
    n_groups: int
    scorable: float


@dataclass(frozen=True)
class Archive:
    """What there is.

    Attributes:
        headers: of each recording, by its name below the audio folder.
        n_unread: files of sound that libsndfile cannot read.
        counts: recordings of each species; of labels with a time, labels.
        labels_a_row: labels of a recording on average.
        background_share: recordings with a further label, 0 to 1.
        n_copies: recordings whose name or sound is that of another one; the sound, in the sample.
        groupings: columns that folds could keep together.
        published_folds: number of folds in a column `fold`, or 0.
        labels_s: (n,) lengths of labels with a time, or empty.
        sample: what was listened to.
        unusable: recordings of the sample that cannot be read or are silent.
    """

    headers: dict[str, Header]
    n_unread: int
    counts: pd.Series
    labels_a_row: float
    background_share: float
    n_copies: int
    groupings: tuple[Grouping, ...]
    published_folds: int
    labels_s: np.ndarray
    sample: tuple[Measured, ...]
    unusable: int

    @property
    def seconds(self) -> np.ndarray:
        """Length of each recording, as its header promises: (n,)."""
        return np.array([header.seconds for header in self.headers.values()])


def look_at_archive(config: Config, n_sampled: int = SAMPLED) -> Archive:
    """Read the headers of all recordings and the table, and listen to some.

    Args:
        config: of which the settings of recordings and tables are used.
        n_sampled: recordings to listen to, spread over the species.

    Raises:
        UserError: no recordings, or a table that cannot be worked with.
    """
    folder = config.train_audio_dir
    try:
        listing = list_recordings(folder, follow_links=config.follow_links)
    except OSError as error:
        raise UserError(f"no recordings: {error.filename}: {error.strerror}") from None
    if not listing.recordings:
        raise UserError(f"no recordings: nothing in {folder.resolve()} or below is one")

    table, labels_s, counts = read_rows(config, listing.recordings)
    with DecoderPool() as decoders:
        headers = read_headers(folder, listing.recordings, decoders)
        chosen = choose_sample(table, n_sampled, config.seed)
        sample, n_alike = listen(chosen, headers, config, decoders)

    published = table["fold"].nunique() if "fold" in table else 0
    return Archive(
        headers=headers,
        n_unread=len(listing.unread),
        counts=counts,
        labels_a_row=float(table["len_labels"].mean()),
        background_share=float((table["len_labels"] > 1).mean()),
        n_copies=max(int(recording_names(table["filename"])["key"].duplicated().sum()), n_alike),
        groupings=tuple(find_groupings(table)),
        published_folds=published if 2 <= published <= 20 else 0,
        labels_s=labels_s,
        sample=tuple(sample),
        unusable=len(chosen) - len(sample),
    )


def read_rows(
    config: Config, recordings: Sequence[str]
) -> tuple[pd.DataFrame, np.ndarray, pd.Series]:
    """Read the table, or the labels with a time.

    Returns:
        A row a recording with filename, primary_label, labels, len_labels and the table's columns;
        the lengths of labels with a time (n,) in seconds; and how often each species is labelled.
    """
    if config.annotations is None:
        rows, _ = tidy_archive(read_archive(config, recordings), config, recordings)
        table, _ = add_labels(rows[rows["filename"].isin(recordings)])
        if table.empty:
            raise UserError(f"{config.metadata_path}: none of its rows has a recording")
        is_bird = table["primary_label"] != NO_BIRD
        return table, np.zeros(0), table.loc[is_bird, "primary_label"].value_counts()

    spans = read_annotations(config.annotations, recordings)
    sung = spans[spans["label"] != ""]
    labels = spans.groupby("filename")["label"].agg(lambda own: tuple(dict.fromkeys(own)))
    birds = [tuple(label for label in own if label) for own in labels]
    table = pd.DataFrame({"filename": labels.index, "len_labels": [len(own) for own in birds]})
    table = table.assign(
        primary_label=[own[0] if own else NO_BIRD for own in birds],
        labels=join_labels(birds),
        site=[site_of(name) for name in labels.index],
        day=[day_of(name) for name in labels.index],
    )
    return table, (sung["end_s"] - sung["start_s"]).to_numpy(float), sung["label"].value_counts()


def read_headers(folder: Path, names: Sequence[str], decoders: DecoderPool) -> dict[str, Header]:
    """Read the header of each recording in a process of its own kind: one may crash its reader."""

    def read(name: str) -> Header:
        return decoders.look(folder / name, HEADER_TIMEOUT_S)

    with ThreadPool(available_cpus()) as pool:
        found = pool.imap(read, names, chunksize=64)
        bar = tqdm(found, "headers", len(names), leave=False, disable=None)
        return dict(zip(names, bar, strict=True))


def choose_sample(table: pd.DataFrame, n: int, seed: int) -> dict[str, str]:
    """Choose up to n recordings, one of each species, then a second of each: label by name."""
    shuffled = table.sample(frac=1, random_state=seed)
    turn = shuffled.groupby("primary_label").cumcount()
    chosen = shuffled.iloc[np.argsort(turn, kind="stable")[:n]]
    return dict(zip(chosen["filename"], chosen["primary_label"], strict=True))


def usual_rate(headers: Sequence[Header]) -> int:
    """The highest native rate that a tenth of the recordings have, Hz."""
    rates = Counter(header.rate for header in headers if header.rate)
    common = [rate for rate, n in rates.items() if n >= RATE_SHARE * rates.total()]
    return max([LOWEST_RATE, *common])


def listen(
    chosen: dict[str, str], headers: dict[str, Header], config: Config, decoders: DecoderPool
) -> tuple[list[Measured], int]:
    """Measure recordings at their usual native rate; those that say nothing are left out.

    `chosen` has the label of each by its name.

    Returns:
        What was measured, and how many of them sound like another one of them.
    """
    names = list(chosen)
    rate = usual_rate(list(headers.values()))
    recipe = {"sample_rate": rate, "max_seconds": SAMPLED_S, "audio_dtype": "float32"}

    with tempfile.TemporaryDirectory() as folder:
        targets = [Path(folder) / f"{number}.npy" for number in range(len(names))]

        def measure_one(number: int) -> Measured | None:
            source = config.train_audio_dir / names[number]
            job = {"source": str(source), "target": str(targets[number]), "trim_db": None} | recipe
            row = decoders.prepare(job, config.file_timeout_s)
            if row["status"] not in WITH_AUDIO:
                return None
            return measure(np.load(targets[number]), rate, chosen[names[number]])

        with ThreadPool(available_cpus()) as pool:
            jobs = pool.imap(measure_one, range(len(names)))
            found = list(tqdm(jobs, "listening", len(names), leave=False, disable=None))
        there = [path for path in targets if path.exists()]
        same = find_same_sound(there, rate) if config.find_copies else np.arange(len(there))
    return [one for one in found if one is not None], len(there) - len(np.unique(same))


def find_groupings(table: pd.DataFrame) -> list[Grouping]:
    """Describe the columns that folds could keep together, the one with fewest groups first."""
    columns = {str(name).casefold(): name for name in table.columns}
    found = [describe_grouping(table, columns[name]) for name in GROUP_COLUMNS if name in columns]
    return sorted((one for one in found if one.n_groups > 1), key=lambda one: one.n_groups)


def describe_grouping(table: pd.DataFrame, column: str) -> Grouping:
    """Count the groups of a column, and the species that two of them have."""
    species = table[table["primary_label"] != NO_BIRD].groupby("primary_label")[column]
    several = species.size() > 1
    is_scorable = species.nunique()[several] > 1
    share = float(is_scorable.mean()) if len(is_scorable) else 0.0
    return Grouping(column, int(table[column].nunique()), share)
