"""Recordings that sound the same, and recordings that do not."""

import io

import numpy as np
import pytest
import soundfile as sf
import soxr

from catalog import fingerprint as fp

RATE = 32_000


def song(rng: np.random.Generator, seconds: float = 6.0, pitch: float = 3000.0) -> np.ndarray:
    """Make syllables at random times on a faint noise: two of one pitch are of one species."""
    time = np.arange(int(seconds * RATE)) / RATE
    waveform = 0.02 * rng.standard_normal(len(time))
    for start in np.sort(rng.uniform(0, seconds - 0.3, round(2 * seconds))):
        part = (time >= start) & (time < start + 0.2)
        sweep = pitch * (time[part] - start) + rng.uniform(1000, 4000) * (time[part] - start) ** 2
        waveform[part] += 0.4 * np.sin(2 * np.pi * sweep) * np.hanning(part.sum())
    return waveform.astype(np.float32)


def coded(waveform: np.ndarray, rate: int, **form: str) -> np.ndarray:
    """Write a waveform in a lossy format at a rate and read it at the rate it had."""
    file = io.BytesIO()
    sf.write(file, soxr.resample(waveform, RATE, rate), rate, **form)
    file.seek(0)
    back, rate = sf.read(file, dtype="float32")
    return soxr.resample(back, rate, RATE)


COPIES = {
    "louder": lambda waveform: waveform * 1.7,
    "int16": lambda waveform: np.round(waveform * 2000).astype(np.int16),
    "at 16 kHz": lambda waveform: soxr.resample(
        soxr.resample(waveform, RATE, 16_000), 16_000, RATE
    ),
    "Ogg": lambda waveform: coded(waveform, RATE, format="OGG", subtype="VORBIS"),
    "MP3": lambda waveform: coded(waveform, 44_100, format="MP3", subtype="MPEG_LAYER_III"),
    "Opus": lambda waveform: coded(waveform, 48_000, format="OGG", subtype="OPUS"),
    "begins later": lambda waveform: waveform[777:] * 0.5,
    "trimmed": lambda waveform: waveform[RATE:],
}


def write(folder, waveforms) -> list:
    paths = []
    for number, waveform in enumerate(waveforms):
        paths.append(folder / f"{number}.npy")
        np.save(paths[-1], waveform)
    return paths


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_is_found_among_songs_of_its_species(tmp_path, rng, how):
    songs = [song(rng) for _ in range(8)]
    copies = [COPIES[how](waveform) for waveform in songs[:3]]
    groups = fp.find_same_sound(write(tmp_path, [*songs, *copies]), RATE)
    assert groups[8:].tolist() == groups[:3].tolist()
    assert len(set(groups[:8])) == 8


def test_recordings_that_differ_in_their_noise_alone_are_not_one(tmp_path, rng):
    time = np.arange(3 * RATE) / RATE
    tone = 0.4 * np.sin(2 * np.pi * 2900 * time) * (time % 0.5 < 0.3)
    noisy = [tone + 0.02 * rng.standard_normal(len(time)) for _ in range(6)]
    paths = write(tmp_path, [waveform.astype(np.float32) for waveform in noisy])
    assert len(set(fp.find_same_sound(paths, RATE))) == 6


def test_what_has_no_sound_or_cannot_be_read_is_joined_with_nothing(tmp_path, rng):
    nothing = [np.zeros(3 * RATE), np.zeros(3 * RATE), np.full(100, 0.5), np.full(4 * RATE, 0.5)]
    paths = write(tmp_path, [waveform.astype(np.float32) for waveform in nothing])
    (tmp_path / "damaged.npy").write_bytes(b"\x93NUMPY")
    paths += [tmp_path / "damaged.npy", tmp_path / "gone.npy"]
    assert fp.find_same_sound(paths, RATE).tolist() == [0, 1, 2, 3, 4, 5]
    assert fp.find_same_sound([], RATE).tolist() == []


def test_copies_are_found_in_large_archives_too(tmp_path, rng, monkeypatch):
    monkeypatch.setattr(fp, "BUCKET", 8)  # so few pictures are compared with one another
    songs = [song(rng, 3.0, pitch) for pitch in np.linspace(1500, 6000, 30)]
    paths = write(tmp_path, [*songs, *(waveform * 0.3 for waveform in songs)])
    assert fp.find_same_sound(paths, RATE).tolist() == [*range(30), *range(30)]


def test_agreement_is_1_for_equal_phases_and_small_for_unrelated_noise(rng):
    one, other = rng.standard_normal((2, 40_000)).astype(np.float32)
    assert fp.agreement(one, 20_000, 3 * one, 20_000, 16_000) == pytest.approx(1, abs=1e-5)
    later = np.concatenate([np.zeros(1234, np.float32), one])
    assert fp.agreement(one, 20_000, later, 20_000, 16_000) == pytest.approx(1, abs=1e-5)
    # A mean of n unit vectors in random directions is about sqrt(pi / 4 / n) long; n is 46 frames.
    assert fp.agreement(one, 20_000, other, 20_000, 16_000) == pytest.approx(0.131, abs=0.02)


@pytest.mark.parametrize("rate", [16_000, 22_050, 32_000, 44_100, 48_000])
def test_any_rate_of_the_prepared_recordings(tmp_path, rng, rate):
    waveforms = [soxr.resample(song(rng), RATE, rate).astype(np.float32) for _ in range(2)]
    groups = fp.find_same_sound(write(tmp_path, [*waveforms, waveforms[0] * 0.2]), rate)
    assert groups.tolist() == [0, 1, 0]


def test_loud_moments_do_not_follow_rumble(rng):
    time = np.arange(32_000) / 16_000
    rumble = np.sin(2 * np.pi * 20 * time) * (time < 1)
    chirp = 0.2 * np.sin(2 * np.pi * 4000 * time) * ((time > 1.5) & (time < 1.7))
    first, *_ = fp.find_moments((rumble + chirp).astype(np.float32), 16_000)
    assert first / 16_000 == pytest.approx(1.6, abs=0.05)
