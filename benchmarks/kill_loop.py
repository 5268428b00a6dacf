"""Kill a training run at random moments, resume it, and compare its end with an unbroken run.

    python -m benchmarks.kill_loop --kills 200

Everything random is on: augmentation, MixUp and CutMix, EMA, bfloat16, accumulation, workers. A run
is killed by SIGKILL to its whole process group, in a phase drawn at random (as it starts, in a
step, while it writes, while it validates), and goes on with another number of workers. The
processes are forked from one that has imported torch, or most of the time would go into that.
"""

import argparse
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

import checkpoint as ckpt
import train
from configs import Config
from training import folder

EVERYTHING_ON: dict[str, Any] = {
    "p_noise_injection": 0.5,
    "p_gaussian_noise": 0.5,
    "p_pink_noise": 0.5,
    "p_random_volume": 0.5,
    "p_cosine_volume": 0.5,
    "p_masks": 0.5,
    "p_spec_augment": 0.5,
    "p_mixup": 0.5,
    "p_cutmix": 0.5,
    "dropout": 0.3,
    "ema_decay": 0.9,
    "grad_clip": 1.0,
    "accumulation_steps": 2,
    "amp_dtype": "bfloat16",
}
PHASES = ("starting", "stepping", "writing", "validating")
LONGEST_PHASE_S = (1.0, 0.1, 0.02, 0.1)  # a kill comes within this time of the phase's beginning
WORKERS = (0, 1, 2)
LONGEST_ATTEMPT_S = 300.0


def make_run(root: Path, *, n_recordings: int = 16, **changes: Any) -> tuple[Config, pd.DataFrame]:
    """Write recordings of two seconds; return settings and table of a short run on them."""
    settings: dict[str, Any] = {
        "root": root,
        "folds": [0],
        "base_model_name": "test_efficientnet",
        "pretrained": False,
        "n_mels": 32,
        "period": 1.0,
        "train_bs": 3,
        "valid_bs": 2,
        "epochs": 3,
        "num_workers": 0,
        "device": "cpu",
        "checkpoint_every_steps": 1,
        "keep_checkpoints": 2,
    }
    config = Config(**(settings | EVERYTHING_ON | changes))
    rng, rows = np.random.default_rng(1), []
    for number in range(n_recordings):
        label = f"bird{number % 3}"
        path = config.train_np_dir / label / f"{number}.ogg.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        tone = np.sin(2 * np.pi * (1000 + 2500 * (number % 3)) * np.arange(64_000) / 32_000)
        np.save(path, (tone / 2 + 0.02 * rng.standard_normal(64_000)).astype(np.float32))
        rows.append(
            {
                "primary_label": label,
                "labels": label,
                "filepath": f"{label}/{path.name}",
                "kfold": number // 3 % 4,
            }
        )
    return config, pd.DataFrame(rows)


def attempt(df: pd.DataFrame, settings: dict[str, Any], phase: Any) -> None:
    """Train as the head of a process group, telling in `phase` what is being done."""
    os.setsid()
    torch.set_num_threads(1)  # of tiny tensors more threads cost more than they bring
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - for the life of the process
    train.train_step = _telling(train.train_step, phase, "stepping")
    train.validate = _telling(train.validate, phase, "validating")
    ckpt.save_checkpoint = _telling(ckpt.save_checkpoint, phase, "writing")
    folder.write_file = _telling(folder.write_file, phase, "writing")
    train.run(df, Config(**settings))


def _telling(function: Callable[..., Any], phase: Any, name: str) -> Callable[..., Any]:
    def told(*args: Any, **kwargs: Any) -> Any:
        place = int(threading.current_thread() is not threading.main_thread())
        before, phase[place] = phase[place], PHASES.index(name)
        try:
            return function(*args, **kwargs)
        finally:
            phase[place] = before

    return told


def phase_of(phase: Any) -> int:
    """Say what a run is doing: what its writing thread does, if there is one, counts first."""
    return phase[1] or phase[0]


