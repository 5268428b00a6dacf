"""Make a small archive of synthetic bird recordings in BirdCLEF 2023's layout.

    python examples/make_sample_data.py --output data --species 6 --recordings 12 --seconds 12
    --seed 8

writes `data/train_audio/<primary_label>/<id>.ogg` and `data/train_metadata.csv`. No bird, place or
person in it is real. Each species has its own song, sung in bouts with gaps; recordings differ in
voice, distance, echo, wind, insects and background birds, which `secondary_labels` names. Some are
odd, as in every real archive: very short, silent, truncated, a copy under another id, the only one
of its species, with a background bird outside the classes, 44.1 kHz stereo among 32 kHz mono.

The same flags give the same metadata byte for byte and the same decoded samples (with the same
numpy and libsndfile). The Ogg files differ in the stream's serial number, which libsndfile draws
anew each time.

Nothing is overwritten or deleted: other contents are refused, and a rerun completes an interrupted
run.
"""

import argparse
import csv
import io
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile as sf

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the scripts of the project

from examples.sample_songs import OUTSIDE, SPECIES, Kind, Recording, render_recording

SHORT_SECONDS = 0.6  # length of the very short recording
KEPT_OF_TRUNCATED = 0.8  # share of the truncated file's bytes that is left
LICENSE = "https://creativecommons.org/publicdomain/zero/1.0/"
AUTHORS = ("Ada Sweep", "Bruno Chirp", "Carla Trill", "Deniz Quaver", "Emeka Drone")
TYPES = ("['song']", "['song']", "['call']", "['male', 'song']", "[]")
VERSION = 1  # of the archive: raise it when a sound or a row changes

# Which recording of which species is as it should not be; recordings are counted from the last one.
ODD: dict[tuple[int, int], Kind] = {
    (0, 1): "short",
    (0, 2): "truncated",
    (1, 1): "silent",
    (1, 2): "copy",
}


def plan_archive(*, species: int, recordings: int, seconds: float, seed: int) -> list[Recording]:
    """Decide on every recording of the archive without making a sound.

    Args:
        species: classes, 3 to 12; the last one has a single recording.
        recordings: recordings of each of the others, 4 or more.
        seconds: mean length, 4 to 600; a recording takes 0.75 to 1.25 times that (the very short
            one 0.6 s).
        seed: same seed, same archive.

    Returns:
        `recordings * (species - 1) + 1` recordings in the order of their ids.

    Raises:
        ValueError: a number out of range.
    """
    if not 3 <= species <= OUTSIDE or recordings < 4 or not 4 <= seconds <= 600 or seed < 0:
        raise ValueError(
            f"need 3 to {OUTSIDE} species, 4 or more recordings, 4 to 600 seconds and a seed of 0 "
            f"or more; got {species}, {recordings}, {seconds:g} and {seed}"
        )
    rng = np.random.default_rng((seed, VERSION))
    plan: list[Recording] = []
    for bird in range(species):
        others = [other for other in range(species) if other != bird]
        for number in range(recordings if bird < species - 1 else 1):
            n_background = rng.choice(3, p=(0.6, 0.3, 0.1))
            drawn = Recording(
                id=f"SYN{100_000 + len(plan)}",
                species=bird,
                background=tuple(rng.choice(others, size=n_background, replace=False).tolist()),
                seconds=round(seconds * rng.uniform(0.75, 1.25), 1),
                seed=(seed, VERSION, round(1000 * seconds), len(plan)),
                stereo=number % 6 == 1,
                kind=ODD.get((bird, recordings - number), "plain"),
            )

            if bird == number == 0:
                drawn = replace(drawn, background=(OUTSIDE,))
            elif drawn.kind in ("short", "silent"):
                length = SHORT_SECONDS if drawn.kind == "short" else drawn.seconds
                drawn = replace(drawn, background=(), seconds=length, stereo=False)
            elif drawn.kind == "copy":
                source = plan[-number]  # the first of its species
                drawn = replace(source, id=drawn.id, kind="copy", copy_of=source.id)
            plan.append(drawn)
    return plan


def metadata_row(recording: Recording) -> dict[str, str | float]:
    """One row of train_metadata.csv: BirdCLEF 2023's columns in its order."""
    rng = np.random.default_rng((*recording.seed, 3))
    bird = SPECIES[recording.species]
    return {
        "primary_label": bird.label,
        "secondary_labels": str([SPECIES[other].label for other in recording.background]),
        "type": TYPES[rng.integers(len(TYPES))],
        "latitude": round(rng.uniform(-4.5, 4.5), 4),  # Kenya, as in BirdCLEF 2023's soundscapes
        "longitude": round(rng.uniform(34.0, 41.5), 4),
        "scientific_name": f"Synthavis {bird.epithet}",
        "common_name": f"{bird.name} Synthbird",
        "author": AUTHORS[rng.choice(len(AUTHORS), p=(0.4, 0.25, 0.15, 0.1, 0.1))],
        "license": LICENSE,
        "rating": float(rng.choice((0.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0))),  # 0 is not rated
        "url": f"https://example.org/synthetic/{recording.id}",
        "filename": recording.filename,
    }


