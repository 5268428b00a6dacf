"""Which of a fold's checkpoints stay: the last few that were the best when they were saved."""

import logging
from pathlib import Path
from typing import Any

import checkpoint as ckpt

logger = logging.getLogger("birdclef.checkpoint")


def save_best(train_dir: Path, state: dict[str, Any], *, keep: int) -> None:
    """Save the last epoch of the state's history under a name of its own; keep the last `keep`."""
    row = state["history"][-1]
    name = ckpt.checkpoint_name(
        exp_id=state["config"]["exp_id"],
        fold=state["fold"],
        epoch=state["epoch"],
        loss=row["valid_loss"],
        cmap=row["cmap_pad_5"],
    )
    ckpt.save_checkpoint(train_dir / name, state)
    prune_checkpoints(train_dir, keep)


def prune_checkpoints(train_dir: Path, keep: int) -> None:
    """Delete the best checkpoints but the last `keep` sound ones; the newest is the best of all."""
    n_sound = 0
    for named in reversed(ckpt.named_checkpoints(train_dir)):
        if n_sound >= keep:
            named.path.unlink(missing_ok=True)
            continue
        try:
            ckpt.check_digest(named.path)
            n_sound += 1
        except (ckpt.CheckpointError, OSError):  # the one that it should replace stays
            logger.warning("%s is damaged", named.path)
