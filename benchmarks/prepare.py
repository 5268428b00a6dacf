"""Preparing recordings with two processes, and a long file of which 30 s are kept.

    python -m benchmarks.prepare [--audio FOLDER] [--files 64] [--hours 3] [--repeats 3]

--audio takes a folder `<label>/<file>` of recordings instead of made-up ones. "bare" is what two cores reach with
decode, soxr and write alone: no checks, no report, nothing caught.
"""

import resource
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import soundfile
import soxr

from benchmarks import baseline, timing
from configs import Config
from prepare_audios import find_recordings, prepare, prepare_recording

WORKERS = 2


def main() -> None:
    """Measure and report."""
    options = timing.parse_options("prepare", __doc__ or "", audio=None, files=64, hours=3.0, repeats=3)
    with tempfile.TemporaryDirectory() as folder:
        config = Config(root=Path(folder), num_workers=WORKERS, max_bad_fraction=1.0)
        if options.audio:
            config = replace(config, train_audio_dir=options.audio.absolute())
        else:
            make_recordings(config, options.files)
        write_ogg(config.root / "long" / "bird" / "long.ogg", 44_100, options.hours * 3600)
        memory = {}  # before the other ways, for the system keeps the largest of all children
        for what, audio in {"the archive": config.train_audio_dir, "the long file": config.root / "long"}.items():
            prepare(replace(config, train_audio_dir=audio, train_np_dir=config.root / what))
            memory[f"memory of a decoder process after {what}, MB"] = largest_child_mb()
        rows = compare_archive(config, options.repeats) + compare_long_file(config, options.hours, options.repeats)
    timing.report("prepare", rows, memory)


def largest_child_mb() -> float:
    """Peak resident memory in MB of the largest child process that has ended."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e3


def compare_archive(config: Config, repeats: int) -> list[dict[str, Any]]:
    """Time the whole archive in two processes."""
    names = find_recordings(config.train_audio_dir)
    candidates = {
        "ours": prepare_anew(config),
        "bare": whole_archive(config, names, bare),
        "baseline": whole_archive(config, names, straightforward),
    }
    rows = timing.summarise(timing.alternate(candidates, repeats), kept_seconds(config), "second")
    return [{"files": len(names), **row} for row in rows]


def make_recordings(config: Config, n_files: int) -> None:
    """Write Ogg files of 10 to 60 s, half of them at 44.1 kHz."""
    rng = np.random.default_rng(8)
    for number in range(n_files):
        rate = (32_000, 44_100)[number % 2]
        write_ogg(config.train_audio_dir / f"bird{number % 4}" / f"XC{number}.ogg", rate, float(rng.uniform(10, 60)))


def write_ogg(path: Path, rate: int, seconds: float) -> None:
    """Write noise with a tone, a second at a time: libsndfile crashes when it is given a minute at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng, time = np.random.default_rng(8), np.arange(rate) / rate
    with soundfile.SoundFile(path, "w", rate, 1, format="OGG", subtype="VORBIS") as file:
        for _ in range(round(seconds)):
            file.write(0.2 * np.sin(2 * np.pi * 3000 * time) + 0.01 * rng.standard_normal(rate))


def kept_seconds(config: Config) -> float:
    """Seconds of audio that the archive keeps."""
    return float(prepare(config)["seconds"].sum())


def prepare_anew(config: Config) -> Callable[[], None]:
    """Return a function that prepares everything into a new folder."""
    runs = 0

    def run() -> None:
        nonlocal runs
        runs += 1
        prepare(replace(config, train_np_dir=config.root / f"ours{runs}"))

    return run


def whole_archive(config: Config, names: list[str], way: Callable[[Path, Path, Config], None]) -> Callable[[], None]:
    """Return a function that prepares everything in two joblib processes."""

    def run() -> None:
        jobs = ((config.train_audio_dir / name, config.root / way.__name__ / f"{name}.npy") for name in names)
        joblib.Parallel(WORKERS)(joblib.delayed(way)(source, target, config) for source, target in jobs)

    return run


def bare(source: Path, target: Path, config: Config) -> None:
    """Decode the seconds that are kept, resample them and write them."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with soundfile.SoundFile(source) as sound:
            rate = sound.samplerate
            waveform = sound.read(round(config.max_seconds * rate), "float32", always_2d=True).mean(axis=1)
    except soundfile.LibsndfileError:
        return
    np.save(target, waveform if rate == config.sample_rate else soxr.resample(waveform, rate, config.sample_rate))


def straightforward(source: Path, target: Path, config: Config) -> None:
    """Prepare as most people do."""
    try:
        baseline.prepare(source, target, config.sample_rate, config.max_seconds)
    except soundfile.LibsndfileError:
        return


def compare_long_file(config: Config, hours: float, repeats: int) -> list[dict[str, Any]]:
    """Time one long Ogg file at 44.1 kHz in this process."""
    source, target = config.root / "long" / "bird" / "long.ogg", config.root / "long.npy"
    settings: dict[str, Any] = {"sample_rate": config.sample_rate, "max_seconds": config.max_seconds}
    candidates: dict[str, Callable[[], Any]] = {
        "ours": lambda: prepare_recording(source, target, **settings, audio_dtype="float32", trim_db=None),
        "baseline": lambda: baseline.prepare(source, target, **settings),
    }
    rows = timing.summarise(timing.alternate(candidates, repeats, warm_up=0), config.max_seconds, "second")
    return [{"files": f"1 of {hours:g} h", **row} for row in rows]


if __name__ == "__main__":
    main()
