"""Random filters: their curves by hand, and their effect on the power of tones."""

import numpy as np
import pytest
import scipy.signal

from audio.mel import bank_settings, mel_power, mel_settings
from configs import Config
from images.filters import band_centres, draw_band_gains, low_pass_db


def test_nothing_is_drawn_where_nothing_is_wanted(rng):
    before = rng.bit_generator.state
    assert draw_band_gains(Config(), rng) is None
    assert rng.bit_generator.state == before


def test_the_low_pass_is_a_butterworth_of_second_order():
    hertz = np.array([10.0, 500.0, 1000.0, 2000.0, 8000.0])
    b, a = scipy.signal.butter(2, 1000.0, analog=True)
    _, response = scipy.signal.freqs(b, a, hertz)
    np.testing.assert_allclose(low_pass_db(hertz, 1000.0), 20 * np.log10(np.abs(response)))


def test_bands_are_where_their_tones_are():
    config = Config(n_mels=64)
    centres = band_centres(**bank_settings(config))
    time = np.arange(32_000) / 32_000
    for hertz in (700.0, 4000.0, 11_000.0):
        power = mel_power(np.sin(2 * np.pi * hertz * time), **mel_settings(config))
        loudest = int(power.sum(axis=1).argmax())
        assert abs(centres - hertz).argmin() == loudest


def test_low_pass_leaves_the_low_and_takes_the_high(rng):
    config = Config(p_low_pass=1.0, low_pass_hz=(2000.0, 2000.0))
    gain_db = 10 * np.log10(draw_band_gains(config, rng))
    centres = band_centres(**bank_settings(config))
    np.testing.assert_allclose(gain_db, low_pass_db(centres, 2000.0), atol=1e-4)
    magnitude = draw_band_gains(Config(**config.to_dict() | {"power": 1}), rng)
    np.testing.assert_allclose(20 * np.log10(magnitude), gain_db, atol=1e-4)


@pytest.mark.parametrize("name", ["p_equaliser", "p_filter_augment"])
def test_gains_stay_in_their_range(name, rng):
    config = Config(**{name: 1.0, "filter_db": (-6.0, 3.0)})
    curves = np.stack([10 * np.log10(draw_band_gains(config, rng)) for _ in range(400)])
    assert curves.shape == (400, 224)
    assert -6.0001 < curves.min() < -5.5 and 2.7 < curves.max() < 3.0001
    assert np.ptp(curves, axis=1).min() > 0 and len(np.unique(curves[:, 100].round(6))) > 200


def test_an_equaliser_has_one_rise_or_dip(rng):
    config = Config(p_equaliser=1.0)
    for _ in range(50):
        curve = 10 * np.log10(draw_band_gains(config, rng).astype(np.float64))
        top = np.abs(curve).argmax()
        assert (np.diff(np.abs(curve[: top + 1])) > -1e-6).all()
        assert (np.diff(np.abs(curve[top:])) < 1e-6).all()


def test_how_often(rng):
    config = Config(p_low_pass=0.3)
    gains = [draw_band_gains(config, rng) for _ in range(1500)]
    assert np.mean([gain.min() < 1 for gain in gains]) == pytest.approx(0.3, abs=0.04)
    assert gains[0].dtype == np.float32
