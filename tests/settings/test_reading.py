"""Defaults, a YAML file and flags become settings; a mistake is one line that names its place."""

import re

import pytest
import yaml

from configs import Config, UserError, load_config, versions
from settings.reading import named_settings


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


def test_a_setting_whose_name_says_no_is_switched_off_without_a_second_no(tmp_path):
    (tmp_path / "on.yaml").write_text("no_bird_class: true\n")
    on = ["--config", str(tmp_path / "on.yaml")]
    assert load_config(on).no_bird_class and load_config(["--no-bird-class"]).no_bird_class
    assert not load_config([*on, "--without-no-bird-class"]).no_bird_class
    assert not load_config([*on, "--no-no-bird-class"]).no_bird_class  # as it was called before


def test_a_parameter_of_the_schedule_may_be_written_with_dashes():
    config = load_config(
        ["--scheduler-name", "linear_warmup_cosine", "--scheduler-params.warmup-epochs", "1.5"]
    )
    assert config.scheduler_params == {"warmup_epochs": 1.5}


def test_flags_of_another_scheduler_than_yamls(tmp_path):
    yaml_file = tmp_path / "experiment.yaml"
    yaml_file.write_text("scheduler_name: cosine\nscheduler_params: {eta_min: 1.0e-5}\n")
    assert load_config(["--config", str(yaml_file)]).scheduler_params == {"eta_min": 1e-5}
    flags = ["--scheduler_name", "multi_step", "--scheduler-params.milestones", "3", "4"]
    config = load_config(["--config", str(yaml_file), *flags])
    assert config.scheduler_params == {"milestones": [3, 4]}


def test_a_runs_own_config_yaml_is_a_config_file(tmp_path):
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


def test_settings_are_named_by_flags_and_by_the_file_as_defaults_or_not(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text("n_mels: 224\n")
    flags = ["--sample-rate=32000", "--no-pretrained", "--without-no-bird-class", "--folds", "0"]
    flags += ["--scheduler-params.warmup-epochs", "1", "--config", str(path)]
    expected = {"sample_rate", "pretrained", "no_bird_class", "folds", "scheduler_params", "n_mels"}
    assert named_settings(Config, flags) == expected
    assert named_settings(Config, []) == set()
