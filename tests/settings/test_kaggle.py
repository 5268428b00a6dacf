"""Kaggle's folders: a tree that stands in for /kaggle, and what the scripts take from it."""

from pathlib import Path

import pytest

from configs import UserError, load_config
from inference.command_line import read_command_line
from settings import kaggle


@pytest.fixture
def notebook(tmp_path, monkeypatch) -> Path:
    """A notebook of Kaggle's with nothing attached."""
    monkeypatch.setenv(kaggle.STAND_IN, str(tmp_path))
    monkeypatch.setenv(kaggle.RUN_TYPE, "Batch")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    (tmp_path / "input").mkdir()
    (tmp_path / "working").mkdir()
    return tmp_path


def attach(notebook: Path, place: str, *files: str) -> Path:
    """Attach a folder with empty files; a name that ends in / is a folder."""
    for name in files:
        path = notebook / "input" / place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            path.mkdir(exist_ok=True)
        else:
            path.touch()
    return notebook / "input" / place


@pytest.mark.parametrize("place", ["birdclef-2023", "competitions/birdclef-2023"])
@pytest.mark.parametrize(
    ("folder", "table"),
    [
        ("train_short_audio", "train_metadata.csv"),  # 2021
        ("train_audio", "train_metadata.csv"),  # 2022 to 2024
        ("train_audio", "train.csv"),  # since 2025
    ],
)
def test_every_stage_takes_the_competition(notebook, place, folder, table):
    where = attach(notebook, place, f"{folder}/robin/a.ogg", table, "test_soundscapes/")
    config = load_config([])
    assert config.kaggle and config.max_hours == kaggle.SESSION_HOURS
    assert config.train_audio_dir == where / folder and config.metadata_path == where / table
    assert config.train_dataframe_path == notebook / "working/train.csv"
    assert config.models_dir == notebook / "working/models"


def test_what_is_given_overrides_it(notebook):
    attach(notebook, "birdclef-2026", "train_audio/robin/a.ogg", "train.csv")
    given = ["--train-audio-dir", "/mine", "--root", "/elsewhere", "--max-hours", "2"]
    config = load_config(given)
    assert config.train_audio_dir == Path("/mine") and config.max_hours == 2
    assert config.models_dir == Path("/elsewhere/models")

    own = load_config(["--root", "/elsewhere"])  # an archive of one's own
    assert own.train_audio_dir == Path("/elsewhere/data/train_audio") and own.max_hours

    settings = notebook / "mine.yaml"
    settings.write_text("max_hours: 3\n")
    assert load_config(["--config", str(settings)]).max_hours == 3


def test_it_is_found_by_itself_and_can_be_switched(notebook, monkeypatch):
    assert load_config([]).kaggle
    off = load_config(["--no-kaggle"])
    assert not off.kaggle and off.max_hours is None and off.root == Path(".")

    settings = notebook / "off.yaml"
    settings.write_text("kaggle: false\n")
    assert not load_config(["--config", str(settings)]).kaggle
    assert load_config(["--config", str(settings), "--kaggle"]).kaggle

    monkeypatch.delenv(kaggle.RUN_TYPE)
    assert not load_config([]).kaggle
    assert load_config(["--kaggle"]).root == notebook / "working"


def test_elsewhere_the_flag_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv(kaggle.STAND_IN, str(tmp_path / "none"))
    monkeypatch.setenv(kaggle.RUN_TYPE, "Batch")
    assert not load_config([]).kaggle
    with pytest.raises(UserError, match="there is no .*none/input"):
        load_config(["--kaggle"])


def test_without_a_network_weights_come_from_what_is_attached(notebook):
    import os

    attach(notebook, "datasets/ann/weights", "notes.txt")
    assert load_config([]).pretrained_path is None
    assert os.environ["HF_HUB_OFFLINE"] == "1"

    plain = attach(notebook, "weights", "b0/tf_efficientnet_b0.safetensors")
    assert load_config([]).pretrained_path == plain / "b0/tf_efficientnet_b0.safetensors"
    assert load_config(["--no-pretrained"]).pretrained_path is None
    assert load_config(["--base-model-name", "resnet18"]).pretrained_path is None
    own = ["--pretrained-path", "/mine.pth"]
    assert load_config(own).pretrained_path == Path("/mine.pth")

    tagged = attach(notebook, "a", "tf_efficientnet_b0.ns_jft_in1k.pth")
    found = load_config([]).pretrained_path
    assert found == tagged / "tf_efficientnet_b0.ns_jft_in1k.pth"


def test_the_newest_of_two_competitions_is_taken_and_its_recordings_are_not_listed(notebook):
    attach(notebook, "competitions/birdclef-2024", "train_audio/robin/a.ogg", "train_metadata.csv")
    newest = attach(notebook, "competitions/birdclef-2026", "train_audio/wren/b.ogg", "train.csv")
    hidden = attach(notebook, "competitions/birdclef-2024", "train_audio/tf_efficientnet_b0.pth")
    assert kaggle.find_competition() == newest
    assert hidden.exists() and load_config([]).pretrained_path is None


def test_predict_needs_nothing_but_the_model(notebook):
    where = attach(notebook, "birdclef-2026", "test_soundscapes/readme.txt", kaggle.SAMPLE)
    flags, config = read_command_line(["model.onnx", "--num-workers", "3"])
    assert flags.recordings == where / "test_soundscapes"
    assert flags.output == notebook / "working/submission.csv"
    assert flags.sample_submission == where / kaggle.SAMPLE
    assert config.kaggle and config.num_workers == 3


def test_predict_takes_what_is_named(notebook):
    attach(notebook, "birdclef-2026", "test_soundscapes/", kaggle.SAMPLE)
    flags, _ = read_command_line(["m.onnx", "my/recordings", "--output", "found.csv"])
    assert flags.recordings == Path("my/recordings") and flags.output == Path("found.csv")
    assert flags.sample_submission is None
    with pytest.raises(UserError, match="RECORDINGS needs --output"):
        read_command_line(["m.onnx", "my/recordings"])

    flags, _ = read_command_line(["m.onnx", "--output", "mine.csv"])
    assert flags.output == Path("mine.csv")


def test_predict_without_a_competition_says_so(notebook):
    with pytest.raises(UserError, match="no competition with test_soundscapes/ is attached"):
        read_command_line(["m.onnx"])
    with pytest.raises(UserError, match="are required: RECORDINGS, --output"):
        read_command_line(["m.onnx", "--no-kaggle"])
