"""Recordings scored from end to end, against the bare network on ready inputs, by backend.

    python -m benchmarks.predict [--model tf_efficientnet_b0] [--classes 264] [--backends
    torch,onnx,openvino]
        [--minutes 20] [--recordings 2] [--suffix ogg] [--repeats 3] [--hours 0]

The network has random weights; its recordings are made up. Of the two ways to run the bare network,
small batches on a core each and large ones on all cores together, the faster counts. Decoding and
log-mel need CPU time of their own: what is left for the network of all of it is a bound on the
share that end to end can reach where all cores are busy. --hours 24 measures instead, with a tiny
network, the memory that such a recording and one of ten minutes take.
"""

import contextlib
import importlib.util
import shutil
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial as bind
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import soundfile
import torch

import checkpoint as ckpt
import predict
from audio.decoder_pool import DecoderPool
from benchmarks import timing
from configs import Config
from inference import pipeline, stream
from inference.graph_file import convert_to_openvino, draft
from inference.model_card import describe
from inference.partial import PartialResults
from inference.scorers import TorchModels, open_models
from inference.waveform_model import WaveformModel
from inference.windows import Models, Plan
from model import build_model

LIMIT = (
    200 * 600 / 7200
)  # x real time: BirdCLEF allowed two hours on a CPU for 200 soundscapes of ten minutes
LARGE_BATCH = 32
NEEDED = {"torch": "torch", "onnx": "onnxruntime", "openvino": "openvino"}
MEMORY = """
import re, sys
from pathlib import Path
sys.argv[0] = "predict.py"
import predict
predict.main()
status = Path("/proc/self/status").read_text()
print("peak MB", int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1]) / 1000)
"""


