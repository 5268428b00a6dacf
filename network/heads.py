"""Heads: from a feature map to a logit for each class, of the clip and of each moment.

Axes: B clips, n features, C outputs, T' segments, about T / 32 of the image's frames.
"""

import functools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from configs import Config
from images.view import resize_matrix

POOLINGS = ("attention", "mean", "max", "gem", "log_mean_exp")
LEAST = 1e-6  # of what a generalised mean is taken of


@dataclass(frozen=True)
class Head:
    """What stands on the backbone.

    Args:
        kind: "sed" has a hidden layer on smoothed segments, "linear" none: it classifies
            standardised segments.
        rows: keep the map's rows of frequency side by side; else they are averaged.
        pooling: of the segments; see LinearHead. "sed" with "attention" is the mean
            of two attention blocks.
        block: of the backbone, whose map it sees; see network.backbone.trim.
        statistics: bands of the image whose mean, deviation and maximum it sees, too; 0: none.
        softmax: scores are the softmax over classes; else each has its sigmoid.
        no_bird: one more class, the last, for clips without a bird; it has a logit and no score.
        planes: channels of the image whose statistics it sees, from the first on; of several the
            backbone sees the first alone.
    """

    kind: str = "sed"
    rows: bool = False
    pooling: str = "attention"
    block: int | None = None
    statistics: int = 0
    softmax: bool = False
    no_bird: bool = False
    planes: int = 1


def head_of(config: Config) -> Head:
    """Read the head from the settings."""
    return Head(
        kind=config.head,
        rows=config.head_input == "rows",
        pooling=config.pooling,
        block=config.head_block,
        statistics=config.mel_statistics,
        softmax=config.has_softmax_scores,
        no_bird=config.no_bird_class,
        planes=2 if config.channels == "floor" else 1,
    )


