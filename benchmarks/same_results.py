"""Say whether two checkouts of this project give the same results, file by file.

    git worktree add ../before v0.1.0
    python -m benchmarks.same_results ../before

Both run the same small job, from recordings to a prediction: 24 synthetic recordings of three
species, two epochs of a fold with every augmentation of the image, MixUp and CutMix. Compared are
the tables byte for byte (without times and paths of the file system), the weights in `last.pth` and
the arrays of `valid_predictions.npz` value by value. Exit status 1 where anything differs.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch

HERE = Path(__file__).resolve().parent.parent
SAMPLE = "--output data --species 3 --recordings 8 --seconds 6"
SETTINGS = (
    "--exp-id 1 --folds 0 --n-folds 3 --n-mels 64 --no-pretrained --base-model-name "
    "test_efficientnet --epochs 2 --train-bs 8 --p-mixup 0.5 --p-cutmix 0.5 --device cpu "
    "--num-workers 0 --max-bad-fraction 1"
)
RECORDINGS = "data/train_audio"
STAGES = (
    f"examples/make_sample_data.py {SAMPLE}",
    f"prepare_audios.py {SETTINGS}",
    f"split_data.py {SETTINGS}",
    f"train.py {SETTINGS}",
    f"predict.py models/Exp_1 {RECORDINGS} --output found.csv --format long --threshold 0",
)
FOLD = "models/Exp_1/fold_0"


def run_job(checkout: Path, folder: Path) -> None:
    """Run every stage of a checkout in a folder.

    Raises:
        subprocess.CalledProcessError: a stage fails; what it said is on stderr.
    """
    for stage in STAGES:
        script, *flags = stage.split()
        command = [sys.executable, str(checkout / script), *flags]
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)


def read_report(path: Path) -> pd.DataFrame:
    """Read a prepare report without the column that holds the files' times."""
    return pd.read_csv(path, dtype=str, keep_default_na=False).drop(columns="made_from")


def same_bytes(before: Path, after: Path) -> bool:
    """Compare two files byte for byte."""
    return before.read_bytes() == after.read_bytes()


def same_reports(before: Path, after: Path) -> bool:
    """Compare two prepare reports, in the columns that the older one has."""
    old, new = read_report(before), read_report(after)
    return old.equals(new[old.columns])


def same_weights(before: Path, after: Path) -> bool:
    """Compare the weights, running statistics and optimizer moments of two checkpoints."""
    old, new = (torch.load(path, weights_only=True) for path in (before, after))
    return _same(old["model"], new["model"]) and _same(
        old["optimizer"]["state"], new["optimizer"]["state"]
    )


def _same(old: object, new: object) -> bool:
    if isinstance(old, torch.Tensor) and isinstance(new, torch.Tensor):
        return torch.equal(old, new)
    if isinstance(old, dict) and isinstance(new, dict):
        return old.keys() == new.keys() and all(_same(old[key], new[key]) for key in old)
    return old == new


def same_arrays(before: Path, after: Path) -> bool:
    """Compare the arrays of two .npz files."""
    old, new = np.load(before), np.load(after)
    return set(old) <= set(new) and all(np.array_equal(old[name], new[name]) for name in old)


COMPARED: dict[str, Callable[[Path, Path], bool]] = {
    "train_np/prepare_report.csv": same_reports,
    "train.csv": same_bytes,
    f"{FOLD}/history.csv": same_bytes,
    f"{FOLD}/last.pth": same_weights,
    f"{FOLD}/valid_predictions.npz": same_arrays,
    "found.csv": same_bytes,
}


def main() -> int:
    """Run the job with both checkouts and print a line a file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("before", type=Path, help="a checkout of another version")
    before = parser.parse_args().before.resolve()
    n_different = 0
    with tempfile.TemporaryDirectory() as folder:
        old, new = Path(folder) / "before", Path(folder) / "after"
        for checkout, place in ((before, old), (HERE, new)):
            place.mkdir()
            run_job(checkout, place)

        for name, is_same in COMPARED.items():
            equal = is_same(old / name, new / name)
            n_different += not equal
            print(f"{'equal' if equal else 'DIFFERENT':<10} {name}")
    return int(n_different > 0)


if __name__ == "__main__":
    sys.exit(main())
