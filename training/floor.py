"""The floor of a training: a linear head on the frozen features of the same backbone, same folds.

Training that scores below it has destroyed what the weights knew. With a linear head of its own, a
training can start from it.
"""

import logging
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from catalog.mixed_targets import MixedTargets
from catalog.pseudo_labels import PseudoLabels, read_pseudo_labels
from catalog.refuted import REFUTED_COLUMN
from catalog.targets import NONE, Targets
from catalog.vectors import Vectors
from configs import Config, UserError, capture_rng, set_seed, versions
from dataset import WaveformDataset
from losses.named import binary_cross_entropy, cross_entropy, of_known
from metrics import MetricMeter, describe_scores
from model import SED, build_model
from training import folder
from training.best_checkpoints import save_best
from training.fold import Progress
from training.frozen import (
    CLEAN,
    EMPTY,
    FrozenClips,
    list_clips,
    measure,
    measure_windows,
    with_vectors,
)
from training.regression import Regression, fit, log_softmax

logger = logging.getLogger("birdclef.train")

# What the head sees where the settings ask for no linear head themselves
HEAD: dict[str, Any] = {
    "head": "linear", "head_input": "rows", "head_block": -1, "mel_statistics": 96,
    "pooling": "attention", "loss_name": "cross_entropy", "score_by": "auto",
}  # fmt: skip
REPORTED = ("macro_ap", "macro_roc_auc", "cmap_pad_5", "valid_loss")


@dataclass
class Probe:
    """A fitted head and what it reaches on the fold.

    Attributes:
        config: settings with the head that was fitted.
        state: the whole model's weights; None where a teacher's vectors were fitted to, which a
            model has none of.
        row: its row of the history.
        scores: (N, C) of the recordings that are validated on, in their order.
        labels: (N, C).
        filenames: of these recordings.
        starts_s: (N,) seconds, where these are windows of recordings; None: they are recordings.
    """

    config: Config
    state: dict[str, torch.Tensor] | None
    row: dict[str, float]
    scores: np.ndarray
    labels: np.ndarray
    filenames: list[str]
    starts_s: np.ndarray | None = None

    @property
    def columns(self) -> dict[str, float]:
        """What a training's history holds of it."""
        return {f"probe_{name}": self.row[name] for name in REPORTED if name in self.row}


def probe_settings(config: Config) -> Config:
    """Give settings without a linear head the probe's own."""
    return config if config.head == "linear" else replace(config, **HEAD)


def fit_probe(
    train_part: pd.DataFrame,
    valid_part: pd.DataFrame,
    class_names: list[str],
    config: Config,
    device: torch.device,
    vectors: Vectors | None = None,
) -> Probe:
    """Fit a linear head to the frozen features of a fold and score it.

    Args:
        train_part: rows of train.csv to fit to.
        valid_part: rows to score; without any, the probe has no scores.
        class_names: in the order of the columns.
        config: settings; without a linear head in them, the probe's own head is fitted.
        device: where the backbone runs.
        vectors: a teacher's, fitted to beside these features or, by `teacher_features`, alone.

    Raises:
        UserError: weights, recordings or vectors that cannot be had.
    """
    config = probe_settings(config)
    table = pd.concat([train_part, valid_part]).sort_index()
    is_fitted = table.index.isin(train_part.index)
    if vectors is not None and config.pseudo_labels is not None:
        raise UserError("teacher_embeddings: there are no vectors of the windows of pseudo_labels")
    if vectors is not None and config.teacher_features == "alone":
        clips = with_vectors(list_clips(table, config), table, vectors, config)
        regression = fit_to(clips, table, is_fitted, class_names, config)
        return score(clips, table, ~is_fitted, regression, class_names, config)

    set_seed(config.seed)  # a backbone that is not pretrained is the same in each run
    model = build_model(config, len(class_names))
    clips = measure(table, config, model, device)
    if vectors is not None:
        clips = with_vectors(clips, table, vectors, config)
        regression = fit_to(clips, table, is_fitted, class_names, config)
        return score(clips, table, ~is_fitted, regression, class_names, config)

    soft = soft_rows(class_names, config, model, device)
    regression = fit_to(clips, table, is_fitted, class_names, config, soft)
    tensors = map(
        torch.from_numpy, (regression.mean, regression.std, regression.weight, regression.bias)
    )
    model.cpu().start_from(*tensors)

    if valid_part.empty:
        return Probe(config, model.state_dict(), {}, np.empty(0), np.empty(0), [])
    return score(clips, table, ~is_fitted, regression, class_names, config, model)


