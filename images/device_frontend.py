"""The recipe of training images in batched torch code, for `frontend="device"`; see recipe.py.

The data set then hands over waveforms and draws, and the loader's processes do little more than
read. Formulas and draws are those of recipe.py; images differ by rounding only, as mel power is
single precision in both.

Axes: W waveforms of all birds of a batch, B images; an image here is (n_frames, n_mels), as the
model takes it.
"""

from typing import Any

import torch

from audio.mel import mel_bank
from configs import Config
from images.noise import PinkNoiseImages
from images.recipe import Draws

WAVEFORMS_AT_A_TIME = 16  # their frames and spectra take 160 MB at the default settings


class DeviceFrontend:
    """Makes a batch's images on the training device.

    Args:
        config: clip and log-mel settings.
        pink: noise images, which know the mel settings too; copied to the device when the first
            batch comes.
        device: where the batches are.
    """

    def __init__(self, config: Config, pink: PinkNoiseImages, device: torch.device) -> None:
        self.config, self.pink, self.device = config, pink, device
        bank_settings = {
            name: value for name, value in pink.mel_settings.items() if name != "hop_length"
        }
        self.bank = torch.from_numpy(mel_bank(**bank_settings).toarray().T).to(
            device
        )  # (1 + n_fft // 2, n_mels)
        self.window = torch.hann_window(config.n_fft, device=device)
        self._pink_images: torch.Tensor | None = None  # (pink.size, n_frames, n_mels)

    @torch.no_grad()
    def __call__(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Make images (B, 3, n_frames, n_mels) float32 in [0, 1], three views of one plane.

        Args:
            batch: `waveforms` (W, n_samples) float32 or int16, `bird_draws` (W, 2), `n_birds` (B,),
                `draws` (B, 12), and `masks` (B, n_mels, n_frames) bool where there are any, all on
                the device.
        """
        power = torch.cat(
            [self.mel_power(part) for part in batch["waveforms"].split(WAVEFORMS_AT_A_TIME)]
        )
        exponent, gain = batch["bird_draws"][:, :, None, None].unbind(
            1
        )  # as in BirdDraws, each (W, 1, 1)
        power = raise_to(power, exponent) * gain  # (W, n_frames, n_mels)
        image_of = torch.repeat_interleave(batch["n_birds"])  # (W,)
        mixed = power.new_zeros(len(batch["n_birds"]), *power.shape[1:]).index_add_(
            0, image_of, power
        )
        image = self.apply_steps(to_unit_image(mixed, self.config.top_db), batch["draws"])
        if "masks" in batch:
            image = torch.where(
                batch["masks"].transpose(1, 2), image.amin((1, 2), keepdim=True), image
            )
        return min_max(image)[:, None].expand(-1, 3, -1, -1)

    def mel_power(self, waveforms: torch.Tensor) -> torch.Tensor:
        """`mel.mel_power` of (W, n_samples) scaled to a peak of 1: (W, n_frames, n_mels)."""
        waveforms = waveforms.float()
        peak = waveforms.abs().amax(1, keepdim=True)
        half = self.config.n_fft // 2
        padded = torch.nn.functional.pad(waveforms / torch.where(peak > 0, peak, 1), (half, half))
        frames = padded.unfold(
            1, self.config.n_fft, self.config.hop_length
        )  # (W, n_frames, n_fft), a view
        spectrum = torch.view_as_real(
            torch.fft.rfft(frames * self.window)
        )  # (W, n_frames, 1 + n_fft // 2, 2)
        return spectrum.square().sum(-1) @ self.bank

    def apply_steps(self, image: torch.Tensor, all_draws: torch.Tensor) -> torch.Tensor:
        """`recipe.apply_steps` of each image (B, n_frames, n_mels) with its draws, (B, 12)."""
        each: Any = all_draws[:, :, None, None].unbind(1)
        draws: Any = Draws(*each)  # of tensors (B, 1, 1)
        _, n_frames, n_mels = image.shape
        row = torch.arange(n_mels, device=image.device)
        frame = torch.arange(n_frames, device=image.device)[:, None]

        image = image + (uniform(draws.white_key, row * n_frames + frame) + 10) * (
            mean(image) * draws.white_strength
        )
        pink_frames = (
            frame.flatten() - draws.pink_shift.long().flatten(1)
        ) % n_frames  # (B, n_frames)
        pink = self.pink_images()[
            draws.pink_number.long().flatten(1), pink_frames
        ]  # (B, n_frames, n_mels)
        image = image + (pink + 2.5) * (mean(image) * draws.pink_strength)
        in_band = (row >= draws.band_start) & (row < draws.band_stop)
        noise = uniform(draws.band_key, (row - draws.band_start.long()) * n_frames + frame) + 9
        image = image + in_band * noise * (mean(image) * draws.band_strength)
        image = image * (
            1 - draws.weakened * (row / draws.ramp_rows).clamp(max=1)
        )  # raise_to scales it anyway
        return raise_to(image, draws.contrast)

    def pink_images(self) -> torch.Tensor:
        """Return all pink-noise images, (size, n_frames, n_mels), on the device."""
        if self._pink_images is None:
            images = torch.stack([torch.tensor(self.pink.image(k)) for k in range(self.pink.size)])
            self._pink_images = images.transpose(1, 2).contiguous().to(self.device)
        return self._pink_images


def uniform(key: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
    """Return u in [0, 1) as `noise.add_uniform` has it, for keys (B, 1, 1) at positions."""
    low = 0xFFFFFFFF  # products of 32-bit numbers wrap around in int64; their low 32 bits are right
    x = (position * 0x9E3779B9 + key.long()) & low
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & low
    x = ((x ^ (x >> 15)) * 0x846CA68B) & low
    x = x ^ (x >> 16)
    return (x >> 8).float() * 2**-24


def mean(image: torch.Tensor) -> torch.Tensor:
    """Average each of (B, n_frames, n_mels): (B, 1, 1)."""
    return image.mean((1, 2), keepdim=True)


def min_max(image: torch.Tensor) -> torch.Tensor:
    """Shift and scale each of (B, n_frames, n_mels) to [0, 1]; flat ones give zeros."""
    scaled = image - image.amin((1, 2), keepdim=True)
    span = scaled.amax((1, 2), keepdim=True)
    return scaled / torch.where(span > 0, span, 1)


def raise_to(image: torch.Tensor, exponent: torch.Tensor) -> torch.Tensor:
    """Scale to [0, 1], then raise each of (B, n_frames, n_mels) to its exponent (B, 1, 1) > 0."""
    return min_max(image) ** exponent


def to_unit_image(power: torch.Tensor, top_db: float) -> torch.Tensor:
    """`recipe.to_unit_image` of each of (B, n_frames, n_mels)."""
    decibels = 10 * power.clamp(min=1e-10).log10()
    peak = decibels.amax((1, 2), keepdim=True)
    return (
        ((decibels - peak).clamp(min=-top_db) + top_db)
        / top_db
        * power.any(2).any(1)[:, None, None]
    )
