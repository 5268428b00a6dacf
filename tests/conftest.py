"""What every test may use."""

from collections import Counter
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from configs import Config
from tests.threads import reset_threads

if TYPE_CHECKING:
    import pandas as pd

    from inference.comparison import Comparison
    from inference.scorers import TorchModels


# The files that take longest. A core that begins one of them last works alone in the end.
LONGEST = [
    *("test_readme.py", "test_switches.py", "test_faults.py", "test_field_page.py"),
    *("test_processes.py", "test_pipeline.py", "test_resuming.py", "test_self_training.py"),
]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where processes share the files, give out the longest first, then those with slow tests."""
    if not hasattr(config, "workerinput"):
        return
    n_slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: (places.get(item.path.name, len(LONGEST)), -n_slow[item.path]))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Escape lone surrogates of file names in what a test printed: processes exchange UTF-8."""
    report = yield
    report.sections = [
        (title, text.encode(errors="backslashreplace").decode()) for title, text in report.sections
    ]
    return report


@pytest.fixture(autouse=True)
def same_threads() -> None:
    """Begin with as many threads of torch as the first test."""
    reset_threads()


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator with the same numbers in every run of the test."""
    return np.random.default_rng(20230526)


@pytest.fixture
def models(tmp_path) -> "TorchModels":
    """A small network of three species."""
    from inference.scorers import TorchModels
    from tests.predicting import save_model, tiny

    return TorchModels([save_model(tmp_path / "m.pth", tiny())], tiny())


@pytest.fixture
def sounds(tmp_path) -> Path:
    """Three recordings of 3, 0.3 and 2.4 s."""
    from tests.predicting import song, write_wav

    for number, seconds in enumerate((3.0, 0.3, 2.4)):
        write_wav(tmp_path / "sounds" / f"s{number}.wav", song(seconds, seed=number))
    return tmp_path / "sounds"


@pytest.fixture(scope="session")
def planned_archive(tmp_path_factory) -> Path:
    """Twelve recordings with a table, for plan.py."""
    from tests.planned import make_planned

    root = tmp_path_factory.mktemp("planned")
    make_planned(root)
    return root


@pytest.fixture
def config(tmp_path) -> Config:
    """Settings of a training run that takes seconds."""
    flags = {"base_model_name": "test_efficientnet", "pretrained": False, "n_mels": 32}
    loader = {"train_bs": 7, "valid_bs": 4, "num_workers": 0, "worst_clips": 0}
    return Config(root=tmp_path, period=1.0, epochs=2, folds=[0], device="cpu", **flags, **loader)


@pytest.fixture
def df(config) -> "pd.DataFrame":
    """The table of 24 recordings that this run trains on."""
    from tests.small_run import make_recordings

    return make_recordings(config)


@pytest.fixture
def backgrounds(config) -> Config:
    """The settings of that run with a folder of two noises."""
    import soundfile

    rng = np.random.default_rng(2)
    folder = config.root / "quiet_places"
    folder.mkdir()
    for number in range(2):
        soundfile.write(folder / f"{number}.wav", 0.1 * rng.standard_normal(64_000), 32_000)
    return replace(config, background_dir=folder)


@pytest.fixture(scope="session")
def trained_folds(tmp_path_factory) -> Config:
    """Settings of an experiment of two folds with their recordings, to be exported."""
    from tests.exporting import make_folds

    return make_folds(tmp_path_factory.mktemp("export"))


@pytest.fixture(scope="session")
def exported(trained_folds) -> "tuple[Path, Comparison]":
    """Fold 0 of it as an .onnx file, and how that compares."""
    from tests.exporting import export_with, need_onnx

    need_onnx()
    return export_with(trained_folds, trained_folds.fold_dir(0), "--licence", "MIT")


@pytest.fixture
def fake_litert(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interpreter of TFLite files that scores clips by their mean."""
    from tests.fake_litert import install

    install(monkeypatch)
