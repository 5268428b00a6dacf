"""Log-mel: against librosa, against sums over cosines and sines, and by hand."""

import subprocess
import sys
from pathlib import Path

import librosa
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from audio import mel_kernel
from tests.reference_signal import mel_edges, slow_mel_bank, slow_stft_power
from transforms import log_mel, mel_bank, mel_power, power_to_db

RATE = 32_000
MEL = {
    "sample_rate": RATE,
    "n_fft": 2048,
    "hop_length": 512,
    "n_mels": 224,
    "fmin": 20.0,
    "fmax": 16_000.0,
}
BANKS = [
    (32_000, 2048, 224, 20.0, 16_000.0),
    (32_000, 1024, 64, 0.0, 16_000.0),
    (22_050, 512, 40, 300.0, 8_000.0),
    (48_000, 4096, 128, 1_500.0, 15_000.0),
]


def librosa_log_mel(waveform: np.ndarray, mel: dict, top_db: float) -> np.ndarray:
    settings = {key: value for key, value in mel.items() if key != "sample_rate"}
    power = librosa.feature.melspectrogram(y=waveform, sr=mel["sample_rate"], **settings)
    assert power.dtype == np.float32
    return librosa.power_to_db(power, top_db=top_db)


def clips() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(4)
    time = np.arange(5 * RATE) / RATE
    noise = rng.standard_normal(5 * RATE)
    click = np.zeros(5 * RATE)
    click[70_000] = 1
    return {
        "noise": noise,
        "tone": np.sin(2 * np.pi * 4000 * time),
        "sweep": np.sin(2 * np.pi * (100 * time + 1500 * time**2)),
        "quiet song in noise": 1e-3 * noise + np.sin(2 * np.pi * 3000 * time) * (time % 1 < 0.2),
        "click": click,
        "silence": np.zeros(5 * RATE),
        "offset": np.full(5 * RATE, 0.7),
    }


# The bank


