"""Soundscapes with known birds: their places and levels are what the labels say."""

import numpy as np
import pandas as pd
import pytest
import soundfile as sf

from examples.make_soundscapes import (
    at_snr,
    fade_ends,
    loudest_stretch,
    main,
    make_background,
    make_soundscape,
)

RATE = 32_000


def test_snr_is_what_was_asked(rng):
    background = rng.standard_normal(RATE).astype(np.float32) * 0.03
    bird = np.sin(np.arange(RATE) * 0.7).astype(np.float32)
    for snr_db in (-10.0, 0.0, 15.0):
        scaled = at_snr(bird, background, snr_db)
        measured = 10 * np.log10(np.mean(scaled**2) / np.mean(background**2))
        assert measured == pytest.approx(snr_db, abs=1e-4)


def test_the_loudest_stretch_is_found():
    waveform = np.zeros(1000, np.float32)
    waveform[600:700] = 1
    assert loudest_stretch(waveform, 100) == 600
    assert 600 <= loudest_stretch(waveform, 50) <= 650
    assert loudest_stretch(waveform, 1000) == 0


def test_events_say_where_the_mix_differs_from_its_background(rng):
    background = rng.standard_normal(20 * RATE).astype(np.float32) * 0.02
    birds = [
        ("NA", np.ones(5 * RATE, np.float32), 20.0),
        ("22961", np.ones(RATE, np.float32), 20.0),
    ]
    mix, events = make_soundscape("a.ogg", birds, background, bird_s=2.0, rng=rng)
    changed = np.flatnonzero(np.abs(mix - background) > 1e-6) / RATE
    for event, half in zip(events, (changed[changed < 10], changed[changed >= 10]), strict=True):
        assert (half[0], half[-1]) == pytest.approx((event.start_s, event.end_s), abs=0.02)
    assert [(event.primary_label, event.snr_db) for event in events] == [
        ("NA", 20.0),
        ("22961", 20.0),
    ]
    assert events[0].end_s - events[0].start_s == pytest.approx(2.0)
    assert events[1].end_s - events[1].start_s == pytest.approx(1.0)


def test_fades_start_and_end_at_nothing_and_leave_the_middle():
    faded = fade_ends(np.ones(100, np.float32), 10)
    assert faded[0] < 0.01 and faded[-1] < 0.01 and np.all(faded[10:90] == 1)
    assert fade_ends(np.ones(1, np.float32), 10).tolist() == [1.0]


@pytest.fixture
def inputs(tmp_path, rng):
    """A background clip at another rate, and two prepared recordings, one held back in fold 0."""
    (tmp_path / "noise").mkdir()
    sf.write(tmp_path / "noise" / "a.wav", rng.standard_normal((22_050, 2)) * 0.1, 22_050)
    (tmp_path / "np").mkdir()
    np.save(tmp_path / "np" / "x.npy", np.sin(np.arange(3 * RATE) * 0.5).astype(np.float32))
    np.save(tmp_path / "np" / "y.npy", (1000 * np.sin(np.arange(3 * RATE))).astype(np.int16))
    rows = {"primary_label": ["NA", "b"], "filepath": ["x.npy", "y.npy"], "kfold": [0, 1]}
    pd.DataFrame(rows).to_csv(tmp_path / "train.csv", index=False)
    return tmp_path


def test_background_is_joined_without_gaps(inputs, rng):
    background = make_background([inputs / "noise" / "a.wav"], 5 * RATE, rng)
    assert background.shape == (5 * RATE,) and background.dtype == np.float32
    level = np.sqrt((background.reshape(-1, RATE // 10) ** 2).mean(axis=1))
    assert level.min() > 0.4 * level.max()


def test_the_script_uses_held_back_recordings_only_and_repeats_itself(inputs, capsys):
    flags = [
        "--train-csv",
        str(inputs / "train.csv"),
        "--train-np-dir",
        str(inputs / "np"),
        "--background",
    ]
    flags += [
        str(inputs / "noise"),
        "--count",
        "2",
        "--seconds",
        "6",
        "--birds",
        "3",
        "--snr-db",
        "0",
        "10",
    ]
    for folder in ("one", "two"):
        main([*flags, "--output", str(inputs / folder)])
    labels = pd.read_csv(inputs / "one" / "labels.csv", dtype=str, keep_default_na=False)
    assert labels["primary_label"].tolist() == ["NA", "NA"] and labels["snr_db"].tolist() == [
        "0",
        "10",
    ]
    assert (inputs / "one" / "labels.csv").read_bytes() == (
        inputs / "two" / "labels.csv"
    ).read_bytes()
    sounds = [sf.read(inputs / folder / "soundscape_001.ogg")[0] for folder in ("one", "two")]
    assert len(sounds[0]) == 6 * RATE and np.array_equal(*sounds)
    assert "wrote 2 soundscapes with 2 birds" in capsys.readouterr().out
