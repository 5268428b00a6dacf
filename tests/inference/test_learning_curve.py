"""The law of learning: recovered where it holds, flat where there is nothing to learn."""

import numpy as np
import pandas as pd
import pytest

from inference.learning_curve import N_MORE, Curve, fit_curve, summarise

N = np.array([1, 2, 5, 10, 20, 50])


@pytest.mark.parametrize("law", [Curve(0.9, 0.5, 0.5), Curve(0.7, 0.3, 1.0)])
def test_a_law_without_noise_is_found(law):
    found = fit_curve(N, law.at(N))
    assert found == pytest.approx(law, abs=1e-6)
    assert found.at(40.0) == pytest.approx(law.limit - law.scale * 40**-law.exponent)


def test_the_limit_is_at_most_1_and_what_falls_is_flat():
    steep = fit_curve(N, np.array([0.2, 0.4, 0.6, 0.75, 0.9, 0.99]))
    assert steep.limit <= 1 and steep.scale > 0
    falling = fit_curve(N, np.linspace(0.9, 0.5, 6))
    assert falling.scale == 0 and falling.at(1000) == pytest.approx(0.7)
    assert fit_curve(np.array([4.0]), np.array([0.5])).at(14) == pytest.approx(0.5)


def test_repeats_are_averaged_and_ten_more_follow_the_law():
    law = Curve(0.9, 0.5, 0.5)
    fits = pd.DataFrame(
        [
            {"most": n, "recordings": float(n), "macro_ap": law.at(n) + shift}
            for n in N
            for shift in (-0.02, 0.02)
        ]
    )
    table, curve = summarise(fits)
    assert table["recordings"].tolist() == [*N, 50 + N_MORE]
    assert table["is_predicted"].tolist() == [False] * 6 + [True]
    assert table["low"][0] == pytest.approx(law.at(1) - 0.02)
    assert table["high"][0] == pytest.approx(law.at(1) + 0.02)
    gain = table["macro_ap"].iloc[-1] - table["macro_ap"].iloc[-2]
    assert gain == pytest.approx(float(law.at(60) - law.at(50)), abs=1e-6)
    assert curve == pytest.approx(law, abs=1e-6)
