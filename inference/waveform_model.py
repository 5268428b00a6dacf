"""The network with its log-mel in front, as one graph of plain operations, for export.py."""

import copy
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from configs import BELOW_ONE, Config
from images.view_torch import TorchView
from transforms import mel_bank


class FrontEnd(nn.Module):
    """Waveforms to the images of validation, by one convolution and two matrix products in float32.

    The DFT is taken in two steps (Cooley and Tukey, 1965), n_fft = a * b. With sample b * i + j of
    a frame and frequency k1 + a * k2, step one sums over i for each j and k1, and holds window and
    twiddle factors too; step two sums over j. That is a tenth of the work of torchlibrosa's
    convolution with every sine and cosine; rounding errors are of the same order. b divides the
    hop, so step one is a strided convolution of each b-th sample.

    Args:
        config: audio settings.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        n_fft, hop_length = config.n_fft, config.hop_length
        self.is_magnitude = config.power == 1
        self.view = TorchView(config)
        common = math.gcd(n_fft, hop_length)
        divisors = [d for d in range(1, common + 1) if common % d == 0]
        self.b = b = min(divisors, key=lambda d: abs(math.log(d * d / n_fft)))
        self.a = a = n_fft // b
        self.stride = hop_length // b
        self.padding = (
            n_fft // 2,
            n_fft // 2 - config.n_samples % b,
        )  # whole multiples of b in all
        i, k1, j, k2 = np.arange(a), np.arange(a), np.arange(b), np.arange(b // 2 + 1)
        window = torch.hann_window(n_fft, dtype=torch.float64).numpy().reshape(a, b)
        turn = (
            np.outer(k1, i)[None] / a + (np.outer(j, k1) / n_fft)[:, :, None]
        )  # (b, a, a), of a circle
        first = np.exp(-2j * np.pi * turn) * window.T[:, None, :]  # (j, k1, i)
        second = np.exp(-2j * np.pi * np.outer(k2, j) / b)  # (k2, j)
        self.first = _constant(np.stack([first.real, first.imag], axis=2).reshape(b * a * 2, 1, a))
        real = np.concatenate([second.real, -second.imag], axis=1)  # (k2, 2 * j)
        imaginary = np.concatenate([second.imag, second.real], axis=1)
        self.second = _constant(np.concatenate([real, imaginary]))  # (2 * k2, 2 * j)
        bank = mel_bank(
            config.sample_rate, n_fft, config.n_mels, config.fmin, config.fmax
        ).toarray()
        k = (
            k1[:, None] + a * k2
        ).ravel()  # the order in which frequencies come out; some lie above n_fft / 2
        self.bank = _constant(
            np.where(k <= n_fft // 2, bank[:, np.minimum(k, n_fft // 2)], 0)
        )  # (n_mels, k)

    def forward(self, waveform: Tensor) -> Tensor:
        """(B, n_samples) -> (B, channels, image_frames, image_bands), as view.View makes them."""
        peak = waveform.abs().amax(dim=1, keepdim=True)
        x = waveform / torch.where(peak > 0, peak, 1.0)
        x = nn.functional.pad(x, self.padding)
        x = x.unflatten(1, (-1, self.b)).transpose(1, 2)  # (B, j, samples / b)
        x = nn.functional.conv1d(
            x, self.first, stride=self.stride, groups=self.b
        )  # (B, j * k1 * 2, n_frames)
        # One transposition of two axes: runtimes are several times slower at a permutation of more.
        x = x.unflatten(1, (self.b, self.a * 2)).transpose(1, 2)  # (B, k1 * 2, j, n_frames)
        x = x.unflatten(1, (self.a, 2)).flatten(2, 3)  # (B, k1, 2 * j, n_frames)
        x = torch.matmul(self.second, x).square()  # (B, k1, 2 * k2, n_frames)
        real, imaginary = x.chunk(2, dim=2)
        power = (real + imaginary).flatten(1, 2)  # (B, k1 * k2, n_frames)
        if self.is_magnitude:
            power = power.sqrt()
        return self.view(torch.matmul(self.bank, power).transpose(1, 2))


def _constant(values: np.ndarray) -> nn.Parameter:
    return nn.Parameter(torch.from_numpy(values).float(), requires_grad=False)


class HalfEncoder(nn.Module):
    """An encoder in float16; the normalisation before it and the head after it stay in float32."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder = encoder.half()

    def forward_features(self, images: Tensor) -> Tensor:
        """Return the encoder's feature maps, float16."""
        return self.encoder.forward_features(images.half())


class WaveformModel(nn.Module):
    """Waveforms (B, n_samples) to clipwise (B, C) and framewise (B, n_frames, C) scores.

    Args:
        models: the folds' networks; scores are the mean of their probabilities.
        config: audio settings.
        half: run the encoders in float16.
        weights: of the networks in the mean, summing to 1; None weighs them alike.
    """

    def __init__(
        self,
        models: Sequence[nn.Module],
        config: Config,
        *,
        half: bool = False,
        weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.weights = weights
        self.front_end = FrontEnd(config)
        self.in_channels = config.in_channels
        self.models = nn.ModuleList(copy.deepcopy(model) for model in models)
        for model in self.models if half else ():
            model.encoder = HalfEncoder(model.encoder)
        self.eval()

    def forward(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        """Score clips of any level; each is scaled to a peak of 1."""
        images = self.front_end(waveform).expand(-1, self.in_channels, -1, -1)
        outputs = [model(images) for model in self.models]
        clipwise, framewise = (
            self._average([output[name] for output in outputs]).clamp(max=BELOW_ONE)
            for name in ("clipwise_output", "framewise_output")
        )
        return clipwise, framewise

    def _average(self, scores: list[Tensor]) -> Tensor:
        if self.weights is None:
            return torch.stack(scores).mean(dim=0)
        weighed = [weight * one for weight, one in zip(self.weights, scores, strict=True)]
        return torch.stack(weighed).sum(dim=0)
