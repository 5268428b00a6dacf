"""Settings: defaults, YAML, flags, and what happens to mistakes."""

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from configs import (
    Config,
    settings,
    settings_where,
)

ROOT = Path(__file__).resolve().parent.parent


def test_defaults_are_those_of_the_contract():
    config = Config(num_workers=0)
    expected = {
        "exp_id": 47, "seed": 8, "epochs": 120, "n_folds": 5, "folds": [0, 1, 2, 3, 4], "lr": 1e-3,
        "weight_decay": 1e-6, "train_bs": 32, "valid_bs": 32,
        "base_model_name": "tf_efficientnet_b0.ns_jft_in1k",
        "pretrained": True, "pretrained_path": None, "pretrained_checkpoint": None,
        "scheduler_name": "reduce_lr_on_plateau", "amp": True,
        "scheduler_params": {"factor": 0.9, "patience": 5},
        "sample_rate": 32000, "period": 5.0, "n_mels": 224, "n_fft": 2048, "hop_length": 512,
        "fmin": 20.0, "fmax": 16000.0, "top_db": 80.0, "max_seconds": 30.0, "label_smoothing": True,
        "rare_birds": ["brcwea1", "lotcor1", "whhsaw1"], "device": "auto", "debug": False,
    }  # fmt: skip
    assert {name: getattr(config, name) for name in expected} == expected
    assert (config.n_samples, config.n_frames) == (160_000, 313)  # 5 s at 32 kHz; 1 + 160000 // 512
    assert config.train_dataframe_path == Path("train.csv")


def test_two_configs_share_nothing():
    first, second = Config(), Config()
    first.folds.append(9)
    first.scheduler_params["factor"] = 0.5
    assert second.folds == [0, 1, 2, 3, 4]
    assert Config().scheduler_params == second.scheduler_params == {"factor": 0.9, "patience": 5}


def test_relative_paths_lie_under_root(tmp_path):
    config = Config(root=tmp_path, train_np_dir="prepared", models_dir="/elsewhere")
    assert config.train_np_dir == tmp_path / "prepared"
    assert config.models_dir == Path("/elsewhere")
    assert config.fold_dir(3) == Path("/elsewhere/Exp_47/fold_3")
    config.train_audio_dir = "ogg"
    assert config.train_audio_dir == tmp_path / "ogg"


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("fmax", 16_001, "above half the sample_rate"),
        ("sample_rate", 16_000, "above half the sample_rate"),
        ("fmin", 16_000, "not below fmax"),
        ("lr", 0, "greater than 0"),
        ("lr", float("nan"), "finite number"),
        ("train_bs", 0, "greater than or equal to 1"),
        ("folds", [], "at least 1 item"),
        ("p_mixup", 1.5, "less than or equal to 1"),
        ("volume_db", (3, -3), "lower end comes first"),
        ("nonsense", 1, "no attribute"),
    ],
)
def test_bad_values_are_refused_on_assignment_and_leave_the_old_one(field, value, message):
    config = Config()
    before = getattr(config, field, None)
    with pytest.raises(ValidationError, match=message):
        setattr(config, field, value)
    assert getattr(config, field, None) == before


def test_fmax_above_nyquist_is_refused_on_construction():
    with pytest.raises(ValueError, match="above half the sample_rate"):
        Config(sample_rate=22_050, fmax=16_000)


def test_the_parameters_of_the_plateau_go_with_the_plateau():
    assert Config(scheduler_name="step").scheduler_params == {}
    assert Config(scheduler_params={"patience": 9}).scheduler_params == {
        "factor": 0.9,
        "patience": 9,
    }
    config = Config()
    config.scheduler_name = "cosine"
    assert config.scheduler_params == {}
    assert isinstance(Config(scheduler_params={"patience": 5}).scheduler_params["patience"], int)


def test_every_field_says_everything_about_itself():
    groups = []
    for name, setting in settings().items():
        assert len(setting.help) > 8 and not setting.help.endswith("."), name
        assert setting.used_by, name
        if setting.group not in groups[-1:]:
            groups.append(setting.group)
    assert groups == [
        "run", "paths", "recordings", "tables", "folds", "clip and log-mel", "choice of clips",
        "waveform augmentation", "image augmentation", "batch mixing", "targets and loss",
        "self-training", "model",
        "optimisation", "probe", "teacher", "prediction", "checkpoints",
    ]  # fmt: skip


def test_what_the_fields_say_is_asked_by_the_rest_of_the_code():
    assert settings_where(makes_arrays=True) == (
        "sample_rate", "max_seconds", "audio_dtype", "trim_db",
    )  # fmt: skip
    assert settings_where(under_root=True) == (
        "train_audio_dir", "metadata_path", "train_np_dir", "train_dataframe_path",
        "background_dir", "models_dir", "annotations", "pseudo_labels",
        "teacher_embeddings",
    )  # fmt: skip
    assert set(settings_where(identity="clip")) >= {"n_mels", "period", "sample_rate", "fmax"}
    assert {"base_model_name", "no_bird_class"} <= set(settings_where(identity="network"))
    assert settings_where(on_resume="counted") == (
        "clips_per_recording", "negative_share", "train_bs", "accumulation_steps", "last_batch",
    )  # fmt: skip


# Reading ------------------------------------------------------------------------------------------


# Scripts ------------------------------------------------------------------------------------------


def test_importing_every_module_reads_no_file_seeds_nothing_and_picks_no_device(tmp_path):
    code = """
import random, numpy, torch

def states():
    return random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist()

random.seed(1); numpy.random.seed(1); torch.manual_seed(1)
before = states()
import configs, metrics, transforms, scheduler, checkpoint, model, dataset
import prepare_audios, split_data, train, plot_loss_metric
assert states() == before
assert not torch.cuda.is_initialized()
"""
    subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, check=True
    )
    assert list(tmp_path.iterdir()) == []


# Logger, seed, versions ---------------------------------------------------------------------------
