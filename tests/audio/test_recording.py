"""A recording made an array: what is stored of it, how it is named, and what the row says."""

import io
import os
import zlib

import numpy as np
import pytest
import soundfile

from audio.recording import (
    array_name,
    as_stored,
    prepare_recording,
    samples_crc32,
    save_npy,
    treat_voice,
    trim_silence,
)

SETTINGS = {"sample_rate": 32_000, "audio_dtype": "float32", "trim_db": None}


def write_tone(path, seconds: float, *, amplitude: float = 0.5, rate: int = 32_000):
    time = np.arange(round(seconds * rate)) / rate
    soundfile.write(path, amplitude * np.sin(2 * np.pi * 1000 * time), rate, subtype="FLOAT")
    return path


def test_trimming_by_hand():
    waveform = np.zeros(400, np.float32)  # frames of 10 samples at 1000 Hz
    waveform[100:110] = 0.011  # 39 dB below the peak
    waveform[155], waveform[204] = 1.0, 0.5
    trimmed = trim_silence(waveform, sample_rate=1000, trim_db=40.0)
    np.testing.assert_array_equal(trimmed, waveform[100:210])
    trimmed = trim_silence(waveform, sample_rate=1000, trim_db=39.0)
    np.testing.assert_array_equal(trimmed, waveform[150:210])


def test_what_is_stored_as_int16():
    waveform = np.array([0.0, 0.5, -1.0, 1.0], np.float32)
    np.testing.assert_array_equal(as_stored(waveform, "int16"), [0, 16384, -32767, 32767])
    np.testing.assert_array_equal(as_stored(2 * waveform, "int16"), [0, 16384, -32767, 32767])
    assert as_stored(waveform, "float32") is waveform


def test_a_saved_array_can_be_mapped_and_its_check_sum_is_zlibs(tmp_path):
    waveform = np.linspace(-1, 1, 1000, dtype=np.float32)
    said = save_npy(tmp_path / "deep" / "a.npy", waveform, "float32")
    mapped = np.load(tmp_path / "deep" / "a.npy", mmap_mode="r")
    np.testing.assert_array_equal(mapped, waveform)
    assert said == samples_crc32(waveform) == f"{zlib.crc32(waveform.tobytes()):08x}"
    assert os.listdir(tmp_path / "deep") == ["a.npy"]


def test_names_of_arrays():
    assert array_name("robin/XC1.ogg") == "robin/XC1.ogg.npy"
    assert array_name("top.wav") == "top.wav.npy"
    long = array_name("robin/" + "ö" * 200 + ".wav")
    assert long.startswith("robin/ööö") and len(long.encode()) <= len("robin/") + 255


def test_only_the_first_seconds_are_kept(tmp_path):
    source = write_tone(tmp_path / "a.wav", 3.0)
    row = prepare_recording(source, tmp_path / "a.npy", max_seconds=1.5, **SETTINGS)
    assert (row["status"], row["seconds"], row["native_rate"]) == ("ok", 1.5, 32_000)
    assert np.load(tmp_path / "a.npy").shape == (48_000,)


def test_a_whole_recording_is_the_same_samples_in_pieces(tmp_path):
    source = write_tone(tmp_path / "a.wav", 4.0, rate=44_100)
    part = prepare_recording(source, tmp_path / "part.npy", max_seconds=100.0, **SETTINGS)
    whole = prepare_recording(source, tmp_path / "whole.npy", max_seconds=float("inf"), **SETTINGS)
    first, second = np.load(tmp_path / "part.npy"), np.load(tmp_path / "whole.npy")
    np.testing.assert_array_equal(first, second)
    assert {key: part[key] for key in whole} == whole


def test_nothing_is_written_of_silence(tmp_path):
    source = write_tone(tmp_path / "a.wav", 1.0, amplitude=1e-6)
    for max_seconds in (30.0, float("inf")):
        target = tmp_path / "a.npy"
        row = prepare_recording(source, target, max_seconds=max_seconds, **SETTINGS)
        assert row["status"] == "silent" and row["seconds"] == 0.0
        assert not target.exists()


@pytest.mark.parametrize(
    ("spans", "is_cut", "length", "said"),
    [
        ([], True, 40, ""),
        ([(0, 15)], False, 40, "1.5 s of human voice"),
        ([(0, 15)], True, 25, "1.5 s of human voice are cut out"),
        ([(0, 35)], True, 40, "3.5 s of human voice: nearly all of it, and not cut out"),
    ],
)
def test_voice_is_said_or_cut_out(monkeypatch, spans, is_cut, length, said):
    found = np.array(spans, dtype=int).reshape(-1, 2)
    monkeypatch.setattr("audio.recording.find_voice", lambda waveform, sample_rate: found)
    waveform = np.arange(40, dtype=np.float32)
    kept, remark = treat_voice(waveform, 10, is_cut=is_cut)
    assert (len(kept), remark) == (length, said)
    np.testing.assert_array_equal(kept, waveform[len(waveform) - length :])


def test_the_header_of_a_whole_recording_is_numpys(tmp_path):
    source = write_tone(tmp_path / "a.wav", 0.5)
    prepare_recording(source, tmp_path / "a.npy", max_seconds=float("inf"), **SETTINGS)
    content = (tmp_path / "a.npy").read_bytes()
    again = io.BytesIO()
    np.save(again, np.load(tmp_path / "a.npy"))
    assert content == again.getvalue()


@pytest.mark.parametrize("dtype", ["int16", "float32"])
@pytest.mark.parametrize(("peak", "said"), [(20_000.0, 32768), (5e6, 2**23), (2e9, 2**31)])
def test_a_whole_recording_of_floats_on_the_scale_of_integers_is_brought_to_full_scale(
    tmp_path, dtype, peak, said
):
    time = np.arange(64_000) / 32_000
    quiet_at_first = np.where(time < 1, 0.01, 1.0)  # its peak is known at the end alone
    wave = (peak * quiet_at_first * np.sin(2 * np.pi * 440 * time)).astype(np.float32)
    source = tmp_path / "matlab.wav"
    soundfile.write(source, wave, 32_000, subtype="FLOAT")

    settings = SETTINGS | {"audio_dtype": dtype}
    row = prepare_recording(source, tmp_path / "w.npy", max_seconds=float("inf"), **settings)
    stored = np.load(tmp_path / "w.npy") / (32767 if dtype == "int16" else 1)
    np.testing.assert_allclose(stored, wave / said, atol=2e-5)
    assert f"divided by {said}" in row["reason"] and row["status"] == "ok"
    assert row["peak"] == pytest.approx(peak / said, rel=1e-3) and row["seconds"] == 2.0
