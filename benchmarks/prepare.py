"""Preparing recordings with two processes, and a long file of which 30 s are kept.

    python -m benchmarks.prepare [--audio FOLDER] [--copies 4] [--files 64] [--hours 3]
        [--repeats 3] [--other CHECKOUT]

--audio takes a folder `<label>/<file>` of recordings instead of made-up ones; all are prepared
--copies times, or the start of the decoder processes would be a good part of it. --other names
another checkout of this project, whose prepare_audios.py prepares the same in turn with ours.
"bare" is what two cores reach with decode, soxr and write alone: no checks, no report, nothing
caught, in processes that are there already. All write new files.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial as bind
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import soundfile
import soxr

from audio.decoder_pool import DecoderPool
from audio.kinds import list_recordings
from audio.recording import prepare_recording
from benchmarks import baseline, timing
from configs import Config
from prepare_audios import prepare

WORKERS = 2


def main() -> None:
    """Measure and report."""
    options = timing.parse_options(
        "prepare", __doc__ or "", audio=None, other=None, copies=4, files=64, hours=3.0, repeats=3
    )
    with tempfile.TemporaryDirectory() as folder:
        config = Config(
            root=Path(folder), num_workers=WORKERS, max_bad_fraction=1.0, follow_links=True
        )
        if options.audio:
            config = replace(config, train_audio_dir=options.audio.absolute())
        else:
            make_recordings(config, options.files)
        write_ogg(config.root / "long" / "bird" / "long.ogg", 44_100, options.hours * 3600)
        facts = watch_decoder("the archive", config.train_audio_dir, config)
        facts |= watch_decoder("the long file", config.root / "long", config)
        config = replace(config, train_audio_dir=copy_by_links(config, options.copies))
        rows = compare_archive(config, options.repeats, options.other)
        rows += compare_long_file(config, options.hours, options.repeats)
    timing.report("prepare", rows, facts)


def copy_by_links(config: Config, copies: int) -> Path:
    """Make a folder in which each folder of recordings appears several times, and return it."""
    many = config.root / "copies"
    many.mkdir()
    for folder in sorted(config.train_audio_dir.iterdir()):
        for number in range(copies):
            (many / f"{folder.name}_{number}").symlink_to(
                folder, target_is_directory=folder.is_dir()
            )
    return many


def watch_decoder(what: str, audio_dir: Path, config: Config) -> dict[str, float]:
    """Let a decoder process prepare a folder; give its start in s and its peak memory in MB."""
    began = time.perf_counter()
    recipe = {
        "sample_rate": config.sample_rate,
        "max_seconds": config.max_seconds,
        "audio_dtype": "float32",
    }
    job = {"trim_db": None, "target": str(config.root / "watched.npy")} | recipe
    with DecoderPool() as decoders:
        decoders.prepare(job | {"source": "no such file"}, config.file_timeout_s)
        start_s = time.perf_counter() - began
        for name in list_recordings(audio_dir, follow_links=True).recordings:
            decoders.prepare(job | {"source": str(audio_dir / name)}, config.file_timeout_s)
        (process,) = decoders.alive
        status = Path(f"/proc/{process.popen.pid}/status").read_text()
    peak_kb = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    return {
        f"start of a decoder process for {what}, s": start_s,
        f"its largest memory, {what}, MB": peak_kb / 1024,
    }


def compare_archive(config: Config, repeats: int, other: Path | None) -> list[dict[str, Any]]:
    """Time the whole archive in two processes, also by the scripts of an `other` checkout."""
    names = list_recordings(config.train_audio_dir, follow_links=True).recordings
    candidates = {
        "ours": prepare_anew(config),
        "bare": whole_archive(config, names, bare),
        "baseline": whole_archive(config, names, straightforward),
    }
    if other:
        here = Path(__file__).resolve().parent.parent
        candidates |= {
            "script, ours": run_script(config, here, "--follow-links"),
            "script, other": run_script(config, other.absolute()),
        }
    rows = timing.summarise(timing.alternate(candidates, repeats), kept_seconds(config), "second")
    return [{"files": len(names), **row} for row in rows]


def make_recordings(config: Config, n_files: int) -> None:
    """Write Ogg files of 10 to 60 s, half of them at 44.1 kHz."""
    rng = np.random.default_rng(8)
    for number in range(n_files):
        rate = (32_000, 44_100)[number % 2]
        write_ogg(
            config.train_audio_dir / f"bird{number % 4}" / f"XC{number}.ogg",
            rate,
            float(rng.uniform(10, 60)),
        )


def write_ogg(path: Path, rate: int, seconds: float) -> None:
    """Write noise with a tone, a second at a time: a minute at once crashes libsndfile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng, time = np.random.default_rng(8), np.arange(rate) / rate
    with soundfile.SoundFile(path, "w", rate, 1, format="OGG", subtype="VORBIS") as file:
        for _ in range(round(seconds)):
            file.write(0.2 * np.sin(2 * np.pi * 3000 * time) + 0.01 * rng.standard_normal(rate))