@dataclass(frozen=True)
class SoftRows:
    """Pseudo-labelled windows for the regression: a window has a row for each of its labels.

    Attributes:
        features: (n_windows, n) float32.
        rows: (N,) the window of each row.
        targets: (N,) its class.
        weights: (N,) its share of the weight of all windows.
    """

    features: np.ndarray
    rows: np.ndarray
    targets: np.ndarray
    weights: np.ndarray


def fit_to(
    clips: FrozenClips,
    table: pd.DataFrame,
    is_fitted: np.ndarray,
    class_names: list[str],
    config: Config,
    soft: SoftRows | None = None,
) -> Regression:
    """Fit a regression to the clips of some rows, and to those of backgrounds alone.

    Pseudo-labelled windows have `pseudo_share` of all weight, as they have of an epoch's clips.

    Raises:
        UserError: there is no clip to fit to.
    """
    number = {name: position for position, name in enumerate(class_names)}
    no_bird = len(class_names)
    of_rows = table["primary_label"].astype(str).map(number).fillna(no_bird).to_numpy(np.int64)

    is_empty = clips.kind == EMPTY
    targets = np.where(is_empty, no_bird, of_rows[clips.row])
    folds = np.where(is_empty, clips.window % 2, table["kfold"].to_numpy()[clips.row])
    is_used = is_empty | (is_fitted[clips.row] & (clips.window < config.probe_clips))
    is_used &= targets < no_bird + config.no_bird_class
    if REFUTED_COLUMN in table:  # of some species alone is known that they are absent
        is_used &= is_empty | (table[REFUTED_COLUMN] == "").to_numpy()[clips.row]
    if not is_used.any():
        raise UserError("the probe has no clip to fit to")

    how: dict[str, Any] = {
        "n_outputs": no_bird + config.no_bird_class,
        "strengths": config.probe_c,
        "softmax": config.has_softmax_scores,
        "shrinkages": config.probe_shrinkage,
        "no_bird": no_bird if config.no_bird_class else None,
    }
    features, targets, folds = clips.features[is_used], targets[is_used], folds[is_used]
    recordings = np.where(is_empty, NONE, clips.row)[is_used]
    if soft is None:
        return fit(features, targets, folds, recordings=recordings, **how)

    n_clips, share = len(features), config.pseudo_share
    return fit(
        np.concatenate([features, soft.features]),
        np.concatenate([targets, soft.targets]),
        np.concatenate([folds, np.full(len(soft.targets), NONE)]),
        recordings=np.concatenate([recordings, np.full(len(soft.features), NONE)]),
        rows=np.concatenate([np.arange(n_clips), n_clips + soft.rows]),
        weights=np.concatenate([np.full(n_clips, 1 - share), share * n_clips * soft.weights]),
        **how,
    )


def soft_rows(
    class_names: list[str], config: Config, model: SED, device: torch.device
) -> SoftRows | None:
    """Measure the pseudo-labelled windows of the settings and write out their labels."""
    if config.pseudo_labels is None or not config.pseudo_share:
        return None

    pseudo = read_pseudo_labels(config.pseudo_labels, class_names)
    features = measure_windows(pseudo, config, model, device)
    rows, targets, weights = spell_out(pseudo, class_names, config)
    return SoftRows(features, rows, targets, weights)