class KillLoop:
    """Starts runs and kills them.

    Args:
        df: the table of make_run.
        seed: of the moments and numbers of workers.
    """

    def __init__(self, df: pd.DataFrame, seed: int) -> None:
        self.df, self.random = df, random.Random(seed)
        # The semaphores of killed runs are cleaned up by Python's tracker, which need not say so.
        os.environ.setdefault(
            "PYTHONWARNINGS", "ignore::UserWarning:multiprocessing.resource_tracker"
        )
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(["train", "albumentations", "sklearn.metrics"])
        self.killed: Counter[str] = Counter()  # kills by phase
        self.half_written = 0  # kills that left a part of a file

    def train(self, config: Config, *, may_kill: bool) -> bool:
        """Start a run or go on with it; kill it at a random moment or let it end.

        Returns:
            Whether it came to its end.

        Raises:
            RuntimeError: it ended by itself in another way than it should.
        """
        target = self.random.randrange(len(PHASES)) if may_kill else None
        settings = {**config.to_dict(), "num_workers": self.random.choice(WORKERS)}
        phase = self.context.Array("i", 2, lock=False)  # of the main thread and the writing one
        process = self.context.Process(target=attempt, args=(self.df, settings, phase))
        process.start()
        if target is not None:
            self._wait_for(process, phase, target)
        if target is None or not process.is_alive():
            process.join(LONGEST_ATTEMPT_S)
            if process.exitcode != 0:
                log = config.fold_dir(0) / "train.log"
                raise RuntimeError(f"a run ended with status {process.exitcode}; see {log}")
            return True
        self._kill(process, PHASES[phase_of(phase)], config)
        return False

    def _wait_for(self, process: Any, phase: Any, target: int) -> None:
        until = time.monotonic() + LONGEST_ATTEMPT_S
        if PHASES[target] != "starting":  # somewhere in the run, not always at its first chance
            process.join(self.random.uniform(0.0, 1.0))
        while process.is_alive() and phase_of(phase) != target and time.monotonic() < until:
            time.sleep(0.0005)
        process.join(self.random.uniform(0.0, LONGEST_PHASE_S[target]))

    def _kill(self, process: Any, phase: str, config: Config) -> None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:  # before it had made its group
            process.kill()
        process.join()
        if process.exitcode != 0:
            self.killed[phase] += 1
            self.half_written += any(config.fold_dir(0).glob("*.part"))


def differences(first: Path, second: Path) -> list[str]:
    """Name what differs in the weights, histories, checkpoints and predictions of two folds."""
    found = []
    if (first / "history.csv").read_bytes() != (second / "history.csv").read_bytes():
        found.append("history.csv")
    names = [sorted(path.name for path in fold.glob("*.pth")) for fold in (first, second)]
    if names[0] != names[1]:
        found.append(f"checkpoints {names[0]} and {names[1]}")
    for name in set(names[0]) & set(names[1]):
        one, two = (ckpt.read_checkpoint(fold / name) for fold in (first, second))
        parts = (
            "model",
            "ema",
            "optimizer",
            "scheduler",
            "scaler",
            "train_loss",
            "history",
            "epoch",
            "step",
        )
        found += [f"{name}: {part}" for part in parts if not _equal(one[part], two[part])]
    with (
        np.load(first / "valid_predictions.npz") as one,
        np.load(second / "valid_predictions.npz") as two,
    ):
        found += [
            f"valid_predictions.npz: {name}"
            for name in one
            if not np.array_equal(one[name], two[name])
        ]
    return found


def _equal(one: Any, two: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(
            _equal(value, two[key]) for key, value in one.items()
        )
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(_equal, one, two))
    return bool((one == two).all()) if hasattr(one, "all") else one == two


def run_kill_loop(root: Path, kills: int, seed: int, **changes: Any) -> tuple[KillLoop, list[str]]:
    """Kill and resume until there were `kills`, in as many runs as that takes; compare each.

    Returns:
        The loop with its counts, and what differed from the unbroken run: nothing, if all is well.
    """
    config, df = make_run(root, **changes)
    loop, found = KillLoop(df, seed), []
    loop.train(config, may_kill=False)
    runs = 0
    while loop.killed.total() < kills:
        broken = Config(**{**config.to_dict(), "models_dir": root / f"models_{runs}"})
        while not loop.train(broken, may_kill=loop.killed.total() < kills):
            print(
                f"\r{loop.killed.total()} of {kills} kills, {runs} runs ended", end="", flush=True
            )
        found += [
            f"run {runs}: {what}" for what in differences(config.fold_dir(0), broken.fold_dir(0))
        ]
        runs += 1
    print(f"\r{loop.killed.total()} kills, {runs} runs that came to their end")
    return loop, found


def main() -> int:
    """Run the loop and say what differed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=8)
    flags = parser.parse_args()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="kill_loop_") as root:
        loop, found = run_kill_loop(Path(root), flags.kills, flags.seed)
    phases = ", ".join(f"{count} {phase}" for phase, count in loop.killed.most_common())
    print(f"killed while {phases}; {loop.half_written} kills left a half-written file")
    print(
        f"{time.perf_counter() - started:.0f} s; "
        + ("all equal to the unbroken run" if not found else "DIFFERENT:")
    )
    print(*found, sep="\n", end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
