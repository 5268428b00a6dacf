"""Losses against scalar formulas and numbers worked by hand."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from losses.named import (
    LOSSES,
    AsymmetricLoss,
    BCEFocal2WayLoss,
    BCEFocalLoss,
    cross_entropy,
    get_loss,
    soft_auc,
)
from tests.reference import slow_focal_loss


def model_output(rng, n_clips=4, n_frames=9, n_classes=3) -> dict[str, torch.Tensor]:
    return {
        "logit": torch.from_numpy(rng.normal(size=(n_clips, n_classes)).astype("float32")),
        "framewise_logit": torch.from_numpy(
            rng.normal(size=(n_clips, n_frames, n_classes)).astype("float32")
        ),
    }


def test_golden_number():
    # p = 1/2, bce = ln 2: 1/4 * (1/2)^2 * ln 2
    loss = BCEFocalLoss(alpha=0.25, gamma=2.0)(torch.zeros(1, 1), torch.ones(1, 1))
    assert loss.item() == pytest.approx(math.log(2) / 16, rel=1e-6)
    # the negative has no alpha: (1/2)^2 * ln 2
    loss = BCEFocalLoss(alpha=0.25, gamma=2.0)(torch.zeros(1, 1), torch.zeros(1, 1))
    assert loss.item() == pytest.approx(math.log(2) / 4, rel=1e-6)


@given(
    pairs=st.lists(st.tuples(st.floats(-12, 12), st.floats(0, 1)), min_size=1, max_size=8),
    alpha=st.floats(0, 1),
    gamma=st.floats(0, 4),
)
@settings(max_examples=100, deadline=None)
def test_focal_loss_matches_the_formula(pairs, alpha, gamma):
    logits, targets = torch.tensor(pairs).unbind(dim=1)
    expected = slow_focal_loss(logits.numpy(), targets.numpy(), alpha, gamma)
    assert BCEFocalLoss(alpha, gamma)(logits, targets).item() == pytest.approx(expected, rel=1e-5)


def test_gamma_zero_without_alpha_is_bce(rng):
    logits = torch.from_numpy(rng.normal(size=(6, 5)).astype("float32"))
    targets = torch.from_numpy(rng.random((6, 5)).astype("float32"))
    torch.testing.assert_close(
        BCEFocalLoss(alpha=1.0, gamma=0.0)(logits, targets),
        F.binary_cross_entropy_with_logits(logits, targets),
    )


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_huge_logits_give_finite_loss_and_gradient(gamma):
    logits = torch.tensor([1e4, -1e4, 1e4, -1e4, 100.0, -100.0], requires_grad=True)
    targets = torch.tensor([1.0, 0.0, 0.0, 1.0, 0.0025, 0.995])
    loss = BCEFocalLoss(alpha=0.25, gamma=gamma)(logits, targets)
    loss.backward()
    # Right and sure costs nothing; wrong and sure costs |logit|, times alpha for a positive. Where
    # the logit contradicts a soft target (0.0025 at 100, 0.995 at -100), that part counts twice:
    # as a weight and in the cross-entropy.
    soft = 0.9975 * (0.9975 * 100) + 0.25 * 0.995 * (0.995 * 100)
    if gamma == 0:  # the easy part counts, too
        soft += 0.25 * 0.0025 * (0.9975 * 100) + 0.005 * (0.995 * 100)
    assert loss.item() == pytest.approx((1e4 + 0.25 * 1e4 + soft) / 6, rel=1e-5)
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()
    assert logits.grad[2] == pytest.approx(1 / 6, rel=1e-5)
    assert logits.grad[3] == pytest.approx(-0.25 / 6, rel=1e-5)


def test_gradient_matches_finite_differences(rng):
    logits = torch.from_numpy(rng.normal(size=8).astype("float32")).requires_grad_()
    targets = torch.from_numpy(rng.random(8).astype("float32"))
    BCEFocalLoss()(logits, targets).backward()
    values, step = logits.detach().numpy().astype("float64"), 1e-5
    for i in range(8):
        up, down = values.copy(), values.copy()
        up[i] += step
        down[i] -= step
        loss_up = slow_focal_loss(up, targets.numpy(), 0.25, 2.0)
        loss_down = slow_focal_loss(down, targets.numpy(), 0.25, 2.0)
        slope = (loss_up - loss_down) / (2 * step)
        assert logits.grad[i].item() == pytest.approx(slope, rel=1e-4, abs=1e-7)


def test_half_precision_logits_are_lossless_under_autocast():
    logits = torch.tensor([[9.0, -9.0]], dtype=torch.float16)
    targets = torch.tensor([[0.0, 1.0]])
    for loss_name in ("bce", "bce_focal", "bce_focal_2way"):
        output = {"logit": logits, "framewise_logit": logits[:, None, :]}
        criterion = get_loss(loss_name)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = criterion(output, targets)
        wide = {key: value.float() for key, value in output.items()}
        assert loss.dtype == torch.float32
        assert loss.item() == criterion(wide, targets).item()


def test_two_way_loss_adds_the_highest_frame_of_each_class(rng):
    output, targets = model_output(rng), torch.from_numpy(rng.random((4, 3)).astype("float32"))
    highest = output["framewise_logit"].numpy().max(axis=1)
    clipwise = slow_focal_loss(output["logit"].numpy(), targets.numpy(), 0.3, 1.5)
    framewise = slow_focal_loss(highest, targets.numpy(), 0.3, 1.5)
    loss = BCEFocal2WayLoss(weights=(1.0, 0.5), alpha=0.3, gamma=1.5)(output, targets)
    assert loss.item() == pytest.approx(clipwise + 0.5 * framewise, rel=1e-5)


def test_get_loss_knows_three_names(rng):
    output, targets = model_output(rng), torch.from_numpy(rng.random((4, 3)).astype("float32"))
    logits = output["logit"].numpy()
    highest = output["framewise_logit"].numpy().max(axis=1)
    plain = slow_focal_loss(logits, targets.numpy(), 1.0, 0.0)
    focal = slow_focal_loss(logits, targets.numpy(), 0.4, 1.0)
    framewise = slow_focal_loss(highest, targets.numpy(), 0.4, 1.0)

    given = {"alpha": 0.4, "gamma": 1.0, "weights": (2.0, 3.0)}
    assert get_loss("bce", **given)(output, targets).item() == pytest.approx(plain, rel=1e-5)
    assert get_loss("bce_focal", **given)(output, targets).item() == pytest.approx(focal, rel=1e-5)
    both = get_loss("bce_focal_2way", **given)(output, targets).item()
    assert both == pytest.approx(2 * focal + 3 * framewise, rel=1e-5)


def test_mistakes_are_named():
    message = "unknown loss_name 'focal'; choose from asymmetric, bce, bce_focal, cross_entropy"
    with pytest.raises(ValueError, match=message):
        get_loss("focal")
    with pytest.raises(ValueError, match="must not be negative"):
        BCEFocalLoss(gamma=-1)
    with pytest.raises(
        ValueError, match="two weights are needed, for the clipwise and the framewise"
    ):
        BCEFocal2WayLoss(weights=(1.0, 1.0, 1.0))
    with pytest.raises(ValueError, match="differ in shape"):  # (4, 1) would be broadcast silently
        BCEFocalLoss()(torch.zeros(4, 3), torch.zeros(4, 1))


def test_a_new_loss_is_one_entry(rng, monkeypatch):
    def squared(logits, targets):
        return (logits - targets).square().mean()

    monkeypatch.setitem(LOSSES, "squared", lambda alpha, gamma: squared)
    output, targets = model_output(rng), torch.zeros(4, 3)
    expected = float((output["logit"].numpy() ** 2).mean())
    assert get_loss("squared")(output, targets).item() == pytest.approx(expected, rel=1e-6)
    loudest = float((output["framewise_logit"].numpy().max(axis=1) ** 2).mean())
    both = get_loss("squared_2way", weights=(1.0, 0.5))(output, targets)
    assert both.item() == pytest.approx(expected + 0.5 * loudest, rel=1e-6)
    with pytest.raises(ValueError, match="soft_auc_bce, squared, each also with _2way"):
        get_loss("square")


def test_metrics_has_the_same_table():
    import metrics

    assert metrics.LOSSES is LOSSES and metrics.get_loss is get_loss


LOGITS = [[1.0, -2.0, 0.5], [0.0, 3.0, -1.0]]
TARGETS = [[1.0, 0.0, 0.0], [0.3, 1.0, 0.0]]


def tensors(targets=TARGETS):
    return torch.tensor(LOGITS), torch.tensor(targets)


def test_cross_entropy_scales_the_labels_of_a_clip_to_one():
    logits, targets = tensors([[1.0, 0.0, 0.0], [0.5, 1.0, 0.0]])
    expected = 0.0
    for row, weights in zip(LOGITS, [[1, 0, 0], [1 / 3, 2 / 3, 0]], strict=True):
        log_sum = math.log(sum(map(math.exp, row)))
        expected -= sum(w * (x - log_sum) for w, x in zip(weights, row, strict=True)) / 2
    assert float(cross_entropy(logits, targets)) == pytest.approx(expected, rel=1e-6)


def test_a_masked_class_leaves_the_softmax():
    logits, _ = tensors()
    masked = torch.tensor([[1.0, math.nan, 0.0], [1.0, 0.0, math.nan]])
    expected = (
        math.log(math.exp(1.0) + math.exp(0.5)) - 1.0 + math.log(1 + math.exp(3.0)) - 0.0
    ) / 2
    assert float(cross_entropy(logits, masked)) == pytest.approx(expected, rel=1e-6)


def test_asymmetric_loss_matches_its_formula():
    expected = 0.0
    for row, targets in zip(LOGITS, TARGETS, strict=True):
        for x, t in zip(row, targets, strict=True):
            p = 1 / (1 + math.exp(-x))
            q = max(p - 0.05, 0)
            expected -= t * (1 - p) * math.log(p) + (1 - t) * q**4 * math.log(1 - q)
    assert float(AsymmetricLoss()(*tensors())) == pytest.approx(expected / 6, rel=1e-5)


def test_soft_auc_averages_pairs_of_each_class():
    logits = torch.tensor([[2.0, 0.0], [1.0, 5.0], [-1.0, 7.0]])
    targets = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]])  # no pair in the second class
    pairs = [math.log(1 + math.exp(-1.0)), math.log(1 + math.exp(-3.0))]
    assert float(soft_auc(logits, targets)) == pytest.approx(sum(pairs) / 2, rel=1e-6)


NAMES = [*LOSSES, *(f"{name}_2way" for name in LOSSES)]


@pytest.mark.parametrize("name", NAMES)
def test_masked_targets_teach_nothing_and_others_their_direction(name):
    torch.manual_seed(0)
    loss = get_loss(name, has_masks=True)
    logit = torch.zeros(4, 3, requires_grad=True)
    framewise = torch.randn(4, 5, 3, requires_grad=True)
    targets = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 1, 0], [math.nan, 0, 1]])
    loss({"logit": logit, "framewise_logit": framewise}, targets).backward()

    gradient = logit.grad.numpy()
    assert np.isfinite(gradient).all() and gradient[3, 0] == 0
    assert (gradient[[0, 1, 2, 3], [0, 1, 1, 2]] < 0).all()  # up with what is there
    assert gradient[0, 1] > 0  # down with what is not
    assert (framewise.grad is not None and bool(framewise.grad.any())) == name.endswith("_2way")


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_that_is_masked_altogether_costs_nothing(name):
    logit = torch.randn(2, 3, requires_grad=True)
    output = {"logit": logit, "framewise_logit": logit[:, None].repeat(1, 4, 1)}
    loss = get_loss(name, has_masks=True)(output, torch.full((2, 3), math.nan))
    loss.backward()
    assert loss.item() == 0 and not logit.grad.any()


@pytest.mark.parametrize("name", NAMES)
def test_to_look_for_masks_changes_nothing_where_there_are_none(name, rng):
    output, targets = model_output(rng), torch.from_numpy(rng.random((4, 3)).astype("float32"))
    with_masks = get_loss(name, has_masks=True)(output, targets)
    torch.testing.assert_close(with_masks, get_loss(name)(output, targets))


def test_weights_are_those_of_the_clip_and_of_the_loudest_frame():
    logits, targets = tensors()
    framewise = torch.stack([logits - 1, logits + 1], dim=1)
    output = {"logit": logits, "framewise_logit": framewise}
    loss = get_loss("cross_entropy_2way", weights=(0.25, 2.0))
    expected = 0.25 * cross_entropy(logits, targets) + 2 * cross_entropy(logits + 1, targets)
    torch.testing.assert_close(loss(output, targets), expected)


# Labels with a time: targets of a clip and of its steps ----------------------------------------

ROWWISE = [name for name in LOSSES if not name.startswith("soft_auc")]


def timed_batch():
    """Three clips of 2 classes and 3 steps: known steps, one of them known, none known."""
    generator = torch.Generator().manual_seed(3)
    output = {
        "logit": torch.randn(3, 2, generator=generator, requires_grad=True),
        "framewise_logit": torch.randn(3, 9, 2, generator=generator, requires_grad=True),
    }
    nan = math.nan
    steps = [
        [[1.0, 0], [0, 0], [0, 1]],
        [[0.0, 1], [nan, nan], [nan, nan]],
        [[nan, nan], [nan, nan], [nan, nan]],
    ]
    clips = [[1.0, 1], [0, 1], [1, 0]]
    return output, torch.tensor([[clip, *rest] for clip, rest in zip(clips, steps, strict=True)])


@pytest.mark.parametrize("name", ROWWISE)
def test_each_known_step_is_compared_with_its_own_target(name):
    output, targets = timed_batch()
    loss = get_loss(f"{name}_2way", weights=(0.5, 2.0), is_timed=True)
    found = loss(output, targets)

    plain = LOSSES[name](0.25, 2.0)
    middles = output["framewise_logit"][:, [1, 4, 7]]  # of three steps of three frames
    known = plain(
        torch.cat([middles[0], middles[1, :1]]), torch.tensor([[1.0, 0], [0, 0], [0, 1], [0, 1]])
    )
    loudest = plain(output["framewise_logit"][2:].amax(dim=1), targets[2:, 0])
    expected = 0.5 * plain(output["logit"], targets[:, 0]) + 2 * (2 * known + loudest) / 3
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", ROWWISE)
def test_gradients_of_steps_point_their_own_way_and_unknown_ones_have_none(name):
    output, targets = timed_batch()
    get_loss(f"{name}_2way", is_timed=True)(output, targets).backward()
    gradient = output["framewise_logit"].grad.numpy()
    assert np.isfinite(gradient).all() and not gradient[1, 3:].any()
    assert gradient[0, 1, 0] < 0 < gradient[0, 1, 1]  # class 0 sings in the first step
    assert gradient[0, 7, 1] < 0 < gradient[0, 7, 0]  # class 1 in the last
    assert (np.count_nonzero(gradient[2], axis=0) == 1).all()  # the loudest frame of each class


def test_clips_without_known_steps_have_the_loss_without_times():
    output, targets = timed_batch()
    targets[:, 1:] = math.nan
    found = get_loss("bce_focal_2way", weights=(0.7, 1.3), is_timed=True)(output, targets)
    torch.testing.assert_close(
        found, get_loss("bce_focal_2way", weights=(0.7, 1.3))(output, targets[:, 0])
    )
