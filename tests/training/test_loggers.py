"""Loggers: what they are told, once each, in a run that is as it would be without them."""

import json
import logging
import random
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

import checkpoint as ckpt
import train
from configs import Config, UserError
from training import loggers
from training.loggers import SENT_NAME, Logs, check_loggers
from training.naming import write_note

HISTORY = [
    {"epoch": 1, "train_loss": 0.5, "valid_loss": 0.4},
    {"epoch": 2, "train_loss": 0.3, "valid_loss": 0.35},
    {"epoch": 3, "train_loss": 0.2, "valid_loss": float("nan")},
]
FLAT = np.zeros((4, 6, 3))


class Wandb(types.ModuleType):
    """Stands for the package wandb: it keeps what it is told, and disturbs what it can."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.runs, self.logged, self.fails = [], [], ""

    def _call(self, what: str) -> None:
        random.random(), np.random.rand(), torch.rand(1)  # noqa: NPY002
        if what == self.fails:
            raise RuntimeError("the service is\n gone")

    def init(self, **settings):
        self._call("init")
        self.runs.append(settings)
        return self

    def log(self, values, step):
        self._call("log")
        self.logged.append((step, values))

    def finish(self):
        self._call("finish")

    def Settings(self, **settings):  # noqa: N802 - wandb's name
        return settings

    def Image(self, path):  # noqa: N802 - wandb's name
        return Path(path).read_bytes()[:4]


@pytest.fixture
def wandb(monkeypatch) -> Wandb:
    module = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    return module


@pytest.fixture
def place(tmp_path) -> Config:
    """Settings of a fold with a folder."""
    config = Config(root=tmp_path, log=["tensorboard", "wandb"], name="quiet", notes="no noise")
    config.train_dir = config.fold_dir(0)
    config.train_dir.mkdir(parents=True)
    write_note(config.exp_dir, config)
    return config


def send(config: Config, history, names=("wandb",), picture: Path | None = None, done=0) -> Logs:
    """Follow a run that goes on from `done` epochs."""
    logs = Logs(names)
    logs.begin(config, history[:done])
    for n_rows in range(done + 1, len(history) + 1):
        logs.rows(history[:n_rows])
    if picture is not None:
        logs.picture("a sheet", picture)
    logs.close()
    return logs


def draw(path: Path) -> Path:
    from matplotlib.image import imsave

    imsave(path, FLAT + 0.25)
    return path


def events(config: Config):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(config.fold_dir(0) / "tensorboard"))
    return found.Reload()


def steps(config: Config, name: str) -> list[int]:
    return [event.step for event in events(config).Scalars(name)]


# What a log holds ---------------------------------------------------------------------------------


def test_wandb_gets_settings_rows_and_pictures(place, wandb, tmp_path):
    send(place, HISTORY, picture=draw(tmp_path / "sheet.png"))
    (run,) = wandb.runs
    assert run["config"] == place.to_dict() and run["dir"] == str(place.fold_dir(0))
    assert run["group"] == "Exp_47 (quiet)" and run["name"] == "Exp_47 (quiet), fold_0"
    assert run["project"] == "birds" and run["notes"] == "no noise"
    assert wandb.logged[:2] == [(1, HISTORY[0]), (2, HISTORY[1])]
    assert wandb.logged[2] == (3, {"epoch": 3, "train_loss": 0.2})  # without what is not a number
    assert wandb.logged[3] == (3, {"a sheet": b"\x89PNG"})


def test_tensorboard_gets_settings_rows_and_pictures(place, tmp_path):
    pytest.importorskip("tensorboard")
    send(place, HISTORY, ["tensorboard"], draw(tmp_path / "sheet.png"))
    found = events(place)
    losses = [(one.step, one.value) for one in found.Scalars("train_loss")]
    assert losses == [(1, 0.5), (2, pytest.approx(0.3)), (3, pytest.approx(0.2))]
    assert steps(place, "valid_loss") == [1, 2]
    (image,) = found.Images("a sheet")
    assert (image.step, image.width, image.height) == (3, 6, 4)
    (text,) = found.Tensors("settings/text_summary")
    assert b"| epochs | 120 |" in text.tensor_proto.string_val[0]


def test_wandb_itself_takes_it_offline(place, monkeypatch, tmp_path):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    send(place, HISTORY, picture=draw(tmp_path / "sheet.png"))
    wandb.teardown()  # its process writes when it ends
    sent = json.loads((place.fold_dir(0) / SENT_NAME).read_text())["wandb"]
    assert sent["epoch"] == 3 and sent["pictures"] == ["a sheet 3"]
    (kept,) = (place.fold_dir(0) / "wandb").glob(f"offline-run-*-{sent['id']}/*.wandb")
    assert b"train_loss" in kept.read_bytes()


# A resumed run ------------------------------------------------------------------------------------


def test_a_resumed_run_goes_on_in_the_same_log(place, wandb, tmp_path):
    picture = draw(tmp_path / "sheet.png")
    send(place, HISTORY[:2], picture=picture)
    send(place, HISTORY[:2], picture=picture, done=2)  # nothing is new
    send(place, HISTORY, done=2)
    assert [step for step, values in wandb.logged if "epoch" in values] == [1, 2, 3]
    assert sum("a sheet" in values for _, values in wandb.logged) == 1
    ids = [run["id"] for run in wandb.runs]
    assert len(set(ids)) == 1 and all(run["resume"] == "allow" for run in wandb.runs)


def test_a_log_that_was_cut_off_has_no_doubled_step(place):
    pytest.importorskip("tensorboard")
    send(place, HISTORY[:2], ["tensorboard"])
    path = place.fold_dir(0) / SENT_NAME
    sent = json.loads(path.read_text())
    sent["tensorboard"]["epoch"] = 1  # killed before it could note the second
    path.write_text(json.dumps(sent))
    send(place, HISTORY, ["tensorboard"], done=2)
    assert steps(place, "train_loss") == [1, 2, 3]


def test_a_run_from_an_older_checkpoint_has_a_log_of_its_own(place, wandb):
    pytest.importorskip("tensorboard")
    names = ["tensorboard", "wandb"]
    send(place, HISTORY, names)
    again = [HISTORY[0], HISTORY[1] | {"train_loss": 0.25}]
    send(place, again, names, done=1)
    losses = [(one.step, one.value) for one in events(place).Scalars("train_loss")]
    assert losses == [(1, 0.5), (2, 0.25)]
    assert wandb.runs[0]["id"] != wandb.runs[1]["id"]
    assert [step for step, _ in wandb.logged] == [1, 2, 3, 1, 2]


def test_a_damaged_note_of_what_was_sent_begins_anew(place, wandb):
    for text in ("{", "[]", '{"wandb": {"epoch": "x"}}', '{"wandb": 3}'):
        (place.fold_dir(0) / SENT_NAME).write_text(text)
        send(place, HISTORY[:1])
    assert [step for step, _ in wandb.logged] == [1, 1, 1, 1]


# Failures -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["init", "log", "finish"])
def test_a_logger_that_fails_is_warned_of_once(place, wandb, moment, caplog):
    wandb.fails = moment
    with caplog.at_level(logging.WARNING, logger="birdclef"):
        send(place, HISTORY)
    (warning,) = [record.getMessage() for record in caplog.records]
    assert warning == "--log wandb failed and is left out: the service is gone; training goes on"


def test_one_that_fails_leaves_the_other(place, wandb):
    pytest.importorskip("tensorboard")
    wandb.fails = "log"
    send(place, HISTORY, ["wandb", "tensorboard"])
    assert steps(place, "train_loss") == [1, 2, 3]


@pytest.mark.parametrize("name", loggers.PACKAGES)
def test_a_missing_package_is_named_with_the_command_that_installs_it(name, monkeypatch):
    monkeypatch.setitem(sys.modules, loggers.PACKAGES[name], None)
    monkeypatch.setattr(torch.utils, "tensorboard", None, raising=False)
    with pytest.raises(UserError, match=f"--log {name}: .*pip install -r requirements-log.txt"):
        check_loggers([name])


def test_every_logger_can_be_chosen():
    assert loggers.LOGGERS.keys() == loggers.PACKAGES.keys()
    assert Config(log=list(loggers.LOGGERS)).log == list(loggers.LOGGERS)
    with pytest.raises(ValueError, match="'tensorboard' or 'wandb'"):
        Config(log=["mlflow"])


# A whole run --------------------------------------------------------------------------------------


def test_a_run_is_the_same_with_and_without(df, config, wandb, tmp_path):
    plain = Config(**config.to_dict() | {"exp_id": 1, "dropout": 0.2})
    logged = Config(**plain.to_dict() | {"exp_id": 2, "log": ["wandb"], "worst_clips": 5})
    for one in (plain, logged):
        train.run(df, one)
    logged.epochs = plain.epochs = 3
    wandb.fails = "log"  # from here on
    for one in (plain, logged):
        train.run(df, one)

    ours, theirs = plain.fold_dir(0), logged.fold_dir(0)
    assert (ours / "history.csv").read_bytes() == (theirs / "history.csv").read_bytes()
    one, other = (ckpt.read_checkpoint(folder / "last.pth") for folder in (ours, theirs))
    assert all(torch.equal(value, other["model"][name]) for name, value in one["model"].items())
    assert one["rng"]["python"] == other["rng"]["python"]
    assert one["rng"]["numpy"] == other["rng"]["numpy"]
    assert torch.equal(one["rng"]["torch"], other["rng"]["torch"])

    rows = [(step, set(values)) for step, values in wandb.logged]
    assert [step for step, _ in rows] == [0, 1, 2, 2]
    assert rows[0][1] == {"training images"} and rows[3][1] == {"worst clips"}
    assert rows[1][1] >= {"train_loss", "valid_loss", "macro_ap", "lr"}
