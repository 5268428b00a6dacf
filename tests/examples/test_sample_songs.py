"""Songs, clips and noises of examples/sample_songs.py: what can be learned from them."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from examples.make_sample_data import plan_archive
from examples.sample_songs import (
    OUTSIDE,
    SAMPLE_RATE,
    SPECIES,
    render_clip,
    render_recording,
    render_song,
)


def rms(waveform: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64))))


def high_passed(waveform: np.ndarray) -> np.ndarray:
    """(n,) above 350 Hz, where there are birds and little wind."""
    spectrum = np.fft.rfft(waveform)
    spectrum[: round(350 * len(waveform) / SAMPLE_RATE)] = 0
    return np.fft.irfft(spectrum, len(waveform))


def is_loud(waveform: np.ndarray) -> np.ndarray:
    """(n // 320,) bool: which hundredths of a second are within 12 dB of the loudest."""
    frames = waveform[: len(waveform) // 320 * 320].reshape(-1, 320)
    power = np.mean(frames**2, axis=1)
    return power > 0.06 * power.max()


def test_background_birds_are_fainter_than_the_primary_and_sing_at_the_same_time():
    plan = plan_archive(species=6, recordings=12, seconds=6, seed=8)
    chosen = [one for one in plan if one.background and not one.stereo and one.kind == "plain"][:8]
    overlaps = 0
    for one in chosen:
        primary = render_recording(replace(one, background=()))[:, 0]
        background = render_recording(replace(one, background=one.background[:1]))[:, 0] - primary
        primary = high_passed(primary)
        assert -20 < 20 * np.log10(np.abs(background).max() / np.abs(primary).max()) < -3
        overlaps += bool(np.any(is_loud(background) & is_loud(primary)))
    assert overlaps >= 4


def test_recordings_have_songs_from_the_first_seconds_and_silence_between_them():
    for one in plan_archive(species=12, recordings=4, seconds=10, seed=5):
        if one.kind != "plain" or one.stereo:
            continue
        loud = is_loud(high_passed(render_recording(replace(one, background=()))[:, 0]))
        onsets = np.flatnonzero(np.diff(loud.astype(int), prepend=0) == 1)
        assert onsets[0] < 150, f"{one.filename}: nothing in the first 1.5 s"
        pauses = np.diff(np.flatnonzero(loud))
        assert np.sum(pauses > 50) >= 1, f"{one.filename}: no pause of half a second"
        assert pauses.max() < 320, f"{one.filename}: {pauses.max() / 100} s without a song"


@settings(max_examples=40, deadline=None)
@given(
    species=st.integers(0, OUTSIDE),
    seed=st.integers(0, 2**32),
    rate=st.sampled_from([22_050, 32_000, 44_100]),
)
def test_songs_keep_to_their_range_whatever_the_draw(species, seed, rate):
    rng = np.random.default_rng(seed)
    song = render_song(
        species,
        rng=rng,
        pitch=rng.uniform(0.9, 1.1),
        tempo=rng.uniform(0.88, 1.14),
        sample_rate=rate,
    )
    assert song.dtype == np.float32 and song.ndim == 1
    assert 0.25 < len(song) / rate < 4
    assert 0.6 < np.abs(song).max() <= 2.4


def test_pitch_and_tempo_scale_frequency_and_length():
    hooting = [bird.name for bird in SPECIES].index("Hooting")
    plain, higher, slower = (
        render_song(hooting, rng=np.random.default_rng(1), **change)
        for change in ({}, {"pitch": 1.5}, {"tempo": 1.2})
    )
    assert len(higher) == len(plain)
    assert mean_frequency(higher) == pytest.approx(1.5 * mean_frequency(plain), rel=0.01)
    assert len(slower) == pytest.approx(1.2 * len(plain), rel=1e-3)


def image_of(waveform: np.ndarray) -> np.ndarray:
    """(32, n_frames): log-spaced bands every 10 ms, 40 dB below the peak and up as 0 to 1."""
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(waveform, 512), 1024)[
        ::320
    ] * np.hanning(1024)
    power = np.abs(np.fft.rfft(frames)) ** 2  # (n_frames, 513)
    edges = (np.geomspace(350, 10_000, 33) * 1024 / SAMPLE_RATE).astype(int)
    bands = np.array([power[:, low : high + 1].sum(axis=1) for low, high in pairwise(edges)])
    return np.clip(1 + np.log10(bands / bands.max() + 1e-9) / 4, 0, 1)


def likeness(image: np.ndarray, template: np.ndarray) -> float:
    """Highest correlation of a template with an image over all shifts in time."""
    width = template.shape[1]
    image = np.pad(image, ((0, 0), (0, max(0, width - image.shape[1]))))
    starts = range(image.shape[1] - width + 1)
    return max(
        np.corrcoef(image[:, start : start + width].ravel(), template.ravel())[0, 1]
        for start in starts
    )


def test_templates_of_two_songs_find_the_species_of_others(rng):
    templates = [
        (bird, image_of(render_song(bird, rng=rng))[:, :60])
        for bird in range(OUTSIDE + 1)
        for _ in range(2)
    ]
    for bird in range(OUTSIDE + 1):
        found = []
        for _ in range(4):
            song = render_song(
                bird, rng=rng, pitch=np.exp(rng.normal(0, 0.03)), tempo=rng.uniform(0.88, 1.14)
            )
            image = image_of(song)[:, :100]
            found.append(max(templates, key=lambda named: likeness(image, named[1]))[0])  # noqa: B023 - used at once
        assert found.count(bird) >= 3, (
            f"{SPECIES[bird].name} taken for {[SPECIES[other].name for other in found]}"
        )


def mean_frequency(waveform: np.ndarray) -> float:
    """Hz, weighted by power."""
    power = np.abs(np.fft.rfft(waveform, 2**17)) ** 2
    return float(power @ np.fft.rfftfreq(2**17, 1 / SAMPLE_RATE) / power.sum())


def test_mean_frequency_tells_some_birds_apart_but_not_those_made_to_be_alike(rng):
    means = np.array(
        [
            [
                mean_frequency(render_song(bird, rng=rng, pitch=np.exp(rng.normal(0, 0.03))))
                for _ in range(25)
            ]
            for bird in range(6)
        ]
    )

    def separation(one: int, other: int) -> float:
        """Area under the ROC curve of the best single threshold's direction, 0.5 to 1."""
        area = float(np.mean(means[one][:, None] > means[other]))
        return max(area, 1 - area)

    assert separation(3, 0) == 1
    assert max(separation(0, 1), separation(2, 4), separation(2, 5), separation(4, 5)) < 0.9


# Clips with a bird at a known time


@pytest.mark.parametrize("species", range(OUTSIDE + 1))
def test_clip_has_its_bird_at_the_given_time_and_nowhere_else(species):
    clip, empty = (render_clip(bird, rng=np.random.default_rng(7)) for bird in (species, None))
    assert clip.shape == (160_000,) and clip.dtype == np.float32
    bird = clip - empty
    assert not bird[:128_000].any()
    assert rms(bird[128_000:131_200]) > 0.01, "it does not start at second 4"
    assert rms(high_passed(clip)[128_000:]) > 3 * rms(high_passed(clip)[:128_000])


def test_clip_takes_any_span_and_ends_it_without_a_click():
    clip, empty = (
        render_clip(bird, rng=np.random.default_rng(7), seconds=9.0, start=0.5, stop=6.25)
        for bird in (2, None)
    )
    bird = clip - empty
    assert len(clip) == 288_000
    assert not bird[:16_000].any() and not bird[200_000:].any()
    assert np.abs(bird[199_990:200_000]).max() < 0.01
    assert rms(bird[16_000:200_000]) > 0.01


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (3, 3), (4, 5.1)])
def test_clip_refuses_a_span_outside_itself(start, stop):
    with pytest.raises(ValueError, match=f"got start={start}, stop={stop}"):
        render_clip(0, rng=np.random.default_rng(0), start=start, stop=stop)


def test_wind_falls_6_db_an_octave_and_half_the_clips_have_insects():
    power = np.array(
        [
            np.abs(np.fft.rfft(render_clip(None, rng=np.random.default_rng(seed)))) ** 2
            for seed in range(40)
        ]
    )  # (40, n_frequencies), 5 to the hertz
    slope = 10 * np.log10(
        power[:, 1200:1600].mean(axis=1) / power[:, 600:800].mean(axis=1)
    )  # 280 against 140 Hz
    assert np.median(slope) == pytest.approx(-6, abs=0.6)

    blocks = (
        power[:, 20_000:60_000].reshape(40, 200, 200).mean(axis=2)
    )  # 4 to 12 kHz in steps of 40 Hz
    buzzing = blocks.max(axis=1) > 10 * np.median(blocks, axis=1)
    assert 10 <= buzzing.sum() <= 30  # binomial(40, 1/2): outside once in 1000
