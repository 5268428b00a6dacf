"""SpecAugment: stripes of 0 in a copy."""

import pytest
import torch

from model import Head, TimmSED
from network.masks import Stripes, cut_stripes, spec_augment


@pytest.mark.parametrize("shape", [(4, 3, 313, 64), (2, 3, 20, 16), (2, 1, 3, 2), (2, 3, 1, 1)])
def test_spec_augment_cuts_stripes_out_of_a_copy(shape):
    torch.manual_seed(0)
    images = torch.rand(shape) + 1
    before = images.clone()
    for _ in range(20):
        masked = spec_augment(images)
        assert torch.equal(images, before)
        zero = masked == 0
        assert torch.equal(masked[~zero], images[~zero])
        assert torch.equal(zero, zero[:, :1].expand_as(zero))  # all channels alike
        whole_frames, whole_bands = zero.all(dim=3)[:, 0], zero.all(dim=2)[:, 0]  # (B, T), (B, F)
        assert torch.equal(zero[:, 0], whole_frames[:, :, None] | whole_bands[:, None, :])
        assert (whole_frames.sum(dim=1) <= min(2 * 31, max(shape[2] - 1, 0))).all()
        assert (whole_bands.sum(dim=1) <= min(2 * 3, max(shape[3] - 1, 0))).all()


def test_spec_augment_draws_for_each_image_from_the_global_generator():
    images = torch.ones(8, 3, 313, 64)
    torch.manual_seed(3)
    first = spec_augment(images)
    assert len({tuple((image == 0).sum(dim=(1, 2)).tolist()) for image in first}) > 4
    torch.manual_seed(3)
    assert torch.equal(spec_augment(images), first)


def test_late_stripes_are_set_to_the_floor_of_each_image():
    torch.manual_seed(0)
    images = torch.rand(40, 3, 50, 30) + torch.arange(40)[:, None, None, None]
    stripes = Stripes(chance=0.5, n_times=1, widest_time=10, n_bands=1, widest_band=6)
    cut = cut_stripes(images, stripes)
    differs = (cut != images).any(dim=1)  # (40, 50, 30)
    assert 8 < differs.any(dim=(1, 2)).sum() < 32

    floor = images.amin(dim=(1, 2, 3))[:, None, None].expand(40, 50, 30)
    assert torch.equal(cut[:, 0][differs], floor[differs])
    whole_frames, whole_bands = differs.all(dim=2), differs.all(dim=1)
    assert (whole_frames.sum(dim=1) <= 10).all() and (whole_bands.sum(dim=1) <= 6).all()


def test_band_statistics_do_not_see_late_stripes():
    torch.manual_seed(0)
    stripes = Stripes(chance=1.0, n_times=1, widest_time=20, n_bands=1, widest_band=16)
    head = Head("linear", statistics=8)
    sed = TimmSED(
        "test_efficientnet",
        num_classes=2,
        n_mels=32,
        p_spec_augment=0.0,
        head=head,
        stripes=stripes,
    )
    seen = []
    sed.band_statistics.register_forward_hook(lambda _, inputs, output: seen.append(inputs[0]))
    images = torch.rand(4, 3, 40, 32)
    torch.manual_seed(1)
    one = sed.train()(images)["logit"]
    other = sed(images)["logit"]
    assert all(torch.equal(image, images) for image in seen)
    assert not torch.equal(one, other)