def main() -> None:
    """Measure and report."""
    options = timing.parse_options(
        "predict",
        __doc__ or "",
        model="tf_efficientnet_b0",
        classes=264,
        backends="torch,onnx,openvino",
        minutes=20.0,
        recordings=2,
        suffix="ogg",
        repeats=3,
        hours=0.0,
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.hours:
            measure_memory(folder, options)
            return
        for number in range(options.recordings):
            make_recording(
                folder / "sounds" / f"{number}.{options.suffix}", 60 * options.minutes, seed=number
            )
        make_recording(folder / "short" / f"short.{options.suffix}", 10.0)
        config = Config(base_model_name=options.model, pretrained=False, device="cpu")
        paths = make_models(folder, config, options.classes, options.backends.split(","))
        measure_speed(folder, paths, options)


# Material -----------------------------------------------------------------------------------------


def make_recording(path: Path, seconds: float, *, sample_rate: int = 32_000, seed: int = 0) -> None:
    """Write chirps in noise second by second: one long write of Ogg crashes libsndfile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng, at, minute = np.random.default_rng(seed), np.arange(sample_rate) / sample_rate, []
    for second in range(60):
        chirp = 0.3 * np.sin(2 * np.pi * (800 + 100 * second + 2000 * at) * at) * (at < 0.4)
        minute.append((chirp + 0.01 * rng.standard_normal(sample_rate)).astype(np.float32))
    with soundfile.SoundFile(path, "w", sample_rate, 1) as file:
        for second in range(round(seconds)):
            file.write(minute[second % 60])


def make_models(
    folder: Path, config: Config, n_classes: int, backends: list[str]
) -> dict[str, Path]:
    """Save an untrained checkpoint and export it where packages are there; paths by backend."""
    torch.manual_seed(0)
    names = [f"bird{number:03}" for number in range(n_classes)]
    weights, history = (
        build_model(config, n_classes).state_dict(),
        [{"epoch": 1, "valid_loss": 0.0}],
    )
    state: dict[str, Any] = {
        "model": weights,
        "ema": None,
        "fold": 0,
        "epoch": 1,
        "step": 1,
        "history": history,
    }
    state |= {"class_names": names, "config": config.to_dict(), "versions": {}}
    paths = {
        "torch": folder / "model.pth",
        "onnx": folder / "model.onnx",
        "openvino": folder / "model.xml",
    }
    ckpt.save_checkpoint(paths["torch"], state)
    if set(backends) != {"torch"} and importlib.util.find_spec("onnxscript"):
        models = TorchModels([paths["torch"]], config)
        about = describe([state], models, "float32", "none")
        draft(paths["onnx"], WaveformModel(models.models, config), config.n_samples, about, None)
        if "openvino" in backends and importlib.util.find_spec("openvino"):
            shutil.copy(paths["onnx"], folder / "for_openvino.onnx")
            convert_to_openvino(folder / "for_openvino.onnx", about, half=False).rename(
                paths["openvino"]
            )
            (folder / "for_openvino.bin").rename(folder / "model.bin")
    return {
        name: paths[name]
        for name in backends
        if paths[name].exists() and importlib.util.find_spec(NEEDED[name])
    }


# Speed --------------------------------------------------------------------------------------------


def measure_speed(folder: Path, paths: dict[str, Path], options: Namespace) -> None:
    """Measure each backend and report."""
    rows: list[dict[str, Any]] = []
    facts: dict[str, Any] = {}
    for name, path in paths.items():
        with contextlib.ExitStack() as stack:
            candidates, n_windows = make_candidates(folder, path, stack)
            runs = timing.alternate(candidates, options.repeats)
        for row in timing.summarise(runs, n_windows, "window", ours="end to end"):
            rows.append({"candidate": f"{name}: {row.pop('candidate')}"} | row)
        walls = {way: median(run.wall_s for run in some) for way, some in runs.items()}
        cpus = {way: median(run.cpu_s for run in some) for way, some in runs.items()}
        bare = min((way for way in walls if way.startswith("bare")), key=lambda way: walls[way])
        speed = 60 * options.minutes * options.recordings / walls["end to end"]
        facts |= {
            f"{name}: share of the bare network's throughput": walls[bare] / walls["end to end"],
            f"{name}: bound on it, by CPU time": cpus[bare]
            / (cpus[bare] + cpus["decoding"] + cpus["log-mel"]),
            f"{name}: x real time": speed,
            f"{name}: times BirdCLEF's limit": speed / LIMIT,
            f"{name}: s from start to a written result": median(
                start(folder, path) for _ in range(options.repeats)
            ),
        }
    timing.report("predict", rows, facts)


def make_candidates(
    folder: Path, path: Path, stack: contextlib.ExitStack
) -> tuple[dict[str, Callable[[], Any]], int]:
    """Make functions to time, by name, each over all windows; and the number of windows."""
    config = Config(device="cpu")
    models = open_models(path, config)
    at_once = open_models(
        path, replace(config, num_workers=1)
    )  # one batch after another, each on all cores
    recordings = stream.find_recordings(folder / "sounds").paths
    clips = decode(recordings, models.config)
    ready = [models.prepare(clip) for clip in clips]
    candidates: dict[str, Callable[[], Any]] = {
        "end to end": stack.enter_context(EndToEnd(folder, models, recordings)),
        f"bare, {models.batch_size} clips on each core": bind(
            bare, models, ready, models.batch_size
        ),
        f"bare, {LARGE_BATCH} clips on all cores": bind(bare, at_once, ready, LARGE_BATCH),
        "decoding": bind(decode, recordings, models.config),
        "log-mel": bind(prepare, models, clips),
    }
    return candidates, len(clips)


class EndToEnd:
    """Score recordings as predict.py does, with a decoder that was started beforehand."""

    def __init__(self, folder: Path, models: Models, recordings: dict[str, Path]) -> None:
        self.folder, self.models, self.recordings = folder, models, recordings
        self.make_ready()

    def __enter__(self) -> "EndToEnd":
        return self

    def __exit__(self, *_: object) -> None:
        self.decoders.close()

    def make_ready(self) -> None:
        """Start the decoder of the next run."""
        self.decoders = DecoderPool()
        self.decoders.start(1)
        time.sleep(0.2)

    def __call__(self) -> Callable[[], None]:
        """Score all; return what makes the next run ready."""
        partial = PartialResults(self.folder / "partial", {})
        predict.score_recordings(self.models, self.recordings, Plan(), partial, self.decoders)
        partial.close(delete=True)
        return self.make_ready


def decode(recordings: dict[str, Path], config: Config) -> list[np.ndarray]:
    """Decode all recordings and cut them into clips, in one thread of this process."""
    streams = [stream.Stream(path, config.sample_rate) for path in recordings.values()]
    return [
        clip.samples
        for one in streams
        for clip in stream.cut(one, config.n_samples, config.n_samples)
    ]


def prepare(models: Models, clips: list[np.ndarray]) -> None:
    """Make clips ready for the network, in one thread."""
    with timing.one_core():
        for clip in clips:
            models.prepare(clip)


def bare(models: Models, ready: list[np.ndarray], batch_size: int) -> None:
    """Score inputs that are ready, with nothing around the network."""
    starts = range(0, len(ready), batch_size)
    scored = pipeline.apply_in_order(
        lambda start: models.score(ready[start : start + batch_size], frames=False),
        starts,
        models.n_threads,
        models.enter_thread,
    )
    deque(scored, maxlen=0)


def start(folder: Path, path: Path) -> float:
    """Seconds from the shell's command to a submission for ten seconds of audio."""
    return timing.run_script(
        "predict.py", str(path), str(folder / "short"), "--output", str(folder / "short.csv")
    )


# Memory -------------------------------------------------------------------------------------------


def measure_memory(folder: Path, options: Namespace) -> None:
    """Score ten minutes and `options.hours`, a process each; report the peaks of memory."""
    config = Config(base_model_name="test_efficientnet", pretrained=False)
    rows: list[dict[str, Any]] = []
    model = make_models(folder, config, options.classes, ["torch"])
    for hours in (1 / 6, options.hours):
        recording = folder / f"{hours:g}.flac"
        make_recording(recording, 3600 * hours)
        output = folder / "out.csv"
        began = time.perf_counter()
        words = ["-c", MEMORY, model["torch"], recording, "--output", output, "--device", "cpu"]
        said = subprocess.check_output(
            [sys.executable, *map(str, words)], cwd=timing.ROOT, text=True
        )
        peak = float(said.split("peak MB")[1])
        rows.append(
            {"candidate": f"{hours:g} h", "peak MB": peak, "s": time.perf_counter() - began}
        )
        recording.unlink()
    timing.report("predict", rows, {"MB more": rows[1]["peak MB"] - rows[0]["peak MB"]})


if __name__ == "__main__":
    main()
