"""Recordings of any length, rate and format, decoded block by block."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given
from hypothesis import strategies as st

from audio.decoder import Block
from audio.recording import prepare_recording
from audio.windows import window_starts
from configs import UserError
from inference import stream

ROOT = Path(stream.__file__).parent.parent


class Samples(stream.Stream):
    """A stream of 0, 1, 2, ... in blocks of 7."""

    def __init__(self, n_samples: int) -> None:
        super().__init__(Path("none"), 1)
        pieces = (
            np.arange(at, min(at + 7, n_samples), dtype=np.float32) for at in range(0, n_samples, 7)
        )
        self._blocks = (Block(piece, n_samples, ("", "")) for piece in pieces)
        self.longest = 0

    def has(self, position: int) -> bool:
        answer = super().has(position)
        self.longest = max(self.longest, len(self._buffer))
        return answer


def whole(path: Path, rate: int) -> np.ndarray:
    source = stream.Stream(path, rate)
    assert not source.has(10**12)
    return source.take(0, source.end)


# Samples ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "suffix", [".wav", ".flac", ".ogg", ".mp3", ".aiff", ".w64", ".caf", ".au"]
)
def test_formats_give_the_samples_that_soundfile_gives(tmp_path, rng, suffix):
    path = tmp_path / f"a{suffix}"
    soundfile.write(path, 0.1 * rng.standard_normal(70_000), 32_000)
    wanted = soundfile.read(path, dtype="float32")[0]
    # libsndfile's MP3 decoder itself rounds the last bit of a sample differently, block by block
    np.testing.assert_allclose(
        whole(path, 32_000), wanted, rtol=0, atol=1e-7 if suffix == ".mp3" else 0
    )


@pytest.mark.parametrize("rate", [8000, 22_050, 44_100, 48_000, 96_000])
def test_resampling_block_by_block_is_that_of_the_whole_to_the_bit(tmp_path, rng, rate):
    samples = (0.1 * rng.standard_normal((3 * rate + 123, 2))).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", samples, rate, subtype="FLOAT")
    found = whole(tmp_path / "a.wav", 32_000)
    assert len(found) == round(len(samples) * 32_000 / rate)
    mono = samples @ np.full(2, 0.5, np.float32)
    assert np.array_equal(found, soxr.resample(mono, rate, 32_000, quality="HQ")[: len(found)])


def test_samples_equal_the_prepared_ones(tmp_path, rng):
    """The prepared recording stops at max_seconds, the stream goes on."""
    soundfile.write(tmp_path / "a.flac", 0.1 * rng.standard_normal((44_100 * 4, 3)), 44_100)
    prepare_recording(
        tmp_path / "a.flac",
        tmp_path / "a.npy",
        sample_rate=32_000,
        max_seconds=2.0,
        audio_dtype="float32",
        trim_db=None,
    )
    prepared = np.load(tmp_path / "a.npy")
    assert len(prepared) == 64_000
    assert np.array_equal(whole(tmp_path / "a.flac", 32_000)[:64_000], prepared)


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3"])
def test_a_cut_recording_is_known_from_a_whole_one(tmp_path, rng, suffix):
    path = tmp_path / f"a{suffix}"
    soundfile.write(path, 0.1 * rng.standard_normal(4 * 32_000), 32_000)
    ends = []
    for share in (1, 3 / 4):
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
        source = stream.Stream(path, 32_000)
        source.has(10**12)
        ends.append((source.end / 32_000, source.fault))
    assert ends[0] == (pytest.approx(4.0, abs=0.1), ("", ""))
    seconds, (status, reason) = ends[1]
    assert 2 < seconds < 3.5 and status == "unreadable"
    assert reason.startswith(f"{seconds:.2f} ") and " s decoded; " in reason


# Clips --------------------------------------------------------------------------------------------


@given(
    st.integers(0, 60),
    st.integers(1, 20),
    st.integers(1, 25),
    st.lists(st.integers(-9, 9), max_size=2),
)
def test_windows_cover_the_recording_and_clips_stay_in_it(n, n_samples, stride, shifts):
    source = Samples(n)
    clips = list(stream.cut(source, n_samples, stride, shifts))
    starts = [clip.start for clip in clips[:: 1 + len(shifts)]]
    assert starts == list(window_starts(n.__gt__, n_samples, stride))
    for number, clip in enumerate(clips):
        assert clip.samples.tolist() == list(range(clip.begin, min(clip.begin + n_samples, n)))
        shift = (0, *shifts)[number % (1 + len(shifts))]
        latest = max(clip.start, n - n_samples)
        assert clip.begin == min(max(clip.start + shift, 0), latest)
    assert (
        source.longest <= n_samples + stride + 2 * 9 + 2 * 7
    )  # memory: a window, and what lies around it


def test_dropping_what_is_not_decoded_yet_skips_it():
    clips = list(stream.cut(Samples(50), n_samples=3, stride=20))
    assert [clip.samples.tolist() for clip in clips] == [[0, 1, 2], [20, 21, 22], [40, 41, 42]]


# Files --------------------------------------------------------------------------------------------


def test_recordings_are_found_in_subfolders_in_order(tmp_path):
    for name in (
        "b.ogg",
        "a/z.WAV",
        "a/y.flac",
        ".hidden.ogg",
        ".cache/x.ogg",
        "notes.txt",
        "c.mp3",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "folder.ogg").mkdir()
    names = ["a/y.flac", "a/z.WAV", "b.ogg", "c.mp3"]
    assert stream.find_recordings(tmp_path).paths == {name: tmp_path / name for name in names}
    notes = tmp_path / "notes.txt"  # named by the user
    assert stream.find_recordings(notes).paths == {"notes.txt": notes}


def test_links_out_of_the_folder_are_said_and_followed_if_asked(tmp_path, caplog):
    """As prepare_audios.py does, so that both read the same."""
    folder, disk = tmp_path / "field", tmp_path / "disk"
    for path in (folder / "a.wav", disk / "b.wav"):
        path.parent.mkdir()
        path.write_text("")
    (folder / "out").symlink_to(disk)
    (folder / "again.wav").symlink_to(folder / "a.wav")
    assert list(stream.find_recordings(folder).paths) == ["a.wav", "again.wav"]
    assert "1 links lead out of" in caplog.text and "not followed: out; --follow" in caplog.text
    found = stream.find_recordings(folder, follow_links=True)
    assert list(found.paths) == ["a.wav", "again.wav", "out/b.wav"]


def test_sound_of_other_kinds_is_named_with_the_way_out(tmp_path, caplog):
    """A phone's recording, one without a suffix, and a table beside them."""
    soundfile.write(tmp_path / "plain", np.zeros(100), 8000, format="WAV")
    (tmp_path / "phone.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(100))
    (tmp_path / "notes.csv").write_text("a,b")
    found = stream.find_recordings(tmp_path)
    assert list(found.paths) == ["plain"] and list(found.unread) == ["phone.m4a"]
    assert "ffmpeg -i phone.m4a phone.flac" in found.unread["phone.m4a"]
    assert "phone.m4a is left out: libsndfile cannot read M4A" in caplog.text


def test_where_there_is_none_it_says_where_it_looked(tmp_path, caplog):
    assert stream.find_recordings(tmp_path) == ({}, {})
    assert f"no recordings in {tmp_path} or below" in caplog.text
    with pytest.raises(UserError, match="no such recording or folder"):
        stream.find_recordings(tmp_path / "nothing")


# A day of audio -----------------------------------------------------------------------------------

DAY = """
import re, sys
from pathlib import Path
import predict
from inference import scorers
from inference.partial import PartialResults
from inference.windows import Plan
from configs import Config
from tests.predicting import save_model, tiny
folder = Path(sys.argv[1])
config = tiny(sample_rate=1000, fmax=500.0, period=200.0, n_fft=256, hop_length=4000, n_mels=16)
path = save_model(folder / "m.pth", config, class_names=[str(number) for number in range(900)])
models = scorers.TorchModels([path], Config(valid_bs=8, num_workers=2, device="cpu"))
frames = Plan(frames_dir=folder / "frames")
for name, plan in (("minutes.wav", frames), ("day.wav", frames), ("day.wav", Plan())):
    with PartialResults(folder / f"{name}{plan.needs_frames}.partial", {}) as partial:
        predict.score_recordings(models, {name: folder / name}, plan, partial)
        # ru_maxrss would count what pytest held when it forked; /proc counts anew.
        peak_kb = int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
        print(partial[name].scores.shape[1], peak_kb // 1024)
"""


def long_wav(path: Path, seconds: int, rate: int = 1000) -> None:
    """Silence with a header that counts it; the file takes no room on the disk."""
    soundfile.write(path, np.zeros(0), rate, subtype="PCM_16")
    n_bytes = 2 * seconds * rate
    with open(path, "r+b") as file:
        header = bytearray(file.read(44))
        header[4:8], header[40:44] = (
            (36 + n_bytes).to_bytes(4, "little"),
            n_bytes.to_bytes(4, "little"),
        )
        file.seek(0)
        file.write(header)
        file.truncate(44 + n_bytes)


@pytest.mark.slow
def test_a_day_takes_no_more_memory_than_ten_minutes(tmp_path):
    long_wav(tmp_path / "minutes.wav", 600)
    long_wav(tmp_path / "day.wav", 86_400)
    line = [sys.executable, "-c", DAY, str(tmp_path)]
    paths = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "PATH": "/usr/bin:/bin"}
    answer = subprocess.run(
        line, capture_output=True, text=True, env=paths, timeout=300, check=False
    )
    assert answer.returncode == 0, answer.stderr
    found = [tuple(map(int, row.split())) for row in answer.stdout.splitlines()]
    assert [n_windows for n_windows, _ in found] == [3, 432, 432]
    # MB; the day's samples would take 345, its frames 78
    assert found[-1][1] - found[0][1] < 50
