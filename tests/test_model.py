"""The SED model: attention pooling, shapes, gradients, precision, SpecAugment."""

import numpy as np
import pytest
import torch

import model as model_module
from model import AttBlockV2, TimmSED
from tests.reference import slow_attention_pooling, slow_linear_resize

BACKBONES = [
    "test_efficientnet",
    "tf_efficientnet_lite0",
    "test_convnext",
    "test_nfnet",
    "test_resnet",
    "mobilenetv3_small_050",
    "regnety_002",
    "test_mambaout",  # its maps are (B, H, W, channels)
    "efficientvit_b0",  # does not take global_pool=""
]
SMALL = "test_efficientnet"
N_MELS, N_FRAMES, N_CLASSES = 64, 125, 5


@pytest.fixture
def images() -> torch.Tensor:
    """(3, 3, N_FRAMES, N_MELS) in [0, 1]."""
    return torch.rand(3, 3, N_FRAMES, N_MELS, generator=torch.Generator().manual_seed(1))


def small_model(**settings) -> TimmSED:
    torch.manual_seed(0)
    return TimmSED(SMALL, num_classes=N_CLASSES, n_mels=N_MELS, **settings)


# Attention ----------------------------------------------------------------------------------------


def att_block(n_features=6, n_classes=4) -> AttBlockV2:
    torch.manual_seed(0)
    block = AttBlockV2(n_features, n_classes)
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter)  # biases too
    return block.eval()


def test_attention_pooling_matches_the_loops(rng):
    block = att_block()
    features = rng.normal(size=(2, 6, 7)).astype(np.float32)
    with torch.no_grad():
        clipwise, logit, _, _ = block(torch.from_numpy(features))
    layers = [
        (layer.weight[:, :, 0].detach().numpy(), layer.bias.detach().numpy())
        for layer in (block.att, block.cla)
    ]
    slow_clipwise, slow_logit = slow_attention_pooling(features, *layers)
    np.testing.assert_allclose(clipwise, slow_clipwise, atol=1e-6)
    np.testing.assert_allclose(logit, slow_logit, atol=1e-5)


def test_attention_weights_are_positive_and_sum_to_one(rng):
    weights = att_block().attention(torch.from_numpy(rng.normal(size=(2, 6, 9)).astype(np.float32)))
    assert (weights > 0).all()
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(2, 4))


def test_constant_segments_give_that_constant(rng):
    block = att_block()
    features = torch.from_numpy(rng.normal(size=(2, 6, 1)).astype(np.float32)).expand(2, 6, 9)
    clipwise, logit, segmentwise, segmentwise_logit = block(features)
    torch.testing.assert_close(clipwise, segmentwise[:, :, 4])
    torch.testing.assert_close(logit, segmentwise_logit[:, :, 4])


def test_order_of_segments_does_not_matter(rng):
    block = att_block()
    features = torch.from_numpy(rng.normal(size=(2, 6, 9)).astype(np.float32))
    order = torch.from_numpy(rng.permutation(9))
    for one, other in zip(block(features)[:2], block(features[:, :, order])[:2], strict=True):
        torch.testing.assert_close(one, other)


# The network --------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=BACKBONES)
def any_sed(request) -> TimmSED:
    torch.manual_seed(0)
    return TimmSED(request.param, num_classes=N_CLASSES, n_mels=N_MELS)


def test_shapes_ranges_and_dtypes(any_sed, images):
    with torch.no_grad():
        output = any_sed.eval()(images)
    n_segments = output["segmentwise_output"].shape[1]
    assert n_segments in (3, 4)  # 125 / 32, rounded down or up
    assert {key: tuple(value.shape) for key, value in output.items()} == {
        "clipwise_output": (3, N_CLASSES),
        "logit": (3, N_CLASSES),
        "segmentwise_output": (3, n_segments, N_CLASSES),
        "framewise_output": (3, N_FRAMES, N_CLASSES),
        "framewise_logit": (3, N_FRAMES, N_CLASSES),
    }
    for key, value in output.items():
        assert value.dtype == torch.float32
        assert torch.isfinite(value).all()
        if key.endswith("_output"):
            assert 0 <= value.min() <= value.max() < 1


def test_every_parameter_gets_a_gradient(any_sed, images):
    any_sed.train()
    any_sed.zero_grad()
    before = {key: value.clone() for key, value in any_sed.state_dict().items()}
    for (
        parameter
    ) in any_sed.parameters():  # gates that start at 0, or close to it, let no gradient through
        if parameter.abs().max() < 1e-3:
            torch.nn.init.constant_(parameter, 0.5)
    any_sed(images)["logit"].square().sum().backward()
    without = [key for key, value in any_sed.named_parameters() if value.grad is None]
    wrong = [key for key, value in any_sed.named_parameters() if not (value.grad.abs().sum() > 0)]
    any_sed.load_state_dict(before)
    assert (without, wrong) == ([], [])


