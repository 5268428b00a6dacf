"""Write what a network makes of each moment of the recordings: a teacher's vectors, in a file.

    python embed.py birdnet vectors.npz
    python embed.py timm:tf_efficientnet_lite0 vectors.npz --pretrained-path weights.pth
    python embed.py models/Exp_47/fold_0/last.pth vectors.parquet
    python embed.py perch.onnx vectors.npz --teacher-rate 32000 --layer embedding

The recordings are those that prepare_audios.py prepared, or with --recordings those of a folder.
`probe.py --teacher-embeddings vectors.npz` fits a linear head to them.
Packages for birdnet, aisfx and .tflite are in requirements-teachers.txt.
"""

import argparse
import logging
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from configs import Config, UserError, configure_logger, load_config, run_main

if TYPE_CHECKING:  # torch is imported when the flags are right
    from training.teachers import Teacher

logger = logging.getLogger("birdclef.train")

WINDOWS_AT_ONCE = 16
LEAST_REST_S = 1.0  # of a recording, to be a window by itself


def main(args: Sequence[str] | None = None) -> int:
    """Write the file and say under which licence it is."""
    flags, config = read_flags(args)

    from catalog.vectors import About, check_suffix, write_vectors
    from training.teachers import Wanted, open_teacher

    check_suffix(flags.output)
    wanted = Wanted(flags.licence, flags.teacher_rate, flags.layer)
    teacher = open_teacher(flags.teacher, config, wanted)
    logger.info("teacher %s; licence of its weights: %s", teacher.source, teacher.licence)

    names, starts, vectors = [], [], []
    for name, waveform in waveforms(flags.recordings, config, teacher.sample_rate):
        places, made = embed_recording(waveform, teacher, flags.step)
        names += [name] * len(places)
        starts.append(places)
        vectors.append(made)
    if not names:
        where = flags.recordings or config.train_np_dir
        raise UserError(f"{where}: no recordings; run prepare_audios.py first, or --recordings DIR")

    about = About(teacher.source, teacher.licence, teacher.window_s)
    write_vectors(flags.output, names, np.concatenate(starts), np.concatenate(vectors), about)
    print(
        f"wrote {flags.output}: {len(names)} vectors of {vectors[0].shape[1]} numbers, "
        f"{len(vectors)} recordings\nteacher: {teacher.source}; licence: {teacher.licence}"
    )
    return 0


def read_flags(args: Sequence[str] | None) -> tuple[argparse.Namespace, Config]:
    """Read this script's own flags; all others are settings, as of train.py."""
    parser = argparse.ArgumentParser(
        prog="embed.py",
        description=(__doc__ or "").partition("\n")[0],
        epilog="All settings of train.py are flags, too: --root, --period, --pretrained-path ...",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("teacher", help="birdnet, aisfx, timm:NAME, or a file .pth (a fold's), .onnx or .tflite")
    add("output", type=Path, help="file to write, .npz or .parquet")
    add("--recordings", type=Path, metavar="DIR", help="recordings, in place of prepared ones")
    add("--step", type=float, metavar="SECONDS", help="between windows (default: a window's)")
    add("--layer", help="output whose values are the vectors; of .tflite any tensor's name")
    add("--teacher-rate", type=int, metavar="HZ", help="sample rate that a file's network hears")
    add(
        "--licence",
        default="",
        help="licence of the weights of a file or a timm network; kept with the vectors",
    )
    flags, rest = parser.parse_known_args(args)
    if flags.step is not None and not flags.step > 0:
        raise UserError(f"--step {flags.step:g}: seconds between windows are above 0")
    config = load_config(rest)
    configure_logger(config)
    return flags, config


def waveforms(
    folder: Path | None, config: Config, sample_rate: int
) -> Iterator[tuple[str, np.ndarray]]:
    """Give each recording's name and its waveform (n,) float32 at a teacher's rate.

    Args:
        folder: of recordings; None: prepared ones.
        config: where those lie, and their rate.
        sample_rate: Hz.
    """
    from tqdm import tqdm

    from audio.decoder import NOTHING, Decoder
    from audio.kinds import list_recordings

    if folder is None:
        paths = sorted(config.train_np_dir.rglob("*.npy"))
        for path in tqdm(paths, "recordings", leave=False, disable=None):
            name = path.relative_to(config.train_np_dir).as_posix().removesuffix(".npy")
            yield name, prepared_waveform(path, config.sample_rate, sample_rate)
        return

    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of recordings")
    names = list_recordings(folder, follow_links=False).recordings
    for name in tqdm(names, "recordings", leave=False, disable=None):
        decoder = Decoder(folder / name, sample_rate)
        waveform = np.concatenate([NOTHING, *decoder])
        if len(waveform):
            yield name, waveform
        else:
            logger.warning("%s: left out: %s", folder / name, decoder.fault[1] or "no samples")


def prepared_waveform(path: Path, own_rate: int, sample_rate: int) -> np.ndarray:
    """Read a prepared recording: (n,) float32, resampled from its own rate, both in Hz."""
    import soxr

    from audio.prepared import open_recording
    from transforms import to_float32

    try:
        waveform = np.asarray(to_float32(open_recording(path)), np.float32)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {error}; run prepare_audios.py again") from None
    return waveform if own_rate == sample_rate else soxr.resample(waveform, own_rate, sample_rate)


def embed_recording(
    waveform: np.ndarray, teacher: "Teacher", step_s: float | None
) -> tuple[np.ndarray, np.ndarray]:
    """Make the vectors of a recording.

    A rest of less than a second at its end is left out; a shorter window is repeated to its length.

    Args:
        waveform: (n,) float32 at the teacher's rate, n >= 1.
        teacher: the network.
        step_s: seconds between windows; None: a window.

    Returns:
        Starts (m,) in seconds and vectors (m, n).
    """
    from transforms import crop_or_pad

    step_s = step_s or teacher.window_s
    length_s = len(waveform) / teacher.sample_rate
    n_windows = max(1, math.ceil((length_s - LEAST_REST_S) / step_s))
    starts_s = np.arange(n_windows) * step_s

    vectors = []
    for first in range(0, n_windows, WINDOWS_AT_ONCE):
        starts = np.rint(starts_s[first : first + WINDOWS_AT_ONCE] * teacher.sample_rate)
        windows = [crop_or_pad(waveform[int(one) :], teacher.n_samples) for one in starts]
        vectors.append(teacher.embed(np.stack(windows)))
    return starts_s, np.concatenate(vectors)


if __name__ == "__main__":
    run_main(main)
