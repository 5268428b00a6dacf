"""Padded cmAP of a whole fold against scikit-learn's.

python -m benchmarks.metric [--rows 20000] [--classes 264] [--repeats 3]
"""

import numpy as np

from benchmarks import timing
from benchmarks.baseline import padded_cmap as by_scikit_learn
from metrics import padded_cmap


def main() -> None:
    """Measure and report."""
    options = timing.parse_options("metric", __doc__ or "", rows=20_000, classes=264, repeats=3)
    rng = np.random.default_rng(8)
    scores = rng.random((options.rows, options.classes), np.float32) * np.float32(0.999)
    labels = (rng.random(scores.shape) < 1.3 / options.classes).astype(np.uint8)
    candidates = {
        "ours": lambda: padded_cmap(labels, scores),
        "scikit-learn": lambda: by_scikit_learn(labels, scores),
    }
    rows = timing.summarise(timing.alternate(candidates, options.repeats), 1, "fold")

    difference = abs(padded_cmap(labels, scores) - by_scikit_learn(labels, scores))
    facts = {"rows": options.rows, "classes": options.classes, "difference": difference}
    timing.report("metric", rows, facts)


if __name__ == "__main__":
    main()
