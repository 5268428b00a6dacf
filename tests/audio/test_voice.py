"""Human voice in recordings. tests/data/voice.ogg is flite's voice slt saying eight words."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audio import voice
from audio.recording import prepare_recording, treat_voice

RATE = 32_000
SPOKEN = Path(__file__).parent.parent / "data" / "voice.ogg"
needs_silero = pytest.mark.skipif(
    importlib.util.find_spec("silero_vad") is None, reason="needs requirements-voice.txt"
)


def announced(level: float = 1.0) -> tuple[np.ndarray, float]:
    """Make 3 s of a bird, the voice, 2 s of the bird, at 32 kHz; and the seconds of voice."""
    spoken, rate = soundfile.read(SPOKEN, dtype="float32")
    spoken = np.interp(
        np.arange(len(spoken) * RATE // rate) * rate / RATE, np.arange(len(spoken)), spoken
    )
    time = np.arange(RATE * 3) / RATE
    bird = 0.2 * np.sin(2 * np.pi * 4000 * time) * (time % 0.5 < 0.2)
    waveform = np.concatenate([bird, level * spoken, bird[: 2 * RATE]])
    noise = np.random.default_rng(0).normal(0, 0.002, len(waveform))
    return (waveform + noise).astype(np.float32), len(spoken) / RATE


@needs_silero
@pytest.mark.parametrize("level", [1.0, 0.1])
def test_an_announcement_is_found_where_it_is(level):
    waveform, spoken_s = announced(level)
    spans = voice.find_voice(waveform, RATE) / RATE
    assert len(spans) == 1
    assert spans[0, 0] == pytest.approx(3.0, abs=0.35)
    assert spans[0, 1] == pytest.approx(3.0 + spoken_s, abs=0.35)


@needs_silero
def test_a_bird_and_noise_are_no_voice(rng):
    waveform, spoken_s = announced(level=0.0)
    assert len(voice.find_voice(waveform, RATE)) == 0
    assert len(voice.find_voice(rng.normal(0, 0.1, 5 * RATE).astype("f4"), RATE)) == 0
    assert len(voice.find_voice(np.zeros(0, np.float32), RATE)) == 0


@needs_silero
def test_frames_do_not_depend_on_how_many_go_at_once(monkeypatch):
    waveform = announced()[0][::2]
    whole = voice.speech_probabilities(waveform)
    monkeypatch.setattr(voice, "FRAMES_AT_A_TIME", 7)
    np.testing.assert_allclose(voice.speech_probabilities(waveform), whole, atol=1e-5)
    assert len(whole) == -(-len(waveform) // 512)


@needs_silero
@pytest.mark.parametrize("setting", ["off", "flag", "cut"])
def test_what_preparing_makes_of_it(tmp_path, setting):
    waveform, spoken_s = announced()
    soundfile.write(tmp_path / "x.wav", waveform, RATE, subtype="FLOAT")
    how = {"sample_rate": RATE, "max_seconds": 30.0, "audio_dtype": "float32", "trim_db": None}
    row = prepare_recording(tmp_path / "x.wav", tmp_path / "x.npy", voice=setting, **how)
    assert row["status"] == "ok"
    assert ("of human voice" in row["reason"]) == (setting != "off")
    kept_s = len(np.load(tmp_path / "x.npy")) / RATE
    expected = 5.0 if setting == "cut" else 5.0 + spoken_s
    assert kept_s == pytest.approx(expected, abs=0.5)


@needs_silero
def test_a_recording_of_voice_alone_is_left_whole():
    waveform = announced()[0][3 * RATE : -2 * RATE]
    kept, remark = treat_voice(waveform, RATE, is_cut=True)
    assert len(kept) == len(waveform) and "not cut out" in remark


def test_spans_by_hand():
    # Frames of 32 ms: voice for 0.96 s, a pause of 0.32 s, voice for 0.64 s; 3.2 s later 0.32 s.
    frames = [0] * 10 + [1] * 30 + [0] * 10 + [1] * 20 + [0] * 100 + [1] * 10 + [0] * 5
    spans = voice._to_spans(np.array(frames, np.float32))
    # The pause is short, so it counts; the last voice is too short to count; 0.1 s is added around.
    np.testing.assert_allclose(spans, [[0.32 - 0.1, 2.24 + 0.1]], atol=1e-9)
    assert voice._to_spans(np.zeros(50, np.float32)).shape == (0, 2)


def test_without_the_package_the_way_to_install_it_is_said(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"requirements-voice\.txt"):
        voice.find_weights()
