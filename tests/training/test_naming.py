"""Names beside numbers: which folder a run takes, and how every script finds it."""

import json

import pytest
import yaml

import train
from configs import Config, UserError
from files import experiment_title
from training.naming import settle_number


def named(models_dir, number: int, name: str = "") -> None:
    folder = models_dir / f"Exp_{number}"
    folder.mkdir(parents=True)
    if name:
        (folder / "experiment.json").write_text(json.dumps({"name": name}))


@pytest.mark.parametrize(
    ("there", "given", "number"),
    [
        ({}, {"name": "noise"}, 47),
        ({47: ""}, {"name": "noise"}, 48),  # the run without a name is another one
        ({47: "noise"}, {"name": "noise"}, 47),
        ({47: "loud", 60: "noise"}, {"name": "noise"}, 60),
        ({47: "loud", 60: "noise"}, {"name": "new"}, 61),
        ({5: ""}, {"name": "noise", "exp_id": 5}, 5),  # a run gets its name later
        ({}, {"name": "noise", "exp_id": 5}, 5),
        ({47: "noise"}, {}, 47),
    ],
)
def test_the_number_that_a_run_takes(tmp_path, there, given, number):
    for other, name in there.items():
        named(tmp_path, other, name)
    config = Config(models_dir=tmp_path, **given)
    assert settle_number(config) == number
    assert settle_number(config) == number  # and again, as when it is resumed


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"name": "noise", "exp_id": 6}, "'noise' is Exp_5 and --exp-id is 6"),
        ({"name": "loud", "exp_id": 5}, "Exp_5 is 'noise'; choose another --exp-id for 'loud'"),
    ],
)
def test_a_name_that_goes_against_the_number_is_refused(tmp_path, given, said):
    named(tmp_path, 5, "noise")
    with pytest.raises(UserError, match=said):
        settle_number(Config(models_dir=tmp_path, **given))


def test_notes_are_kept_until_others_are_given(tmp_path):
    for given in ({"name": "noise", "notes": "first try"}, {"name": "noise"}, {"notes": "better"}):
        settle_number(Config(models_dir=tmp_path, **given))
    note = json.loads((tmp_path / "Exp_47" / "experiment.json").read_text())
    assert note == {"name": "noise", "notes": "better"}
    assert experiment_title(tmp_path / "Exp_47") == "Exp_47 (noise)"


@pytest.mark.parametrize("name", ["a/b", "../up", "-flag", " blank", ".hidden", "a\\b"])
def test_a_name_is_a_part_of_a_path(name):
    with pytest.raises(ValueError, match="name"):
        Config(name=name)
    assert Config(name="baseline noise 0.1").name == "baseline noise 0.1"


def test_a_run_with_a_name_goes_on_under_it_and_beside_an_older_one(df, config):
    config.epochs = 1
    named(config.models_dir, 47)
    config.name, config.notes = "noise", "the default noises"
    assert train.run(df, config)["exp_id"] == 48
    config.epochs = 2
    assert train.run(df, config)["exp_id"] == 48
    folder = config.models_dir / "Exp_48" / "fold_0"
    assert len((folder / "history.csv").read_text().splitlines()) == 3
    settings = yaml.safe_load((folder / "config.yaml").read_text())["config"]
    assert (settings["name"], settings["notes"]) == ("noise", "the default noises")
