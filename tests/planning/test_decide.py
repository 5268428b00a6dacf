"""planning/decide.py: given settings stand, and every plan is settings."""

import itertools
from dataclasses import fields

import pytest

from configs import Config
from model import build_model
from planning.decide import GIVEN, config_of, decide, given_settings
from planning.facts import Pace
from tests.planning.made_up import facts

KINDS = list(itertools.product([2, 20, 200], [0.0, 0.3], [False, True], ["cpu", "cuda"]))


@pytest.mark.parametrize(("median", "share", "has_backgrounds", "device"), KINDS)
def test_every_plan_is_settings(median, share, has_backgrounds, device):
    found = facts(median=median, background_share=share, has_backgrounds=has_backgrounds)
    found = found.with_pace(Pace(8, 50, 100))
    decisions = decide(found, {"background_dir": "noise"} if has_backgrounds else {})
    config = config_of(decisions)
    assert config.train_bs == 8 and config.rare_birds == []
    needs = config.p_background or config.negative_share or config.no_bird_class
    assert has_backgrounds or not needs


def test_what_is_given_stands():
    given = {"n_mels": 64, "scheduler_name": "cosine", "epochs": 3}
    decisions = {one.setting: one for one in decide(facts(), given)}
    assert {name: decisions[name].value for name in given} == given
    assert {decisions[name].source for name in given} == {GIVEN}
    assert "scheduler_params" not in decisions
    assert config_of(list(decisions.values())).n_mels == 64


def test_lines_stand_in_the_order_of_the_settings():
    order = [field.name for field in fields(Config)]
    found = [order.index(one.setting) for one in decide(facts(), {})]
    assert found == sorted(found)


def test_given_settings_are_those_that_differ(tmp_path):
    assert given_settings(Config()) == {}
    found = given_settings(Config(root=tmp_path, n_mels=64))
    assert found["n_mels"] == 64 and found["root"] == str(tmp_path)
    assert Config(**found) == Config(root=tmp_path, n_mels=64)


def test_a_setting_that_is_named_is_given_though_it_is_the_default():
    assert given_settings(Config(), {"sample_rate"}) == {"sample_rate": 32_000}


def test_a_plan_builds_its_model():
    config = config_of(decide(facts(), {"pretrained": False}))
    assert build_model(config, 4).n_mels == config.n_mels
