"""Where the weights of the SED model come from: backbones, files, checkpoints, no network."""

import pytest
import timm
import torch
from safetensors.torch import save_file

from configs import Config, UserError
from model import SED, TimmSED, build_model, find_backbone

SMALL = "test_efficientnet"
N_MELS = 64
HEAD = ("fc1.", "att_blocks.")


def encoder_tensors(sed: TimmSED) -> dict[str, torch.Tensor]:
    return {key: value for key, value in sed.state_dict().items() if not key.startswith(HEAD)}


# Names of backbones -------------------------------------------------------------------------------


def test_names_of_today_and_of_yesterday():
    assert find_backbone("tf_efficientnet_b0.ns_jft_in1k") == "tf_efficientnet_b0.ns_jft_in1k"
    assert (
        find_backbone("tf_efficientnet_b0_ns") == "tf_efficientnet_b0.ns_jft_in1k"
    )  # warnings are errors here
    assert find_backbone(SMALL) == SMALL


@pytest.mark.parametrize(
    ("name", "closest"),
    [
        ("tf_eficientnet_b0", "tf_efficientnet_b0"),
        ("tf_efficientnet_b0.ns_jft_in1", "tf_efficientnet_b0.ns_jft_in1k"),
        ("resnt18", "resnet18"),
    ],
)
def test_a_typo_gets_the_closest_names(name, closest):
    with pytest.raises(
        UserError, match=rf"unknown base_model_name '{name}'; did you mean .*{closest}"
    ):
        TimmSED(name)


def test_a_name_like_no_other():
    with pytest.raises(UserError, match="timm.list_models"):
        find_backbone("zzzzqqq")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("test_vit", "takes no images of 64 mel bands and any length"),
        ("mvitv2_tiny", "gives tokens"),
        ("inception_v4", "takes no images of 64 mel bands"),
    ],
)
def test_backbones_without_feature_maps_are_refused(name, why):
    with pytest.raises(UserError, match=rf"{name} {why}.*choose a convolutional backbone"):
        TimmSED(name, pretrained=True, n_mels=N_MELS)  # before any download


def test_parameters_that_touch_nothing_are_gone():
    plain = timm.create_model("mobilenetv3_small_050", num_classes=0, global_pool="")
    left = {
        key for key, _ in TimmSED("mobilenetv3_small_050", n_mels=N_MELS).encoder.named_parameters()
    }
    assert {key for key, _ in plain.named_parameters()} - left == {
        "conv_head.weight",
        "conv_head.bias",
    }


# Pretrained weights -------------------------------------------------------------------------------


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """The hub cannot be reached and the cache is empty; the errors are timm's own."""
    from huggingface_hub import constants

    def refuse():
        raise ConnectionError("[Errno -2] Name or service not known")

    monkeypatch.setattr("huggingface_hub.get_session", refuse)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return constants


def test_no_network_and_no_file_is_a_clear_error(no_network):
    with pytest.raises(UserError) as caught:
        TimmSED(SMALL, pretrained=True, n_mels=N_MELS)
    message = str(caught.value)
    assert "ImageNet weights of test_efficientnet cannot be had" in message
    assert "network" in message
    assert "--pretrained-path FILE" in message
    assert "--no-pretrained" in message
    assert "\n" not in message
    assert not no_network.HF_HUB_OFFLINE  # as it was


def test_a_download_that_fails_is_the_same_error(no_network, monkeypatch):
    create = timm.create_model

    def fail(name, *, pretrained=False, **settings):
        if pretrained:
            raise OSError("We couldn't connect to 'https://huggingface.co' to load the files.")
        return create(name, **settings)

    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(UserError, match=r"cannot be had \(We couldn't connect.*--pretrained-path"):
        TimmSED(SMALL, pretrained=True, n_mels=N_MELS)


