"""Which memory format a backbone gets, and that the table names models that timm has."""

import pytest
import timm
import torch

from network.memory_format import SLOWER_IN_CHANNELS_LAST, pick_format, torch_format


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("tf_efficientnet_b0.ns_jft_in1k", "channels_last"),
        ("tf_efficientnet_lite0", "channels_last"),
        ("eca_nfnet_l0.ra2_in1k", "contiguous"),
        ("dm_nfnet_f0", "contiguous"),
        ("nf_regnet_b0", "channels_last"),  # 7 % faster
        ("regnety_032.ra_in1k", "contiguous"),
        ("regnety_002", "channels_last"),  # 11 % faster
        ("regnetx_004", "contiguous"),
        ("regnetz_005", "channels_last"),  # 32 % faster
        ("seresnext26ts.ch_in1k", "contiguous"),
        ("seresnext26t_32x4d", "channels_last"),  # 39 % faster
        ("rexnet_100", "contiguous"),
        ("rexnetr_130", "channels_last"),
        ("efficientnet_b0_gn", "contiguous"),
    ],
)
def test_families_on_cuda(name, expected):
    assert pick_format(name, "cuda").name == expected
    assert pick_format(name, "cpu").name == "channels_last"


def test_a_reason_has_its_number():
    assert pick_format("nfnet_l0", "cuda").reason.endswith("eca_nfnet_l0 in channels_last: -56 %")
    assert "most backbones" in pick_format("resnet50", "cuda").reason


def test_every_family_holds_the_model_that_was_measured_and_timm_knows_it():
    import re

    for family, (model, percent) in SLOWER_IN_CHANNELS_LAST.items():
        assert re.match(family, model) and percent < -10
        assert timm.is_model(model), model


def test_torchs_names():
    assert torch_format(True) is torch.channels_last
    assert torch_format(False) is torch.contiguous_format
