"""Waveform transforms: crops, gains, noise, pitch and tempo, each measured on the signal."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import transforms
from configs import Config
from tests.reference_signal import octave_slope_db, slow_crop_or_pad
from transforms import (
    Compose,
    CosineVolume,
    GaussianNoise,
    NoiseInjection,
    Normalize,
    OneOf,
    PinkNoise,
    PitchShift,
    RandomVolume,
    TimeStretch,
    build_waveform_augmentation,
    crop_or_pad,
    normalize_peak,
)

RATE = 32_000


def tone(hz: float, seconds: float = 1.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE)) / RATE)).astype(
        np.float32
    )


def peak_hz(waveform: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform))))
    return float(np.argmax(spectrum) * RATE / len(waveform))


ALL = {
    "normalize": Normalize(),
    "noise_injection": NoiseInjection(),
    "gaussian": GaussianNoise(),
    "pink": PinkNoise(),
    "pitch": PitchShift(RATE),
    "stretch": TimeStretch(),
    "volume": RandomVolume(),
    "cosine": CosineVolume(),
    "one_of": OneOf([RandomVolume(), GaussianNoise()]),
    "compose": Compose([GaussianNoise(), CosineVolume()]),
}


# crop_or_pad


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 70), n_samples=st.integers(1, 40), seed=st.integers(0, 2**32))
def test_crop_matches_the_loop(n, n_samples, seed):
    waveform = np.random.default_rng(seed).standard_normal(n).astype(np.float32)
    assert crop_or_pad(waveform, n_samples).tolist() == slow_crop_or_pad(waveform, n_samples, 0)
    clip = crop_or_pad(waveform, n_samples, np.random.default_rng(seed))
    starts = range(max(0, n - n_samples) + 1)
    assert any(clip.tolist() == slow_crop_or_pad(waveform, n_samples, start) for start in starts)


@pytest.mark.parametrize(
    ("n", "n_zeros"), [(1, 0), (99, 1), (100, 0), (101, 0), (1000, 0), (40, 20), (51, 49)]
)
def test_crop_has_the_length_asked_for(n, n_zeros, rng):
    clip = crop_or_pad(np.ones(n, np.float32), 100, rng)
    assert clip.shape == (100,) and clip.dtype == np.float32
    assert np.count_nonzero(clip == 0) == n_zeros and not clip[100 - n_zeros :].any()


def test_random_crops_start_everywhere_and_the_last_start_is_possible(rng):
    waveform = np.arange(13, dtype=np.float32)
    starts = {int(crop_or_pad(waveform, 10, rng)[0]) for _ in range(200)}
    assert starts == {0, 1, 2, 3}


def test_crop_scales_int16_to_full_scale():
    clip = crop_or_pad(np.array([32767, -32767, 0, 16384], np.int16), 4)
    np.testing.assert_allclose(clip, [1.0, -1.0, 0.0, 16384 / 32767], rtol=1e-7)


def test_crop_of_a_memory_map_reads_the_crop_alone(tmp_path):
    path = tmp_path / "long.npy"
    np.save(path, np.arange(100_000, dtype=np.float32))
    seen = []

    class Watched(np.memmap):
        def __getitem__(self, key):
            seen.append(key)
            return super().__getitem__(key)

    recording = np.load(path, mmap_mode="r").view(Watched)
    clip = crop_or_pad(recording, 50, np.random.default_rng(3))
    (key,) = seen
    assert key.stop - key.start == 50
    assert type(clip) is np.ndarray and clip.flags.writeable
    np.testing.assert_array_equal(clip, np.arange(key.start, key.stop))


@pytest.mark.parametrize(
    "waveform",
    [np.zeros(0, np.float32), np.zeros((2, 5), np.float32), np.float32(1), np.zeros(5, np.int32)],
)
def test_crop_refuses_what_is_no_waveform(waveform):
    with pytest.raises(ValueError, match="expected a float or int16 waveform"):
        crop_or_pad(waveform, 10)


# What every transform keeps


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_input_stays_and_output_is_float32_and_repeatable(name, dtype):
    waveform = tone(700, 0.3).astype(dtype)
    before = waveform.copy()
    first = ALL[name](waveform, np.random.default_rng(1))
    again = ALL[name](waveform, np.random.default_rng(1))
    np.testing.assert_array_equal(waveform, before)
    assert first.dtype == np.float32 and first.ndim == 1 and not np.shares_memory(first, waveform)
    np.testing.assert_array_equal(first, again)
    if name != "stretch":
        assert len(first) == len(waveform)
    if name != "normalize":
        assert not np.array_equal(first, ALL[name](waveform, np.random.default_rng(2)))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("n_samples", [1, 2, 3, 500])
def test_short_and_silent_waveforms_stay_finite(name, n_samples, rng):
    for waveform in (np.zeros(n_samples, np.float32), np.full(n_samples, 0.5, np.float32)):
        changed = ALL[name](waveform, rng)
        assert len(changed) >= 1 and np.isfinite(changed).all()


@pytest.mark.parametrize("name", ALL)
def test_global_generators_are_neither_read_nor_moved(name):
    waveform = tone(700, 0.2)
    state = np.random.get_state()[1].copy()  # noqa: NPY002 - what must not be touched
    first = ALL[name](waveform, np.random.default_rng(1))
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002
    np.random.seed(99)  # noqa: NPY002
    np.testing.assert_array_equal(ALL[name](waveform, np.random.default_rng(1)), first)


def test_p_is_the_share_of_waveforms_that_change(rng):
    waveform = np.ones(4, np.float32)
    transform = RandomVolume((6.0, 6.0), p=0.3)
    changed = [not np.array_equal(transform(waveform, rng), waveform) for _ in range(2000)]
    assert np.mean(changed) == pytest.approx(0.3, abs=0.04)  # four standard deviations
    left_alone = RandomVolume(p=0.0)(waveform, rng)
    assert np.array_equal(left_alone, waveform) and not np.shares_memory(left_alone, waveform)


# Each by its measure


def test_normalize_brings_the_peak_to_one():
    np.testing.assert_array_equal(
        normalize_peak(np.array([0.25, -0.5, 0.0])), np.float32([0.5, -1.0, 0.0])
    )
    np.testing.assert_array_equal(
        Normalize()(np.zeros(5), np.random.default_rng(0)), np.zeros(5, np.float32)
    )
    assert np.abs(normalize_peak(np.float32([1e-40, -3e-40]))).max() == 1


@pytest.mark.parametrize("kind", [GaussianNoise, PinkNoise])
@pytest.mark.parametrize("snr_db", [-3.0, 0.0, 12.5])
def test_noise_has_the_snr_asked_for(kind, snr_db, rng):
    waveform = tone(1000)
    noise = kind((snr_db, snr_db))(waveform, rng).astype(np.float64) - waveform
    measured = 10 * np.log10(np.mean(np.square(waveform, dtype=np.float64)) / np.mean(noise**2))
    assert measured == pytest.approx(snr_db, abs=1e-3)


def test_snr_is_drawn_from_its_range(rng):
    waveform = tone(1000, 0.1)
    measured = []
    for _ in range(100):
        noise = GaussianNoise((5.0, 20.0))(waveform, rng) - waveform
        measured.append(10 * np.log10(np.mean(waveform**2) / np.mean(noise**2)))
    assert 4.99 < min(measured) < 7 and 18 < max(measured) < 20.01


def test_noise_has_no_signal_to_compare_with_in_silence(rng):
    assert (
        not GaussianNoise()(np.zeros(100), rng).any() and not PinkNoise()(np.zeros(100), rng).any()
    )


@pytest.mark.parametrize(("kind", "slope_db"), [(GaussianNoise, 0.0), (PinkNoise, -3.0103)])
def test_noise_falls_by_that_many_db_an_octave(kind, slope_db, rng):
    waveform = tone(1000, 4.0)
    noise = kind((0.0, 0.0))(waveform, rng) - waveform
    power = np.abs(np.fft.rfft(noise)) ** 2
    frequencies = np.fft.rfftfreq(len(noise), 1 / RATE)
    octaves = [50 * 2.0**i for i in range(9)]
    in_octave = [power[(frequencies >= hz) & (frequencies < 2 * hz)].mean() for hz in octaves[:-1]]
    assert octave_slope_db(np.array(in_octave), np.array(octaves[:-1])) == pytest.approx(
        slope_db, abs=0.25
    )


def test_noise_injection_has_an_amplitude_up_to_its_maximum(rng):
    deviations = [NoiseInjection(0.04)(np.zeros(4000), rng).std() for _ in range(200)]
    assert 0 <= min(deviations) < 0.002 and 0.037 < max(deviations) < 0.042


@pytest.mark.parametrize(
    ("semitones", "ratio"), [(12.0, 2.0), (-12.0, 0.5), (0.0, 1.0), (7.0, 2 ** (7 / 12))]
)
def test_pitch_shift_moves_the_peak(semitones, ratio, rng):
    shifted = PitchShift(RATE, (semitones, semitones))(tone(1000), rng)
    assert len(shifted) == RATE
    assert peak_hz(shifted) == pytest.approx(1000 * ratio, rel=0.005)


@pytest.mark.parametrize("rate", [0.8, 1.0, 1.25])
def test_stretch_changes_the_length_and_keeps_the_pitch(rate, rng):
    stretched = TimeStretch((rate, rate))(tone(1000), rng)
    assert len(stretched) == round(RATE / rate)
    middle = stretched[2048:-2048]
    assert np.argmax(np.abs(np.fft.rfft(middle))) * RATE / len(middle) == pytest.approx(
        1000, rel=0.005
    )


def test_volume_of_minus_6_db():
    gained = RandomVolume((-6.0, -6.0))(np.ones(3), np.random.default_rng(0))
    np.testing.assert_allclose(gained, 0.5011872, rtol=1e-6)


def test_volume_is_drawn_from_its_range(rng):
    gains_db = [20 * np.log10(RandomVolume((-10.0, 4.0))(np.ones(1), rng)[0]) for _ in range(300)]
    assert -10.01 < min(gains_db) < -9.5 and 3.5 < max(gains_db) < 4.01


def test_cosine_volume_swings_between_two_gains_within_the_range(rng):
    n = 1000
    for _ in range(20):
        gain_db = 20 * np.log10(CosineVolume((-10.0, 4.0))(np.ones(n), rng).astype(np.float64))
        ends, middle = gain_db[0], gain_db[n // 2]
        assert -10.001 <= min(ends, middle) <= gain_db.min() + 1e-5
        assert gain_db.max() - 1e-5 <= max(ends, middle) <= 4.001
        assert gain_db[n // 4] == pytest.approx((ends + middle) / 2, abs=1e-4)


# Combining


def test_compose_runs_in_order(rng):
    np.testing.assert_allclose(
        Compose([RandomVolume((6.0, 6.0)), Normalize()])(np.full(3, 0.2), rng), 1.0
    )
    np.testing.assert_allclose(
        Compose([Normalize(), RandomVolume((20.0, 20.0))])(np.full(3, 0.2), rng), 10.0
    )


def test_one_of_picks_each_alike_and_one_only(rng):
    pick = OneOf(
        [RandomVolume((20.0, 20.0)), RandomVolume((40.0, 40.0)), RandomVolume((60.0, 60.0))]
    )
    values = [round(float(pick(np.ones(1), rng)[0])) for _ in range(900)]
    assert set(values) == {10, 100, 1000}
    assert (
        min(values.count(value) for value in (10, 100, 1000)) > 240
    )  # 300 expected, four deviations


def test_config_chooses_the_transforms():
    assert build_waveform_augmentation(Config()) is None
    config = Config(
        p_noise_injection=0.1,
        p_gaussian_noise=0.2,
        p_pink_noise=0.3,
        p_pitch_shift=0.4,
        p_time_stretch=0.5,
        p_random_volume=0.6,
        p_cosine_volume=0.7,
        noise_injection_max=0.01,
        noise_snr_db=(1.0, 2.0),
        pitch_shift_semitones=(-1.0, 3.0),
        time_stretch_rate=(0.8, 1.2),
        volume_db=(-4.0, 5.0),
    )
    assert build_waveform_augmentation(config) == Compose(
        [
            PitchShift(32_000, (-1.0, 3.0), p=0.4),
            TimeStretch((0.8, 1.2), p=0.5),
            NoiseInjection(0.01, p=0.1),
            GaussianNoise((1.0, 2.0), p=0.2),
            PinkNoise((1.0, 2.0), p=0.3),
            RandomVolume((-4.0, 5.0), p=0.6),
            CosineVolume((-4.0, 5.0), p=0.7),
        ]
    )


def test_only_what_has_a_chance_is_built():
    chosen = build_waveform_augmentation(Config(p_pink_noise=0.5))
    assert [type(transform) for transform in chosen.transforms] == [PinkNoise]


def test_the_module_keeps_no_generator():
    kept = [
        name for name, value in vars(transforms).items() if isinstance(value, np.random.Generator)
    ]
    assert kept == []