@pytest.mark.parametrize("numbers", BANKS)
def test_bank_equals_librosa_and_the_definition(numbers):
    sample_rate, n_fft, n_mels, fmin, fmax = numbers
    bank = mel_bank(*numbers).toarray()
    theirs = librosa.filters.mel(sr=sample_rate, n_fft=n_fft, n_mels=n_mels, fmin=fmin, fmax=fmax)
    assert bank.dtype == np.float32
    np.testing.assert_allclose(bank, theirs, rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(bank, slow_mel_bank(*numbers), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(("fmin", "fmax"), [(20.0, 16_001.0), (500.0, 500.0), (-1.0, 8_000.0)])
def test_bank_refuses_impossible_frequencies(fmin, fmax):
    with pytest.raises(ValueError, match="expected 0 <= fmin < fmax <= 16000 Hz"):
        mel_bank(RATE, 2048, 224, fmin, fmax)


# Mel power


@pytest.mark.parametrize("name", clips())
@pytest.mark.parametrize("top_db", [80.0, 60.0])
def test_log_mel_equals_librosa(name, top_db):
    waveform = clips()[name].astype(np.float32)
    ours, theirs = log_mel(waveform, top_db=top_db, **MEL), librosa_log_mel(waveform, MEL, top_db)
    assert ours.dtype == np.float32 and ours.shape == theirs.shape == (224, 313)
    np.testing.assert_allclose(ours, theirs, atol=1e-4, rtol=0)  # the contract asks for 1e-3 dB


@settings(max_examples=40, deadline=None)
@given(
    n_samples=st.integers(1, 5000),
    n_fft=st.sampled_from([2, 16, 32, 64, 400, 2048]),
    hop_length=st.sampled_from([1, 100, 256, 512, 3000]),
    sample_rate=st.sampled_from([8_000, 22_050, 48_000]),
    seed=st.integers(0, 2**32),
)
@pytest.mark.filterwarnings(
    "ignore:Empty filters detected:UserWarning", "ignore:n_fft=:UserWarning"
)
def test_log_mel_equals_librosa_for_any_settings(n_samples, n_fft, hop_length, sample_rate, seed):
    if n_samples // hop_length > 200:
        n_samples = 200 * hop_length
    waveform = np.random.default_rng(seed).standard_normal(n_samples).astype(np.float32)
    mel = {
        "sample_rate": sample_rate,
        "n_fft": n_fft,
        "hop_length": hop_length,
        "n_mels": 20,
        "fmin": 50.0,
    }
    mel["fmax"] = sample_rate / 2
    ours, theirs = log_mel(waveform, top_db=80.0, **mel), librosa_log_mel(waveform, mel, 80.0)
    assert ours.shape == theirs.shape == (20, 1 + n_samples // hop_length)
    np.testing.assert_allclose(ours, theirs, atol=1e-4, rtol=0)


@pytest.mark.parametrize("n_samples", [1, 31, 32, 33, 200])
def test_mel_power_is_a_sum_over_cosines_and_sines(n_samples, rng):
    waveform = rng.standard_normal(n_samples).astype(np.float32)
    numbers = (8000, 64, 10, 100.0, 4000.0)
    expected = slow_mel_bank(*numbers) @ slow_stft_power(waveform, n_fft=64, hop_length=20)
    ours = mel_power(
        waveform, sample_rate=8000, n_fft=64, hop_length=20, n_mels=10, fmin=100.0, fmax=4000.0
    )
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-7 * expected.max())


def test_a_4_khz_tone_is_in_band_142():
    time = np.arange(5 * RATE) / RATE
    power = mel_power(np.sin(2 * np.pi * 4000 * time).astype(np.float32), **MEL)
    centres = mel_edges(224, 20.0, 16_000.0)[1:-1]
    assert power.shape == (224, 313)
    assert set(power.argmax(axis=0)) == {142} and round(centres[142]) == 4030


@pytest.mark.parametrize("name", clips())
def test_single_precision_is_close_too(name):
    """For training images; 80 dB below a frame's loudest band, the rounding of float32 shows."""
    waveform = clips()[name].astype(np.float32)
    single = power_to_db(mel_power(waveform, **MEL, dtype=np.float32), 80.0)
    np.testing.assert_allclose(single, log_mel(waveform, top_db=80.0, **MEL), atol=0.01, rtol=0)


@pytest.mark.parametrize("n_frames", [1, 63, 64, 65, 128, 129])
def test_groups_of_64_frames_meet_without_a_seam(n_frames, rng):
    """A frame does not depend on its place among those that are transformed together."""
    waveform = rng.standard_normal(131 * 512).astype(np.float32)
    power = mel_power(waveform, **MEL)
    part = mel_power(waveform[: (n_frames - 1) * 512 + 1024], **MEL)[:, :n_frames]
    np.testing.assert_allclose(part, power[:, :n_frames], rtol=1e-5)


def test_compiles_where_nothing_can_be_kept_on_disk(monkeypatch, rng):
    def refuse(*args, cache=False, **settings):
        if cache:
            raise RuntimeError("cannot cache function 'kernel': no locator available for file")
        return njit(*args, **settings)

    njit = mel_kernel.njit
    monkeypatch.setattr(mel_kernel, "njit", refuse)
    waveform = rng.standard_normal(900).astype(np.float32)
    settings = MEL | {"n_fft": 32, "n_mels": 8}
    expected = mel_power(waveform, **settings)
    mel_kernel.build.cache_clear()
    np.testing.assert_array_equal(mel_power(waveform, **settings), expected)


def test_twice_the_amplitude_is_four_times_the_power(rng):
    waveform = rng.standard_normal(20_000).astype(np.float32)
    np.testing.assert_array_equal(mel_power(2 * waveform, **MEL), 4 * mel_power(waveform, **MEL))


def test_input_stays_and_a_read_only_memory_map_will_do(tmp_path, rng):
    np.save(tmp_path / "a.npy", rng.standard_normal(9000).astype(np.float32))
    recording = np.load(tmp_path / "a.npy", mmap_mode="r")
    np.testing.assert_array_equal(
        mel_power(recording, **MEL), mel_power(np.array(recording), **MEL)
    )


@pytest.mark.parametrize("waveform", [np.zeros(0, np.float32), np.zeros((2, 9000), np.float32)])
def test_no_waveform_is_refused(waveform):
    with pytest.raises(ValueError, match=r"expected a waveform \(n,\)"):
        mel_power(waveform, **MEL)


def test_an_odd_n_fft_is_refused():
    with pytest.raises(ValueError, match="even n_fft"):
        mel_power(np.ones(9000, np.float32), **MEL | {"n_fft": 2047})


def test_the_number_of_threads_changes_no_bit(rng):
    """A worker of the loader has one thread, the main process several; items are the same."""
    waveforms = [rng.standard_normal(n).astype(np.float32) for n in (160_000, 160_000, 47_123, 800)]
    threads = torch.get_num_threads()
    results = {}
    try:
        for n in (1, 2, 3, 4):
            torch.set_num_threads(n)
            results[n] = [log_mel(waveform, top_db=80.0, **MEL) for waveform in waveforms]
    finally:
        torch.set_num_threads(threads)
    for n in (2, 3, 4):
        for one, several in zip(results[1], results[n], strict=True):
            np.testing.assert_array_equal(one, several)


# Decibels


def test_powers_of_ten_by_hand():
    decibels = power_to_db(np.array([[1.0, 0.1, 0.0]]), top_db=80.0)
    assert decibels.dtype == np.float32
    np.testing.assert_allclose(decibels, [[0.0, -10.0, -80.0]], atol=1e-5)
    np.testing.assert_allclose(
        power_to_db(np.array([[1.0, 0.0]]), top_db=200.0), [[0.0, -100.0]], atol=1e-5
    )


def test_a_clip_alone_equals_the_clip_in_a_stack(rng):
    loud, quiet = rng.random((2, 30, 40)) * [[[1.0]], [[1e-7]]]
    stack = power_to_db(np.stack([loud, quiet]), top_db=40.0)
    np.testing.assert_array_equal(stack[0], power_to_db(loud, top_db=40.0))
    np.testing.assert_array_equal(stack[1], power_to_db(quiet, top_db=40.0))
    assert stack[1].max() < stack[0].min()  # a common floor would have lifted the quiet one to it


def test_silence_is_flat_and_finite():
    decibels = log_mel(np.zeros(9000, np.float32), top_db=80.0, **MEL)
    np.testing.assert_allclose(decibels, -100.0, atol=1e-4)


def test_decibels_leave_the_power_alone(rng):
    power = rng.random((3, 4), np.float32)
    before = power.copy()
    power_to_db(power, top_db=1.0)
    np.testing.assert_array_equal(power, before)


def test_importing_the_module_loads_no_heavy_library():
    heavy = {"torch", "librosa", "albumentations", "scipy", "colorednoise", "sklearn", "numba"}
    code = f"import sys, transforms; print(sorted({heavy} & set(sys.modules)))"
    root = Path(__file__).resolve().parent.parent.parent
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "[]"
