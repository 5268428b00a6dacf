"""Which memory format a backbone is fastest in: channels_last, or torch's own (contiguous)."""

import re
from typing import NamedTuple

import torch

# Training in mixed precision on an RTX 3090, images a second in channels_last against contiguous:
# timm's results/benchmark-train-amp-nhwc-pt112-cu113-rtx3090.csv and ...-nchw-....csv (torch 1.12,
# cuDNN 8; newer ones may do better with grouped convolutions, which is what these have in common).
# In the same tables: tf_efficientnet_b0 + 27 %, tf_efficientnet_lite0 + 34 %, tf_efficientnetv2_b0
# + 38 %, mobilenetv3_large_100 + 26 %, resnet50 + 47 %, resnext50_32x4d + 51 %, densenet121 + 25 %,
# regnetz_005 + 32 %, nf_regnet_b0 + 7 %, convnext_tiny + 1 %, vit_small_patch16_224 0 %.
SLOWER_IN_CHANNELS_LAST = {
    r"(eca_|dm_)?nfnet_": ("eca_nfnet_l0", -56),
    r"regnet[xv]_(?!002)": ("regnetx_032", -61),
    r"regnety_(?!002|004)": ("regnety_032", -29),
    r"resnest": ("resnest26d", -59),
    r"tresnet": ("tresnet_m", -71),
    r"(se|gc|eca_|bat_)?(resnext|botnext|halonext)26ts": ("resnext26ts", -21),
    r"rexnet_": ("rexnet_130", -25),
    r"efficientnet_b\d+(_g\d+)?_(gn|evos)": ("efficientnet_b0_gn", -18),
}


class Format(NamedTuple):
    """A memory format, and why it is chosen."""

    name: str  # "channels_last" or "contiguous"
    reason: str


def pick_format(base_model_name: str, device: str) -> Format:
    """Choose by the family of the backbone on CUDA, and channels_last elsewhere.

    Args:
        base_model_name: timm's name, with or without its tag.
        device: its kind, such as "cuda".
    """
    if device != "cuda":
        return Format("channels_last", "faster for EfficientNets on the CPUs that were measured")
    for family, (model, percent) in SLOWER_IN_CHANNELS_LAST.items():
        if re.match(family, base_model_name):
            return Format("contiguous", f"timm measured {model} in channels_last: {percent} %")
    return Format("channels_last", "faster for most backbones in timm's tables")


def torch_format(is_channels_last: bool) -> torch.memory_format:
    """Return torch's name of a format."""
    return torch.channels_last if is_channels_last else torch.contiguous_format
