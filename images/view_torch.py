"""`view.View` for batches, in torch: for the device front end and for exported models."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from configs import Config
from images import view


class TorchView(nn.Module):
    """Turns the mel power of a batch into what the network sees; see view.View.

    Axes: (B, n_frames, n_mels), time first.

    Args:
        config: clip and log-mel settings.
    """

    resize_frames: Tensor
    resize_bands: Tensor
    smoothing: Tensor
    smoothing_start: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        one = view.View(config)
        self.normalise = TORCH_NORMALISATIONS[config.normalisation]
        self.n_differences = len(one.differences)
        for number, matrix in enumerate(one.differences):
            self._keep(f"difference_{number}", matrix.T)
        if one.resize_frames is not None and one.resize_bands is not None:
            self._keep("resize_frames", one.resize_frames.T)
            self._keep("resize_bands", one.resize_bands)
        if config.compression == "pcen":
            hop_s = config.hop_length / config.sample_rate
            weights, start = view.smoothing_matrix(config.n_frames, hop_s)
            self._keep("smoothing", weights.T)
            self._keep("smoothing_start", start[:, None])

    def _keep(self, name: str, values: np.ndarray) -> None:
        constant = torch.from_numpy(np.ascontiguousarray(values)).float()
        self.register_parameter(name, nn.Parameter(constant, requires_grad=False))

    def forward(self, mel: Tensor) -> Tensor:
        """Mel power (B, n_frames, n_mels) to images (B, channels, image_frames, image_bands)."""
        return self.finish(self.levels(mel))

    def levels(self, mel: Tensor) -> Tensor:
        """`View.levels` of each clip (B, n_frames, n_mels)."""
        config = self.config
        if config.compression == "pcen":
            image = self._pcen(mel)
        else:
            floor = 1e-10 if config.power == 2 else 1e-5
            decibels = 20 / config.power * mel.clamp(min=floor).log10()
            if config.db_reference == "peak":
                decibels = decibels - decibels.amax(dim=(1, 2), keepdim=True)
            image = (decibels.clamp(min=-config.top_db) + config.top_db) / config.top_db

        peak = mel.amax(dim=(1, 2), keepdim=True)
        return torch.where(peak > 0, image, 0.0)

    def finish(self, image: Tensor) -> Tensor:
        """`View.finish` of each image (B, n_frames, n_mels)."""
        planes = [image]
        for number in range(self.n_differences):
            planes.append(torch.matmul(getattr(self, f"difference_{number}"), image))
        if self.config.channels == "floor":
            planes = [above_floor(image), image, image]
        if self.config.image_size is not None:
            planes = [
                torch.matmul(torch.matmul(self.resize_frames, plane), self.resize_bands)
                for plane in planes
            ]
        return torch.stack([self.normalise(plane) for plane in planes], dim=1)

    def _pcen(self, mel: Tensor) -> Tensor:
        mel = mel * float(view.PCEN_SCALE)
        smooth = torch.matmul(self.smoothing, mel) + self.smoothing_start
        # log(eps) + log1p(x / eps) is log(x + eps); exporters know log, and x is never near 0.
        quiet = torch.exp(-view.PCEN_GAIN * torch.log(smooth + view.PCEN_EPS))
        root = torch.exp(view.PCEN_POWER * torch.log(1 + mel * quiet / view.PCEN_BIAS))
        return (root - 1) * view.PCEN_BIAS**view.PCEN_POWER


def above_floor(image: Tensor) -> Tensor:
    """`view.above_floor` of each of (B, n_frames, n_mels)."""
    n_frames = image.shape[1]
    upper = image.topk(n_frames - n_frames // 2, dim=1).values  # exporters know no median
    return (image - upper[:, -1:]).clamp(min=0)


def min_max(image: Tensor) -> Tensor:
    """Shift and scale each of (B, n_frames, n_mels) to [0, 1]; flat ones give zeros."""
    scaled = image - image.amin(dim=(1, 2), keepdim=True)
    span = scaled.amax(dim=(1, 2), keepdim=True)
    return scaled / torch.where(span > 0, span, 1.0)


def standardise(image: Tensor) -> Tensor:
    """Shift and scale each of (B, n_frames, n_mels) to mean 0 and deviation 1; flat ones to 0."""
    centred = image - image.mean(dim=(1, 2), keepdim=True)
    deviation = centred.square().mean(dim=(1, 2), keepdim=True).sqrt()
    return torch.where(deviation > view.FLAT, centred / deviation.clamp(min=view.FLAT), 0.0)


def leave(image: Tensor) -> Tensor:
    """Return the images as they are."""
    return image


TORCH_NORMALISATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "min_max": min_max,
    "standard": standardise,
    "fixed": leave,
}
