"""The settings of a clip: what it is, which are taken, and what is done to them before training."""

from typing import Annotated, Literal

from pydantic import Field, field_validator
from pydantic.dataclasses import dataclass

from settings.groups import (
    CHOICE,
    CLIP,
    IMAGE,
    INHERITED,
    MIXING,
    WAVEFORM,
    Count,
    NotNegative,
    NotNegativeFloat,
    Positive,
    Probability,
)
from settings.pseudo import PseudoSettings


@dataclass(kw_only=True, config=INHERITED)
class SoundSettings(PseudoSettings):
    """The settings of a clip; `configs.Config` adds all others."""

    # Clip and log-mel
    period: Positive = CLIP(5.0, "length of a clip", unit="s")
    n_fft: Annotated[int, Field(ge=16, multiple_of=2)] = CLIP(
        2048, "length of an STFT frame, an even number", unit="samples"
    )
    hop_length: Count = CLIP(512, "step from one frame to the next", unit="samples")
    n_mels: Annotated[int, Field(ge=8)] = CLIP(224, "mel bands")
    fmin: NotNegativeFloat = CLIP(20.0, "lower edge of the lowest mel band", unit="Hz")
    fmax: Positive = CLIP(
        16_000.0, "upper edge of the highest mel band, at most half the sample rate", unit="Hz"
    )
    top_db: Positive = CLIP(80.0, "depth of the log-mel below the peak of its clip", unit="dB")
    power: Literal[1, 2] = CLIP(
        2, "sum the power (2) or the magnitude (1) of frequencies in a band"
    )
    compression: Literal["db", "pcen"] = CLIP(
        "db", "scale of the log-mel: decibels, or per-channel energy normalisation"
    )
    db_reference: Literal["peak", "full_scale"] = CLIP(
        "peak", "what 0 dB means: the peak of the clip, or a power of 1"
    )
    normalisation: Literal["min_max", "standard", "fixed"] = CLIP(
        "min_max", "each clip to 0..1, to mean 0 and deviation 1, or fixed: (dB + top_db) / top_db"
    )
    image_size: tuple[Count, Count] | None = CLIP(
        None, "frames and bands to resize the image to; none: those of the STFT"
    )
    channels: Literal["repeat", "differences", "floor"] = CLIP(
        "repeat",
        "copies of the image; it with its first and second differences; or it above the floor of "
        "noise, each band's median, and as it is: the last for band statistics alone",
    )
    in_channels: Literal[1, 3] = CLIP(3, "number of channels of the image")

    # Choice of clips
    clips_per_recording: Count = CHOICE(
        1, "clips of each recording in an epoch", on_resume="counted"
    )
    sampling: Literal["rows", "square_root", "balanced"] = CHOICE(
        "rows", "draw species by their recordings, by the square root of these, or all alike"
    )
    rating_weights: bool = CHOICE(False, "draw well rated recordings more often")
    clip_position: Literal["random", "loudest", "active"] = CHOICE(
        "random", "cut a clip anywhere, where the recording is loudest, or where most happens"
    )
    negative_share: Annotated[float, Field(ge=0, lt=1)] = CHOICE(
        0.0, "fraction of an epoch that is only background, from background_dir",
        on_resume="counted",
    )  # fmt: skip
    valid_clips: Count = CHOICE(
        1, "largest number of clips of a recording in validation; their scores are averaged"
    )

    # Waveform augmentation
    p_noise_injection: Probability = WAVEFORM(0.0, "chance of white noise of random amplitude")
    noise_injection_max: Positive = WAVEFORM(0.04, "its largest amplitude, for a peak of 1")
    p_gaussian_noise: Probability = WAVEFORM(0.0, "chance of white noise at a random SNR")
    p_pink_noise: Probability = WAVEFORM(0.0, "chance of 1/f noise at a random SNR")
    noise_snr_db: tuple[float, float] = WAVEFORM((5.0, 20.0), "range of that SNR", unit="dB")
    p_pitch_shift: Probability = WAVEFORM(0.0, "chance of another pitch; slow")
    pitch_shift_semitones: tuple[float, float] = WAVEFORM(
        (-2.0, 2.0), "range of the shift", unit="semitones"
    )
    p_time_stretch: Probability = WAVEFORM(0.0, "chance of another tempo; slow")
    time_stretch_rate: tuple[Positive, Positive] = WAVEFORM(
        (0.9, 1.1), "range of the tempo; above 1 is faster"
    )
    p_random_volume: Probability = WAVEFORM(0.0, "chance of a constant gain")
    p_cosine_volume: Probability = WAVEFORM(0.0, "chance of a gain that swings slowly")
    volume_db: tuple[float, float] = WAVEFORM((-10.0, 10.0), "range of both gains", unit="dB")

    p_time_shift: Probability = WAVEFORM(
        0.0, "chance to roll a recording of one clip or less in time"
    )
    p_speed: Probability = WAVEFORM(0.0, "chance of another speed, which changes the pitch, too")
    speed_rate: tuple[Positive, Positive] = WAVEFORM(
        (0.9, 1.1), "range of the speed; above 1 is faster"
    )
    p_background: Probability = WAVEFORM(0.0, "chance of background noise, from background_dir")
    background_snr_db: tuple[float, float] = WAVEFORM(
        (0.0, 15.0), "range of the clip's power above the background's", unit="dB"
    )
    background_by_folder: bool = WAVEFORM(
        False, "draw one of background_dir's folders first, so that small ones are heard as often"
    )
    p_second_background: Probability = WAVEFORM(
        0.0, "chance that a clip over a background lies over another one, too"
    )
    p_waveform_mixup: Probability = WAVEFORM(
        0.0, "chance of MixUp with another clip, of waveforms and targets"
    )
    waveform_mixup_alpha: Positive = WAVEFORM(0.5, "it draws its share from Beta(alpha, alpha)")
    p_or_mix: Probability = WAVEFORM(
        0.0, "chance, if not mixed up, to add another clip; the targets are the birds of both"
    )
    or_mix_snr_db: tuple[float, float] = WAVEFORM(
        (-5.0, 5.0), "range of the clip's power above the added one's", unit="dB"
    )

    # Image augmentation
    frontend: Literal["auto", "cpu", "device"] = IMAGE(
        "auto",
        "where training images are made: cpu (loader's processes) or device; auto: device on CUDA",
    )
    max_mixed_birds: Count = IMAGE(3, "largest number of recordings in one training image")
    p_stop_mixing: Probability = IMAGE(0.3, "chance to stop adding recordings after each one")
    p_bird_contrast: Probability = IMAGE(
        1.0, "chance to raise a recording's mel power to a random exponent in 0.5..3.5"
    )
    p_bird_gain: Probability = IMAGE(1.0, "chance to multiply it by a random factor in 1..101")
    p_gain: Probability = IMAGE(
        0.0, "chance of a gain; it matters in sums of recordings and for full_scale"
    )
    gain_db: tuple[float, float] = IMAGE((-12.0, 12.0), "range of that gain", unit="dB")
    p_low_pass: Probability = IMAGE(0.0, "chance of a low-pass, 12 dB an octave")
    low_pass_hz: tuple[Positive, Positive] = IMAGE(
        (1000.0, 8000.0), "range of its cut-off", unit="Hz"
    )
    p_equaliser: Probability = IMAGE(0.0, "chance of a gain around one frequency")
    p_filter_augment: Probability = IMAGE(
        0.0, "chance of FilterAugment: 2 to 5 bands, each with its own gain"
    )
    filter_db: tuple[float, float] = IMAGE(
        (-6.0, 6.0), "range of the gains of the equaliser and FilterAugment", unit="dB"
    )
    p_white_noise_image: Probability = IMAGE(0.9, "chance of noise over the whole image")
    p_pink_noise_image: Probability = IMAGE(0.9, "chance of the log-mel of 1/f noise")
    p_band_noise_image: Probability = IMAGE(0.9, "chance of noise in a band of frequencies")
    p_frequency_shaping: Probability = IMAGE(0.5, "chance of a tilt towards low frequencies")
    p_contrast: Probability = IMAGE(
        1.0, "chance to raise the finished image to a random exponent in 0.7..2.7"
    )
    p_resized_crop: Probability = IMAGE(
        0.0, "chance to crop the image and resize the crop to the full size"
    )
    resized_crop_scale: tuple[Positive, Probability] = IMAGE(
        (0.8, 1.0), "range of the crop, as a fraction of frames and of bands"
    )
    p_masks: Probability = IMAGE(0.0, "chance to mask rectangles of the image")
    p_stripes: Probability = IMAGE(
        0.0, "chance to set stripes of frames and bands to the image's minimum"
    )
    time_stripes: NotNegative = IMAGE(1, "number of stripes of frames")
    time_stripe_frames: Count = IMAGE(60, "largest width of such a stripe", unit="frames")
    band_stripes: NotNegative = IMAGE(1, "number of stripes of bands")
    band_stripe_bands: Count = IMAGE(28, "largest width of such a stripe", unit="bands")
    p_spec_augment: Probability = IMAGE(
        0.25, "chance of SpecAugment in the model: the same stripes masked in a whole batch"
    )

    # Batch mixing
    p_mixup: Probability = MIXING(0.25, "chance of MixUp of a batch")
    mixup_alpha: Positive = MIXING(0.5, "MixUp draws lam from Beta(alpha, alpha)")
    p_cutmix: Probability = MIXING(0.25, "chance of CutMix of a batch without MixUp")
    cutmix_alpha: Positive = MIXING(1.0, "CutMix draws lam from Beta(alpha, alpha)")

    @field_validator(
        "noise_snr_db",
        "pitch_shift_semitones",
        "time_stretch_rate",
        "volume_db",
        "speed_rate",
        "background_snr_db",
        "or_mix_snr_db",
        "gain_db",
        "low_pass_hz",
        "filter_db",
        "resized_crop_scale",
    )
    @classmethod
    def _ordered(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] > value[1]:
            raise ValueError(f"the lower end comes first, got {value}")
        return value