def test_a_clip_alone_equals_the_clip_in_a_batch(any_sed, images):
    any_sed.eval()
    with torch.no_grad():
        together, alone = any_sed(images), any_sed(images[1:2])
    for key, value in together.items():
        torch.testing.assert_close(value[1:2], alone[key], atol=1e-5, rtol=1e-4)


def test_evaluating_twice_is_equal_and_draws_nothing(images):
    sed = small_model(p_spec_augment=1.0, dropout=0.5).eval()
    state = torch.get_rng_state()
    statistics = {key: value.clone() for key, value in sed.state_dict().items()}
    with torch.no_grad():
        one, other = sed(images), sed(images)
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, statistics[key]) for key, value in sed.state_dict().items())


def test_head_matches_its_definition(images):
    sed = small_model().eval()
    with torch.no_grad():
        output = sed(images)
        # bn0 in its first state divides by sqrt(1 + eps)
        mean, std = (
            torch.tensor(sed.encoder.pretrained_cfg[key])[:, None, None] for key in ("mean", "std")
        )
        x = (images - mean) / std / np.sqrt(1 + 1e-5)
        features = sed.encoder.forward_features(x.permute(0, 1, 3, 2)).numpy()  # (B, n, F', T')
        pooled = features.mean(axis=2)
        padded = np.pad(pooled, ((0, 0), (0, 0), (1, 1)))
        lowest = np.pad(pooled, ((0, 0), (0, 0), (1, 1)), constant_values=-np.inf)
        windows = [slice(i, i + pooled.shape[2]) for i in range(3)]
        pooled = (
            np.maximum.reduce([lowest[:, :, w] for w in windows])
            + sum(padded[:, :, w] for w in windows) / 3
        )
        hidden = np.maximum(
            np.einsum("bnt,mn->bmt", pooled, sed.fc1.weight) + sed.fc1.bias.numpy()[:, None], 0
        )
    blocks = [
        [
            (layer.weight[:, :, 0].detach().numpy(), layer.bias.detach().numpy())
            for layer in (block.att, block.cla)
        ]
        for block in sed.att_blocks
    ]
    slow = [slow_attention_pooling(hidden, *layers) for layers in blocks]
    np.testing.assert_allclose(output["clipwise_output"], (slow[0][0] + slow[1][0]) / 2, atol=1e-5)
    np.testing.assert_allclose(output["logit"], (slow[0][1] + slow[1][1]) / 2, atol=1e-4)
    logits = [
        np.einsum("bnt,cn->btc", hidden, cla[0]) + cla[1] for _, cla in blocks
    ]  # (B, T', C) of each block
    segmentwise = sum(1 / (1 + np.exp(-value)) for value in logits) / 2
    np.testing.assert_allclose(output["segmentwise_output"], segmentwise, atol=1e-5)
    for c in range(N_CLASSES):
        expected = slow_linear_resize(segmentwise[0, :, c], N_FRAMES)
        np.testing.assert_allclose(output["framewise_output"][0, :, c], expected, atol=1e-5)
        expected = slow_linear_resize((logits[0] + logits[1])[0, :, c] / 2, N_FRAMES)
        np.testing.assert_allclose(output["framewise_logit"][0, :, c], expected, atol=1e-4)


def test_each_convolution_of_the_head_runs_once(images):
    sed = small_model().eval()
    calls = []
    for name, layer in sed.named_modules():
        if name in ("fc1", *(f"att_blocks.{i}.{leaf}" for i in (0, 1) for leaf in ("att", "cla"))):
            layer.register_forward_hook(lambda *_, name=name: calls.append(name))
    sed(images)
    assert sorted(calls) == [
        "att_blocks.0.att",
        "att_blocks.0.cla",
        "att_blocks.1.att",
        "att_blocks.1.cla",
        "fc1",
    ]


def test_time_stays_in_its_place(images):
    changed = images.clone()
    changed[:, :, -20:] = 1 - changed[:, :, -20:]  # the last sixth of the clip
    sed = small_model().eval()
    with torch.no_grad():
        difference = (
            (sed(images)["framewise_logit"] - sed(changed)["framewise_logit"])
            .abs()
            .mean(dim=(0, 2))
        )
    assert difference[-20:].mean() > 3 * difference[:40].mean()


def test_probabilities_stay_below_one(images):
    sed = small_model().eval()
    for block in sed.att_blocks:
        torch.nn.init.constant_(block.cla.bias, 200.0)
    with torch.no_grad():
        output = sed(images)
    for key in ("clipwise_output", "segmentwise_output", "framewise_output"):
        assert (output[key] == 1 - 2**-24).all()


