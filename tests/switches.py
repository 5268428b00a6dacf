"""Every switch of training in a few groups that are switched on together, and what they need.

A new setting of train.py goes into a group of SWITCHES, with a value that is not its default. Where
a test of its own runs it, stopped and gone on, that test's file stands in ELSEWHERE.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import soundfile

from catalog.pseudo_labels import PSEUDO_COLUMNS, write_pseudo_labels
from catalog.vectors import About, write_vectors
from configs import Config
from tests.small_run import SPECIES, make_recordings, tiny_config

VECTOR_SIZE = 5
LICENCE = "CC BY-NC-SA 4.0"

SWITCHES: dict[str, dict[str, object]] = {
    "starting from the probe": {
        "head": "linear", "head_input": "rows", "head_block": -1, "mel_statistics": 8,
        "probe_start": True, "probe_clips": 2, "probe_noisy": 1, "probe_no_bird": 2,
        "probe_c": [0.01, 0.1], "probe_shrinkage": [0.3, 1.0], "loss_name": "cross_entropy",
        "smoothing": 0.1,
        "frozen_statistics": "always", "head_lr": 1e-4, "monitor": "last", "no_bird_class": True,
        "background_dir": "quiet_places", "p_background": 0.7, "background_snr_db": [0.0, 9.0],
        "background_by_folder": True, "p_second_background": 0.5, "negative_share": 0.2,
        "clip_position": "loudest", "clips_per_recording": 2, "valid_clips": 2, "train_bs": 6,
        "channels": "floor",
        "average_epochs": 2, "seed": 9, "p_contrast": 0.0, "early_stopping": 3,
    },
    "a teacher, then layer by layer": {
        "teacher_embeddings": "vectors.npz", "distill_weight": 0.5, "distill_epochs": 1,
        "frozen_epochs": 1, "layer_decay": 0.7, "lr": 2e-3, "scheduler_name": "one_cycle",
        "monitor": "macro_roc_auc", "probe_below": 100, "amp": False, "fmin": 300.0,
        "fmax": 12_000.0, "top_db": 60.0, "normalisation": "fixed", "db_reference": "full_scale",
        "mixup_alpha": 0.9, "p_mixup": 0.5, "p_cutmix": 0.5, "cutmix_alpha": 0.7,
        "focal_alpha": 0.5, "focal_gamma": 1.0, "label_smoothing": False, "secondary_value": 0.4,
    },
    "waveforms": {
        "pooling": "log_mean_exp", "loss_name": "asymmetric", "p_late_stripes": 1.0,
        "p_noise_injection": 0.5, "noise_injection_max": 0.1, "p_gaussian_noise": 0.5,
        "p_pink_noise": 0.5, "noise_snr_db": [3.0, 9.0], "p_random_volume": 0.5,
        "p_cosine_volume": 0.5, "volume_db": [-6.0, 6.0], "p_time_shift": 0.5, "p_speed": 0.5,
        "speed_rate": [0.8, 1.2], "p_waveform_mixup": 0.4, "waveform_mixup_alpha": 0.8,
        "p_or_mix": 0.5, "or_mix_snr_db": [-3.0, 3.0], "n_fft": 1024, "hop_length": 400,
        "power": 1, "compression": "pcen", "in_channels": 1, "sampling": "square_root",
        "rating_weights": True,
    },
    "images and pseudo-labels": {
        "head": "sed", "pooling": "max", "head_input": "rows", "loss_name": "soft_auc_bce",
        "pseudo_labels": "pseudo/one.csv", "pseudo_share": 0.4, "p_pseudo_mixup": 0.3,
        "pseudo_empty": 0.2, "pseudo_background": 0.5, "p_background": 0.5, "pseudo_power": 1.2,
        "label_cap": 0.9, "pseudo_cap": 0.75, "max_mixed_birds": 2, "p_stop_mixing": 0.1,
        "p_bird_contrast": 0.5, "p_bird_gain": 0.5, "p_gain": 0.5, "gain_db": [-6.0, 6.0],
        "p_low_pass": 0.5, "low_pass_hz": [2000.0, 6000.0], "p_equaliser": 0.5,
        "p_filter_augment": 0.5, "filter_db": [-3.0, 3.0], "p_resized_crop": 0.5,
        "resized_crop_scale": [0.7, 1.0], "p_masks": 0.5, "p_stripes": 0.5, "time_stripes": 2,
        "time_stripe_frames": 9, "band_stripes": 2, "band_stripe_bands": 5,
        "p_white_noise_image": 0.4, "p_pink_noise_image": 0.4, "p_band_noise_image": 0.4,
        "p_frequency_shaping": 0.2, "p_spec_augment": 0.5, "monitor": "macro_ap",
    },
    "gem, masked targets": {
        "pooling": "gem", "head": "linear", "loss_name": "bce_focal_2way",
        "loss_weights": [1.0, 0.5], "secondary_targets": "masked", "monitor": "cmap_pad_5",
        "image_size": [64, 48], "channels": "differences", "normalisation": "standard",
        "grad_clip": 0.5, "weight_decay": 1e-2, "channels_last": False, "dropout": 0.2,
    },
    "no bird, accumulated": {
        "no_bird_class": True, "loss_name": "cross_entropy_2way", "head_block": -2,
        "scheduler_name": "linear_warmup_cosine", "scheduler_params": {"warmup_steps": 2},
        "score_by": "softmax", "accumulation_steps": 2, "last_batch": "fill",
        "sampling": "balanced", "clip_position": "active", "frozen_statistics": "first",
        "frozen_epochs": 1, "p_pitch_shift": 0.2, "pitch_shift_semitones": [-1.0, 1.0],
        "p_time_stretch": 0.2, "time_stretch_rate": [0.8, 1.2],
    },
}  # fmt: skip

# What the small run itself sets, and what each group goes through: --debug, the device front end
BASE = {
    *("root", "base_model_name", "pretrained", "n_mels", "period", "train_bs", "valid_bs"),
    *("epochs", "folds", "num_workers", "device", "debug", "frontend", "ema_decay", "models_dir"),
    *("keep_checkpoints", "checkpoint_every_steps", "train_np_dir", "train_dataframe_path"),
}
ELSEWHERE = {
    **dict.fromkeys(("exp_id", "name", "notes"), "training/test_naming.py"),
    **dict.fromkeys(("soup", "soup_from", "soup_greedy"), "training/test_soup.py"),
    **dict.fromkeys(("annotations", "frame_labels", "sample_rate"), "test_timed_items.py"),
    **dict.fromkeys(("pretrained_path", "pretrained_checkpoint"), "test_model_weights.py"),
    "unlabelled": "catalog/test_annotated.py", "label_overlap": "catalog/test_annotated.py",
    "empty_windows": "settings/test_archive.py", "rare_birds": "catalog/test_train_table.py",
    "deterministic": "training/test_devices.py", "verify": "training/test_verifying.py",
    "profile": "training/test_stopwatch.py", "kaggle": "settings/test_kaggle.py",
    "refit": "training/test_refit.py", "find_lr": "training/test_rate_finder.py",
    "log": "training/test_loggers.py", "worst_clips": "training/test_loggers.py",
    "max_hours": "training/test_ending.py", "freeze": "test_probe.py",
    "max_bad_steps": "training/test_bad_steps.py", "amp_dtype": "training/test_resuming.py",
    **dict.fromkeys(("predict_score", "predict_shifts"), "test_predict.py"),
    "compile_model": "training/test_speed.py", "resume": "training/test_resuming.py",
    "checkpoint_every_minutes": "training/test_resuming.py", "teacher_features": "test_embed.py",
}  # fmt: skip


def make_material(root: Path) -> tuple[Config, pd.DataFrame]:
    """Make what every group needs under a folder; return its settings and the table."""
    config = tiny_config(root, train_bs=3, epochs=2, keep_checkpoints=9, ema_decay=0.9)
    df = make_recordings(config, 16).assign(rating=[float(number % 6) for number in range(16)])
    df.to_csv(config.train_dataframe_path, index=False)
    write_teacher(root / "vectors.npz", df)
    write_pseudo(root)
    for number in range(2):
        path = root / f"quiet_places/{number}/noise.wav"
        path.parent.mkdir(parents=True)
        noise = np.random.default_rng(number).standard_normal(64_000)
        soundfile.write(path, 0.1 * noise, 32_000)
    return config, df


def write_teacher(path: Path, df: pd.DataFrame, *, seed: int = 5) -> Path:
    """Write vectors of each half second of each recording but the last, a direction a species."""
    rng = np.random.default_rng(seed)
    of_species = {label: rng.standard_normal(VECTOR_SIZE) for label in SPECIES}
    names, starts, vectors = [], [], []
    for row in df.iloc[:-1].itertuples():
        for start_s in np.arange(0, 2.5, 0.5):
            names.append(row.filepath.removesuffix(".npy"))
            starts.append(start_s)
            vectors.append(of_species[row.primary_label] + 0.3 * rng.standard_normal(VECTOR_SIZE))
    write_vectors(path, names, np.array(starts), np.array(vectors), About("Owl", LICENCE, 0.5))
    return path


def write_pseudo(root: Path) -> None:
    """Write a soundscape of four windows, the last of them empty."""
    name = "dawn.wav"
    (root / "pseudo/np").mkdir(parents=True)
    noise = 0.1 * np.random.default_rng(4).standard_normal(4 * 32_000)
    np.save(root / f"pseudo/np/{name}.npy", noise.astype(np.float32))
    rows = []
    for number in range(4):
        labels, scores = (("bird1", "bird2"), (0.75, 0.5)) if number < 3 else ((), ())
        place = (name, f"np/{name}.npy", float(number), number + 1.0)
        rows.append((*place, labels, scores, (0,) * len(labels), sum(scores)))
    write_pseudo_labels(root / "pseudo/one.csv", pd.DataFrame(rows, columns=PSEUDO_COLUMNS))