def write_archive(output: Path, plan: Sequence[Recording]) -> list[Recording]:
    """Write train_metadata.csv and those recordings of the plan that are not there yet.

    Returns:
        The recordings that were written; none if the archive was complete.

    Raises:
        FileExistsError: the folder holds something else; nothing was changed.
        OSError: it cannot be written.
    """
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, fieldnames=list(metadata_row(plan[0])), lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(metadata_row, plan))

    metadata, train_audio = output / "train_metadata.csv", output / "train_audio"
    if not metadata.exists():
        if train_audio.exists() and any(train_audio.iterdir()):
            raise FileExistsError(f"{train_audio} holds other recordings; give another --output")
        output.mkdir(parents=True, exist_ok=True)
        # It comes first: a rerun knows by it that an interrupted run made this archive.
        metadata.write_bytes(table.getvalue().encode())
    elif metadata.read_bytes() != table.getvalue().encode():
        raise FileExistsError(f"{metadata} is about other recordings; give another --output")

    missing = [recording for recording in plan if not (train_audio / recording.filename).exists()]
    for recording in missing:
        _write_recording(train_audio, recording)
    return missing


def _write_recording(train_audio: Path, recording: Recording) -> None:
    path = train_audio / recording.filename
    part = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)

    if recording.kind == "copy":
        shutil.copyfile(path.with_name(f"{recording.copy_of}.ogg"), part)
    else:
        _write_ogg(part, render_recording(recording), recording.sample_rate)
    if recording.kind == "truncated":
        os.truncate(part, int(KEPT_OF_TRUNCATED * part.stat().st_size))
    os.replace(part, path)


def _write_ogg(path: Path, waveform: np.ndarray, sample_rate: int) -> None:
    """Write (n, channels) second by second: a minute in one call crashes libsndfile."""
    how = {"channels": waveform.shape[1], "format": "OGG", "subtype": "VORBIS"}
    with sf.SoundFile(path, "w", sample_rate, **how) as file:
        for start in range(0, len(waveform), sample_rate):
            file.write(waveform[start : start + sample_rate])


def main(args: Sequence[str] | None = None) -> None:
    """Run the command; `args` is the command line without the program, None takes `sys.argv`."""
    description = "Make a small archive of synthetic bird recordings in BirdCLEF 2023's layout."
    # Without a usage line, an error takes one line.
    parser = argparse.ArgumentParser(usage=argparse.SUPPRESS, description=description)
    for flag, default, text in (
        ("--output", Path("data"), "folder to write to"),
        ("--species", 6, "classes, 3 to 12, the last with a single recording"),
        ("--recordings", 12, "recordings of each other class, 4 or more"),
        ("--seconds", 12.0, "mean length of a recording, 4 to 600"),
        ("--seed", 8, "seed of every random draw"),
    ):
        help_text = f"{text} (default: %(default)s)"
        parser.add_argument(flag, type=type(default), default=default, help=help_text)

    settings = vars(parser.parse_args(args))
    output = settings.pop("output")
    try:
        plan = plan_archive(**settings)
        written = write_archive(output, plan)
    except (ValueError, OSError) as error:
        parser.error(str(error))

    print(_summary(output, plan, written))


def _summary(output: Path, plan: list[Recording], written: list[Recording]) -> str:
    size = sum((output / "train_audio" / one.filename).stat().st_size for one in plan)
    minutes = sum(one.seconds for one in plan) / 60
    n_species, n_written = plan[-1].species + 1, len(written) or "none"
    lines = [
        f"{len(plan)} synthetic recordings of {n_species} species, {n_written} written now",
        f"  {minutes:.1f} minutes, {size / 1e6:.1f} MB",
        f"  {output / 'train_audio'}",
        f"  {output / 'train_metadata.csv'}",
        *(f"  {one.kind} on purpose: {one.filename}" for one in plan if one.kind != "plain"),
        f"next: {_next_command(output, bad_fraction=2 / len(plan))}",
    ]
    return "\n".join(lines)


def _next_command(output: Path, *, bad_fraction: float) -> str:
    if output.name == "data":
        flags = [] if output.parent == Path(".") else ["--root", str(output.parent)]
    else:
        flags = ["--train-audio-dir", str(output / "train_audio")]
        flags += ["--metadata-path", str(output / "train_metadata.csv")]

    # Among few recordings, the silent and the truncated one are more than max_bad_fraction.
    if bad_fraction > 0.05:
        flags += ["--max-bad-fraction", f"{np.ceil(100 * bad_fraction) / 100:g}"]
    return shlex.join(["python", "prepare_audios.py", *flags])


if __name__ == "__main__":
    main()