def test_bn0_normalises_each_mel_band(images):
    sed = small_model()
    loud = images.clone()
    loud[..., 10] += 5.0
    batches = []
    original = sed.encoder.forward_features
    sed.encoder.forward_features = lambda x: batches.append(x) or original(x)
    sed.p_spec_augment = 0.0
    sed.train()(loud)
    seen = batches[0]  # (B, 3, F, T)
    assert seen.shape == (3, 3, N_MELS, N_FRAMES)
    torch.testing.assert_close(seen.mean(dim=(0, 1, 3)), torch.zeros(N_MELS), atol=1e-4, rtol=0)
    torch.testing.assert_close(
        seen.var(dim=(0, 1, 3), unbiased=False), torch.ones(N_MELS), atol=1e-3, rtol=0
    )


@pytest.mark.parametrize(
    "shape", [(2, 3, N_MELS, N_FRAMES), (2, 1, N_FRAMES, N_MELS), (3, N_FRAMES, N_MELS)]
)
def test_images_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"images \(B, 3, T, 64\) are wanted"):
        small_model()(torch.zeros(shape))


def test_other_numbers_of_channels(images):
    sed = small_model(in_channels=1)
    assert sed.eval()(images[:, :1])["logit"].shape == (3, N_CLASSES)
    rgb_mean = np.mean(sed.encoder.pretrained_cfg["mean"])
    assert sed.mean.flatten().tolist() == pytest.approx([rgb_mean])


def test_channels_last_gives_the_same(images):
    sed = small_model().eval()
    with torch.no_grad():
        expected = sed(images)["logit"]
        sed.to(memory_format=torch.channels_last)
        other = sed(images.to(memory_format=torch.channels_last))["logit"]
    torch.testing.assert_close(other, expected, atol=1e-5, rtol=1e-4)


def test_num_classes_below_one_is_refused():
    with pytest.raises(ValueError, match="num_classes"):
        TimmSED(SMALL, num_classes=0)


def test_export_sees_one_graph_for_any_batch(images):
    sed = small_model().eval()
    batch = torch.export.Dim("batch", min=2, max=64)
    with torch.no_grad():
        program = torch.export.export(sed, (images,), dynamic_shapes=({0: batch},))
        assert not [
            node.target for node in program.graph.nodes if "wrap" in str(node.target).lower()
        ]
        exported = program.module()(images[:2])
        torch.testing.assert_close(
            exported["logit"], sed(images[:2])["logit"], atol=1e-5, rtol=1e-4
        )


# Precision ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_gives_float32_outputs(images, dtype):
    sed = small_model(p_spec_augment=0.0).eval()
    seen = {}
    sed.fc1.register_forward_hook(
        lambda _, inputs, output: seen.update(input=inputs[0].dtype, output=output.dtype)
    )
    original = sed.encoder.forward_features
    sed.encoder.forward_features = lambda x: seen.update(features=original(x)) or seen["features"]
    with torch.no_grad():
        expected = sed(images)
        with torch.autocast("cpu", dtype=dtype):
            output = sed(images)
    assert seen["features"].dtype == dtype  # autocast did its work in the encoder
    assert (seen["input"], seen["output"]) == (torch.float32, torch.float32)
    for key, value in output.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, expected[key], atol=5e-2, rtol=5e-2)


def test_saturated_scores_differ_under_float16_autocast(images):
    sed = small_model().eval()
    for block in sed.att_blocks:
        torch.nn.init.zeros_(block.cla.weight)
        block.cla.bias.data = torch.tensor([8.0, 9.0, 10.0, 11.0, 12.0])  # all 1.0 in float16
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.float16):
        scores = sed(images)["clipwise_output"][0]
    assert (scores.diff() > 0).all()
    assert scores[-1] < 1


# SpecAugment --------------------------------------------------------------------------------------


def test_spec_augment_only_in_training_and_as_often_as_asked(images, monkeypatch):
    calls = []
    monkeypatch.setattr(model_module, "spec_augment", lambda x: calls.append(x.shape) or x)
    clip = images[:1, :, :8]
    for p, low, high in [(0.0, 0, 0), (1.0, 40, 40), (0.25, 3, 19)]:  # 0.25: within 3.3 sigma of 10
        calls.clear()
        sed = small_model(p_spec_augment=p)
        sed.encoder.forward_features = lambda x: x.new_zeros(len(x), 256, 2, 3)  # quick
        for _ in range(40):
            sed.train()(clip)
        assert low <= len(calls) <= high
        calls.clear()
        sed.eval()(clip)
        assert calls == []