def kept_seconds(config: Config) -> float:
    """Seconds of audio that the archive keeps."""
    seconds = float(prepare(config)["seconds"].sum())
    shutil.rmtree(config.train_np_dir)
    return seconds


def prepare_anew(config: Config) -> Callable[[], Callable[[], None]]:
    """Return a function that prepares everything into a folder, and returns what removes that."""

    def run() -> Callable[[], None]:
        prepare(config)
        return bind(shutil.rmtree, config.train_np_dir)

    return run


def run_script(config: Config, checkout: Path, *flags: str) -> Callable[[], Callable[[], None]]:
    """Return a function that runs a checkout's prepare_audios.py, and returns what removes it."""
    command = [sys.executable, "prepare_audios.py", "--root", str(config.root)]
    command += ["--train-audio-dir", str(config.train_audio_dir), "--num-workers", str(WORKERS)]
    command += ["--max-bad-fraction", "1", *flags]

    def run() -> Callable[[], None]:
        subprocess.run(command, cwd=checkout, check=True, capture_output=True)
        return bind(shutil.rmtree, config.train_np_dir)

    return run


def whole_archive(
    config: Config, names: list[str], way: Callable[[Path, Path, Config], None]
) -> Callable[[], Callable[[], None]]:
    """Return a function that prepares all in two joblib processes, and returns what removes it."""
    folder = config.root / way.__name__

    def run() -> Callable[[], None]:
        jobs = ((config.train_audio_dir / name, folder / f"{name}.npy") for name in names)
        joblib.Parallel(WORKERS)(
            joblib.delayed(way)(source, target, config) for source, target in jobs
        )
        return bind(shutil.rmtree, folder)

    return run


def bare(source: Path, target: Path, config: Config) -> None:
    """Decode the seconds that are kept, resample them and write them."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with soundfile.SoundFile(source) as sound:
            rate = sound.samplerate
            waveform = sound.read(round(config.max_seconds * rate), "float32", always_2d=True).mean(
                axis=1
            )
    except soundfile.LibsndfileError:
        return
    np.save(
        target,
        waveform
        if rate == config.sample_rate
        else soxr.resample(waveform, rate, config.sample_rate),
    )


def straightforward(source: Path, target: Path, config: Config) -> None:
    """Prepare as most people do."""
    try:
        baseline.prepare(source, target, config.sample_rate, config.max_seconds)
    except soundfile.LibsndfileError:
        return


def compare_long_file(config: Config, hours: float, repeats: int) -> list[dict[str, Any]]:
    """Time one long Ogg file at 44.1 kHz in this process."""
    source, target = config.root / "long" / "bird" / "long.ogg", config.root / "long.npy"
    settings: dict[str, Any] = {
        "sample_rate": config.sample_rate,
        "max_seconds": config.max_seconds,
    }
    candidates: dict[str, Callable[[], Any]] = {
        "ours": lambda: prepare_recording(
            source, target, **settings, audio_dtype="float32", trim_db=None
        ),
        "baseline": lambda: baseline.prepare(source, target, **settings),
    }
    rows = timing.summarise(
        timing.alternate(candidates, repeats, warm_up=0), config.max_seconds, "second"
    )
    return [{"files": f"1 of {hours:g} h", **row} for row in rows]


if __name__ == "__main__":
    main()
