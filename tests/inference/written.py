"""Results to write, for the tests of every format."""

from pathlib import Path

import numpy as np

from inference.detections import Recording
from inference.selection import Selection

CLASSES = ["bird0", "NA", "22961"]
SCORES = np.array([[0.9, 0.1, 0.3], [0.2, 0.6, 0.7], [0.1, 0.2, 0.3]], np.float32)
NAMES = {
    "bird0": ("Turdus merula", "Common Blackbird"),
    "22961": ("Rana temporaria", "Common Frog"),
}


def one(name: str = "soundscape_29201.ogg", scores: np.ndarray = SCORES, **facts) -> Recording:
    facts = {"status": "ok", "reason": "", "seconds": 12.5} | facts
    return Recording(name, starts_s=5.0 * np.arange(len(scores)), scores=scores, **facts)


def selection(**settings) -> Selection:
    given = {
        "class_names": CLASSES,
        "period": 5.0,
        "folder": Path("/data"),
        "fmin": 20.0,
        "fmax": 16000.0,
    }
    return Selection(**given | settings)


def recording(name: str = "a.ogg", scores: np.ndarray | None = None, **facts) -> Recording:
    """A recording with the scores of one model, as a run keeps it."""
    scores = np.array([[[0.25, 0.5], [0.75, 1 / 3]]], np.float32) if scores is None else scores
    facts = {"status": "ok", "reason": "", "seconds": 9.5} | facts
    return Recording(name, starts_s=5.0 * np.arange(scores.shape[-2]), scores=scores, **facts)