def spell_out(
    pseudo: PseudoLabels, class_names: list[str], config: Config
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Write a row for each label of each window: window, class and weight, each (N,).

    A window counts as often as training would draw it, and each label by its target; what the
    targets leave of 1 counts as no class where each class is told by itself.
    """
    n_columns = len(class_names) + config.no_bird_class
    nothing = pd.DataFrame({"primary_label": [], "labels": []}, dtype=str)
    labelled = Targets(nothing, class_names, no_bird_class=config.no_bird_class)
    mixed = MixedTargets(labelled, pseudo, power=config.pseudo_power, pseudo_cap=config.pseudo_cap)
    targets = np.stack([mixed.of([window]) for window in range(len(pseudo))]).astype(np.float64)
    is_partial = np.isnan(targets).any(axis=1, keepdims=True)  # of which too little is known
    targets = np.where(is_partial, 0.0, targets)
    targets /= np.maximum(1, targets.sum(axis=1, keepdims=True))  # (n_windows, n_columns)
    if not config.has_softmax_scores:
        targets = np.column_stack([targets, 1 - targets.sum(axis=1)])

    weights = pseudo.chances(config.pseudo_empty)[:, None] * targets * ~is_partial
    rows, classes = np.nonzero(weights > 0)
    return rows, np.where(classes < n_columns, classes, NONE), weights[rows, classes]


def score(
    clips: FrozenClips,
    table: pd.DataFrame,
    is_scored: np.ndarray,
    regression: Regression,
    class_names: list[str],
    config: Config,
    model: SED | None = None,
) -> Probe:
    """Score rows by their first clips as validation does, and put a history row together."""
    is_used = (clips.kind == CLEAN) & (clips.window < config.valid_clips)
    is_used &= is_scored[clips.row]
    logits = regression.logits(clips.features[is_used])
    clip_scores = _probabilities(logits, config)[:, : len(class_names)]

    _, row_of = np.unique(clips.row[is_used], return_inverse=True)
    n_clips = np.bincount(row_of)[:, None]
    scores = np.zeros((len(n_clips), len(class_names)))
    np.add.at(scores, row_of, clip_scores)
    scores = (scores / n_clips).astype(np.float32)

    rows = WaveformDataset(table[is_scored], config, "valid", class_names)
    targets = np.stack([rows.targets_of([row]) for row in range(len(scores))])
    labels = (targets[:, : len(class_names)] >= 0.5).astype(np.uint8)
    meter = MetricMeter()
    meter.update(scores, labels)

    loss = cross_entropy if config.has_softmax_scores else of_known(binary_cross_entropy)
    valid_loss = float(loss(torch.from_numpy(logits), torch.from_numpy(targets[row_of])))
    row = {
        "epoch": 1, "step": 0, "lr": 0.0, "train_loss": valid_loss, "valid_loss": valid_loss,
        **meter.compute(), "skipped_steps": 0, "probe_c": regression.c,
        "probe_shrinkage": regression.shrinkage,
    }  # fmt: skip
    state = None if model is None else model.state_dict()
    return Probe(config, state, row, scores, labels, rows.filenames(), rows.starts_s)


def _probabilities(logits: np.ndarray, config: Config) -> np.ndarray:
    if config.has_softmax_scores:
        return np.exp(log_softmax(logits))
    return 1 / (1 + np.exp(-logits))


# In train.py --------------------------------------------------------------------------------------


def find_floor(
    train_part: pd.DataFrame,
    valid_part: pd.DataFrame,
    class_names: list[str],
    config: Config,
    device: torch.device,
) -> Probe | None:
    """Fit the probe where the settings ask for it: where the fold is small, or to start from it.

    Raises:
        UserError: training is to start from the probe, and the head of the settings is another.
    """
    if config.probe_start and config.head != "linear":
        raise UserError("probe_start: the probe fits a linear head; give head: linear, too")
    is_small = len(train_part) < config.probe_below and not valid_part.empty
    if not config.probe_start and not is_small:
        return None

    probe = fit_probe(train_part, valid_part, class_names, config, device)
    if valid_part.empty:  # a refit
        return probe
    logger.info(
        "frozen features + linear head: macro AP %.4f, ROC-AUC %.4f, validation loss %.5f",
        probe.row["macro_ap"],
        probe.row["macro_roc_auc"],
        probe.row["valid_loss"],
    )
    return probe


def compare_with_floor(number: int, progress: Progress) -> None:
    """Warn where the best epoch does not beat the linear head on frozen features."""
    floor = progress.probe.get("probe_macro_ap")
    if floor is None or not progress.best_epoch:
        return

    reached = progress.history[progress.best_epoch - 1]["macro_ap"]
    if not reached > floor:
        logger.warning(
            "fold %d: training did not beat a linear head on frozen features: macro AP %.4f "
            "against %.4f; a lower lr, or recipes/small_set.yaml, may; probe.py makes that head "
            "a model",
            number,
            reached,
            floor,
        )


# In place of training -----------------------------------------------------------------------------


def frozen_settings(config: Config) -> Config:
    """Give `freeze: all` the head that is fitted; other settings come back as they are.

    Raises:
        UserError: settings that a head fitted in one go has no use for.
    """
    if config.freeze == "none":
        return config
    others = {"refit": config.refit, "find_lr": config.find_lr, "soup": config.soup > 0}
    if clashing := [name for name, is_on in others.items() if is_on]:
        flag = clashing[0].replace("_", "-")
        raise UserError(f"--freeze all fits a head to each fold in one go; leave out --{flag}")
    if config.teacher_embeddings is not None:
        raise UserError(
            "--freeze all sees no teacher's vectors; probe.py --teacher-embeddings fits to them"
        )
    return probe_settings(config)


def leave_frozen(
    train_part: pd.DataFrame,
    valid_part: pd.DataFrame,
    number: int,
    class_names: list[str],
    config: Config,
    device: torch.device,
    vectors: Vectors | None = None,
) -> None:
    """Fit a head to a fold's frozen features, and leave in its folder what a trained one leaves."""
    probe = fit_probe(train_part, valid_part, class_names, config, device, vectors)
    logger.info("fold %d: %s", number, describe_scores(probe.row))
    write_probe(probe, number, class_names, config)


# Files --------------------------------------------------------------------------------------------


def write_probe(probe: Probe, number: int, class_names: list[str], config: Config) -> None:
    """Leave what a trained fold leaves, in the fold's folder, `config.train_dir`."""
    assert config.train_dir is not None
    saved = replace(probe.config, train_dir=config.train_dir)
    folder.write_settings(config.train_dir, saved, class_names, done_epochs=None)
    folder.write_predictions(
        config.train_dir, probe.scores, probe.labels, probe.filenames, class_names, probe.starts_s
    )
    if probe.state is not None:
        save_best(config.train_dir, state_of(probe, number, class_names), keep=1)
    folder.write_history(config.train_dir, [probe.row])


def state_of(probe: Probe, number: int, class_names: list[str]) -> dict[str, Any]:
    """Put a checkpoint together that predict.py and export.py take like a trained one."""
    return {
        "model": probe.state, "ema": None, "optimizer": {}, "scheduler": {}, "scaler": {},
        "epoch": 1, "batch": 0, "step": 0, "skipped_steps": 0, "bad_steps": 0,
        "best_loss": probe.row["valid_loss"], "best_epoch": 1, "history": [probe.row],
        "train_loss": {"total": 0.0, "count": 0}, "rng": capture_rng(), "fold": number,
        "class_names": class_names, "config": probe.config.to_dict(), "versions": versions(),
    }  # fmt: skip
