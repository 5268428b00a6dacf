"""The page of report.py in Chromium: it opens, plays, sorts, filters, links and trusts no name."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from configs import Config
from inference import report
from inference.detections import Recording
from inference.report import write_report
from inference.selection import Selection
from tests.browser import HOSTILE, IN_BROWSER, Browser

pytestmark = IN_BROWSER
RATE = 32000


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three sound recordings and a broken one; a species, a file and a fact have hostile names.

    Detections, at 0.5 or above: a.wav has wren at 0 s and 10 s, blackbird at 5 s; b.wav has
    blackbird, at all four.
    """
    folder = tmp_path_factory.mktemp("report")
    rng = np.random.default_rng(1)
    hostile_name = HOSTILE.replace("/", "\\") + ".wav"
    for name in ("a.wav", "b.wav", hostile_name):
        soundfile.write(folder / name, 0.1 * rng.standard_normal(18 * RATE), RATE)
    starts_s = np.arange(0, 20, 5.0)
    scores = {
        "a.wav": [[0.9, 0.1, 0], [0.2, 0.8, 0], [0.6, 0.1, 0], [0.1, 0.1, 0]],
        "b.wav": [[0.1, 0.7, 0], [0.1, 0.95, 0], [0.1, 0.6, 0], [0.1, 0.5, 0]],
        hostile_name: [[0.3, 0.2, 0]] * 4,
    }
    results = [
        Recording(name, "ok", "", 18.0, starts_s, np.float32(rows)) for name, rows in scores.items()
    ]
    results.append(
        Recording("d.wav", "unreadable", HOSTILE, 0.0, np.zeros(0), np.zeros((0, 3), np.float32))
    )
    labels = ["wren1", HOSTILE, "unseen"]
    names = {
        "wren1": ("Troglodytes troglodytes", "Eurasian Wren"),
        HOSTILE: (HOSTILE, f"Blackbird {HOSTILE}"),
    }
    selection = Selection(labels, 5.0, folder, 20.0, 16000.0, names=names)
    path = folder / "report.html"
    n_clips = write_report(
        path, results, selection, Config(), {HOSTILE: HOSTILE}, lambda _: np.full((313, 3), 0.25)
    )
    assert n_clips == 7
    return path


def list_names(browser: Browser) -> list[str]:
    return [name[:1] for name in browser.texts("#list .name")]


def assert_clean(browser: Browser) -> None:
    """Nothing in the console, and no name was run as code."""
    assert browser.log() == []
    assert browser.run("return window.hacked") is None


def test_every_view_opens_without_a_word_in_the_console(browser: Browser, page: Path) -> None:
    titles = {}
    for place in ("", "#r0", "#r1", "#r2", "#r3", "#s0", "#s1", "#r0/1", "#r99", "#nonsense"):
        browser.open(page, place)
        titles[place] = browser.texts("h2")
        assert_clean(browser)
    assert titles[""] == titles["#r99"] == titles["#nonsense"] == ["This run"]
    assert titles["#r0"] == ["a.wav"]
    assert titles["#s0"] == ["Eurasian Wren"]


