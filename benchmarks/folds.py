"""Time of dealing rows into folds, against scikit-learn's stratified folds.

    python -m benchmarks.folds [--rows 1000000] [--classes 10000] [--repeats 1]

The stages are those of split_data.py: the labels of the metadata, the groups of copies of one
recording, and the folds. Reading the audio files is left out: its time is the disk's. scikit-learn
knows no groups.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedKFold

from benchmarks import timing
from catalog.folds import assign_folds, group_rows
from catalog.identity import recording_names
from catalog.labels import add_labels
from catalog.metadata import tidy_archive
from configs import Config


def main() -> None:
    """Measure and report."""
    options = timing.parse_options(
        "folds", __doc__ or "", rows=1_000_000, classes=10_000, repeats=1
    )
    rows = []
    for n_rows in (options.rows // 4, options.rows // 2, options.rows):
        metadata = make_metadata(n_rows, options.classes)
        candidates = {"ours": deal(metadata), "scikit-learn": stratify(metadata)}
        seconds = timing.alternate(candidates, options.repeats, warm_up=0)
        for row in timing.summarise(seconds, 1, "split"):
            rows.append({"rows": n_rows, **row, "us/row": 1e3 * row["ms/split"] / n_rows})
    timing.report("folds", rows, {"classes": options.classes})


def make_metadata(n_rows: int, n_classes: int) -> pd.DataFrame:
    """Make metadata: few common and many rare species, one recording in fifty twice."""
    rng = np.random.default_rng(8)
    weights = 1 / np.arange(1, n_classes + 1)
    species = rng.choice(n_classes, n_rows, p=weights / weights.sum())
    labels = pd.Series(species).map(lambda number: f"bird{number}")
    ids = pd.Series(rng.integers(0, 50 * n_rows, n_rows) // 50).map(lambda number: f"XC{number}")
    second = pd.Series(rng.integers(0, n_classes, n_rows)).map(lambda number: f"['bird{number}']")
    table = pd.DataFrame(
        {
            "primary_label": labels,
            "secondary_labels": second,
            "filename": labels + "/" + ids + ".ogg",
        }
    )
    return table.drop_duplicates("filename", ignore_index=True)


def deal(metadata: pd.DataFrame) -> Callable[[], None]:
    """Return a function that runs the stages of split_data.py that read no audio."""

    def run() -> None:
        rows, _ = tidy_archive(metadata, Config(), metadata["filename"].tolist())
        table, _ = add_labels(rows)
        groups = group_rows(pd.factorize(recording_names(table["filename"])["key"])[0])
        assign_folds(table["primary_label"], groups, n_folds=5, seed=8)

    return run


def stratify(metadata: pd.DataFrame) -> Callable[[], None]:
    """Return a function that makes scikit-learn's folds, of the classes with five rows or more.

    It refuses a class with fewer rows than folds.
    """
    counts = metadata["primary_label"].value_counts()
    labels = metadata["primary_label"][metadata["primary_label"].map(counts) >= 5].to_numpy(str)

    def run() -> None:
        list(StratifiedKFold(5, shuffle=True, random_state=8).split(labels, labels))

    return run


if __name__ == "__main__":
    main()
