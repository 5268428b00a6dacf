"""The page of an evaluation: what it holds, by hand, and what it looks like in Chromium."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from configs import Config
from inference.doctor import find_suspicious
from inference.evaluated_clips import show_rows
from inference.evaluation import overall_table, species_table
from inference.evaluation_page import choose_rows, list_confusions, precision_recall, write_page
from inference.out_of_fold import OutOfFold
from tests.browser import HOSTILE, IN_BROWSER, Browser
from tests.made_up_scores import made_up, weights_of

RATE = 32000


def with_a_wrong_label(rng) -> OutOfFold:
    """Recording 3, a robin by its label, sounds like a wren; a species has a hostile name."""
    oof = made_up(rng, n=60, noise=0.1)
    oof.scores[3] = [0.05, 0.05, 0.9]
    return OutOfFold(oof.scores, oof.labels, oof.filenames, oof.folds, ("robin", "tit", HOSTILE))


def write(folder: Path, oof: OutOfFold, clips=None, names=None) -> Path:
    weights = weights_of(oof, 20)
    tables = {
        "overall": overall_table(oof, weights),
        "species": species_table(oof, weights, 0.9),
        "doctor": find_suspicious(oof),
    }
    path = folder / "evaluation.html"
    write_page(path, oof, tables, names or {}, {"Scores": HOSTILE}, clips or {}, Config())
    return path


def data_of(path: Path) -> dict:
    (text,) = re.findall(r'id="data">(.*?)</script>', path.read_text(encoding="utf-8"), re.S)
    return json.loads(text)


def test_points_of_precision_and_recall_by_hand():
    labels, scores = np.array([1, 0, 1, 0]), np.array([0.9, 0.8, 0.7, 0.1])
    points = precision_recall(labels, scores, 80)
    assert points == [(0.5, 1.0, 0.9), (1.0, 0.6667, 0.7)]
    assert precision_recall(np.zeros(4, int), scores, 80) == []
    tied = precision_recall(labels, np.full(4, 0.5), 80)
    assert tied == [(1.0, 0.5, 0.5)]  # rows of equal score are found together
    many = precision_recall(np.ones(500, int), np.linspace(0, 0.9, 500), 20)
    assert len(many) == 20 and many[-1][0] == 1


def test_confusions_count_the_highest_of_other_species():
    scores = np.array([[0.9, 0.1, 0.2], [0.1, 0.8, 0.2], [0.1, 0.8, 0.2], [0.3, 0.5, 0.7]], "f4")
    labels = np.array([[1, 0, 0], [1, 0, 0], [1, 0, 0], [0, 1, 0]], np.uint8)
    oof = OutOfFold(scores, labels, np.array(list("abcd")), np.zeros(4, int), ("a", "b", "c"))
    assert list_confusions(oof) == [
        {"species": 0, "other": 1, "n": 2, "share": 0.6667},
        {"species": 1, "other": 2, "n": 1, "share": 1.0},
    ]


def test_the_page_holds_the_tables_and_loads_nothing(rng, tmp_path):
    oof = with_a_wrong_label(rng)
    path = write(tmp_path, oof, names={"robin": ("Erithacus rubecula", "European Robin")})
    data = data_of(path)
    assert data["species"][0]["common"] == "European Robin"
    assert data["species"][2]["common"] == HOSTILE
    assert [row["positives"] for row in data["rows"]] == [20, 20, 20]
    assert data["worst"][0]["name"] == oof.filenames[3] and data["worst"][0]["seems"] == 2
    assert not {one["name"] for one in data["worst"]} & {one["name"] for one in data["best"]}
    text = path.read_text(encoding="utf-8")
    assert "http" not in re.sub(r"http-equiv|http://www.w3.org/2000/svg", "", text)
    assert HOSTILE not in text and "@TITLE@" not in text


def test_the_worst_and_the_best_are_different_recordings(rng):
    worst, best = choose_rows(find_suspicious(made_up(rng, n=9)))
    assert sorted(worst + best) == list(range(9))
    worst, best = choose_rows(find_suspicious(made_up(rng, n=90)))
    assert len(worst) == 12 and len(best) == 6 and not set(worst) & set(best)


class Halves:
    """Stands for the models of an experiment: every frame scores 0.5."""

    def of(self, fold):
        return lambda samples: np.full((len(samples) // 512, 3), 0.5)


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("evaluation")
    oof = with_a_wrong_label(np.random.default_rng(1))
    worst, best = choose_rows(find_suspicious(oof))
    for row in [*worst[:2], best[0]]:
        path = folder / str(oof.filenames[row])
        path.parent.mkdir(exist_ok=True)
        samples = 0.1 * np.random.default_rng(row).standard_normal(6 * RATE)
        soundfile.write(path, samples, RATE)
    rows = [*worst, *best]
    clips = show_rows(rows, [0] * len(rows), oof, folder, Config(), Halves())
    assert sorted(clips) == sorted([*worst[:2], best[0]])  # others are not there
    return write(folder, oof, clips, {"robin": ("Erithacus rubecula", "European Robin")})


def clean(browser: Browser) -> bool:
    return browser.log() == [] and browser.run("return window.hacked") is None


@IN_BROWSER[0]
@IN_BROWSER[1]
def test_every_view_opens_and_trusts_no_name(browser: Browser, page: Path) -> None:
    titles = []
    for place in ("", "#s0", "#s2", "#s99", "#x"):
        browser.open(page, place)
        titles.append(browser.texts("h2")[0])
        assert clean(browser)
    assert titles == ["How good it is", "European Robin", HOSTILE, *["How good it is"] * 2]


@IN_BROWSER[0]
@IN_BROWSER[1]
def test_the_table_of_species_sorts_and_leads_to_a_curve(browser: Browser, page: Path) -> None:
    browser.open(page)
    sort = "document.querySelectorAll('main table')[1].querySelector('th button').click();"
    browser.run(sort)
    names = "return [...document.querySelectorAll('main table')[1].tBodies[0].rows]"
    first = browser.run(f"{names}.map((row) => row.querySelector('a').textContent)")
    browser.run(sort)
    assert browser.run(f"{names}.map((row) => row.querySelector('a').textContent)") == first[::-1]
    assert len(first) == 3

    browser.run("document.querySelectorAll('#list a')[0].click()")
    browser.wait("document.body.dataset.view === 'species'")
    points = browser.run(
        "return document.querySelector('svg.curve polyline').getAttribute('points')"
    )
    assert len(points.split()) >= 2
    assert browser.texts(".readout")[0].startswith("From a score of 0.")
    assert clean(browser)


@IN_BROWSER[0]
@IN_BROWSER[1]
def test_suspicious_recordings_are_seen_and_heard(browser: Browser, page: Path) -> None:
    browser.open(page)
    card = browser.texts("article.clip")[0]
    assert card.startswith("European Robin") and HOSTILE in card  # label, and what it seems to be
    assert browser.run("return document.querySelectorAll('.picture img').length") == 3
    line = browser.run("return document.querySelector('.picture polyline').getAttribute('points')")
    assert set(point.split(",")[1] for point in line.split()) == {"50"}
    script = "document.querySelector('.clip button').click()"
    browser.cdp("Runtime.evaluate", {"expression": script, "userGesture": True})
    browser.wait("!document.getElementById('player').paused")
    browser.run("document.querySelector('.clip button').click()")
    browser.wait("document.getElementById('player').paused")
    assert clean(browser)


@IN_BROWSER[0]
@IN_BROWSER[1]
def test_the_list_filters(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.run(
        "const one = document.getElementById('filter'); one.value = 'erithacus';"
        "one.dispatchEvent(new Event('input'))"
    )
    assert browser.texts("#list .name") == ["European Robin"]
    assert browser.texts("#count") == ["1 of 3 species"]
