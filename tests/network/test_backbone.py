"""Which part of a backbone the head sees."""

import os

import pytest
import torch

from configs import UserError
from network import backbone
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


# Weights for the next fold ------------------------------------------------------------------------


@pytest.fixture
def weights_file(tmp_path, monkeypatch):
    """A file with the weights of a small backbone, none read so far, and a count of readings."""
    monkeypatch.setattr(backbone, "_read_last", {})
    torch.manual_seed(1)
    path = tmp_path / "weights.pth"
    torch.save(create_encoder("test_efficientnet", 3, pretrained=False).state_dict(), path)
    readings, original = [], backbone._load
    monkeypatch.setattr(
        backbone, "_load", lambda *args: (readings.append(args), original(*args))[1]
    )
    return path, readings


def made(path, **how) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Weights and the random state afterwards; the weights are then spoiled, as by training."""
    torch.manual_seed(7)
    encoder = create_encoder("test_efficientnet", 3, pretrained=True, path=path, **how)
    state = {name: value.clone() for name, value in encoder.state_dict().items()}
    for parameter in encoder.parameters():
        torch.nn.init.zeros_(parameter)
    return state, torch.get_rng_state()


def test_a_second_fold_has_the_same_weights_and_draws_without_reading_the_file(
    weights_file,
):
    path, readings = weights_file
    (first, random_state), (second, again) = made(path), made(path)
    assert len(readings) == 1 and first.keys() == second.keys()
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert torch.equal(random_state, again)
    assert made(path, block=-2)[0].keys() < first.keys()  # a part of it is no other backbone
    assert len(readings) == 1


def test_weights_of_a_file_that_has_changed_or_are_large_are_read_again(weights_file, monkeypatch):
    path, readings = weights_file
    made(path)
    state = torch.load(path)
    state["conv_stem.weight"] += 1
    torch.save(state, path)
    os.utime(path, ns=(1, 1))
    found, _ = made(path)
    assert torch.equal(found["conv_stem.weight"], state["conv_stem.weight"]) and len(readings) == 2

    monkeypatch.setattr(backbone, "KEPT_BYTES", 1000)
    backbone._read_last.clear()
    made(path)
    made(path)
    assert len(readings) == 4


def test_a_file_that_is_gone_is_an_error_as_before(weights_file):
    path, _ = weights_file
    made(path)
    path.unlink()
    with pytest.raises(UserError, match="no such file"):
        made(path)
