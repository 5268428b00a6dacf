"""Waveforms of training clips: signal, roll, background and what is left to the device."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile as sf

from configs import Config, UserError
from images.clips import has_signal
from images.waveforms import Waveforms, folders_of

N = 32_000  # samples in a clip


@pytest.fixture
def config(tmp_path) -> Config:
    """A folder of two backgrounds: tones of 100 and 9000 Hz."""
    (tmp_path / "rain").mkdir()
    time = np.arange(3 * N) / N
    for name, hertz in (("low", 100), ("high", 9000)):
        sf.write(tmp_path / f"rain/{name}.wav", 0.3 * np.sin(2 * np.pi * hertz * time), N)
    return Config(root=tmp_path, period=1.0, background_dir="rain")


def made_of(config: Config, *recordings: np.ndarray, with_backgrounds: bool = False) -> Waveforms:
    rows = []
    for number, recording in enumerate(recordings):
        path = config.train_np_dir / f"a/{number}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, recording)
        rows.append(f"a/{number}.npy")
    return Waveforms(pd.DataFrame({"filepath": rows}), config, with_backgrounds=with_backgrounds)


def test_a_clip_without_signal_is_cut_elsewhere_and_always_in_the_same_place(config):
    recording = np.zeros(30 * N, np.int16)
    recording[20 * N : 20 * N + 400] = 1000 * np.sin(np.arange(400))
    waveforms = made_of(config, recording)
    for seed in range(60):
        first, again = (waveforms.training_clip(0, np.random.default_rng(seed)) for _ in range(2))
        assert has_signal(first) and np.abs(first).max() == 1
        np.testing.assert_array_equal(first, again)


def test_a_recording_without_any_signal_stays_what_it_is(config, rng):
    assert not made_of(config, np.zeros(5 * N, np.float32)).training_clip(0, rng).any()


def test_a_clip_with_signal_costs_no_draw(config):
    recording = np.random.default_rng(4).standard_normal(5 * N).astype(np.float32)
    clip = made_of(config, recording).training_clip(0, np.random.default_rng(7))
    start = np.random.default_rng(7).integers(4 * N, endpoint=True)
    expected = recording[start : start + N]
    np.testing.assert_allclose(clip, expected / np.abs(expected).max(), rtol=1e-6)


def test_only_recordings_of_a_clip_or_less_are_rolled(config):
    config.p_time_shift = 1.0
    ramp = np.arange(1, N + 1, dtype=np.float32)
    waveforms = made_of(config, ramp, np.arange(1, 3 * N + 1, dtype=np.float32))
    firsts = set()
    for seed in range(20):
        rng = np.random.default_rng(seed)
        rolled, cut = waveforms.training_clip(0, rng), waveforms.training_clip(1, rng)
        np.testing.assert_allclose(np.sort(rolled), ramp / N, rtol=1e-6)
        assert (np.diff(cut) > 0).all()
        firsts.add(float(rolled[0]))
    assert len(firsts) > 15


def power_at(waveform: np.ndarray, hertz: int) -> float:
    """Power of a tone of whole periods."""
    return float(np.abs(np.fft.rfft(waveform.astype(np.float64))[hertz]) ** 2)


def test_a_background_lies_under_the_clip_at_the_snr(config):
    config.p_background, config.background_snr_db = 1.0, (6.0, 9.0)
    tone = np.sin(2 * np.pi * 3000 * np.arange(N) / N).astype(np.float32)
    waveforms = made_of(config, tone, with_backgrounds=True)
    heard, snrs = set(), []
    for seed in range(40):
        clip = waveforms.training_clip(0, np.random.default_rng(seed))
        assert np.abs(clip).max() == 1
        powers = {hertz: power_at(clip, hertz) for hertz in (100, 9000)}
        loudest = max(powers, key=powers.get)
        heard.add(loudest)
        snrs.append(10 * np.log10(power_at(clip, 3000) / powers[loudest]))
    assert heard == {100, 9000}
    assert 6.0 <= min(snrs) < 6.5 and 8.5 < max(snrs) <= 9.0


def test_how_often_a_background_is_laid(config):
    config.p_background = 0.3
    tone = np.sin(2 * np.pi * 3000 * np.arange(N) / N).astype(np.float32)
    waveforms = made_of(config, tone, with_backgrounds=True)
    clips = [waveforms.training_clip(0, np.random.default_rng(seed)) for seed in range(400)]
    noisy = [power_at(clip, 100) + power_at(clip, 9000) > 1 for clip in clips]
    assert np.mean(noisy) == pytest.approx(0.3, abs=0.07)


def test_the_numbers_after_the_rows_are_the_backgrounds(config, rng):
    waveforms = made_of(config, np.ones(N, np.float32), with_backgrounds=True)
    assert (waveforms.n_rows, waveforms.n_backgrounds) == (1, 2)
    assert [waveforms.filename(k) for k in range(3)] == ["a/0", "high.wav", "low.wav"]
    high, low = (waveforms.training_clip(number, rng) for number in (1, 2))
    assert power_at(high, 9000) > 1e3 * power_at(high, 100)
    assert power_at(low, 100) > 1e3 * power_at(low, 9000)


def test_backgrounds_are_asked_for_where_there_is_no_folder(config):
    config.background_dir = None
    with pytest.raises(UserError, match="name their folder with --background-dir"):
        made_of(config, np.ones(N, np.float32), with_backgrounds=True)


def test_speed_gives_a_whole_clip_at_another_pitch(config, rng):
    config.p_speed, config.speed_rate = 1.0, (1.25, 1.25)
    tone = np.sin(2 * np.pi * 2000 * np.arange(5 * N) / N).astype(np.float32)
    clip = made_of(config, tone).training_clip(0, rng)
    assert len(clip) == N and np.abs(clip[-100:]).max() > 0.9
    assert int(np.abs(np.fft.rfft(clip)).argmax()) == 2500


def test_a_clip_that_needs_nothing_goes_to_the_device_as_it_is_stored(config, rng):
    config.frontend = "device"
    stored = np.arange(N, dtype=np.int16)
    assert made_of(config, stored).training_clip(0, rng).dtype == np.int16
    config.p_background = 1.0
    noisy = made_of(config, stored, with_backgrounds=True).training_clip(0, rng)
    assert noisy.dtype == np.float32 and np.abs(noisy).max() == 1


# Backgrounds from many places ---------------------------------------------------------------------


def test_files_are_numbered_folder_by_folder():
    paths = [Path(name) for name in ("rain/a.npy", "wind/b.npy", "rain/c.npy", "d.npy")]
    assert [numbers.tolist() for numbers in folders_of(paths)] == [[3], [0, 2], [1]]


def test_a_small_folder_is_drawn_as_often_as_a_large_one(config):
    time = np.arange(N) / N
    for number in range(7):
        path = config.background_dir / f"wind/{number}.wav"
        path.parent.mkdir(exist_ok=True)
        sf.write(path, 0.3 * np.sin(2 * np.pi * 3000 * time), N)
    config.background_by_folder, rng = True, np.random.default_rng(1)
    waveforms = made_of(config, np.ones(N, np.float32), with_backgrounds=True)
    drawn = [waveforms.filename(waveforms._draw_background(rng)) for _ in range(400)]
    share = np.mean([name.startswith("wind/") for name in drawn])
    assert share == pytest.approx(0.5, abs=0.1)  # 7 of 9 recordings are in it


def test_a_second_background_lies_under_a_clip(config):
    config.p_background, config.p_second_background = 1.0, 1.0
    config.background_snr_db = (0.0, 0.0)
    song = np.sin(2 * np.pi * 4000 * np.arange(N) / N).astype(np.float32)
    waveforms = made_of(config, song, with_backgrounds=True)
    found = set()
    for seed in range(12):
        clip = waveforms.training_clip(0, np.random.default_rng(seed))
        levels = [power_at(clip, hertz) / power_at(clip, 4000) for hertz in (100, 9000)]
        found.add(tuple(round(level, 1) for level in levels))
        # at 0 dB the first has the song's power, the second that of both together
        assert sum(levels) > 2.9
    assert {(1.0, 2.0), (2.0, 1.0)} <= found
