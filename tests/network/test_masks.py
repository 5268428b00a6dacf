"""SpecAugment: stripes of 0 in a copy."""

import pytest
import torch

from network.masks import spec_augment


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
