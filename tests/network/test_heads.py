"""Heads by name: what each pools, and that a linear one is the regression it starts from."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from losses.named import get_loss
from model import Head, TimmSED
from network import heads
from network.heads import BandStatistics, LinearHead, resize_by_matrix, resize_segments

N_MELS, N_FRAMES, N_CLASSES = 64, 125, 4
POOLINGS = ("attention", "mean", "max", "gem", "log_mean_exp")


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(3, 3, N_FRAMES, N_MELS, generator=torch.Generator().manual_seed(1))


def small_model(head: Head, **settings) -> TimmSED:
    torch.manual_seed(0)
    return TimmSED("test_efficientnet", num_classes=N_CLASSES, n_mels=N_MELS, head=head, **settings)


def head_of(pooling: str, rng: np.random.Generator) -> tuple[LinearHead, torch.Tensor]:
    """A head whose standardisation and weights are not those of the start, and segments."""
    torch.manual_seed(0)
    head = LinearHead(6, 3, pooling)
    draws = [torch.from_numpy(rng.normal(size=size).astype("f4")) for size in (6, 6, (3, 6), 3)]
    head.start_from(draws[0], draws[1].abs() + 0.5, draws[2], draws[3])
    return head, torch.from_numpy(rng.normal(size=(2, 6, 5)).astype("f4"))


def slow_logits(head: LinearHead, features: np.ndarray) -> np.ndarray:
    """Logits (B, C, T') of each segment, term by term."""
    weight, bias = head.cla.weight[:, :, 0].detach().numpy(), head.cla.bias.detach().numpy()
    mean, std = head.mean.numpy(), head.std.numpy()
    logits = np.zeros((len(features), len(bias), features.shape[2]))
    for clip, output, segment in np.ndindex(*logits.shape):
        terms = weight[output] * (features[clip, :, segment] - mean) / std
        logits[clip, output, segment] = terms.sum() + bias[output]
    return logits


@pytest.mark.parametrize("pooling", POOLINGS)
def test_pooling_matches_its_formula(pooling, rng):
    head, features = head_of(pooling, rng)
    with torch.no_grad():
        logit, segmentwise = head(features)

    values = features.numpy().astype(np.float64)
    slow = slow_logits(head, values)
    np.testing.assert_allclose(segmentwise, slow, atol=1e-5)
    if pooling == "gem":
        means = np.mean(np.maximum(values, 1e-6) ** 3, axis=2, keepdims=True) ** (1 / 3)
        expected = slow_logits(head, means)[:, :, 0]
    else:
        expected = {
            "attention": slow.mean(axis=2),  # weights start equal
            "mean": slow.mean(axis=2),
            "max": slow.max(axis=2),
            "log_mean_exp": np.log(np.exp(slow).mean(axis=2)),
        }[pooling]
    np.testing.assert_allclose(logit, expected, atol=1e-5)


def test_attention_of_a_linear_head_learns_where_to_look(rng):
    head, features = head_of("attention", rng)
    torch.nn.init.normal_(head.att.weight)
    with torch.no_grad():
        logit, segmentwise = head(features)
        scores = np.tanh(
            np.einsum(
                "bnt,cn->bct", head.standardise(features).numpy(), head.att.weight[:, :, 0].numpy()
            )
        )
    weights = np.exp(scores) / np.exp(scores).sum(axis=2, keepdims=True)
    np.testing.assert_allclose(logit, (weights * segmentwise.numpy()).sum(axis=2), atol=1e-5)


def test_an_unknown_pooling_lists_the_known_ones():
    with pytest.raises(ValueError, match="unknown pooling 'median'; choose from attention, mean"):
        LinearHead(6, 3, "median")


def test_statistics_are_those_of_each_band(images):
    statistics = BandStatistics(N_MELS, N_MELS, 3)
    image = images[:, 0].numpy()  # (B, T, F)
    expected = np.concatenate([image.mean(1), image.std(1), image.max(1)], axis=1)
    np.testing.assert_allclose(statistics.measure(images), expected, atol=1e-6)

    fewer = BandStatistics(N_MELS, N_MELS // 2, 3).measure(torch.ones(1, 3, 7, N_MELS))
    np.testing.assert_allclose(fewer[0], [1.0] * 32 + [0.0] * 32 + [1.0] * 32, atol=1e-6)


def test_of_two_planes_the_backbone_sees_the_first_and_the_statistics_both(images):
    head = Head("linear", True, "mean", -1, N_MELS, planes=2)
    sed = small_model(head).eval()
    with torch.no_grad():
        features = sed.clip_features(images).numpy()
        alone = small_model(Head("linear", True, "mean", -1, 0)).eval()
        alone.load_state_dict(sed.state_dict(), strict=False)
        rows = alone.clip_features(images[:, :1].expand_as(images)).numpy()

    planes = [images[:, plane].numpy() for plane in (0, 1)]
    measured = [value for one in planes for value in (one.mean(1), one.std(1), one.max(1))]
    expected = np.concatenate([rows, *measured], axis=1)
    np.testing.assert_allclose(features, expected, atol=1e-5)


@pytest.mark.parametrize("pooling", ["attention", "mean", "gem"])
@pytest.mark.parametrize("statistics", [0, 16])
def test_a_linear_head_is_the_regression_it_starts_from(images, rng, pooling, statistics):
    head = Head("linear", True, pooling, -1, statistics, softmax=True, no_bird=True)
    sed = small_model(head).eval()
    with torch.no_grad():
        features = sed.clip_features(images).numpy()
        mean, std = features.mean(0), features.std(0) + 0.1
        weight = rng.normal(size=(N_CLASSES + 1, features.shape[1])).astype("f4") / 30
        bias = rng.normal(size=N_CLASSES + 1).astype("f4")
        sed.start_from(*map(torch.from_numpy, (mean, std, weight, bias)))
        output = sed(images)

    logits = (features - mean) / std @ weight.T + bias
    np.testing.assert_allclose(output["logit"], logits, atol=1e-4)
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(output["clipwise_output"], expected[:, :N_CLASSES], atol=1e-5)
    assert output["framewise_output"].shape == (3, N_FRAMES, N_CLASSES)
    assert output["framewise_logit"].shape == (3, N_FRAMES, N_CLASSES + 1)
    if pooling == "mean":  # the mean of the segments' logits is the clip's
        framewise = sed.linear_head(sed.columns(sed.feature_map(images)))[1].mean(2)
        clip_bias = sed.band_statistics(images) if statistics else 0.0
        np.testing.assert_allclose((framewise + clip_bias).detach(), logits, atol=1e-4)


def test_rows_of_frequency_stay_apart(images):
    sed = small_model(Head("linear", rows=True, block=-1)).eval()
    with torch.no_grad():
        features = sed.feature_map(images)  # (B, n, F', T')
        rows = sed.clip_features(images)
    assert rows.shape[1] == features.shape[1] * features.shape[2]
    np.testing.assert_allclose(rows.view(3, features.shape[1], -1), features.mean(dim=3), atol=1e-6)


@pytest.mark.parametrize("kind", ["sed", "linear"])
@pytest.mark.parametrize("rows", [False, True])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_every_head_learns_and_scores_below_one(images, kind, rows, pooling):
    sed = small_model(Head(kind, rows, pooling, None, 8, softmax=rows), p_spec_augment=0.0)
    output = sed(images)
    output["logit"].square().sum().backward()
    without = [
        name for name, value in sed.named_parameters()
        if value.grad is None and "encoder" not in name
    ]  # fmt: skip
    assert without == []
    for name in ("clipwise_output", "framewise_output", "segmentwise_output"):
        assert 0 <= output[name].min() <= output[name].max() < 1


def test_softmax_scores_of_the_sed_head_sum_to_one(images):
    output = small_model(Head(softmax=True)).eval()(images)
    torch.testing.assert_close(output["clipwise_output"].sum(1), torch.ones(3))
    torch.testing.assert_close(output["framewise_output"].sum(2), torch.ones(3, N_FRAMES))


@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet", "regnety_002"])
def test_an_earlier_block_is_another_map(images, name):
    shapes = []
    for block in (None, -1, -2):
        torch.manual_seed(0)
        sed = TimmSED(name, num_classes=2, n_mels=N_MELS, head=Head("linear", block=block)).eval()
        with torch.no_grad():
            shapes.append(tuple(sed.feature_map(images).shape))
        assert sed.linear_head.cla.in_channels == shapes[-1][1]
    assert shapes[1] != shapes[2]


# Segments to frames -------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_segments", "n_frames"), [(10, 313), (1, 7), (4, 4), (9, 5)])
def test_resizing_by_a_matrix_is_interpolation_forward_and_backward(n_segments, n_frames):
    generator = torch.Generator().manual_seed(3)
    segments = torch.randn(3, 5, n_segments, generator=generator, requires_grad=True)
    weigh = torch.randn(3, 5, n_frames, generator=generator)
    found = []
    for resize in (resize_by_matrix, resize_segments):
        frames = resize(segments, n_frames)
        (gradient,) = torch.autograd.grad((frames * weigh).sum(), segments)
        found.append((frames.detach(), gradient))
    (frames, gradient), (expected, expected_gradient) = found
    assert torch.allclose(frames, expected, rtol=0, atol=1e-6)
    assert torch.allclose(gradient, expected_gradient, rtol=0, atol=1e-5)  # sums of 31 terms


def test_on_the_cpu_resizing_stays_torchs_to_the_bit():
    segments = torch.randn(2, 3, 10, generator=torch.Generator().manual_seed(3))
    expected = F.interpolate(segments, size=313, mode="linear", align_corners=False)
    assert torch.equal(resize_segments(segments, 313), expected)


# What torch.use_deterministic_algorithms lists as without a repeatable form on CUDA, and what
# stands for it in the graph of a network.
NOT_REPEATABLE = (
    *("upsample_linear1d_backward", "upsample_bilinear2d_backward", "upsample_bicubic2d_backward"),
    *("_adaptive_avg_pool2d_backward", "adaptive_max_pool2d_backward", "avg_pool3d_backward"),
    *("reflection_pad1d_backward", "reflection_pad2d_backward", "grid_sampler_2d_backward"),
    *("nll_loss_forward", "nll_loss2d_forward", "kthvalue", "median", "histc", "bincount", "put_"),
)


class Noting(TorchDispatchMode):
    """Notes the operations in its block that CUDA cannot repeat."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        self.found += [name] if name in NOT_REPEATABLE else []
        return func(*args, **(kwargs or {}))


def not_repeatable(model: TimmSED, images: torch.Tensor) -> list[str]:
    """What a step of training dispatches that CUDA cannot repeat."""
    targets = torch.full((len(images), N_CLASSES), 0.3)
    with Noting() as noting:
        get_loss("bce_focal_2way")(model.train()(images), targets).backward()
    return noting.found


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("kind", ["sed", "linear"])
def test_a_deterministic_step_has_no_operation_that_cuda_cannot_repeat(
    images, kind, pooling, monkeypatch
):
    monkeypatch.setattr(heads, "must_repeat", lambda features: True)
    assert not_repeatable(small_model(Head(kind=kind, pooling=pooling)), images) == []


def test_the_interpolation_of_other_steps_is_seen(images):
    assert "upsample_linear1d_backward" in not_repeatable(small_model(Head()), images)


def test_the_matrix_is_no_part_of_a_checkpoint(images, monkeypatch):
    names = set(small_model(Head()).state_dict())
    monkeypatch.setattr(heads, "must_repeat", lambda features: True)
    model = small_model(Head())
    model(images)
    assert set(model.state_dict()) == names
