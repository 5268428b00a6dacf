"""The recipe of training images in batched torch code, for `frontend="device"`; see recipe.py.

The data set then hands over waveforms and draws, and the loader's processes do little more than
read. Formulas and draws are those of recipe.py; images differ by rounding only, as mel power is
single precision in both.

Axes: W waveforms of all birds of a batch, B images; an image here is (n_frames, n_mels), as the
model takes it.
"""

from typing import Any

import torch

from audio.mel import bank_settings, mel_bank
from configs import Config
from images.noise import PinkNoiseImages
from images.recipe import Draws
from images.view_torch import TorchView, min_max

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
        self.view = TorchView(config).to(device)
        bank = mel_bank(**bank_settings(config)).toarray().T  # (1 + n_fft // 2, n_mels)
        self.bank = torch.from_numpy(bank).to(device)
        self.window = torch.hann_window(config.n_fft, device=device)
        self._pink_images: torch.Tensor | None = None  # (pink.size, n_frames, n_mels)

    @torch.no_grad()
    def __call__(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Make images (B, in_channels, image_frames, image_bands) float32.

        Equal channels are views of one plane.

        Args:
            batch: `waveforms` (W, n_samples) float32 or int16, `bird_draws` (W, 2), `n_birds` (B,),
                `draws` (B, 12), and where there are any `band_gains` (B, n_mels), `crops` (B, 4)
                and `masks` (B, n_mels, n_frames) bool, all on the device.
        """
        mixed = self.mix_birds(batch)  # (B, n_frames, n_mels)
        if "band_gains" in batch:
            mixed = mixed * batch["band_gains"][:, None]

        image = self.apply_steps(self.view.levels(mixed), batch["draws"])
        if "crops" in batch:
            image = stretch(image, batch["crops"])
        if "masks" in batch:
            floor = image.amin((1, 2), keepdim=True)
            image = torch.where(batch["masks"].transpose(1, 2), floor, image)

        return self.view.finish(image).expand(-1, self.config.in_channels, -1, -1)

    def mix_birds(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """`recipe.mix_birds` of each image: (B, n_frames, n_mels)."""
        parts = batch["waveforms"].split(WAVEFORMS_AT_A_TIME)
        power = torch.cat([self.mel_power(part) for part in parts])  # (W, n_frames, n_mels)
        exponent, gain = batch["bird_draws"][:, :, None, None].unbind(1)  # each (W, 1, 1)
        power = raise_to(power, exponent) * gain

        # Without the number of waveforms the program would wait for a GPU to count them.
        image_of = torch.repeat_interleave(batch["n_birds"], output_size=len(power))  # (W,)
        mixed = power.new_zeros(len(batch["n_birds"]), *power.shape[1:])
        return mixed.index_add_(0, image_of, power)

    def mel_power(self, waveforms: torch.Tensor) -> torch.Tensor:
        """`mel.mel_power` of (W, n_samples) scaled to a peak of 1: (W, n_frames, n_mels)."""
        waveforms = waveforms.float()
        peak = waveforms.abs().amax(1, keepdim=True)
        half = self.config.n_fft // 2
        padded = torch.nn.functional.pad(waveforms / torch.where(peak > 0, peak, 1), (half, half))
        frames = padded.unfold(
            1, self.config.n_fft, self.config.hop_length
        )  # (W, n_frames, n_fft), a view
        spectrum = torch.view_as_real(torch.fft.rfft(frames * self.window))
        power = spectrum.square().sum(-1)  # (W, n_frames, 1 + n_fft // 2)
        if self.config.power == 1:
            power = power.sqrt()
        return power @ self.bank

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
        image = image * (1 - draws.weakened * (row / draws.ramp_rows).clamp(max=1))

        # shape_frequencies scales to a maximum of 1; so does raise_to.
        is_left_shaped = (draws.weakened > 0) & (draws.contrast == 0)
        peak = image.amax((1, 2), keepdim=True)
        image = image / torch.where(is_left_shaped & (peak > 0), peak, 1)
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


def raise_to(image: torch.Tensor, exponent: torch.Tensor) -> torch.Tensor:
    """Scale each of (B, n_frames, n_mels) to [0, 1] and raise it to its exponent (B, 1, 1).

    An exponent of 0 leaves it as it is.
    """
    return torch.where(exponent > 0, min_max(image) ** exponent, image)


def stretch(image: torch.Tensor, crops: torch.Tensor) -> torch.Tensor:
    """`masks.stretch` of each of (B, n_frames, n_mels) with its Crop, (B, 4)."""
    first_row, n_rows, first_frame, n_frames = crops.unbind(1)
    image = _interpolate(image.transpose(1, 2), first_row, n_rows).transpose(1, 2)
    return _interpolate(image, first_frame, n_frames)


def _interpolate(image: torch.Tensor, first: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
    """Stretch each image (B, n, m) along its first axis, from `first` on over `length` (B,)."""
    n = image.shape[1]
    cell = torch.arange(n, device=image.device) + 0.5
    centres = first[:, None] + cell * (length[:, None] / n) - 0.5  # (B, n)
    centres = centres.clamp(0, n - 1)
    low = centres.floor().long()
    high = (low + 1).clamp(max=n - 1)

    share = (centres - low)[:, :, None]
    pick_low, pick_high = (
        cells[:, :, None].expand(-1, -1, image.shape[2]) for cells in (low, high)
    )
    return image.gather(1, pick_low) * (1 - share) + image.gather(1, pick_high) * share
