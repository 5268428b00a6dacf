"""Settings: defaults, YAML, flags, and what happens to mistakes."""

import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError
from pydantic.dataclasses import dataclass

from configs import (
    RUN,
    Config,
    UserError,
    choose,
    configure_logger,
    load_config,
    set_seed,
    settings,
    settings_where,
    versions,
)
from settings.about import settings_of

ROOT = Path(__file__).resolve().parent.parent


def test_defaults_are_those_of_the_contract():
    config = Config(num_workers=0)
    expected = {
        "exp_id": 47, "seed": 8, "epochs": 120, "n_folds": 5, "folds": [0, 1, 2, 3, 4], "lr": 1e-3,
        "weight_decay": 1e-6, "train_bs": 32, "valid_bs": 32, "base_model_name": "tf_efficientnet_b0.ns_jft_in1k",
        "pretrained": True, "pretrained_path": None, "pretrained_checkpoint": None,
        "scheduler_name": "reduce_lr_on_plateau", "scheduler_params": {"factor": 0.9, "patience": 5}, "amp": True,
        "sample_rate": 32000, "period": 5.0, "n_mels": 224, "n_fft": 2048, "hop_length": 512, "fmin": 20.0,
        "fmax": 16000.0, "top_db": 80.0, "max_seconds": 30.0, "label_smoothing": True,
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
        "waveform augmentation", "image augmentation", "batch mixing", "targets and loss", "model",
        "optimisation", "checkpoints",
    ]  # fmt: skip


def test_a_field_that_says_nothing_is_an_error():
    @dataclass(kw_only=True)
    class WithSilentField:
        loud: int = RUN(1, "number of the experiment")
        silent: int = 3

    with pytest.raises(TypeError, match="Config.silent: make it with a group"):
        settings_of(WithSilentField)


def test_what_the_fields_say_is_asked_by_the_rest_of_the_code():
    assert settings_where(makes_arrays=True) == (
        "sample_rate", "max_seconds", "audio_dtype", "trim_db",
    )  # fmt: skip
    assert settings_where(under_root=True) == (
        "train_audio_dir", "metadata_path", "train_np_dir", "train_dataframe_path",
        "background_dir", "models_dir", "annotations",
    )  # fmt: skip
    assert set(settings_where(identity="clip")) >= {"n_mels", "period", "sample_rate", "fmax"}
    assert {"base_model_name", "no_bird_class"} <= set(settings_where(identity="network"))
    assert settings_where(on_resume="counted") == (
        "clips_per_recording", "negative_share", "train_bs", "accumulation_steps",
    )  # fmt: skip


# Reading ------------------------------------------------------------------------------------------


def test_flags_override_yaml_overrides_defaults(tmp_path):
    yaml_file = tmp_path / "experiment.yaml"
    yaml_file.write_text("lr: 5e-4\ntrain_bs: 8\nfolds: [2]\n")  # PyYAML reads 5e-4 as text
    config = load_config(["--config", str(yaml_file), "--train-bs", "16", "--valid_bs", "4"])
    assert (config.lr, config.train_bs, config.valid_bs, config.folds, config.epochs) == (
        5e-4,
        16,
        4,
        [2],
        120,
    )


def test_one_key_of_a_dict_and_lists_come_from_flags():
    config = load_config(["--scheduler-params.patience", "9", "--folds", "0", "1", "--no-amp"])
    assert config.scheduler_params == {"factor": 0.9, "patience": 9}
    assert (config.folds, config.amp) == ([0, 1], False)


def test_flags_of_another_scheduler_than_yamls(tmp_path):
    yaml_file = tmp_path / "experiment.yaml"
    yaml_file.write_text("scheduler_name: cosine\nscheduler_params: {eta_min: 1.0e-5}\n")
    assert load_config(["--config", str(yaml_file)]).scheduler_params == {"eta_min": 1e-5}
    flags = ["--scheduler_name", "multi_step", "--scheduler-params.milestones", "3", "4"]
    config = load_config(["--config", str(yaml_file), *flags])
    assert config.scheduler_params == {"milestones": [3, 4]}


