"""Distillation: a network is also taught to point where a teacher's vector of the clip points.

A linear projection of the features, averaged over a clip, has 1 - cosine to the teacher's vector as
its loss (the directions of a teacher's space, as in Hinton et al., arXiv:1503.02531, for features).
The vectors travel as further columns of the targets, so that MixUp and CutMix mix them with the
same partners and weights, and a batch in parts is cut with them. The projection is trained with the
head and left out of what predict.py and export.py use.
"""

import logging
from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from catalog.vectors import read_vectors
from configs import Config, UserError
from losses.named import Criterion, Output

logger = logging.getLogger("birdclef.train")

VECTOR = "vector"  # of an item, a batch and the model's output


def with_teacher(config: Config) -> Config:
    """Write the teacher, its licence and its file into the settings of a run that it teaches.

    Raises:
        UserError: there is no file of vectors, or it cannot be read.
    """
    if not config.distills:
        return config
    if config.teacher_embeddings is None:
        raise UserError(
            "distill_weight and distill_epochs need a teacher's vectors: name the file that "
            "embed.py wrote with --teacher-embeddings"
        )
    source = read_vectors(config.teacher_embeddings).source
    logger.info("teacher: %s", source)
    return replace(config, teacher_source=source)


def beside(targets: Tensor, vectors: Tensor | None) -> Tensor:
    """Put vectors (B, n) behind the columns of targets (B, C): (B, C + n); None adds none.

    Behind targets of a clip and its steps, (B, 1 + S, C), they stand in each row.
    """
    if vectors is None:
        return targets
    if targets.ndim == 3:
        vectors = vectors[:, None].expand(-1, targets.shape[1], -1)
    return torch.cat([targets, vectors], dim=-1)


def taught(
    criterion: Criterion, config: Config, n_columns: int, epoch: Callable[[], int]
) -> Criterion:
    """Add the teacher's part to a loss of labels; without a teacher it is that loss.

    Args:
        criterion: of the output and targets (B, n_columns) or (B, 1 + S, n_columns).
        config: distill_weight and distill_epochs.
        n_columns: of the targets; what stands behind them is the vector. Targets without one, as in
            validation, have the loss of labels alone.
        epoch: gives the number of the epoch that is trained, from 0.
    """
    if not config.distills:
        return criterion

    def loss(output: Output, targets: Tensor) -> Tensor:
        if targets.shape[-1] == n_columns:
            return criterion(output, targets)
        share = 1.0 if epoch() < config.distill_epochs else config.distill_weight
        labels, vectors = targets[..., :n_columns], targets[..., n_columns:]
        if share == 0:
            return criterion(output, labels)

        distance = cosine_loss(output[VECTOR], vectors if vectors.ndim == 2 else vectors[:, 0])
        if share == 1:
            return distance
        return share * distance + (1 - share) * criterion(output, labels)

    return loss


def cosine_loss(projected: Tensor, vectors: Tensor) -> Tensor:
    """Average 1 - cosine over clips; a clip without a vector (NaN) counts as 0.

    Args:
        projected: (B, n).
        vectors: (B, n).

    Returns:
        () float32, the sum over the clips with a vector by B, so that parts of a batch add up.
    """
    is_known = ~vectors.isnan().any(dim=1)
    wanted = torch.where(is_known[:, None], vectors, 0.0)
    distances = 1 - F.cosine_similarity(projected.float(), wanted.float(), dim=1)  # (B,)
    return (distances * is_known).mean()