def test_names_are_shown_as_they_are_and_do_nothing(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert browser.texts("dt")[0] == browser.texts("dd")[0] == HOSTILE
    assert f"Blackbird {HOSTILE}" in browser.texts("td a")
    browser.open(page, "#r2")
    assert browser.texts("h2") == [HOSTILE.replace("/", "\\") + ".wav"]
    browser.open(page, "#r3")
    assert browser.texts("main .alarm") == [f"unreadable: {HOSTILE}"]
    assert (
        browser.run("return document.querySelectorAll('script').length") == 2
    )  # the page's own: data and code
    assert browser.run("return document.querySelectorAll('img:not(.picture img)').length") == 0
    assert_clean(browser)


def test_a_script_that_got_into_the_page_would_not_run(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.run(
        "document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.hacked=1\">')"
    )
    browser.wait("document.querySelector('img[src=x]').complete")
    assert browser.run("return window.hacked") is None
    assert any("Content Security Policy" in message for message in browser.log())


def test_the_list_sorts_and_filters(browser: Browser, page: Path) -> None:
    def choose(order: str) -> list[str]:
        script = "sort.value = arguments[0]; sort.dispatchEvent(new Event('change'))"
        browser.run("const sort = document.getElementById('sort');" + script, order)
        return list_names(browser)

    def filter_by(text: str) -> tuple[list[str], str]:
        script = "filter.value = arguments[0]; filter.dispatchEvent(new Event('input'))"
        browser.run("const filter = document.getElementById('filter');" + script, text)
        return list_names(browser), browser.texts("#count")[0]

    browser.open(page)
    assert choose("detections") == ["b", "a", "<", "d"]  # 4, 3, 0, 0
    assert choose("peak") == ["b", "a", "<", "d"]  # 0.95, 0.9, 0.3, none
    assert choose("name") == ["a", "b", "<", "d"]  # as they were given
    assert filter_by("EURASIAN wren") == (["a"], "1 of 4 recordings")
    assert filter_by("blackbird") == (["a", "b"], "2 of 4 recordings")
    assert filter_by("unreadable") == (["d"], "1 of 4 recordings")
    assert filter_by("(no such") == ([], "0 of 4 recordings")
    assert filter_by("") == (["a", "b", "<", "d"], "4 recordings")


def test_a_table_sorts_by_the_heading_that_is_pressed(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert browser.texts("td:nth-child(2)") == [
        "5",
        "2",
    ]  # blackbirds, wrens: most detections first
    browser.click("th:first-child button")
    assert browser.texts("td:nth-child(2)") == ["5", "2"]  # B before E
    browser.click("th:first-child button")
    assert browser.texts("td:nth-child(2)") == ["2", "5"]
    assert (
        browser.run("return document.querySelector('th').getAttribute('aria-sort')") == "descending"
    )


def test_links_lead_from_the_list_to_recordings_species_and_clips(
    browser: Browser, page: Path
) -> None:
    browser.open(page)
    browser.click("#list li:nth-child(2) a")
    browser.wait("document.querySelector('h2').textContent === 'b.wav'")
    assert browser.run("return document.querySelector('[aria-current]').textContent").startswith(
        "b.wav"
    )
    browser.click(".heat a")
    browser.wait("document.body.dataset.view === 'species'")
    assert browser.texts("td") == [
        "b.wav",
        "4",
        "0.949",
        "a.wav",
        "1",
        "0.800",
    ]  # 0.95 is just below it in float32
    browser.click(".clip .controls a")
    browser.wait("document.body.dataset.view === 'recording'")
    assert browser.texts(".clip.chosen .controls a") == ["0:05 to 0:10"]
    inside = (
        "box.top >= 0 && box.bottom <= innerHeight && document.activeElement.textContent === 'Play'"
    )
    assert browser.run(
        f"const box = document.querySelector('.chosen').getBoundingClientRect(); return {inside}"
    )
    browser.run("history.back()")
    browser.wait("document.body.dataset.view === 'species'")
    assert_clean(browser)


def test_the_heat_map_is_read_by_arrow_keys_and_leads_to_clips(
    browser: Browser, page: Path
) -> None:
    browser.open(page, "#r0")
    drawn = "document.querySelector('canvas').getContext('2d')"
    shown = f"return [...{drawn}.getImageData(0, 0, 4, 2).data]"
    alphas = browser.run(shown)[3::4]
    expected = np.rint(
        np.array([0.9, 0.2, 0.6, 0.1, 0.1, 0.8, 0.1, 0.1]) * 255
    )  # wren first: the highest score
    np.testing.assert_allclose(alphas, expected, atol=1)
    browser.run("document.querySelector('.map').focus()")
    for key in ("\ue014", "\ue014"):  # right
        browser.press(key)
    assert browser.texts(".readout") == ["Eurasian Wren, 0:10 to 0:15: 0.60"]
    browser.press("\ue007")  # enter
    browser.wait("location.hash === '#r0/2'")
    browser.wait("document.querySelector('.clip.chosen .controls a') !== null")
    assert browser.texts(".clip.chosen .controls a") == ["0:10 to 0:15"]
    assert browser.texts(".clip.chosen h4 .number") == ["0.600"]


def test_rows_of_the_heat_map_stand_beside_their_species(browser: Browser, page: Path) -> None:
    browser.shape(1280)
    browser.open(page, "#r0")
    found = "[...document.querySelectorAll(arguments[0])]"
    script = f"return {found}.map((one) => one.getBoundingClientRect().toJSON())"
    (canvas,), names = browser.run(script, "canvas"), browser.run(script, ".heat a")
    for number, name in enumerate(names):
        top = canvas["top"] + number * canvas["height"] / 2
        assert name["top"] == pytest.approx(top, abs=2)
        assert name["height"] == pytest.approx(canvas["height"] / 2, abs=2)
    marks = browser.run(script, ".mark")
    columns = [round((mark["left"] - canvas["left"]) / (canvas["width"] / 4)) for mark in marks]
    rows = [round((mark["top"] - canvas["top"]) / (canvas["height"] / 2)) for mark in marks]
    assert list(zip(rows, columns, strict=True)) == [(0, 0), (1, 1), (0, 2)]  # where the clips are


def test_a_clip_plays_and_stops(browser: Browser, page: Path) -> None:
    browser.open(page, "#r0")
    browser.cdp(
        "Runtime.evaluate",
        {"expression": "document.querySelector('.clip button').click()", "userGesture": True},
    )
    browser.wait("player.currentTime > 0.3 && !player.paused")
    assert browser.run("return player.duration") == pytest.approx(5, abs=0.06)
    assert browser.run("return parseFloat(document.querySelector('.picture .head').style.left)") > 5
    assert browser.texts(".clip button") == ["Stop", "Play", "Play"]
    browser.click(".clip:nth-child(2) button")
    browser.wait("!player.paused && player.currentTime > 0")
    assert browser.texts(".clip button") == ["Play", "Stop", "Play"]
    browser.click(".clip:nth-child(2) button")
    assert browser.run("return player.paused")
    assert browser.texts(".clip button") == ["Play", "Play", "Play"]
    assert_clean(browser)


def test_pictures_have_the_size_and_the_curve_that_they_should(
    browser: Browser, page: Path
) -> None:
    browser.open(page, "#r0")
    browser.wait("[...document.images].every((one) => one.complete)")
    sizes = browser.run(
        "return [...document.images].map((one) => [one.naturalWidth, one.naturalHeight])"
    )
    assert sizes == [[313, 112]] * 3
    points = browser.run("return document.querySelector('polyline').getAttribute('points')").split()
    assert (len(points), points[0], points[-1]) == (
        157,
        "0,75",
        "156,75",
    )  # 313 frames in twos, a score of 0.25


def test_five_hundred_recordings_are_at_hand_at_once(
    browser: Browser, tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "MAX_CLIPS", 10)
    soundfile.write(tmp_path / "a.wav", 0.1 * rng.standard_normal(5 * RATE), RATE)
    labels = [f"bird{n}" for n in range(30)]
    scores = 0.6 * rng.random((120, 30), np.float32)
    results = [
        Recording("a.wav", "ok", "", 600.0, 5.0 * np.arange(120), scores) for _ in range(500)
    ]
    write_report(
        tmp_path / "r.html", results, Selection(labels, 5.0, tmp_path, 20.0, 16000.0), Config(), {}
    )
    browser.open(tmp_path / "r.html")
    assert len(browser.texts("#list li")) == 500
    loaded_ms = browser.run("return performance.getEntriesByType('navigation')[0].loadEventEnd")
    assert loaded_ms < 5000  # 200 ms on an idle machine
    browser.open(tmp_path / "r.html", "#r499")
    current = "document.querySelector('[aria-current]')"
    assert browser.run(f"return {current}.getBoundingClientRect().bottom <= innerHeight")
    assert_clean(browser)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [400, 1280])
def test_text_has_contrast_and_nothing_sticks_out(
    browser: Browser, page: Path, width: int, dark: bool
) -> None:
    browser.shape(width, dark=dark)
    colours = """
        const style = getComputedStyle(document.documentElement);
        const names = ["page", "card", "ink", "quiet", "accent", "alarm", "mark"];
        return Object.fromEntries(names.map((name) =>
            [name, style.getPropertyValue("--" + name).trim().slice(1)]))"""
    for place in ("", "#r0", "#r2", "#s1"):
        browser.open(page, place)
        assert browser.run("return document.documentElement.scrollWidth") <= width, place
    got = browser.run(colours)
    assert (luminance(got["page"]) < 0.1) == dark
    for text, ground in (
        ("ink", "page"),
        ("quiet", "page"),
        ("quiet", "card"),
        ("accent", "card"),
        ("alarm", "page"),
        ("ink", "mark"),
        ("accent", "mark"),
    ):
        low, high = sorted((luminance(got[text]), luminance(got[ground])))
        assert (high + 0.05) / (low + 0.05) >= 4.5, (text, ground)  # WCAG 2.2, level AA
    assert_clean(browser)


def luminance(colour: str) -> float:
    """Relative luminance of rrggbb or rgb, as WCAG defines it."""
    pairs = (
        [colour[i : i + 2] for i in (0, 2, 4)]
        if len(colour) == 6
        else [digit * 2 for digit in colour]
    )
    linear = [
        v / 12.92 if (v := int(pair, 16) / 255) <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4
        for pair in pairs
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
