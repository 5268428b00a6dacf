"""How scores grow with recordings: the probe of a fold, fitted to fewer and fewer of them."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from configs import Config, set_seed
from model import build_model
from training.floor import fit_to, probe_settings, score
from training.frozen import measure

SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500)  # recordings a species
N_REPEATS = 3  # random choices of each size


def measure_curve(
    train_part: pd.DataFrame,
    valid_part: pd.DataFrame,
    class_names: list[str],
    config: Config,
    device: torch.device,
) -> pd.DataFrame:
    """Fit the probe to up to n recordings a species, n rising, and score each on the whole fold.

    The features are measured once, and the strength of the regression is that of all recordings.

    Args:
        train_part: rows of train.csv to choose from.
        valid_part: rows to score.
        class_names: in the order of the columns.
        config: settings.
        device: where the backbone runs.

    Returns:
        A row a fit: most (n), recordings (of a species, in the mean), repeat, macro_ap. The last n
        takes all recordings, once.
    """
    config = probe_settings(config)
    set_seed(config.seed)
    model = build_model(config, len(class_names))
    table = pd.concat([train_part, valid_part]).sort_index()
    clips = measure(table, config, model, device)
    is_train = table.index.isin(train_part.index)
    labels = table["primary_label"].astype(str).to_numpy()

    whole = fit_to(clips, table, is_train, class_names, config)
    config = replace(config, probe_c=[whole.c], probe_shrinkage=[whole.shrinkage])
    rows: list[dict[str, Any]] = []
    for most, repeat, chosen in subsets(labels, is_train, config.seed):
        regression = fit_to(clips, table, chosen, class_names, config)
        probe = score(clips, table, ~is_train, regression, class_names, config, model)
        n_species = len(np.unique(labels[chosen]))
        rows.append(
            {
                "most": most,
                "recordings": chosen.sum() / n_species,
                "repeat": repeat,
                "macro_ap": probe.row["macro_ap"],
            }
        )
    return pd.DataFrame(rows)


def subsets(
    labels: np.ndarray, is_train: np.ndarray, seed: int, sizes: Sequence[int] = SIZES
) -> Iterator[tuple[int, int, np.ndarray]]:
    """Choose up to n recordings of each species, for each n below the most that one has.

    Args:
        labels: (n,) species of each row.
        is_train: (n,) bool, rows to choose from.
        seed: of the choice. Of one repeat, smaller choices lie in larger ones.
        sizes: to try.

    Yields:
        n, repeat, (n,) bool; at the end all rows.
    """
    counts = pd.Series(labels[is_train]).value_counts()
    largest = int(counts.max())
    for repeat in range(N_REPEATS):
        order = np.random.default_rng((seed, repeat)).permutation(len(labels))
        shuffled = pd.Series(labels[order]).where(is_train[order], "\0")
        place = np.empty(len(labels), int)
        place[order] = shuffled.groupby(shuffled).cumcount()
        for most in sizes:
            if most < largest:
                yield most, repeat, is_train & (place < most)
    yield largest, 0, is_train
