"""What a run that goes on may change, what it may not, and what another learning rate does."""

from pathlib import Path

import pytest
import torch
from torch.optim import lr_scheduler

from configs import Config, UserError
from training import changes

SCHEDULES = {
    "ExponentialLR": {"gamma": 0.5},
    "CosineAnnealingLR": {"T_max": 8},
    "MultiStepLR": {"milestones": [1, 5]},
    "OneCycleLR": {"max_lr": 0.1, "total_steps": 8, "cycle_momentum": False},
    "LambdaLR": {"lr_lambda": lambda step: 1 / (1 + step)},
}


def make_schedule(name):
    optimizer = torch.optim.AdamW(torch.nn.Linear(3, 2).parameters(), lr=0.1)
    return optimizer, getattr(lr_scheduler, name)(optimizer, **SCHEDULES[name])


def take_steps(optimizer, scheduler, n):
    rates = []
    for _ in range(n):
        optimizer.step()
        scheduler.step()
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


@pytest.mark.parametrize("name", SCHEDULES)
def test_another_rate_scales_what_is_left_of_the_schedule(name):
    optimizer, scheduler = make_schedule(name)
    take_steps(optimizer, scheduler, 3)
    changes.scale_rates(optimizer, scheduler, 0.5)
    slower = take_steps(optimizer, scheduler, 4)

    whole = take_steps(*make_schedule(name), 7)
    assert slower == pytest.approx([rate / 2 for rate in whole[3:]], rel=1e-9)


PATH, NAMES = Path("last.pth"), ["NA", "22961", "Rana temporaria"]


def state_of(**settings):
    """As much of a checkpoint as the comparison looks at."""
    return {"class_names": NAMES, "config": Config(**settings).to_dict()}


def test_other_classes_are_refused_by_name():
    with pytest.raises(UserError, match=r"other classes \(3 there, 2 here; Rana temporaria\)"):
        changes.check_same_setup(state_of(), PATH, Config(), ["NA", "22961"])


@pytest.mark.parametrize(
    ("then", "now", "message"),
    [
        ({}, {"n_mels": 128}, "n_mels=224, now it is 128"),
        ({}, {"base_model_name": "resnet18"}, "base_model_name='.*', now it is 'resnet18'"),
        ({}, {"scheduler_params": {"patience": 9}}, "scheduler_params=.*5}, now it is .*9}"),
        ({"scheduler_name": "cosine"}, {"epochs": 200}, "epochs=120, now it is 200"),
        ({"scheduler_name": "one_cycle"}, {"train_bs": 16}, "train_bs=32, now it is 16"),
    ],
)
def test_what_would_make_another_experiment_is_refused(then, now, message):
    with pytest.raises(UserError, match=f"trained with {message}.*--exp-id"):
        changes.check_same_setup(state_of(**then), PATH, Config(**then, **now), NAMES)


def test_inside_an_epoch_the_batch_size_is_fixed(caplog):
    config = Config(train_bs=16)
    with pytest.raises(UserError, match="train_bs=32, now it is 16"):
        changes.check_same_setup(state_of() | {"batch": 3}, PATH, config, NAMES)

    changes.check_same_setup(state_of() | {"batch": 0}, PATH, config, NAMES)
    assert caplog.messages == ["last.pth: train_bs was 32, from here on it is 16"]


def test_what_changes_no_result_changes_without_a_word(caplog):
    config = Config(num_workers=7, device="cpu", valid_bs=4, models_dir="elsewhere")
    changes.check_same_setup(state_of(), PATH, config, NAMES)
    assert caplog.messages == []


def test_what_may_change_results_is_logged(caplog):
    config = Config(epochs=200, audio_dtype="int16")
    changes.check_same_setup(state_of(), PATH, config, NAMES)
    assert caplog.messages == [
        "last.pth: audio_dtype was 'float32', from here on it is 'int16'",
        "last.pth: epochs was 120, from here on it is 200",
    ]


def test_parameters_that_an_older_version_did_not_write_down_are_the_defaults():
    state = state_of(scheduler_name="cosine")
    state["config"]["scheduler_params"] = {}
    config = Config(scheduler_name="cosine", scheduler_params={"T_max": 0})
    changes.check_same_setup(state, PATH, config, NAMES)

    config = Config(scheduler_name="cosine", scheduler_params={"T_max": 9})
    with pytest.raises(UserError, match="scheduler_params"):
        changes.check_same_setup(state, PATH, config, NAMES)


@pytest.mark.parametrize("name", [[], {}, None, "unheard of"])
def test_a_strangers_schedule_is_another_schedule(name):
    state = state_of()
    state["config"]["scheduler_name"] = name
    with pytest.raises(UserError, match="scheduler_name"):
        changes.check_same_setup(state, PATH, Config(), NAMES)
