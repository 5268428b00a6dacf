"""Time until `--help` has answered, against a script that imports all its packages at the top.

python -m benchmarks.startup [--repeats 7]
"""

from benchmarks import timing

PACKAGES = (
    "albumentations librosa matplotlib.pyplot pandas sklearn.metrics timm torch torchlibrosa"
).split()
IMPORTS = f"import {', '.join(PACKAGES)}"


def main() -> None:
    """Measure and report."""
    options = timing.parse_options("startup", __doc__ or "", repeats=5)
    candidates = {
        "train.py --help": lambda: timing.run_script("train.py", "--help"),
        "plot_loss_metric.py --help": lambda: timing.run_script("plot_loss_metric.py", "--help"),
        "python -c pass": lambda: timing.run_script("-c", "pass"),
        "imports at the top": lambda: timing.run_script("-c", IMPORTS),
    }
    seconds = timing.alternate(candidates, options.repeats)
    timing.report("startup", timing.summarise(seconds, 1, "start", ours="train.py --help"))


if __name__ == "__main__":
    main()
