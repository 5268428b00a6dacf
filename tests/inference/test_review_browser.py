"""Reviewing in Chromium: by keys, over a reload, into a table that is trained on."""

import csv
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from catalog.annotations import read_annotations
from catalog.reviews import list_reviewed_windows
from configs import Config
from inference.detections import Recording
from inference.report import write_report
from inference.selection import Selection
from tests.browser import HOSTILE, IN_BROWSER, Browser

pytestmark = IN_BROWSER
RATE = 32000
ENTER = "\ue007"
NAMES = {
    "wren1": ("Troglodytes troglodytes", "Eurasian Wren"),
    "eurrob1": ("Erithacus rubecula", "European Robin"),
    "owl1": ("Strix aluco", "Tawny Owl"),
}


def write_page(folder: Path, results: list[Recording], labels: list[str], n_drawn: int) -> Path:
    selection = Selection(labels, 5.0, folder, 20.0, 16000.0, names=NAMES)
    path = folder / "pages" / "found.html"
    path.parent.mkdir(exist_ok=True)
    write_report(path, results, selection, Config(num_workers=1), {}, None, n_drawn)
    return path


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two recordings; wrens at 0, 5, 10 and 15 s of the first, robins at 5 and 10 s of both."""
    folder = tmp_path_factory.mktemp("archive")
    rng = np.random.default_rng(1)
    for name in ("a b#1.wav", "c.wav"):
        soundfile.write(folder / name, 0.1 * rng.standard_normal(20 * RATE), RATE)
    scores = {
        "a b#1.wav": [[0.91, 0, 0], [0.81, 0.72, 0], [0.71, 0.62, 0], [0.61, 0, 0]],
        "c.wav": [[0, 0, 0], [0, 0.92, 0], [0, 0.82, 0], [0, 0, 0]],
    }
    results = [
        Recording(name, "ok", "", 20.0, np.arange(0, 20, 5.0), np.float32(rows))
        for name, rows in scores.items()
    ]
    return write_page(folder, results, ["wren1", "eurrob1", "owl1"], 3)


@pytest.fixture
def fresh(browser: Browser, page: Path, tmp_path: Path) -> Browser:
    """The review in an empty browser, best scores first; downloads go to tmp_path."""
    browser.shape(1280)
    browser.open(page)
    browser.run("localStorage.clear()")
    browser.cdp("Page.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    browser.open(page, "#review")
    choose(browser, "order", "score")
    return browser


def choose(browser: Browser, name: str, value: str) -> None:
    """Set one of the controls above the list; for species by its place among the labels."""
    place = {"species": "label:nth-child(1) select", "low": ".low", "high": ".high"}
    place |= {"verdict": "label:nth-child(4) select", "order": "label:nth-child(5) select"}
    browser.run(
        "const control = document.querySelector(arguments[0]);"
        "control.value = arguments[1]; control.dispatchEvent(new Event('change'))",
        f".choices {place[name]}",
        value,
    )


def rows(browser: Browser) -> list[list[str]]:
    script = "return [...document.querySelectorAll('.row')].map((row) => [...row.children]"
    return browser.run(script + ".map((cell) => cell.textContent))")


def save(browser: Browser, folder: Path) -> Path:
    browser.click(".save")
    path = folder / "found_review.csv"
    end = time.monotonic() + 10
    while not path.exists():
        assert time.monotonic() < end
        time.sleep(0.05)
    return path


def test_verdicts_by_keys_last_and_become_labels(
    fresh: Browser, page: Path, tmp_path: Path
) -> None:
    assert [row[:2] for row in rows(fresh)][:3] == [
        ["European Robin", "0.920"],
        ["Eurasian Wren", "0.910"],
        ["European Robin", "0.819"],  # 0.82 is just below it in float32
    ]
    for key in "yynu":  # robin c 5 s, wren a 0 s, robin c 10 s, wren a 5 s
        fresh.press(key)
    for key in "sTAW":  # robin a 5 s
        fresh.press(key)
    assert fresh.texts(".chooser li")[0] == "Tawny Owl, Strix aluco, owl1"
    fresh.press(ENTER)
    assert fresh.texts(".row.current span")[:2] == ["Eurasian Wren", "0.709"]
    fresh.press("n")  # wren a 10 s; the robin of that clip stays without a verdict
    said = [row[2] for row in rows(fresh)]
    assert said == ["✓ yes", "✓ yes", "✗ no", "? unsure", "→ other: Tawny Owl", "✗ no", "", ""]

    fresh.open(page, "#review")  # anew
    assert fresh.texts(".status")[0].startswith(
        "6 of 8 detections reviewed: 2 yes, 2 no, 1 unsure, 1 other."
    )
    path = save(fresh, tmp_path)
    with open(path, newline="") as file:
        saved = list(csv.DictReader(file))
    assert saved[0] == {
        "filename": "a b#1.wav",
        "start_s": "0",
        "end_s": "5",
        "label": "wren1",
        "verdict": "yes",
        "detected": "wren1",
        "score": "0.9100",
        "note": "",
    }
    spans = read_annotations(path, ["a b#1.wav", "c.wav"])
    windows = list_reviewed_windows(
        spans, {"a b#1.wav": 20.0, "c.wav": 20.0}, period=5.0, stride=2.5, min_overlap=0.25
    )
    found = {(row.filename[0], row.start_s): row.labels for row in windows.itertuples()}
    assert found == {
        ("a", 0.0): ("wren1",),
        ("a", 5.0): ("owl1",),
        ("c", 5.0): ("eurrob1",),
        ("c", 10.0): (),
    }  # a at 10 s may have a robin
    assert fresh.log() == []


def load(browser: Browser, path: Path) -> str:
    """Give a file to the page as its button does, and return what it says of it."""
    browser.run("parts.loaded.textContent = ''")
    found = browser.post("/element", {"using": "css selector", "value": ".table-file"})
    (element,) = found.values()
    browser.post(f"/element/{element}/value", {"text": str(path)})
    browser.wait("parts.loaded.textContent")
    return browser.texts(".loaded")[0]


def test_a_saved_table_is_loaded_back_and_merged(
    fresh: Browser, page: Path, tmp_path: Path
) -> None:
    for key in "yn":  # robin c 5 s, wren a 0 s
        fresh.press(key)
    for key in "sstrix":  # robin c 10 s
        fresh.press(key)
    fresh.press(ENTER)
    fresh.run("setVerdict(items[0], 'y', ['owl1'], arguments[0])", 'far, "faint"\nrain')
    saved = fresh.run("return tableText()")
    path = save(fresh, tmp_path)

    fresh.run("localStorage.clear()")
    fresh.open(page, "#review")  # as on another machine
    choose(fresh, "order", "score")
    assert [row[2] for row in rows(fresh)] == [""] * 8
    fresh.press("u")  # robin c 5 s: the table says otherwise
    for key in "jjy":  # goes on two, robin a 5 s or the like, of which it says nothing
        fresh.press(key)
    kept = fresh.texts(".row.current span")
    assert load(fresh, path) == f"{path.name}: 3 verdicts loaded, 1 in place of others."
    assert fresh.texts(".row.current span")[:2] == kept[:2]
    said = [row[2] for row in rows(fresh)]
    assert said[:3] == ["✓ yes: Tawny Owl", "✗ no", "→ other: Tawny Owl"]
    assert said[3] == "✓ yes" and said[4:] == [""] * 4

    fresh.run("setVerdict(items[3], '', [], '')")  # the one that the table had not
    assert fresh.run("return tableText()") == saved
    fresh.open(page, "#review")  # anew: what was loaded is kept
    assert fresh.texts(".status")[0].startswith("3 of 8 detections reviewed")


def test_a_table_of_other_recordings_or_another_kind_changes_nothing(
    fresh: Browser, tmp_path: Path
) -> None:
    other = tmp_path / "other.csv"
    other.write_text(
        "filename,start_s,end_s,label,verdict,detected\r\n"
        "elsewhere.wav,0,5,wren1,yes,wren1\r\n"
        "c.wav,5.0,10,,n,eurrob1\r\n"  # a letter is a verdict, too
    )
    assert load(fresh, other) == (
        "other.csv: 1 verdict loaded, 1 row left out, of no detection on this page."
    )
    assert [row[2] for row in rows(fresh)][0] == "✗ no"
    wrong = tmp_path / "wrong.csv"
    wrong.write_text("start,end\n1,2\n")
    assert "no column filename" in load(fresh, wrong)
    assert fresh.run("return Object.keys(verdicts).length") == 1 and fresh.log() == []

    drop = (
        "const data = new DataTransfer();"
        "data.items.add(new File([arguments[0]], 'dropped.csv', { type: 'text/csv' }));"
        "document.body.dispatchEvent(new DragEvent('drop', { dataTransfer: data, bubbles: true,"
        " cancelable: true }))"
    )
    fresh.run(drop, "filename,start_s,verdict,detected\na b#1.wav,0,yes,wren1\n")
    fresh.wait("parts.loaded.textContent.startsWith('dropped.csv')")
    assert [row[2] for row in rows(fresh)][1] == "✓ yes"


def test_going_back_taking_back_and_adding_a_second_species(fresh: Browser) -> None:
    for key in "yk":
        fresh.press(key)
    for key in "sstrix":
        fresh.press(key)
    fresh.press(ENTER)
    assert rows(fresh)[0][2] == "✓ yes: Tawny Owl"
    assert "eurrob1;owl1,yes,eurrob1" in fresh.run("return tableText()")
    for key in "kx":
        fresh.press(key)
    assert rows(fresh)[0][2] == "" and "none" not in fresh.run("return tableText()")
    assert fresh.run("return document.querySelector('.save').disabled")

    for key in ("s", *"robin x"):  # no species has this name
        fresh.press(key)
    assert fresh.texts(".chooser li") == ["new label: robin x"]
    for key in ("\ue00c", "j"):  # escape; then keys are actions again
        fresh.press(key)
    assert fresh.texts(".row.current span")[1] == "0.910"


def test_filters_and_a_verdict_that_leaves_the_list(fresh: Browser) -> None:
    choose(fresh, "species", "0")
    assert [row[0] for row in rows(fresh)] == ["Eurasian Wren"] * 4
    choose(fresh, "low", "0.7")
    assert [row[1] for row in rows(fresh)] == ["0.910", "0.810", "0.709"]
    choose(fresh, "verdict", "open")
    fresh.press("n")
    assert [row[1] for row in rows(fresh)] == ["0.810", "0.709"]
    assert fresh.texts(".row.current span")[1] == "0.810"
    choose(fresh, "verdict", "n")
    assert [row[1] for row in rows(fresh)] == ["0.910"]
    choose(fresh, "verdict", "o")
    assert fresh.texts(".judged p") == ["No detection is as chosen above."]
    fresh.press("y")  # nothing to say it of
    assert fresh.log() == []


def test_the_estimate_counts_what_was_drawn_and_not_what_was_picked(fresh: Browser) -> None:
    # Bins of a twentieth: 0.91 and 0.92; 0.81 and 0.82; 0.71 and 0.72; 0.61 and 0.62.
    picked = fresh.run("return R.order.indexOf(Math.max(...R.order))")  # the last to be drawn
    fresh.run("setVerdict(arguments[0], 'y', [], ''); refilter()", picked)
    assert fresh.texts(".estimate")[0].endswith("for an estimate.")

    choose(fresh, "order", "drawn")
    assert {row[1][:3] for row in rows(fresh)[:4]} == {"0.6", "0.7", "0.8", "0.9"}
    for key in "yyny":
        fresh.press(key)
    assert fresh.texts(".estimate")[0].startswith("Precision of all species, scores 0.5 to 1: 0.75")
    for key in "yyyy":
        fresh.press(key)
    assert fresh.texts(".estimate") == [
        "Precision of all species, scores 0.5 to 1: 0.88 (0.88 to 0.88), "
        "from 8 drawn clips of 8 detections."
    ]


def test_the_interval_holds_the_truth_as_often_as_it_says(fresh: Browser) -> None:
    rng = np.random.default_rng(5)
    sizes, rates = np.array([400, 150, 80, 60]), np.array([0.15, 0.5, 0.8, 0.97])
    right = np.round(sizes * rates).astype(int)
    truth = right.sum() / sizes.sum()
    for per_bin in (5, 20):
        drawn = rng.hypergeometric(right, sizes - right, per_bin, (1500, 4))
        cases = [
            [
                {"N": int(size), "n": per_bin, "x": int(x)}
                for size, x in zip(sizes, row, strict=True)
            ]
            for row in drawn
        ]
        found = fresh.run("return arguments[0].map(precision)", cases)
        assert found[0]["p"] == pytest.approx(float(drawn[0] / per_bin @ sizes / sizes.sum()))
        held = np.mean([one["low"] <= truth <= one["high"] for one in found])
        assert 0.93 <= held <= 0.995
    whole = [
        {"N": int(size), "n": int(size), "x": int(x)} for size, x in zip(sizes, right, strict=True)
    ]
    everything = fresh.run("return precision(arguments[0])", whole)
    assert everything["low"] == everything["high"] == pytest.approx(truth)
    assert fresh.run("return precision([{N: 3, n: 0, x: 0}])") is None


def test_a_detection_without_a_clip_plays_from_its_recording(fresh: Browser) -> None:
    fresh.run("clipsByKey.clear(); refilter()")
    script = "document.querySelector('.play button').click()"
    fresh.cdp("Runtime.evaluate", {"expression": script, "userGesture": True})
    fresh.wait("!player.paused && player.currentTime > R.start[items[current]] + 0.2")
    assert fresh.run("return player.src.startsWith('file:')")
    fresh.run("player.currentTime = R.end[items[current]] + 0.1")
    fresh.wait("player.paused")
    fresh.run("R.folder = 'gone'; refilter()")
    fresh.cdp("Runtime.evaluate", {"expression": script, "userGesture": True})
    fresh.wait("document.querySelector('.bar').textContent.includes('not where it lay')")
    assert len(fresh.log()) == 1


def test_ten_thousand_detections_are_windowed(
    browser: Browser, tmp_path: Path, rng: np.random.Generator
) -> None:
    labels = ["wren1", HOSTILE, "=owl"]
    scores = rng.uniform(0.5, 0.99, (1700, 3)).astype(np.float32)
    names = ("=a.wav", "b/c.wav")  # which are not there
    results = [Recording(n, "ok", "", 8500.0, 5.0 * np.arange(1700), scores) for n in names]
    path = write_page(tmp_path, results, labels, 0)
    browser.open(path, "#review")
    assert browser.run("return items.length") == 10200
    assert browser.run("return document.querySelectorAll('.row').length") < 40
    browser.run("choice.low = 0.7; refilter()")
    browser.run("document.querySelector('.rows').scrollTop = 90000")
    browser.wait("document.querySelector('.row').getAttribute('aria-posinset') > 2900")

    browser.run("choice.low = 0; choice.order = 'listed'; refilter(); go(0); judge('y')")
    text = browser.run("return tableText()")
    assert "./=a.wav,0,5" in text and ",yes," in text
    assert browser.run("return window.hacked") is None and browser.log() == []