def test_a_runs_own_config_yaml_is_a_config_file(tmp_path):
    import yaml

    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"config": Config(lr=0.25).to_dict(), "versions": versions()}))
    assert load_config(["--config", str(path)]) == Config(lr=0.25)


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        (["--learning-rate", "1"], "--learning-rate"),
        (["--lr", "fast"], "--lr.*fast"),
        (["--lr", "-1"], "lr: Input should be greater than 0"),
        (["--scheduler-params.gamma"], "--scheduler-params.gamma needs a value"),
        (["--folds"], "folds"),
        (["--fmax", "17000"], "fmax=17000 Hz is above half the sample_rate, 16000 Hz"),
        (["--config", "/nowhere.yaml"], "/nowhere.yaml"),
        (["--config"], "--config needs a value"),
    ],
)
def test_mistakes_are_one_line_that_names_the_field(flags, wanted):
    with pytest.raises(UserError) as caught:
        load_config(flags)
    assert re.search(wanted, str(caught.value))
    assert len(str(caught.value).splitlines()) == 1
    assert "pydantic.dev" not in str(caught.value) and "│" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("n_mel: 3", "n_mel: no such field; did you mean n_mels"),
        ("lr: [1, 2]", "lr: "),
        ("- lr", "expected lines of the form"),
        ("lr: {", "cannot be read as YAML"),
        ("lr: 2023-99-99", "cannot be read as YAML: month must be in 1..12"),
        ("lr: " + "[" * 5000, "cannot be read as YAML"),
        ("lr: \0", "cannot be read as YAML"),
        ("base_model_name: [" + "'long', " * 900 + "]", "base_model_name: "),
        ("!!python/object/apply:os.system ['echo hacked']", "cannot be read as YAML"),
    ],
)
def test_mistakes_in_yaml_name_the_file_and_field(tmp_path, text, wanted):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=wanted) as caught:
        load_config(["--config", str(path)])
    assert str(path) in str(caught.value) and len(str(caught.value)) < 1000


def test_choose_names_the_closest():
    assert choose("a", {"a": 1}, what="letter") == "a"
    with pytest.raises(
        UserError, match=r"unknown bird 'robbin' \(did you mean robin\?\); choose from robin, wren"
    ):
        choose("robbin", ["wren", "robin"], what="bird")


# Scripts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", ["prepare_audios.py", "split_data.py", "train.py", "dataset.py"])
def test_a_mistyped_flag_is_one_line_and_exit_code_2(script, tmp_path):
    answer = subprocess.run(
        [sys.executable, str(ROOT / script), "--train-batch", "16"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert answer.returncode == 2
    assert answer.stderr.startswith("error: ") and len(answer.stderr.splitlines()) == 1
    assert "--train-batch" in answer.stderr and "--train-bs" in answer.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_terminal_without_unicode_gets_the_same_line():
    answers = []
    for encoding in ("utf-8", "ascii"):
        answer = subprocess.run(
            [sys.executable, str(ROOT / "train.py"), "--lr", "x"],
            env={"PYTHONIOENCODING": encoding},
            capture_output=True,
            text=True,
        )
        answers.append(answer.stderr)
    assert answers[0] == answers[1]
    assert answers[0].startswith("error: Error parsing --lr: ")  # not ASCII art


@pytest.mark.parametrize("script", ["prepare_audios", "split_data", "train"])
def test_help_shows_what_a_script_uses_on_80_columns_and_loads_no_torch(script):
    answer = subprocess.run(
        [sys.executable, "-X", "importtime", str(ROOT / f"{script}.py"), "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    shown = re.findall(r"^  --([a-z0-9-]+)", answer.stdout, re.M)
    used = [name for name, setting in settings().items() if script in setting.used_by]
    assert shown == [name.replace("_", "-") for name in used]
    assert max(map(len, answer.stdout.splitlines())) < 80
    assert not re.search(r"\| +(torch|timm|librosa|matplotlib|sklearn)$", answer.stderr, re.M)


def test_importing_every_module_reads_no_file_seeds_nothing_and_picks_no_device(tmp_path):
    code = (
        "import random, numpy, torch; random.seed(1); numpy.random.seed(1); torch.manual_seed(1)\n"
        "before = (random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist())\n"
        "import configs, metrics, transforms, scheduler, checkpoint, model, dataset\n"
        "import prepare_audios, split_data, train, plot_loss_metric\n"
        "after = (random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist())\n"
        "assert before == after and not torch.cuda.is_initialized()\n"
    )
    subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, check=True
    )
    assert list(tmp_path.iterdir()) == []


# Logger, seed, versions ---------------------------------------------------------------------------


def test_configure_logger_sets_the_level_and_never_stacks_handlers():
    logger = configure_logger(Config())
    count = len(logger.handlers)
    assert logger.level == logging.INFO
    assert configure_logger(Config(debug=True)).level == logging.DEBUG
    assert len(logger.handlers) == count == 1


def test_the_logger_leaves_a_stderr_that_was_replaced(monkeypatch):
    import io

    first, second = io.StringIO(), io.StringIO()
    monkeypatch.setattr("sys.stderr", first)
    configure_logger(Config())
    first.close()
    monkeypatch.setattr("sys.stderr", second)
    configure_logger(Config()).warning("hello")
    assert "WARNING hello" in second.getvalue() and "Logging error" not in second.getvalue()


def test_set_seed_repeats_all_three_generators():
    import random

    import numpy as np
    import torch

    def draw():
        set_seed(8)
        return random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002

    assert draw() == draw()


def test_versions_name_the_packages_and_the_commit():
    found = versions()
    assert {"python", "torch", "numpy", "timm", "git_commit"} <= found.keys()
    assert all(isinstance(value, str) for value in found.values())
