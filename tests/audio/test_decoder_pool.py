"""Recordings decoded in processes of their own, of which a file may crash or hang one."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audio import decoder_pool
from audio.decoder import BLOCK_VALUES, decode
from audio.decoder_pool import DecoderPool
from tests.audio.test_damage import encode, frames, song
from tests.test_prepare_audios_processes import with_impossible_side_information

NO_AUDIO = "Format not recognised. If it is whole, convert it: ffmpeg -i a.ogg a.flac"
ROOT = Path(decoder_pool.__file__).parent.parent

# The decoder process, with a decoder that dies or hangs, in C, after the first block, by the name
# of the file.
DEADLY = """
import ctypes, os, sys
sys.path.insert(0, sys.argv[1])
from audio import decoder_pool
sound = decoder_pool.decode
def decode(path, sample_rate):
    for block in sound(path, sample_rate):
        yield block
        if "crash" in path.name:
            ctypes.string_at(0)
        if "hang" in path.name:
            ctypes.PyDLL(None).sleep(600)  # with the lock of the interpreter: uninterrupted
        if "quit" in path.name:
            os._exit(7)
        if "memory" in path.name:
            raise MemoryError
decoder_pool.decode = decode
decoder_pool.serve()
"""
DEADLY_COMMAND = (sys.executable, "-c", DEADLY, str(ROOT))


def write(path: Path, seconds: float = 2.0, rate: int = 32_000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = 0.1 * np.random.default_rng(0).standard_normal(round(seconds * rate))
    soundfile.write(path, samples, rate)
    return path


def joined(blocks) -> tuple[np.ndarray, float, tuple[str, str]]:
    """Samples, the length expected, and the fault."""
    blocks = list(blocks)
    return (
        np.concatenate([block.samples for block in blocks]),
        blocks[-1].expected,
        blocks[-1].fault,
    )


@pytest.mark.parametrize("suffix", [".wav", ".ogg", ".mp3", ".flac"])
def test_another_process_gives_the_same_to_the_bit(tmp_path, suffix):
    path = write(tmp_path / f"a{suffix}", rate=44_100)
    with DecoderPool() as decoders:
        wanted = joined(decode(path, 32_000))
        for _ in range(2):  # the same process serves again
            found = joined(decoders.decode(path, 32_000, 30))
            assert np.array_equal(found[0], wanted[0]) and found[0].dtype == np.float32
            assert found[1:] == wanted[1:] and found[2] == ("", "")
        assert len(wanted[0]) == pytest.approx(64_000, abs=2000)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        found, wanted = joined(decoders.decode(path, 32_000, 30)), joined(decode(path, 32_000))
        assert (
            np.array_equal(found[0], wanted[0])
            and found[1:] == wanted[1:]
            and found[2][0] == "unreadable"
        )


def test_recordings_longer_than_the_shared_memory_come_whole(tmp_path):
    with DecoderPool() as decoders:
        for seconds in (
            1.0,
            16.4,
            33.0,
            40.0,
        ):  # at 32 kHz a slot holds 1.02 s, and they are handed back by 16
            path = write(
                tmp_path / "a.wav", seconds=seconds, rate=8000
            )  # a block of it is four slots long
            found = joined(decoders.decode(path, 32_000, 30))
            assert np.array_equal(found[0], joined(decode(path, 32_000))[0]) and found[1] == len(
                found[0]
            )
            assert np.array_equal(found[0][-100:], joined(decode(path, 32_000))[0][-100:])
        assert len(decoders.alive) == 1


def test_what_the_mp3_decoder_mutes_is_a_fault(tmp_path):
    parts = frames(encode(tmp_path / "whole.mp3", song(4.0, 44_100), 44_100))
    muted = [*parts[:50], with_impossible_side_information(parts[50]), *parts[51:]]
    (tmp_path / "muted.mp3").write_bytes(b"".join(muted))
    with DecoderPool() as decoders:
        found = [
            joined(decoders.decode(tmp_path / f"{name}.mp3", 32_000, 30))[2]
            for name in ("muted", "whole")
        ]
    assert found == [
        ("unreadable", "4.00 s decoded; part of it is muted (big_values too large!)"),
        ("", ""),
    ]


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("a.ogg", b"", ("empty", "0 bytes")),
        ("a.ogg", b"no audio", ("unreadable", NO_AUDIO)),
        ("\u00e9\udcff.ogg", b"", ("empty", "0 bytes")),  # a name that is no UTF-8
        (
            "missing.ogg",
            None,
            ("unreadable", "no file: a folder, a FIFO, a device or a broken link"),
        ),
    ],
)
def test_what_is_no_recording_says_so(tmp_path, name, content, fault):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with DecoderPool() as decoders:
        for found in (joined(decoders.decode(path, 8000, 30)), joined(decode(path, 8000))):
            assert len(found[0]) == 0 and found[1:] == (0, fault)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("crash.wav", "its decoder crashed (SIGSEGV)"),
        ("hang.wav", "its decoder was stuck for 0.5 s (file_timeout_s)"),
        ("quit.wav", "its decoder crashed (status 7)"),
        ("memory.wav", "its decoder crashed (status 70)"),
    ],
)
def test_a_crash_or_hang_ends_that_recording_alone(tmp_path, monkeypatch, name, reason):
    monkeypatch.setattr(decoder_pool, "COMMAND", DEADLY_COMMAND)
    good, bad = write(tmp_path / "good.wav"), write(tmp_path / name)
    with DecoderPool() as decoders:
        for _ in range(2):
            samples, expected, fault = joined(decoders.decode(bad, 32_000, 0.5))
            assert fault == ("unreadable", reason) and expected == 64_000
            assert np.array_equal(samples, joined(decode(good, 32_000))[0][:BLOCK_VALUES])
            samples, _, fault = joined(decoders.decode(good, 32_000, 0.5))
            assert len(samples) == 64_000 and fault == ("", "")


def test_the_clock_stands_still_while_nobody_takes_the_blocks(tmp_path):
    path = write(tmp_path / "long.wav", seconds=60)
    with DecoderPool() as decoders:
        blocks = decoders.decode(path, 32_000, 0.3)
        n_samples = len(next(blocks).samples)
        time.sleep(1)  # all slots are full by now
        n_samples += sum(len(block.samples) for block in blocks)
    assert n_samples == 60 * 32_000


def test_processes_end_with_the_decoders_and_without_their_parent(tmp_path):
    path = write(tmp_path / "long.wav", seconds=60)

    def read(decoders: DecoderPool) -> None:
        with contextlib.suppress(RuntimeError, ValueError):  # it ends under its hands
            list(decoders.decode(path, 32_000, 30))

    with DecoderPool() as decoders:
        list(decoders.decode(path, 32_000, 30))
        busy = decoders.decode(path, 32_000, 30)
        next(busy)
        reader = threading.Thread(target=read, args=(decoders,))
        reader.start()
        while len(alive := list(decoders.alive)) < 2:
            time.sleep(0.01)
    assert [process.popen.returncode for process in alive] == [-signal.SIGKILL] * 2
    reader.join(timeout=10)
    assert not reader.is_alive()
    with pytest.raises(RuntimeError, match="closed"):
        next(decoders.decode(path, 32_000, 30))
    with DecoderPool() as decoders:  # as if the parent was killed: its ends of the pipes are closed
        next(decoders.decode(path, 32_000, 30))
        process = decoders.alive[0].popen
        process.stdout.close()
        process.stdin.close()
        assert process.wait(timeout=10) == 0


def test_ctrl_c_is_left_to_the_process_that_asks(tmp_path):
    path = write(tmp_path / "a.wav")
    with DecoderPool() as decoders:
        list(decoders.decode(path, 32_000, 30))
        os.kill(decoders.alive[0].popen.pid, signal.SIGINT)
        assert (
            len(joined(decoders.decode(path, 32_000, 30))[0]) == 64_000 and len(decoders.alive) == 1
        )


def test_a_decoder_that_cannot_start_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(decoder_pool, "COMMAND", (sys.executable, "-c", "pass"))
    with DecoderPool() as decoders, pytest.raises(RuntimeError, match="does not start"):
        next(decoders.decode(write(tmp_path / "a.wav"), 32_000, 30))


def test_a_decoder_process_loads_nothing_heavy():
    heavy = ("torch", "pydantic", "pandas", "librosa", "onnxruntime")
    code = f"import sys, audio.decoder_pool; print([m for m in {heavy} if m in sys.modules])"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert loaded.stdout.strip() == "[]"
