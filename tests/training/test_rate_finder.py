"""The learning-rate finder: what it suggests, and that it leaves the experiment alone."""

import numpy as np
import pytest

import train
from tests.small_run import copy_of, make_recordings, tiny_config
from training.rate_finder import FIRST_RATE, N_RATES, draw, set_rates, smoothed, suggest

RATES = np.geomspace(1e-6, 1.0, 100)


def falling_around(rate: float) -> np.ndarray:
    """Losses that fall from 1 to 0 around a rate and rise a thousandfold above it."""
    fall = 1 / (1 + (RATES / rate) ** 2)
    return fall + (RATES / (1000 * rate)) ** 2


@pytest.mark.parametrize("rate", [1e-5, 1e-4, 1e-3])
def test_the_suggestion_is_where_the_loss_falls_fastest(rate):
    noise = np.random.default_rng(0).normal(0, 0.02, len(RATES))
    found = suggest(RATES, smoothed(falling_around(rate) + noise))
    assert rate / 2 < found < rate * 2


def test_a_loss_that_only_rises_suggests_nothing():
    assert suggest(RATES, np.linspace(1, 2, 100)) is None
    assert suggest(RATES[:2], np.array([2.0, 1.0])) is None


def test_smoothing_keeps_a_line_inside_and_a_constant_everywhere():
    assert smoothed(np.full(40, 0.7)) == pytest.approx(0.7)
    line = np.arange(60.0)
    assert smoothed(line)[20:40] == pytest.approx(line[20:40], abs=1e-6)


def test_groups_keep_the_ratio_of_their_rates():
    groups = [{"lr": 1.0}, {"lr": 1.0}]
    set_rates(groups, [1.0, 0.5], 1e-3)
    assert [group["lr"] for group in groups] == [1e-3, 5e-4]


def test_the_plot_is_a_picture_with_or_without_a_suggestion():
    losses = falling_around(1e-3)
    for found in (1e-3, None):
        assert draw(RATES, losses, smoothed(losses), found).startswith(b"\x89PNG")


@pytest.mark.slow
def test_it_leaves_a_table_and_a_plot_and_no_trace_on_the_experiment(tmp_path, capsys):
    config = tiny_config(tmp_path, train_bs=6, scheduler_name="one_cycle", ema_decay=0.9)
    df = make_recordings(config, 12)
    train.run(df, copy_of(config, find_lr=True, accumulation_steps=2))
    assert not config.exp_dir.exists()
    folder = config.models_dir / "find_lr" / "Exp_47" / "fold_0"
    assert (folder / "learning_rates.png").read_bytes().startswith(b"\x89PNG")

    rows = np.genfromtxt(folder / "learning_rates.csv", delimiter=",", names=True)
    assert rows["lr"][0] == FIRST_RATE and 20 < len(rows) <= N_RATES
    assert rows["lr"][1] / rows["lr"][0] == pytest.approx(10 ** (6 / 99))
    assert rows["loss"][-1] > rows["loss"].min()  # it went far enough
    assert "--lr " in capsys.readouterr().out
