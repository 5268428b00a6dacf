"""Decoder processes: what they hear from libsndfile's decoders, and where else they may run."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

import prepare_audios
from catalog.report import read_report
from configs import Config
from prepare_audios import prepare
from tests.audio.test_damage import encode, frames, song

ROOT = Path(prepare_audios.__file__).resolve().parent
BIG_VALUES = (
    0x1FF << 25
)  # nine bits of an MPEG 1 frame's side information (ISO 11172-3, 2.4.1.7): at most 288


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "data" / "train_audio" / "a").mkdir(parents=True)
    return Config(root=tmp_path, num_workers=1)


@pytest.fixture(scope="module")
def mp3(tmp_path_factory) -> list[bytes]:
    """The frames of four seconds in MP3."""
    return frames(encode(tmp_path_factory.mktemp("mp3") / "x.mp3", song(4.0, 44_100), 44_100))


def with_impossible_side_information(frame: bytes) -> bytes:
    return (
        frame[:4]
        + (int.from_bytes(frame[4:12], "big") | BIG_VALUES).to_bytes(8, "big")
        + frame[12:]
    )


def test_what_the_decoder_mutes_is_reported_and_the_terminal_hears_nothing(config, mp3, capfd):
    folder = config.train_audio_dir / "a"
    muted = [*mp3[:50], with_impossible_side_information(mp3[50]), *mp3[51:]]
    for name, parts in {"1_whole": mp3, "2_muted": muted, "3_whole": mp3}.items():
        (folder / f"{name}.mp3").write_bytes(b"".join(parts))
    table = prepare(config).set_index("filename")
    assert table["status"].tolist() == ["ok", "truncated", "ok"]
    assert (
        table["reason"]["a/2_muted.mp3"]
        == "4.00 s decoded; part of it is muted (big_values too large!)"
    )
    whole, muted = (
        np.load(config.train_np_dir / f"a/{name}.mp3.npy") for name in ("1_whole", "2_muted")
    )
    lost = (np.abs(muted) < 1e-4) & (np.abs(whole) > 1e-3)
    assert (
        400 < lost.sum() < 1200
    )  # of 32,000 a second: about a frame of 26 ms, which is plain silence now
    assert "mpg123" not in "".join(capfd.readouterr())


def test_a_recording_cut_out_of_a_longer_one_is_whole(config):
    """Its first frame borrows bits of the one before it, which is no damage."""
    path = config.train_audio_dir / "a" / "x.mp3"
    how = {"format": "MP3", "bitrate_mode": "CONSTANT", "compression_level": 0.5}
    with soundfile.SoundFile(path, "w", 44_100, 1, **how) as file:
        file.write(song(4.0, 44_100))
    parts = frames(path.read_bytes())
    path.unlink()
    for first in range(2, 12):
        (config.train_audio_dir / "a" / f"{first}.mp3").write_bytes(b"".join(parts[first:]))
    assert prepare(config)["status"].tolist() == ["ok"] * 10


# On a cluster -------------------------------------------------------------------------------------


def run_on_dask(config: Config, *flags: str) -> str:
    """What examples/prepare_on_dask.py says, run by two processes of a cluster of its own."""
    command = [sys.executable, str(ROOT / "examples" / "prepare_on_dask.py"), "--local", "2"]
    command += ["--root", str(config.root), "--max-bad-fraction", "1", *flags]
    # From the project's folder, as people run it: a module of ours called distributed would stand
    # in for dask's.
    answer = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


@pytest.mark.slow
@pytest.mark.skipif(
    not importlib.util.find_spec("dask"), reason="needs dask: requirements-dask.txt"
)
def test_a_dask_cluster_makes_the_same_report_and_keeps_the_time_limits(config, mp3):
    folder = config.train_audio_dir / "a"
    for number in range(8):
        encode(folder / f"{number}.ogg", song(1.0, 32_000, seed=number), 32_000)
    (folder / "cut.ogg").write_bytes((folder / "0.ogg").read_bytes()[:-500])
    (folder / "muted.mp3").write_bytes(
        b"".join([*mp3[:50], with_impossible_side_information(mp3[50]), *mp3[51:]])
    )
    (folder / "text.ogg").write_text("no recording")
    said = run_on_dask(config)
    assert "11 recordings: 8 ok, 2 truncated, 1 unreadable" in said
    assert said.count(" kept 1 decoder processes") == 2  # both workers had recordings to decode
    by_dask = read_report(config.report_path)
    arrays = {path.name: path.read_bytes() for path in config.train_np_dir.glob("a/*.npy")}
    config.report_path.unlink()
    pd.testing.assert_frame_equal(prepare(config), by_dask)
    assert {path.name: path.read_bytes() for path in config.train_np_dir.glob("a/*.npy")} == arrays
    config.report_path.unlink()
    run_on_dask(config, "--file-timeout-s", "0.00001")
    reasons = read_report(config.report_path)["reason"]
    assert (
        reasons == "not done after 1e-05 s (file_timeout_s)"
    ).sum() > 5  # a lucky one is faster than its clock
