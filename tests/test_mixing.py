"""MixUp and CutMix of batches, against loops over clips."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms import cutmix, mixup


def a_batch(size: int = 6, n_frames: int = 20, dtype: torch.dtype = torch.float32):
    generator = torch.Generator().manual_seed(3)
    images = torch.rand((size, 3, n_frames, 8), generator=generator).to(dtype)
    targets = torch.rand((size, 5), generator=generator)
    return images, targets


def numbered(size: int, n_frames: int) -> torch.Tensor:
    """Images whose every value is the number of the clip."""
    return (
        torch.arange(size, dtype=torch.float32)[:, None, None, None]
        .expand(size, 3, n_frames, 4)
        .clone()
    )


def partners_of(targets: torch.Tensor, targets_b: torch.Tensor) -> list[int]:
    return [int(torch.nonzero((targets == row).all(dim=1))[0, 0]) for row in targets_b]


@pytest.mark.parametrize("mix", [mixup, cutmix])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_inputs_stay_and_the_type_too(mix, dtype):
    images, targets = a_batch(dtype=dtype)
    images_before, targets_before = images.clone(), targets.clone()
    data, targets_a, targets_b, lam = mix(images, targets, 1.0, np.random.default_rng(2))
    assert torch.equal(images, images_before) and torch.equal(targets, targets_before)
    assert (
        data.dtype == dtype and data.shape == images.shape and data.data_ptr() != images.data_ptr()
    )
    assert torch.equal(targets_a, targets) and isinstance(lam, float) and 0 <= lam <= 1
    assert sorted(partners_of(targets, targets_b)) == list(range(6))


@pytest.mark.parametrize("mix", [mixup, cutmix])
def test_same_generator_same_batch(mix):
    images, targets = a_batch()
    state = torch.get_rng_state()
    first, again, other = (
        mix(images, targets, 1.0, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first[0], again[0]) and first[3] == again[3] and first[3] != other[3]
    assert torch.equal(torch.get_rng_state(), state)


def test_mixup_blends_each_clip_with_its_partner(rng):
    images, targets = a_batch()
    for _ in range(10):
        data, _, targets_b, lam = mixup(images, targets, 0.5, rng)
        for i, partner in enumerate(partners_of(targets, targets_b)):
            torch.testing.assert_close(
                data[i], lam * images[i] + (1 - lam) * images[partner], rtol=1e-5, atol=1e-6
            )


@settings(max_examples=40, deadline=None)
@given(size=st.integers(1, 9), alpha=st.floats(0.05, 5), seed=st.integers(0, 2**32))
def test_mixup_keeps_the_sums(size, alpha, seed):
    images, targets = a_batch(size, dtype=torch.float64)
    data, targets_a, targets_b, lam = mixup(images, targets, alpha, np.random.default_rng(seed))
    mixed_targets = lam * targets_a + (1 - lam) * targets_b
    torch.testing.assert_close(mixed_targets.sum(0), targets.sum(0))
    torch.testing.assert_close(data.sum(0), images.sum(0))


@pytest.mark.parametrize("alpha", [0.5, 1.0, 4.0])
def test_lam_is_drawn_from_beta(alpha, rng):
    images, targets = a_batch(2, n_frames=1)
    lams = [mixup(images, targets, alpha, rng)[3] for _ in range(2000)]
    assert np.mean(lams) == pytest.approx(0.5, abs=0.04)
    assert np.var(lams) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.15)


@settings(max_examples=80, deadline=None)
@given(
    size=st.integers(1, 7),
    n_frames=st.integers(1, 40),
    alpha=st.floats(0.05, 5),
    seed=st.integers(0, 2**32),
)
def test_cutmix_lam_is_the_share_really_kept(size, n_frames, alpha, seed):
    images, targets = numbered(size, n_frames), torch.eye(size)
    data, _, targets_b, lam = cutmix(images, targets, alpha, np.random.default_rng(seed))
    partners = partners_of(targets, targets_b)
    for i, partner in enumerate(partners):
        assert set(data[i].unique().tolist()) <= {float(i), float(partner)}
        kept = (data[i] == i).double().mean().item()
        assert kept == pytest.approx(1.0 if partner == i else lam, abs=1e-9)


def test_cutmix_pastes_one_span_of_time_over_all_frequencies(rng):
    images, targets = numbered(2, 30), torch.eye(2)
    starts, spans = set(), set()
    for _ in range(400):
        data, _, targets_b, lam = cutmix(images, targets, 1.0, rng)
        if not targets_b[0, 1]:
            continue  # each clip is its own partner
        pasted = (data[0] == 1).all(dim=(0, 2))  # (T,)
        assert torch.equal(pasted, (data[0] == 1).any(dim=2).any(dim=0))  # no part of a frame
        frames = torch.nonzero(pasted)[:, 0].tolist()
        assert len(frames) == round(30 * (1 - lam)) and (
            not frames or frames == [*range(frames[0], frames[-1] + 1)]
        )
        starts |= {frames[0]} if frames else set()
        spans.add(len(frames))
    assert {0, 1, 28} <= starts and len(spans) > 25  # anywhere, of nearly any length


def test_cutmix_pastes_the_targets_of_steps_with_the_images(rng):
    images = numbered(4, 40)
    targets = torch.arange(4.0)[:, None, None].expand(-1, 1 + 10, 3).clone()  # a step: 4 frames
    for _ in range(50):
        data, ours, others, _ = cutmix(images, targets, 1.0, rng)
        assert torch.equal(ours[:, 0], targets[:, 0])  # the loss weighs those of clips
        assert torch.equal(ours[:, 1:], others[:, 1:])
        middles = data[:, 0, 1::4, 0], data[:, 0, 2::4, 0]  # frames beside the middle of a step
        agree = middles[0] == middles[1]
        assert torch.equal(ours[:, 1:, 0][agree], middles[0][agree].to(ours.dtype))
    assert (targets == torch.arange(4.0)[:, None, None]).all()  # the batch's own are unchanged


def test_mixup_leaves_the_targets_of_steps_with_their_clips(rng):
    targets = torch.arange(3.0)[:, None, None].expand(-1, 5, 2)
    _, ours, others, _ = mixup(numbered(3, 8), targets, 1.0, rng)
    assert torch.equal(ours, targets) and (others == others[:, :1, :1]).all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("mix", [mixup, cutmix])
def test_on_cuda_as_on_the_cpu(mix):
    images, targets = a_batch()
    here = mix(images, targets, 1.0, np.random.default_rng(4))
    there = mix(images.cuda(), targets.cuda(), 1.0, np.random.default_rng(4))
    assert there[0].is_cuda and there[2].is_cuda and here[3] == there[3]
    torch.testing.assert_close(there[0].cpu(), here[0])
    assert torch.equal(there[2].cpu(), here[2])
