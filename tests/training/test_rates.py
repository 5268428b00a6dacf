"""Rates by layer, and what is frozen."""

from dataclasses import replace

import pytest
import torch

import train
from configs import Config
from model import TimmSED
from tests.small_run import build, positioned, weights
from training.rates import begin_training, is_of_head, layers_below_the_top, parameter_groups


@pytest.fixture
def model() -> TimmSED:
    torch.manual_seed(0)
    return TimmSED("test_efficientnet", num_classes=3, n_mels=32)


def rates_of(model: TimmSED, config: Config) -> dict[str, float]:
    """The rate of each parameter by its name."""
    names = {id(value): name for name, value in model.named_parameters()}
    groups = parameter_groups(model, config)
    return {names[id(value)]: group["lr"] for group in groups for value in group["params"]}


def test_without_switches_the_optimizer_gets_the_parameters_as_they_are(model):
    given = list(parameter_groups(model, Config()))
    assert [id(value) for value in given] == [id(value) for value in model.parameters()]


def test_the_head_has_a_rate_of_its_own(model):
    rates = rates_of(model, Config(lr=2e-4, head_lr=1e-4))
    assert len(rates) == len(list(model.parameters()))
    for name, lr in rates.items():
        assert lr == (1e-4 if name.startswith(("fc1.", "att_blocks.")) else 2e-4), name


def test_each_layer_learns_slower_than_the_one_after_it(model):
    rates = rates_of(model, Config(lr=1.0, layer_decay=0.5))
    assert rates["encoder.bn2.weight"] == rates["fc1.weight"] == 1.0
    of_blocks = [
        max(lr for name, lr in rates.items() if name.startswith(f"encoder.blocks.{number}."))
        for number in range(len(model.encoder.blocks))
    ]
    assert of_blocks == sorted(set(of_blocks)) and of_blocks[-2] == 0.5
    depth = layers_below_the_top(model)["encoder.conv_stem.weight"]
    assert rates["encoder.conv_stem.weight"] == rates["bn0.weight"] == 0.5**depth
    assert depth == max(layers_below_the_top(model).values()) > 4

    first = parameter_groups(model, Config(lr=1.0, layer_decay=0.5))[0]
    assert first["lr"] == 1.0  # what the history shows


def changed(df, config) -> set[str]:
    """Names of what an epoch's steps changed: backbone, head, statistics."""
    fold = build(df, config)
    before = weights(fold)
    begin_training(fold.parts.model, config, fold.progress.epoch)
    for batch in positioned(fold, 1):
        train.train_step(fold, batch)
    found = set()
    for name, value in weights(fold).items():
        if torch.equal(value, before[name]) or "num_batches" in name:
            continue
        is_statistic = "running_" in name
        found.add("statistics" if is_statistic else "head" if is_of_head(name) else "backbone")
    return found


@pytest.mark.parametrize(
    ("settings", "learns"),
    [
        ({}, {"head", "backbone", "statistics"}),
        ({"frozen_epochs": 1}, {"head", "statistics"}),
        ({"frozen_epochs": 1, "frozen_statistics": "first"}, {"head"}),
        ({"frozen_statistics": "first"}, {"head", "backbone", "statistics"}),
        ({"frozen_statistics": "always"}, {"head", "backbone"}),
    ],
)
def test_what_is_frozen_stays_as_it_is(df, config, settings, learns):
    config = replace(config, p_spec_augment=0.0, **settings)
    assert changed(df, config) == learns


def test_after_the_frozen_epochs_all_learns_again(model):
    config = Config(frozen_epochs=2, frozen_statistics="first")
    begin_training(model, config, 1)
    assert not model.encoder.conv_stem.weight.requires_grad and not model.bn0.training
    begin_training(model, config, 2)
    assert all(value.requires_grad for value in model.parameters()) and model.bn0.training