@pytest.fixture(scope="module")
def backbone() -> torch.nn.Module:
    torch.manual_seed(11)
    return timm.create_model(SMALL, num_classes=1000)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_come_from_a_file(backbone, tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save(backbone.state_dict(), path)
    else:
        save_file(backbone.state_dict(), path)
    state = torch.get_rng_state()
    sed = TimmSED(SMALL, pretrained=True, n_mels=N_MELS, pretrained_path=path)
    wanted = backbone.state_dict()
    assert all(torch.equal(value, wanted[key]) for key, value in sed.encoder.state_dict().items())
    after_file = torch.get_rng_state()
    torch.set_rng_state(state)
    TimmSED(SMALL, n_mels=N_MELS)
    assert torch.equal(torch.get_rng_state(), after_file)  # the same head with and without a file


def test_grey_images_sum_the_stem_over_the_colours(backbone, tmp_path):
    save_file(backbone.state_dict(), tmp_path / "weights.safetensors")
    path = str(tmp_path / "weights.safetensors")
    sed = TimmSED(SMALL, pretrained=True, in_channels=1, n_mels=N_MELS, pretrained_path=path)
    expected = backbone.conv_stem.weight.sum(dim=1, keepdim=True)
    torch.testing.assert_close(sed.encoder.conv_stem.weight, expected)


class Trap:
    """Unpickles by making a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_file_that_is_no_weights_is_named(backbone, tmp_path):
    def load(name=SMALL, path=tmp_path / "weights.pth"):
        TimmSED(name, pretrained=True, n_mels=N_MELS, pretrained_path=path)

    with pytest.raises(UserError, match=r"pretrained_path .*weights.pth: no such file"):
        load()
    with pytest.raises(UserError, match="no such file"):
        load(path=tmp_path)
    (tmp_path / "weights.pth").write_text("not weights")
    with pytest.raises(UserError, match=r"weights.pth: not weights of test_efficientnet"):
        load()
    (tmp_path / "weights.safetensors").write_text("not weights")
    with pytest.raises(UserError, match=r"weights.safetensors: not weights of test_efficientnet"):
        load(path=tmp_path / "weights.safetensors")
    torch.save({"model": Trap(tmp_path / "sprung")}, tmp_path / "weights.pth")
    with pytest.raises(UserError, match="weights.pth: not weights"):
        load()
    assert not (tmp_path / "sprung").exists()
    torch.save(backbone.state_dict(), tmp_path / "weights.pth")
    with pytest.raises(
        UserError, match="not weights of test_resnet"
    ):  # which would start at random, in silence
        load("test_resnet")
    incomplete = {
        key: value
        for key, value in backbone.state_dict().items()
        if key != "blocks.1.0.conv_exp.weight"
    }
    torch.save(incomplete, tmp_path / "weights.pth")
    with pytest.raises(
        UserError, match=r"it lacks 1 of \d+ tensors \(the first: blocks.1.0.conv_exp.weight"
    ):
        load()
    torch.save({"model": TimmSED(SMALL, n_mels=N_MELS).state_dict()}, tmp_path / "weights.pth")
    with pytest.raises(UserError, match="given as pretrained_checkpoint"):
        load()


# Warm start ---------------------------------------------------------------------------------------


@pytest.fixture
def trained() -> TimmSED:
    """A model with statistics of its own in every batch norm."""
    torch.manual_seed(0)
    sed = TimmSED(SMALL, num_classes=5, n_mels=N_MELS)
    sed(torch.rand(2, 3, 60, N_MELS))
    return sed


@pytest.mark.parametrize("kind", ["checkpoint", "bare", "compiled"])
def test_warm_start_takes_the_encoder_and_not_the_head(trained, tmp_path, kind):
    content = {
        "checkpoint": {
            "model": trained.state_dict(),
            "epoch": 3,
            "class_names": ["a", "b"],
            "optimizer": {},
        },
        "bare": trained.state_dict(),
        "compiled": {
            "model": {f"_orig_mod.{key}": value for key, value in trained.state_dict().items()}
        },
    }[kind]
    torch.save(content, tmp_path / "checkpoint.pth")
    torch.manual_seed(5)
    warm = SED(
        SMALL,
        pretrained=True,  # the checkpoint brings the weights: no network is asked
        num_classes=9,
        n_mels=N_MELS,
        pretrained_checkpoint=tmp_path / "checkpoint.pth",
    )
    torch.manual_seed(5)
    cold = SED(SMALL, num_classes=9, n_mels=N_MELS)
    taken, source = encoder_tensors(warm), encoder_tensors(trained)
    assert taken.keys() == source.keys()
    assert all(torch.equal(value, source[key]) for key, value in taken.items())
    for key, value in warm.state_dict().items():
        if key.startswith(HEAD):
            assert torch.equal(value, cold.state_dict()[key])
    assert warm.att_blocks[0].cla.weight.shape[0] == 9


def test_a_checkpoint_that_does_not_fit_is_explained(trained, tmp_path):
    path = tmp_path / "checkpoint.pth"

    def warm(name=SMALL, n_mels=N_MELS):
        SED(name, num_classes=2, n_mels=n_mels, pretrained_checkpoint=path)

    with pytest.raises(UserError, match="checkpoint.pth: no such file"):
        warm()
    torch.save({"model": trained.state_dict()}, path)
    with pytest.raises(UserError, match="trained with n_mels 64, this run has 96"):
        warm(n_mels=96)
    with pytest.raises(
        UserError, match=r"not the encoder of a test_resnet .*base_model_name it was trained with"
    ):
        warm("test_resnet")
    torch.save({"model": [1, 2]}, path)
    with pytest.raises(UserError, match="holds no model weights"):
        warm()
    torch.save({"epoch": 3}, path)
    with pytest.raises(UserError, match="holds no model weights"):
        warm()
    torch.save({}, path)
    with pytest.raises(UserError, match="not the encoder"):
        warm()
    torch.save({"model": Trap(tmp_path / "sprung")}, path)
    with pytest.raises(UserError, match="cannot be read"):
        warm()
    assert not (tmp_path / "sprung").exists()
    path.write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(UserError, match="cannot be read"):
        warm()


def test_build_model_follows_the_config(trained, tmp_path):
    torch.save({"model": trained.state_dict()}, tmp_path / "checkpoint.pth")
    settings = {"base_model_name": SMALL, "n_mels": N_MELS, "dropout": 0.3, "p_spec_augment": 0.6}
    sed = build_model(Config(**settings, pretrained_checkpoint=tmp_path / "checkpoint.pth"), 7)
    assert (sed.dropout.p, sed.p_spec_augment, sed.n_mels) == (0.3, 0.6, N_MELS)
    assert sed.att_blocks[1].att.weight.shape[0] == 7
    assert all(
        torch.equal(value, encoder_tensors(trained)[key])
        for key, value in encoder_tensors(sed).items()
    )


def test_build_model_without_weights_needs_no_files(tmp_path, no_network):
    config = Config(
        base_model_name=SMALL, n_mels=N_MELS, pretrained_checkpoint=tmp_path / "gone.pth"
    )
    assert build_model(config, 7, load_weights=False).fc1.in_features == 256
    with pytest.raises(UserError, match="gone.pth: no such file"):
        build_model(config, 7)
    config = Config(
        base_model_name=SMALL, n_mels=N_MELS, pretrained_path=tmp_path / "gone.safetensors"
    )
    with pytest.raises(UserError, match="gone.safetensors: no such file"):
        build_model(config, 7)
    config = Config(
        base_model_name=SMALL,
        n_mels=N_MELS,
        pretrained=False,
        pretrained_path=tmp_path / "gone.pth",
    )
    assert build_model(config, 7).fc1.in_features == 256
