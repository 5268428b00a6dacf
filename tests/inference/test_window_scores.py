"""Windows are scored as flags say, and else as the model's settings do."""

import argparse
import logging

import pytest

from configs import Config
from inference.command_line import read_command_line
from inference.window_scores import settle_scores


def flags_of(config: Config, *flags: str) -> argparse.Namespace:
    found, _ = read_command_line(["m", "r", "--output", "o", *flags])
    settle_scores(found, config)
    return found


@pytest.mark.parametrize(
    ("flags", "score", "shifts"),
    [
        ([], "mix", [0.5, -0.5]),
        (["--score", "clipwise"], "clipwise", [0.5, -0.5]),
        (["--shifts"], "mix", []),
        (["--shifts", "2", "--score", "framewise_max"], "framewise_max", [2.0]),
    ],
)
def test_windows_are_scored_as_the_model_says_unless_flags_say_otherwise(flags, score, shifts):
    asked = flags_of(Config(predict_score="mix", predict_shifts=[0.5, -0.5]), *flags)
    assert (asked.score, asked.shifts) == (score, shifts)


def test_what_a_model_says_of_its_scores_is_logged(caplog):
    with caplog.at_level(logging.INFO, "birdclef"):
        flags_of(Config())
        flags_of(Config(predict_score="mix"), "--score", "clipwise")
        assert not caplog.text
        flags_of(Config(predict_score="mix", predict_shifts=[0.5]))
    assert "as the model's settings say: --score mix --shifts 0.5" in caplog.text
