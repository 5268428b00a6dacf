"""The bar of a run: bytes of recordings, by how far each is scored."""

import io

import pytest
import tqdm

from inference.progress import Progress


@pytest.fixture
def bars(monkeypatch) -> list:
    """The bars that are made, as on a terminal."""
    made = []

    def make(**settings):
        made.append(tqdm.std.tqdm(**settings | {"file": io.StringIO(), "disable": False}))
        return made[-1]

    monkeypatch.setattr(tqdm, "tqdm", make)
    return made


def test_the_bar_counts_bytes_by_the_share_that_is_scored(bars):
    with Progress({"a": 1000, "b": 3000}) as progress:
        (bar,) = bars
        assert bar.total == 4000
        progress.show("a", 5.0, 20.0)
        assert bar.n == 250
        progress.show("a", 30.0, 20.0)  # the header promised too little
        assert bar.n == 1000
        progress.finish("a", 30.0)
        progress.show("b", 5.0, 0.0)  # its header promises nothing
        assert bar.n == 1000
        progress.show("b", 5.0, 10.0)
        assert bar.n == 2500
        assert "x real time" in bar.postfix
        progress.finish("b", 10.0)
        assert bar.n == 4000


def test_without_a_terminal_nothing_is_written(capsys):
    with Progress({"a": 10}) as progress:
        progress.finish("a", 1.0)
    assert capsys.readouterr() == ("", "")
