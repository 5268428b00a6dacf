"""The mel power of one clip on one core, against librosa, torch.stft and torchlibrosa.

    python -m benchmarks.mel [--clips 20] [--repeats 9]

Beside the time stands the largest difference from librosa in dB, wherever the value is above the
floor of 80 dB below the clip's peak.
"""

from collections.abc import Callable

import numpy as np
import torch

from audio.mel import mel_settings
from benchmarks import timing
from benchmarks.baseline import mel_spectrogram
from configs import Config
from transforms import mel_bank, mel_power, power_to_db

Mel = Callable[[np.ndarray], np.ndarray]


def main() -> None:
    """Measure and report."""
    options = timing.parse_options("mel", __doc__ or "", clips=20, repeats=9)
    config = Config()
    waveforms = make_clips(config, options.clips)
    ways: dict[str, Mel] = {
        "ours": lambda waveform: mel_power(waveform, **mel_settings(config)),
        "librosa": lambda waveform: mel_spectrogram(waveform, config),
        "torch.stft": with_torch(config),
        "torchlibrosa": with_torchlibrosa(config),
    }
    with timing.one_core():
        seconds = timing.alternate(
            {name: over(way, waveforms) for name, way in ways.items()}, options.repeats
        )
        rows = timing.summarise(seconds, len(waveforms), "clip")
        transform = timing.alternate(
            {"ours": over(transform_alone(config), waveforms)}, options.repeats
        )
    for row in rows:
        way = ways[row["candidate"]]
        row["dB off librosa"] = max(
            difference(way(waveform), ways["librosa"](waveform)) for waveform in waveforms
        )
    floor = timing.summarise(transform, len(waveforms), "clip")[0]["ms/clip"]
    timing.report("mel", rows, {"floor: the real FFT of float64 frames alone, ms/clip": floor})


def make_clips(config: Config, n_clips: int) -> list[np.ndarray]:
    """Make clips (n_samples,) float32 of a song in quiet noise, which show a lack of precision."""
    rng, time = np.random.default_rng(config.seed), np.arange(config.n_samples) / config.sample_rate
    clips = []
    for number in range(n_clips):
        song = np.sin(2 * np.pi * (2000 + 200 * number) * time) * (time % 1 < 0.3)
        clips.append((song + 1e-3 * rng.standard_normal(len(time))).astype(np.float32))
    return clips


def over(way: Mel, waveforms: list[np.ndarray]) -> Callable[[], None]:
    """Return a function that goes through the clips."""

    def run() -> None:
        for waveform in waveforms:
            way(waveform)

    return run


def difference(power: np.ndarray, of_librosa: np.ndarray) -> float:
    """Return the largest difference in dB, values under the floor taken as the floor."""
    return float(np.abs(power_to_db(power, 80.0) - power_to_db(of_librosa, 80.0)).max())


def with_torch(config: Config) -> Mel:
    """torch.stft in float32, zeros at the edges as librosa has them, and a dense mel product."""
    window = torch.hann_window(config.n_fft)
    bank = torch.from_numpy(_dense_bank(config))

    def mel(waveform: np.ndarray) -> np.ndarray:
        spectrum = torch.stft(
            torch.from_numpy(waveform),
            config.n_fft,
            config.hop_length,
            window=window,
            center=True,
            pad_mode="constant",
            return_complex=True,
        )
        return (bank @ spectrum.abs().square()).numpy()

    return mel


def _dense_bank(config: Config) -> np.ndarray:
    return mel_bank(
        config.sample_rate, config.n_fft, config.n_mels, config.fmin, config.fmax
    ).toarray()


def with_torchlibrosa(config: Config) -> Mel:
    """Torchlibrosa's Spectrogram, a convolution, and its mel product."""
    from torchlibrosa.stft import Spectrogram

    spectrogram = Spectrogram(
        config.n_fft, config.hop_length, center=True, pad_mode="constant", freeze_parameters=True
    )
    bank = torch.from_numpy(_dense_bank(config)).T.contiguous()

    def mel(waveform: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            power = spectrogram(torch.from_numpy(waveform)[None])[
                0, 0
            ]  # (n_frames, 1 + n_fft // 2)
            return (power @ bank).T.numpy()

    return mel


def transform_alone(config: Config) -> Mel:
    """Transform as many float64 frames as a clip has, in pieces that stay in the cache."""
    frames = torch.rand(config.n_frames, config.n_fft, dtype=torch.float64)

    def run(_: np.ndarray) -> np.ndarray:
        for some_frames in frames.split(2**17 // config.n_fft):
            torch.fft.rfft(some_frames)
        return np.zeros(0)

    return run


if __name__ == "__main__":
    main()
