"""Offsets, dead stretches, integer scales and clipping, with values worked by hand."""

import numpy as np
import pytest
import soundfile

from audio import signals
from audio.recording import prepare_recording

RATE = 32_000
RECIPE = {"sample_rate": RATE, "max_seconds": 30.0, "audio_dtype": "float32", "trim_db": None}


@pytest.fixture
def song(rng) -> np.ndarray:
    """Two seconds, (64000,) float32, peak below 0.4."""
    time = np.arange(2 * RATE) / RATE
    tone = 0.3 * np.sin(2 * np.pi * 3000 * time) * (time % 0.5 < 0.3)
    return (tone + rng.normal(0, 0.01, len(time))).astype(np.float32)


def prepared(tmp_path, waveform: np.ndarray, rate: int = RATE, **how) -> tuple[dict, np.ndarray]:
    """Prepare a WAV file; give its row and array."""
    recipe = {key: how.pop(key) for key in list(how) if key in RECIPE}
    soundfile.write(tmp_path / "x.wav", waveform, rate, **{"subtype": "FLOAT"} | how)
    row = prepare_recording(tmp_path / "x.wav", tmp_path / "x.npy", **RECIPE | recipe)
    return row, np.load(tmp_path / "x.npy").astype(np.float32)


# Dead stretches -----------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["before", "between", "behind"])
@pytest.mark.parametrize("value", [0.0, 0.25])
def test_a_dead_stretch_is_cut_out_wherever_it_is(song, where, value):
    dead = np.full(3 * RATE, value, np.float32)
    parts = {"before": [dead, song], "between": [song, dead, song], "behind": [song, dead]}[where]
    kept, remark = signals.cut_still(np.concatenate(parts), RATE)
    expected = len(song) * (len(parts) - 1)
    assert expected <= len(kept) <= expected + 2 * 320  # frames of 10 ms at its edges
    what = "zeros" if value == 0 else "one and the same value (0.25)"
    assert remark == f"3.0 s of {what} are cut out"


@pytest.mark.parametrize("seconds", [0.1, 0.9])
def test_short_pauses_stay(song, seconds):
    whole = np.concatenate([song, np.zeros(round(seconds * RATE), np.float32), song])
    kept, remark = signals.cut_still(whole, RATE)
    assert kept is whole and remark == ""


def test_a_quiet_recording_is_not_dead(rng):
    whole = (np.rint(rng.normal(0, 0.6, 10 * RATE)) / 32768).astype(np.float32)
    assert signals.cut_still(whole, RATE)[1] == ""


def test_a_tone_in_step_with_the_look_is_not_dead():
    # One sample in 10 ms of a 100 Hz tone is always the same; the look alone would be deceived.
    tone = np.sin(2 * np.pi * 100 * np.arange(5 * RATE) / RATE).astype(np.float32)
    kept, remark = signals.cut_still(tone, RATE)
    assert kept is tone and remark == ""


def test_nothing_but_zeros_is_returned_whole():
    kept, remark = signals.cut_still(np.zeros(3 * RATE, np.float32), RATE)
    assert len(kept) == 3 * RATE and remark == ""


@pytest.mark.parametrize("n", [0, 1, 100, 32_001])
def test_waveforms_of_any_length(n):
    assert len(signals.cut_still(np.ones(n, np.float32), RATE)[0]) == n


@pytest.mark.parametrize(("rate", "subtype"), [(44_100, "PCM_16"), (48_000, "FLOAT")])
def test_zeros_that_were_resampled_are_cut_out(tmp_path, rate, subtype):
    time = np.arange(rate) / rate
    song = 0.5 * np.sin(2 * np.pi * 2000 * time)
    whole = np.concatenate([song, np.zeros(20 * rate)])
    row, array = prepared(tmp_path, whole, rate, subtype=subtype)
    assert row["status"] == "ok" and "zeros are cut out" in row["reason"]
    assert row["seconds"] == pytest.approx(1.0, abs=0.05) and (array != 0).mean() > 0.9


# Scales -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("peak", "divisor"),
    [(16.0, 1), (17.0, 2**15), (32768.0, 2**15), (40000.0, 2**23), (2.0**30, 2**31)],
)
def test_integer_scales_by_their_peak(peak, divisor):
    waveform = np.array([peak, -peak / 2], np.float32)
    scaled, remark = signals.scale_to_unity(waveform, peak)
    assert scaled.tolist() == [peak / divisor, -peak / 2 / divisor]
    assert bool(remark) == (divisor > 1)


@pytest.mark.parametrize("bits", [15, 23, 31])
@pytest.mark.parametrize("audio_dtype", ["float32", "int16"])
def test_floats_on_the_scale_of_integers(tmp_path, song, bits, audio_dtype):
    row, array = prepared(tmp_path, song * 2.0**bits, audio_dtype=audio_dtype)
    assert f"scale of {bits + 1}-bit integers" in row["reason"]
    assert row["peak"] == pytest.approx(np.abs(song).max(), rel=1e-5)
    scale = 32767 if audio_dtype == "int16" else 1
    np.testing.assert_allclose(array / scale, song, atol=2e-5)


# Offsets and clipping -----------------------------------------------------------------------------


def test_offset_by_hand():
    waveform = np.tile(np.array([0.5, 0.1], np.float32), 500)
    offset, remark = signals.find_offset(waveform)
    assert offset == pytest.approx(0.3) and remark == "a constant offset of 0.3 is taken out"


def test_what_is_no_offset(rng, song):
    time = np.arange(RATE) / RATE
    wind = 0.5 * np.sin(2 * np.pi * 0.4 * time)  # moves slowly
    for waveform in (song[:RATE], wind, song[:RATE] + 0.005, song[:10] + 1):
        assert signals.find_offset(waveform.astype(np.float32)) == (0.0, "")


def test_an_offset_in_a_recording(tmp_path, song):
    row, array = prepared(tmp_path, song + np.float32(0.4))
    assert "offset of 0.4" in row["reason"] and abs(array.mean()) < 1e-3
    assert row["peak"] == pytest.approx(np.abs(song).max(), abs=1e-3)


@pytest.mark.parametrize(("gain", "is_clipped"), [(1.0, False), (2.0, False), (6.0, True)])
def test_clipping_is_said(tmp_path, song, gain, is_clipped):
    row, _ = prepared(tmp_path, np.clip(song * gain, -1, 1), subtype="PCM_16")
    assert row["status"] == "ok" and ("clipped" in row["reason"]) is is_clipped


def test_the_few_steps_of_a_quiet_recording_are_no_clipping(rng):
    quiet = (np.rint(rng.normal(0, 1, RATE)).clip(-2, 2) / 32768).astype(np.float32)
    assert signals.describe_quality(quiet, 2 / 32768, "PCM_16") == ""


@pytest.mark.parametrize(
    ("subtype", "remark"),
    [
        ("PCM_U8", "8 bits a sample"),
        ("ULAW", "mu-law samples, 8 bits"),
        ("ALAW", "A-law samples, 8 bits"),
    ],
)
def test_few_bits_are_said(tmp_path, song, subtype, remark):
    row, array = prepared(tmp_path, song, subtype=subtype)
    assert (row["status"], row["reason"]) == ("ok", remark)
    assert np.corrcoef(array, song)[0, 1] > 0.99
