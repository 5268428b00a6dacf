"""Decoding block by block gives what decoding in one go gives, to the last bit."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audio import decoder, mp3
from audio.decoder import Decoder, OnePass, open_sound
from audio.recording import prepare_recording

MP3_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)


def in_one_go(path: Path) -> np.ndarray:
    """(frames,) float32, channels averaged."""
    whole, _ = soundfile.read(path, dtype="float32", always_2d=True)
    n_channels = whole.shape[1]
    return whole[:, 0] if n_channels == 1 else whole @ np.full(n_channels, 1 / n_channels, "f4")


def in_blocks(path: Path) -> np.ndarray:
    """(frames,) float32 at the native rate, with nothing wrong."""
    recording = Decoder(path, soundfile.info(path).samplerate)
    waveform = np.concatenate(list(recording))
    assert recording.fault == ("", ""), recording.fault
    return waveform


def without_xing(path: Path) -> Path:
    """Drop the first frame of an MP3, which states the length and holds no sound."""
    data = path.read_bytes()
    path.write_bytes(data[mp3.frame_size(data[:4], b"") :])
    return path


def check(path: Path) -> None:
    np.testing.assert_array_equal(in_blocks(path), in_one_go(path))


@pytest.mark.parametrize("n_channels", [1, 2])
@pytest.mark.parametrize("sample_rate", MP3_RATES)
def test_mp3_of_few_bits(encode, sample_rate, n_channels):
    # A frame borrows bits of those before it, the more the lower the rate of bits.
    how = {"bitrate_mode": "CONSTANT", "compression_level": 0.95}
    check(encode("x.mp3", sample_rate, n_channels, **how))


@pytest.mark.parametrize("mode", ["CONSTANT", "AVERAGE", "VARIABLE"])
@pytest.mark.parametrize("sample_rate", [8_000, 22_050, 44_100])
def test_mp3_of_every_mode_without_its_length(encode, sample_rate, mode):
    how = {"bitrate_mode": mode, "compression_level": 0.8}
    path = without_xing(encode("x.mp3", sample_rate, **how))
    ours, whole = in_blocks(path), in_one_go(path)
    # libsndfile guesses the length, and may stop early; our own goes on to the last frame.
    n_frames = mp3.walk(path.read_bytes(), wanted=2**60, n_bytes=2**24).n_frames
    n_samples = 1152 if sample_rate >= 32_000 else 576
    assert len(ours) == n_frames * n_samples
    n_both = min(len(ours), len(whole))
    np.testing.assert_array_equal(ours[:n_both], whole[:n_both])


def test_mp3_behind_a_large_picture(encode):
    path = encode("x.mp3", 22_050, bitrate_mode="CONSTANT", compression_level=0.9)
    picture = path.read_bytes()[500:5000] * 60  # which looks like frames
    size = bytes(len(picture) >> shift & 0x7F for shift in (21, 14, 7, 0))
    expected = in_one_go(path)
    path.write_bytes(b"ID3\x03\x00\x00" + size + picture + path.read_bytes())
    np.testing.assert_array_equal(in_blocks(path), expected)


@pytest.mark.parametrize("n_channels", [1, 2])
@pytest.mark.parametrize(
    ("name", "sample_rate", "subtype"),
    [
        ("x.ogg", 32_000, "VORBIS"),
        ("x.ogg", 8_000, "VORBIS"),
        ("x.opus", 48_000, "OPUS"),
        ("x.ogg", 16_000, "OPUS"),
        ("x.flac", 44_100, "PCM_16"),
        ("x.flac", 96_000, "PCM_24"),
        ("x.wav", 44_100, "FLOAT"),
        ("x.wav", 8_000, "ULAW"),
        ("x.wav", 22_050, "MS_ADPCM"),
        ("x.wav", 22_050, "IMA_ADPCM"),
        ("x.aiff", 44_100, "PCM_24"),
        ("x.caf", 44_100, "PCM_16"),
        ("x.au", 8_000, "ULAW"),
        ("x.w64", 44_100, "DOUBLE"),
        ("x.rf64", 44_100, "PCM_16"),
    ],
)
def test_other_kinds(encode, name, sample_rate, subtype, n_channels):
    kind = "OGG" if name.endswith(".opus") else None
    check(encode(name, sample_rate, n_channels, subtype=subtype, format=kind))


def test_a_block_of_any_size_gives_the_same(encode, monkeypatch):
    path = encode("x.mp3", 16_000, bitrate_mode="CONSTANT", compression_level=0.95)
    expected = in_one_go(path)
    for size in (64, 1000, 1152, 2**14):
        monkeypatch.setattr(decoder, "BLOCK_VALUES", size)
        np.testing.assert_array_equal(in_blocks(path), expected)


def test_what_a_seek_would_cost(encode):
    # The check can fail: soundfile's own reading in blocks is wrong by a tenth of full scale.
    path = encode("x.mp3", 16_000, bitrate_mode="CONSTANT", compression_level=0.95)
    with soundfile.SoundFile(path) as file:
        blocks = list(file.blocks(4096, dtype="float32"))
    assert np.abs(np.concatenate(blocks) - in_one_go(path)).max() > 0.01


def test_a_cut_mp3_without_a_length_loses_its_last_frames_alone(encode):
    path = without_xing(encode("x.mp3", 44_100, bitrate_mode="CONSTANT", compression_level=0.5))
    expected, data = in_blocks(path), path.read_bytes()
    path.write_bytes(data[: len(data) // 2 + 77])
    recording = Decoder(path, 44_100)
    ours = np.concatenate(list(recording))
    assert "in 1 places" in recording.fault[1]
    assert len(ours) >= len(expected) / 2 - 3 * 1152
    np.testing.assert_array_equal(ours, expected[: len(ours)])


def test_a_flac_header_that_promises_twice_as_much_costs_no_sample(encode, tmp_path):
    path = encode("x.flac", 32_000)
    expected = in_one_go(path)
    data = bytearray(path.read_bytes())
    # STREAMINFO begins at byte 8; the number of samples is the lowest 36 bits of bytes 10 to 17.
    fields = int.from_bytes(data[18:26], "big")
    assert fields & (2**36 - 1) == len(expected)
    data[18:26] = (fields + len(expected)).to_bytes(8, "big")
    path.write_bytes(data)
    how = {"sample_rate": 32_000, "audio_dtype": "float32", "trim_db": None}
    row = prepare_recording(path, tmp_path / "x.npy", max_seconds=30.0, **how)
    assert row["status"] == "truncated" and "3.00 of 6.00 s" in row["reason"]
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), expected)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("position", [0, 40_000, -1])
def test_one_sample_that_is_not_finite_costs_itself(tmp_path, value, position):
    waveform = np.linspace(-0.5, 0.5, 96_000, dtype=np.float32)
    broken = waveform.copy()
    broken[position], waveform[position] = value, 0
    soundfile.write(tmp_path / "x.wav", broken, 32_000, subtype="FLOAT")
    recording = Decoder(tmp_path / "x.wav", 32_000)
    np.testing.assert_array_equal(np.concatenate(list(recording)), waveform)
    assert recording.fault == ("", "")
    assert recording.remarks == ["1 samples are NaN or infinite and were set to 0"]


def test_a_wav_that_its_recorder_never_finished_says_how_to_mend_it(encode, tmp_path):
    path = encode("x.wav", 32_000)
    data = bytearray(path.read_bytes())
    at = data.find(b"data") + 4
    data[at : at + 4] = bytes(4)
    path.write_bytes(data)
    recording = Decoder(path, 32_000)
    assert sum(map(len, recording)) == 0
    assert "192000 bytes follow" in recording.fault[1] and "ffmpeg -i" in recording.fault[1]


def test_an_mp3_in_a_wav_is_whole_although_its_length_is_a_guess(tmp_path, encode):
    how = {"format": "WAV", "subtype": "MPEG_LAYER_III"}
    try:
        path = encode("x.wav", 44_100, **how)
    except (soundfile.LibsndfileError, ValueError):
        pytest.skip("this libsndfile writes no MP3 into WAV files")
    recording = Decoder(path, 44_100)
    assert sum(map(len, recording)) > 2.9 * 44_100 and recording.fault == ("", "")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_memory_is_that_of_a_block(encode):
    # Ten times the sound takes no more memory: nothing is kept.
    code = (
        "import sys; from pathlib import Path; from audio.decoder import Decoder\n"
        "for block in Decoder(Path(sys.argv[1]), 16_000): pass\n"
        "status = Path('/proc/self/status').read_text()\n"
        "print(status.split('VmHWM:')[1].split()[0])"
    )
    peaks = []
    for seconds in (6.0, 60.0):
        path = without_xing(encode(f"{seconds}.mp3", 16_000, seconds=seconds))
        command = [sys.executable, "-c", code, str(path)]
        peaks.append(int(subprocess.run(command, capture_output=True, check=True).stdout))
    assert peaks[1] < peaks[0] + 3 * 1024  # kB


def test_a_file_is_opened_as_one_that_cannot_be_sought_in(encode):
    with open(encode("x.wav", 8_000), "rb") as file, open_sound(file) as sound:
        assert isinstance(sound, OnePass) and not sound.seekable()
