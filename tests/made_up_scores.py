"""Out-of-fold scores that are right but for some noise, and the folders that training writes."""

import numpy as np

from inference.bootstrap import draw_weights
from inference.out_of_fold import OutOfFold

CLASSES = ("robin", "tit", "wren")


def made_up(rng, n=90, noise=0.25) -> OutOfFold:
    """Recordings of three species whose scores are right but for some noise."""
    labels = np.eye(3, dtype=np.uint8)[np.arange(n) % 3]
    scores = np.clip(0.6 * labels + noise * rng.random((n, 3)), 0, 0.99).astype(np.float32)
    names = np.array([f"{CLASSES[k % 3]}/{k}.wav" for k in range(n)])
    return OutOfFold(scores, labels, names, np.arange(n) // 3 % 2, CLASSES)


def write(folder, oof):
    for fold in sorted(set(oof.folds)):
        rows = oof.folds == fold
        (folder / f"fold_{fold}").mkdir(parents=True)
        np.savez(
            folder / f"fold_{fold}" / "valid_predictions.npz",
            scores=oof.scores[rows],
            labels=oof.labels[rows],
            filenames=oof.filenames[rows],
            class_names=np.array(oof.class_names),
        )
    return folder


def weights_of(oof, n_draws=100):
    return draw_weights(np.arange(len(oof.scores)), n_draws, seed=1)
