"""Stripes of time and of frequency cut out of a batch of images, as it enters the backbone."""

from typing import NamedTuple

import torch
from torch import Tensor
from torchlibrosa.augmentation import SpecAugmentation

from configs import Config


class Stripes(NamedTuple):
    """Stripes that are set to an image's floor."""

    chance: float  # that an image has any
    n_times: int
    widest_time: int  # frames
    n_bands: int
    widest_band: int  # bands


def stripes_of(config: Config) -> Stripes:
    """Read from the settings what is cut out of images before the backbone."""
    return Stripes(
        config.p_late_stripes,
        config.time_stripes,
        config.time_stripe_frames,
        config.band_stripes,
        config.band_stripe_bands,
    )


def cut_stripes(images: Tensor, stripes: Stripes) -> Tensor:
    """Set stripes of each image to its lowest value; each image draws its own.

    Widths are uniform from 0 to the widest, which is at most half the image. Draws from torch's
    global generator.

    Args:
        images: (B, channels, T, F), unchanged.
        stripes: how many, and how wide.

    Returns:
        A new tensor of the same shape; all channels of an image have the same stripes.
    """
    n_images, _, n_frames, n_bands = images.shape
    device = images.device
    is_cut = torch.zeros(n_images, 1, n_frames, n_bands, dtype=torch.bool, device=device)
    for _ in range(stripes.n_times):
        is_cut |= _stripe(n_images, n_frames, stripes.widest_time, device)[:, None, :, None]
    for _ in range(stripes.n_bands):
        is_cut |= _stripe(n_images, n_bands, stripes.widest_band, device)[:, None, None, :]

    is_cut &= (torch.rand(n_images, device=device) < stripes.chance)[:, None, None, None]
    return torch.where(is_cut, images.amin(dim=(1, 2, 3), keepdim=True), images)


def _stripe(n_images: int, size: int, widest: int, device: torch.device) -> Tensor:
    """Draw a stripe for each image: (n_images, size) bool."""
    width = torch.randint(min(widest, size // 2) + 1, (n_images, 1), device=device)
    start = (torch.rand(n_images, 1, device=device) * (size - width + 1)).long()
    position = torch.arange(size, device=device)
    return (position >= start) & (position < start + width)


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
    # It writes in place, stripe by stripe. So it is given ones, on the CPU, where the stripes are
    # drawn: a GPU would get a launch for each.
    times = augment.time_dropper(_ones(images, n_frames, 1))  # (B, 1, T, 1)
    bands = augment.freq_dropper(_ones(images, 1, n_mels))  # (B, 1, 1, F)
    times, bands = (one.to(images.device, non_blocking=True) for one in (times, bands))
    return images * (times * bands)


def _ones(images: Tensor, n_frames: int, n_mels: int) -> Tensor:
    """Make ones (B, 1, n_frames, n_mels) on the CPU, from where they get to the images quickly."""
    shape = (len(images), 1, n_frames, n_mels)
    return torch.ones(shape, dtype=images.dtype, pin_memory=images.is_cuda)
