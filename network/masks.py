"""SpecAugment: stripes of time and of frequency cut out of a batch of images."""

import torch
from torch import Tensor
from torchlibrosa.augmentation import SpecAugmentation


def spec_augment(images: Tensor) -> Tensor:
    """Set two stripes of time and two of frequency to 0 in each image.

    SpecAugment, arXiv:1904.08779.
    It belongs after bn0, where 0 is about a band's mean. On a dB scale 0 would be full scale, not
    silence. Stripes are up to 31 frames and 3 bands wide, and narrower than half the image. Draws
    from torch's global generator.

    Args:
        images: (B, channels, T, F), unchanged.

    Returns:
        A new tensor of the same shape; all channels of an image have the same stripes.
    """
    n_frames, n_mels = images.shape[2:]
    augment = SpecAugmentation(
        time_drop_width=max(1, min(32, n_frames // 2)),
        time_stripes_num=2,
        freq_drop_width=max(1, min(4, n_mels // 2)),
        freq_stripes_num=2,
    )
    # It writes in place. On the images that would copy the batch's gradient once a stripe (40 times
    # as slow), so it is given ones.
    mask = augment(torch.ones_like(images[:, :1]))  # (B, 1, T, F)
    return images * mask
