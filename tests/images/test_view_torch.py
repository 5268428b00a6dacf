"""The view in torch: flat and silent clips, and batches; test_view.py compares it with numpy's."""

import pytest
import torch

from configs import Config
from images.view_torch import TorchView


@pytest.mark.parametrize("normalisation", ["min_max", "standard"])
def test_flat_clips_give_zeros_and_no_nan(normalisation):
    view = TorchView(Config(n_mels=8, normalisation=normalisation))
    assert not view(torch.full((2, 313, 8), 0.5)).any()


def test_a_clip_is_the_same_alone_and_beside_a_louder_one():
    generator = torch.Generator().manual_seed(1)
    mel = torch.rand((2, 313, 8), generator=generator) * torch.tensor([1.0, 1e6])[:, None, None]
    for changes in ({}, {"channels": "differences"}, {"compression": "pcen"}):
        view = TorchView(Config(n_mels=8, **changes))
        torch.testing.assert_close(view(mel)[0], view(mel[:1])[0], rtol=1e-5, atol=1e-6)


def test_it_has_nothing_to_learn():
    view = TorchView(Config(channels="differences", image_size=(20, 30), compression="pcen"))
    assert list(view.parameters()) and not any(one.requires_grad for one in view.parameters())