class AttBlockV2(nn.Module):
    """Attention over time, one weight for each class and segment (PANNs, arXiv:1912.10211).

    Args:
        in_features: channels of the input.
        out_features: classes.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.att = nn.Conv1d(in_features, out_features, kernel_size=1)
        self.cla = nn.Conv1d(in_features, out_features, kernel_size=1)
        for layer in (self.att, self.cla):
            init_layer(layer)

    def attention(self, features: Tensor) -> Tensor:
        """Weights of the segments: (B, in_features, T') -> (B, C, T'), positive, sum 1 over T'."""
        return torch.tanh(self.att(features)).softmax(dim=-1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Classify each segment and take the attention-weighted sums.

        Args:
            features: (B, in_features, T').

        Returns:
            clipwise_output (B, C): weighted sum of the segments' probabilities (not the sigmoid of
                `logit`);
            logit (B, C): weighted sum of their logits; segmentwise_output and segmentwise_logit (B,
                C, T').
        """
        weights = self.attention(features)  # (B, C, T')
        segmentwise_logit = self.cla(features)  # (B, C, T')
        segmentwise_output = torch.sigmoid(segmentwise_logit)
        clipwise_output = (weights * segmentwise_output).sum(dim=-1)  # (B, C)
        logit = (weights * segmentwise_logit).sum(dim=-1)  # (B, C)
        return clipwise_output, logit, segmentwise_output, segmentwise_logit


class LinearHead(nn.Module):
    """A linear classifier of standardised segments, whose logits are pooled over time.

    The mean of linear scores is the linear score of the mean. So a regression fitted to means over
    time is this head: with pooling "mean", and with "attention", whose weights start equal.

    Args:
        in_features: n.
        out_features: C.
        pooling: "attention" weighs segments class by class; "mean"; "max"; "log_mean_exp" is
            log(mean(exp(r * logit))) / r with a learnt r that starts at 1; "gem" pools features in
            place of logits, (mean(x^p))^(1/p) with a learnt p that starts at 3 (arXiv:1711.02512).

    Raises:
        ValueError: an unknown pooling; the message lists the known ones.
    """

    def __init__(self, in_features: int, out_features: int, pooling: str) -> None:
        super().__init__()
        if pooling not in POOLINGS:
            raise ValueError(f"unknown pooling {pooling!r}; choose from {', '.join(POOLINGS)}")

        self.pooling = pooling
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.zeros(in_features))
        self.register_buffer("std", torch.ones(in_features))
        self.cla = nn.Conv1d(in_features, out_features, kernel_size=1)
        init_layer(self.cla)

        if pooling == "attention":
            self.att = nn.Conv1d(in_features, out_features, kernel_size=1)
            nn.init.zeros_(self.att.weight)
            assert self.att.bias is not None
            nn.init.zeros_(self.att.bias)
        elif pooling == "gem":
            self.exponent = nn.Parameter(torch.tensor(3.0))
        elif pooling == "log_mean_exp":
            self.sharpness = nn.Parameter(torch.tensor(1.0))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Classify the clip and each segment.

        Args:
            features: (B, n, T').

        Returns:
            logit (B, C) and segmentwise_logit (B, C, T').
        """
        standardised = self.standardise(features)
        segmentwise = self.cla(standardised)  # (B, C, T')
        if self.pooling == "gem":
            pooled = self.standardise(self.pool_features(features)[:, :, None])  # (B, n, 1)
            return self.cla(pooled)[:, :, 0], segmentwise
        return self._pool(segmentwise, standardised), segmentwise

    def standardise(self, features: Tensor) -> Tensor:
        """(B, n, T') with the mean and deviation of clips taken out."""
        return (features - self.mean[:, None]) / self.std[:, None]

    def pool_features(self, features: Tensor) -> Tensor:
        """Pool features (B, n, T') over time, as a regression should see them: (B, n)."""
        if self.pooling != "gem":
            return features.mean(dim=-1)
        powers = features.clamp(min=LEAST) ** self.exponent
        return powers.mean(dim=-1) ** (1 / self.exponent)

    def _pool(self, logits: Tensor, features: Tensor) -> Tensor:
        """Pool logits (B, C, T') over time: (B, C)."""
        if self.pooling == "attention":
            weights = torch.tanh(self.att(features)).softmax(dim=-1)  # (B, C, T')
            return (weights * logits).sum(dim=-1)
        if self.pooling == "max":
            return logits.amax(dim=-1)
        if self.pooling == "log_mean_exp":
            sharpness = self.sharpness.clamp(min=0.01)
            peak = logits.amax(dim=-1, keepdim=True)
            mean = torch.exp(sharpness * (logits - peak)).mean(dim=-1)
            return peak[:, :, 0] + torch.log(mean) / sharpness
        return logits.mean(dim=-1)

    @torch.no_grad()
    def start_from(self, mean: Tensor, std: Tensor, weight: Tensor, bias: Tensor) -> None:
        """Take over a regression of standardised features: weight (C, n), bias (C,)."""
        self.mean.copy_(mean)
        self.std.copy_(std)
        self.cla.weight.copy_(weight[:, :, None])
        assert self.cla.bias is not None
        self.cla.bias.copy_(bias)


class BandStatistics(nn.Module):
    """Logits from the mean, deviation and maximum over time of each band of the image.

    They are the same for every moment of a clip: a bias for each clip and class. They start at 0.

    Args:
        n_mels: bands of the image.
        n_bands: bands that they are averaged to before.
        out_features: C.
        n_planes: channels of the image that are measured, from the first on.
    """

    def __init__(self, n_mels: int, n_bands: int, out_features: int, n_planes: int = 1) -> None:
        super().__init__()
        self.n_planes = n_planes
        self.to_bands: Tensor | None
        resize = None if n_bands == n_mels else torch.from_numpy(resize_matrix(n_mels, n_bands))
        self.register_buffer("to_bands", resize, persistent=False)
        self.mean: Tensor
        self.std: Tensor
        n = 3 * n_bands * n_planes
        self.register_buffer("mean", torch.zeros(n))
        self.register_buffer("std", torch.ones(n))
        self.cla = nn.Linear(n, out_features, bias=False)
        nn.init.zeros_(self.cla.weight)

    def measure(self, images: Tensor) -> Tensor:
        """Measure images (B, channels, T, F), plane after plane: (B, n_planes * 3 * n_bands)."""
        measured: list[Tensor] = []
        for plane in range(self.n_planes):
            image = images[:, plane].float()  # (B, T, F)
            if self.to_bands is not None:
                image = torch.matmul(image, self.to_bands)  # (B, T, n_bands)

            mean = image.mean(dim=1)
            deviation = (image - mean[:, None]).square().mean(dim=1).sqrt()
            measured += [mean, deviation, image.amax(dim=1)]
        return torch.cat(measured, dim=1)

    def forward(self, images: Tensor) -> Tensor:
        """Score the statistics of images (B, channels, T, F): (B, C)."""
        return self.cla((self.measure(images) - self.mean) / self.std)

    @torch.no_grad()
    def start_from(self, mean: Tensor, std: Tensor, weight: Tensor) -> None:
        """Take over a regression of standardised statistics: weight (C, n)."""
        self.mean.copy_(mean)
        self.std.copy_(std)
        self.cla.weight.copy_(weight)


def smooth_over_time(features: Tensor) -> Tensor:
    """Maximum plus mean of three segments around each of (B, n, T')."""
    highest = F.max_pool1d(features, 3, stride=1, padding=1)
    return highest + F.avg_pool1d(features, 3, stride=1, padding=1)


def must_repeat(features: Tensor) -> bool:
    """Say whether gradients must be equal from run to run where CUDA alone has them in no order."""
    return features.is_cuda and torch.are_deterministic_algorithms_enabled()


def resize_segments(segments: Tensor, n_frames: int) -> Tensor:
    """(B, C, T') -> (B, C, n_frames), linear between the segments' centres."""
    if must_repeat(segments):
        return resize_by_matrix(segments, n_frames)
    return F.interpolate(segments, size=n_frames, mode="linear", align_corners=False)


def resize_by_matrix(segments: Tensor, n_frames: int) -> Tensor:
    """Do the same as a product with a fixed matrix, whose gradient is a product, too.

    That of `F.interpolate` adds up in any order on CUDA (`torch.use_deterministic_algorithms`).
    Values differ from it by rounding, within 1e-6 of the largest.
    """
    return segments @ _resizing(segments.shape[2], n_frames, segments.device, segments.dtype)


@functools.lru_cache(maxsize=8)
def _resizing(n_segments: int, n_frames: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Make what each segment gives to each frame: (n_segments, n_frames)."""
    with torch.inference_mode(False), torch.no_grad():
        one_by_one = torch.eye(n_segments)[None]  # a clip whose classes are 1 in one segment each
        shares = F.interpolate(one_by_one, size=n_frames, mode="linear", align_corners=False)
        return shares[0].to(device, dtype)


def init_layer(layer: nn.Linear | nn.Conv1d) -> None:
    """Start a layer from small random weights and a bias of 0."""
    nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
