"""Which part of a backbone the head sees."""

import pytest
import torch

from configs import UserError
from network.backbone import create_encoder, examine, find_backbone


def test_models_of_a_hub_keep_their_names():
    assert find_backbone("hf-hub:timm/resnet18.a1_in1k") == "hf-hub:timm/resnet18.a1_in1k"


@pytest.mark.parametrize("name", ["test_efficientnet", "mobilenetv3_small_050", "test_resnet"])
@pytest.mark.parametrize("block", [None, -1, -2])
def test_examined_maps_are_those_of_the_encoder(name, block):
    maps = examine(name, 3, 64, block)
    encoder = create_encoder(name, 3, pretrained=False, block=block).eval()
    with torch.no_grad():
        shape = encoder.forward_features(torch.zeros(1, 3, 64, 101)).shape
    assert (maps.n_features, maps.n_rows) == tuple(shape[1:3])


def test_the_last_block_comes_before_the_final_layers():
    torch.manual_seed(0)
    whole = create_encoder("test_efficientnet", 3, pretrained=False).eval()
    torch.manual_seed(0)
    trimmed = create_encoder("test_efficientnet", 3, pretrained=False, block=-1).eval()
    image = torch.rand(1, 3, 64, 101)
    with torch.no_grad():
        before = whole.blocks(whole.bn1(whole.conv_stem(image)))
        assert torch.equal(trimmed.forward_features(image), before)
        assert torch.equal(whole.bn2(whole.conv_head(before)), whole.forward_features(image))


def test_a_block_that_is_not_there_is_refused():
    with pytest.raises(UserError, match="head_block -20: .* has no such block"):
        create_encoder("test_efficientnet", 3, pretrained=False, block=-20)
