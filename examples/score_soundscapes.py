"""Say what a model finds in soundscapes whose birds are known, level by level.

    python examples/score_soundscapes.py soundscapes/labels.csv windows.csv [events.csv]

`labels.csv` is make_soundscapes.py's; `windows.csv` and `events.csv` are what predict.py wrote, the
second with --events. Windows: for each level, those of a species in which a bird of that level
sings against those without the species (ROC-AUC and average precision over all species together).
Events: a bird is found when an event of its species overlaps it; an event that overlaps no bird of
its species is a false alarm. All that needs no levels is evaluate.py's to say.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the metric is the project's own

from files import original_cell
from inference.predicted import read_predicted
from metrics import macro_average_precision, macro_roc_auc, padded_cmap_floor

LABEL_COLUMNS = ["file", "start_s", "end_s", "primary_label", "snr_db"]


def overlap_s(
    start: np.ndarray, end: np.ndarray, other_start: float, other_end: float
) -> np.ndarray:
    """Seconds that spans (n,) share with another."""
    return np.maximum(0, np.minimum(end, other_end) - np.maximum(start, other_start))


def loudest_level(windows: pd.DataFrame, labels: pd.DataFrame, least_s: float) -> np.ndarray:
    """Give each (window, species) the highest level in dB of that species; NaN where it is silent.

    Args:
        windows: file, start_s, end_s, species.
        labels: file, start_s, end_s, primary_label, snr_db.
        least_s: a bird counts from this many seconds in the window.
    """
    level = np.full(len(windows), np.nan)
    place = windows.groupby(["file", "species"], sort=False).indices
    start, end = windows["start_s"].to_numpy(), windows["end_s"].to_numpy()
    for file, bird_start, bird_end, species, snr_db in labels[LABEL_COLUMNS].to_numpy():
        rows = place.get((file, species), np.array([], int))
        heard = rows[overlap_s(start[rows], end[rows], bird_start, bird_end) >= least_s]
        level[heard] = np.fmax(level[heard], snr_db)
    return level


def score_windows(
    windows: pd.DataFrame, labels: pd.DataFrame, least_s: float = 1.0
) -> pd.DataFrame:
    """Count windows and score them level by level, against windows without the species."""
    level = loudest_level(windows, labels, least_s)
    scores = windows["score"].to_numpy()
    rows = []
    for snr_db in sorted(labels["snr_db"].unique()):
        chosen = (level == snr_db) | np.isnan(level)
        truth, found = (level[chosen] == snr_db)[:, None].astype(int), scores[chosen][:, None]
        rows.append(
            {
                "snr_db": snr_db,
                "windows": int(truth.sum()),
                "roc_auc": macro_roc_auc(truth, found),
                "average_precision": macro_average_precision(truth, found),
                "chance": padded_cmap_floor(truth.sum(axis=0), len(truth), 0),
            }
        )
    return pd.DataFrame(rows)


def score_any(
    windows: pd.DataFrame, labels: pd.DataFrame, least_s: float = 1.0
) -> dict[str, float]:
    """Tell windows with a bird from those without one: ROC-AUC by the highest score of a window.

    Where the table has the column any_bird (predict.py --columns any), by that one, too.
    """
    heard = windows.assign(has_bird=~np.isnan(loudest_level(windows, labels, least_s)))
    by_window = heard.groupby(["file", "start_s"], sort=False)
    truth = by_window["has_bird"].max().to_numpy()[:, None].astype(int)
    found = {"maximum": by_window["score"].max()}
    if "any_bird" in windows:
        found["any_bird"] = by_window["any_bird"].max()
    return {
        name: macro_roc_auc(truth, scores.to_numpy(float)[:, None])
        for name, scores in found.items()
    }


def score_events(
    events: pd.DataFrame, labels: pd.DataFrame
) -> tuple[pd.DataFrame, dict[str, float]]:
    """Count the birds found at each level, and take precision, recall and F1 over all."""
    found = np.zeros(len(labels), bool)
    right = np.zeros(len(events), bool)
    start, end = events["start_s"].to_numpy(), events["end_s"].to_numpy()
    place = events.groupby(["file", "species"], sort=False).indices
    for number, (file, bird_start, bird_end, species, _) in enumerate(
        labels[LABEL_COLUMNS].to_numpy()
    ):
        rows = place.get((file, species), np.array([], int))
        hits = rows[overlap_s(start[rows], end[rows], bird_start, bird_end) > 0]
        found[number], right[hits] = len(hits) > 0, True
    by_level = (
        labels.assign(found=found).groupby("snr_db")["found"].agg(["size", "mean"]).reset_index()
    )
    by_level.columns = ["snr_db", "birds", "found"]
    precision = float(right.mean()) if len(events) else 0.0
    recall = float(found.mean())
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return by_level, {"events": len(events), "precision": precision, "recall": recall, "f1": f1}


def read_levels(path: Path) -> pd.DataFrame:
    """Read make_soundscapes.py's labels, texts as they were before escaping."""
    text = {"file": str, "primary_label": str}
    table = pd.read_csv(path, dtype=text, keep_default_na=False)
    for name in text:
        table[name] = table[name].map(original_cell)
    return table


def read_any(path: Path, windows: pd.DataFrame) -> pd.DataFrame:
    """Add the column any_bird of a long table, if it has one."""
    if path.suffix != ".csv" or "any_bird" not in pd.read_csv(path, nrows=0):
        return windows
    key = ["file", "start_s"]
    table = pd.read_csv(path, usecols=[*key, "any_bird"], dtype={"file": str})
    table["file"] = table["file"].map(original_cell)
    return windows.merge(table.drop_duplicates(key), on=key, how="left", validate="m:1")


def main(args: list[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("labels", type=Path)
    parser.add_argument("windows", type=Path)
    parser.add_argument("events", type=Path, nargs="?")
    parser.add_argument(
        "--least-seconds", type=float, default=1.0, help="of a bird in a window for it to count"
    )
    flags = parser.parse_args(args)
    labels, windows = read_levels(flags.labels), read_predicted(flags.windows).spans
    print(
        score_windows(windows, labels, flags.least_seconds).to_string(
            index=False, float_format="%.3f"
        )
    )
    in_words = score_any(read_any(flags.windows, windows), labels, flags.least_seconds).items()
    print("bird or none, ROC-AUC: " + "  ".join(f"{name} {auc:.3f}" for name, auc in in_words))
    if flags.events:
        events = read_predicted(flags.events).spans
        by_level, total = score_events(events, labels)
        print(by_level.to_string(index=False, float_format="%.3f"))
        print("all events: " + "  ".join(f"{name} {value:.4g}" for name, value in total.items()))


if __name__ == "__main__":
    main()
