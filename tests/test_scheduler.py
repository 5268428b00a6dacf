"""Schedules against closed formulas, their state, and refusals."""

import math

import pytest
import torch

from configs import Config, UserError, load_config
from scheduler import SCHEDULERS, all_params, get_scheduler, stepped_on


def make_optimizer(lr=1e-3):
    return torch.optim.AdamW([torch.nn.Parameter(torch.zeros(2))], lr=lr)


def rates(config, n_steps, *, steps_per_epoch=4, losses=None):
    """Learning rate before each step."""
    optimizer = make_optimizer(config.lr)
    scheduler = get_scheduler(config, optimizer, steps_per_epoch=steps_per_epoch)
    found = []
    for number in range(n_steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step(*([losses[number]] if losses else []))
    return found


def test_the_chosen_schedule_brings_its_own_parameters():
    assert all_params("step", {}) == {"step_size": 30, "gamma": 0.1}
    assert all_params("reduce_lr_on_plateau", {"patience": 9}) == {"factor": 0.9, "patience": 9}
    assert all_params("cosine", {"eta_min": 0.5}) == {"T_max": 0, "eta_min": 0.5}


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("cosin", {}, r"unknown scheduler_name 'cosin' \(did you mean cosine"),
        ("step", {"gama": 1}, "step does not take gama; it takes step_size, gamma"),
        ("none", {"gamma": 1}, "none does not take gamma; it takes no parameters"),
    ],
)
def test_unknown_names_and_parameters_list_the_known_ones(name, params, message):
    with pytest.raises(UserError, match=message):
        get_scheduler(Config(scheduler_name=name, scheduler_params=params), make_optimizer())


def test_flags_reach_the_schedule():
    config = load_config("--scheduler-name multi_step --scheduler-params.milestones 3 4".split())
    assert all_params(config.scheduler_name, config.scheduler_params) == {
        "milestones": [3, 4],
        "gamma": 0.1,
    }


def test_plateau_waits_for_patience_then_multiplies():
    config = Config(lr=1.0, scheduler_params={"factor": 0.5, "patience": 1})
    # The first loss is the best; two worse ones in a row are one more than patience.
    assert rates(config, 6, losses=[1.0, 2.0, 2.0, 2.0, 0.5, 0.5]) == [1, 1, 1, 0.5, 0.5, 0.5]


def test_cosine_is_half_a_cosine_over_the_epochs():
    config = Config(lr=0.1, epochs=10, scheduler_name="cosine", scheduler_params={"eta_min": 0.01})
    expected = [0.01 + 0.09 * (1 + math.cos(math.pi * epoch / 10)) / 2 for epoch in range(11)]
    assert rates(config, 11) == pytest.approx(expected, rel=1e-9)


def test_warm_restarts_start_again_after_the_first_cycle():
    config = Config(
        lr=1.0, scheduler_name="cosine_warm_restarts", scheduler_params={"T_0": 2, "T_mult": 2}
    )
    expected = [1, 0.5, 1, *[(1 + math.cos(math.pi * epoch / 4)) / 2 for epoch in (1, 2, 3)], 1]
    assert rates(config, 7) == pytest.approx(expected)


def test_one_cycle_rises_to_lr_and_falls_below_its_start():
    config = Config(lr=0.1, epochs=5, scheduler_name="one_cycle")
    found = rates(config, 20, steps_per_epoch=4)
    assert found[0] == pytest.approx(0.1 / 25)
    assert max(found) == pytest.approx(0.1) and found.index(max(found)) == 5  # 0.3 * 20 - 1
    assert found[-1] == pytest.approx(0.1 / 25 / 1e4)


def test_linear_warmup_cosine():
    config = Config(
        lr=1.0,
        epochs=5,
        scheduler_name="linear_warmup_cosine",
        scheduler_params={"warmup_epochs": 1},
    )
    expected = [0.2, 0.4, 0.6, 0.8] + [
        (1 + math.cos(math.pi * step / 15)) / 2 for step in range(16)
    ]
    assert rates(config, 20, steps_per_epoch=4) == pytest.approx(expected)


def test_warmup_longer_than_the_run_never_divides_by_zero():
    config = Config(
        lr=1.0,
        epochs=1,
        scheduler_name="linear_warmup_cosine",
        scheduler_params={"warmup_epochs": 9},
    )
    assert rates(config, 2, steps_per_epoch=2) == [0.5, 1.0]


@pytest.mark.parametrize(
    ("name", "params", "expected"),
    [
        ("step", {"step_size": 2, "gamma": 0.1}, [1, 1, 0.1, 0.1, 0.01]),
        ("multi_step", {"milestones": [1, 3], "gamma": 0.5}, [1, 0.5, 0.5, 0.25, 0.25]),
        ("exponential", {"gamma": 0.5}, [1, 0.5, 0.25, 0.125, 0.0625]),
        ("none", {}, [1, 1, 1, 1, 1]),
    ],
)
def test_simple_schedules(name, params, expected):
    assert rates(Config(lr=1.0, scheduler_name=name, scheduler_params=params), 5) == pytest.approx(
        expected
    )


@pytest.mark.parametrize("name", sorted(SCHEDULERS))
def test_state_goes_through_a_file_and_the_schedule_goes_on(name, tmp_path):
    config = Config(lr=0.1, epochs=6, scheduler_name=name)
    losses = [3.0, 3.0, 2.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0]

    def advance(scheduler, optimizer, values):
        found = []
        for value in values:
            optimizer.step()
            scheduler.step(*([value] if stepped_on(name) == "valid_loss" else []))
            found.append(optimizer.param_groups[0]["lr"])
        return found

    optimizer = make_optimizer(0.1)
    scheduler = get_scheduler(config, optimizer, steps_per_epoch=2)
    advance(scheduler, optimizer, losses[:5])
    torch.save([optimizer.state_dict(), scheduler.state_dict()], tmp_path / "state.pth")
    unbroken = advance(scheduler, optimizer, losses[5:])

    other = make_optimizer(0.1)
    resumed = get_scheduler(config, other, steps_per_epoch=2)
    optimizer_state, scheduler_state = torch.load(tmp_path / "state.pth", weights_only=True)
    other.load_state_dict(optimizer_state)
    resumed.load_state_dict(scheduler_state)
    assert advance(resumed, other, losses[5:]) == unbroken


@pytest.mark.parametrize("name", ["exponential", "cosine", "step", "multi_step"])
def test_last_epoch_continues_without_a_state(name):
    config = Config(lr=1.0, epochs=8, scheduler_name=name)
    unbroken = rates(config, 8)
    optimizer = make_optimizer(unbroken[3])
    scheduler = get_scheduler(config, optimizer, last_epoch=2)
    found = [unbroken[3]]
    for _ in range(4):
        optimizer.step()
        scheduler.step()
        found.append(optimizer.param_groups[0]["lr"])
    assert found == pytest.approx(unbroken[3:])


def test_refusals_say_what_is_allowed():
    with pytest.raises(UserError, match="choose from .*cosine.*step"):
        stepped_on("cosinus")
    with pytest.raises(UserError, match="step does not take patience; it takes step_size, gamma"):
        get_scheduler(
            Config(scheduler_name="step", scheduler_params={"patience": 3}), make_optimizer()
        )
    with pytest.raises(UserError, match="needs steps_per_epoch"):
        get_scheduler(Config(scheduler_name="one_cycle"), make_optimizer())
    with pytest.raises(UserError, match="reduce_lr_on_plateau says: Factor"):
        get_scheduler(Config(scheduler_params={"factor": 2.0}), make_optimizer())
