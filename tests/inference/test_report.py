"""The page of report.py: counts, heat maps, pictures, clips, and names that stay data."""

import base64
import hashlib
import html.parser
import json
import logging
import re
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from audio.decoder_pool import DECODER_DIED
from configs import Config
from files import CannotWriteError
from inference import report
from inference.detections import Event, Recording
from inference.report import write_report
from inference.selection import Selection

RATE = 32000
CONFIG = Config()


def selection(folder: Path, **settings: Any) -> Selection:
    settings = {"class_names": ["bird0", "bird1", "bird2"]} | settings
    return Selection(period=5.0, folder=folder, fmin=20.0, fmax=16000.0, **settings)


def recording(scores: Any, name: str = "a.wav", **facts: Any) -> Recording:
    rows = np.asarray(scores, np.float32)
    settings: dict[str, Any] = {"status": "ok", "reason": "", "seconds": 5.0 * len(rows)} | facts
    return Recording(name, starts_s=5.0 * np.arange(len(rows)), scores=rows, **settings)


def write_tone(path: Path, hertz: float = 4000.0, seconds: float = 20.0, rate: int = RATE) -> None:
    soundfile.write(
        path, 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate), rate
    )


class Scripts(html.parser.HTMLParser):
    """Collect the script elements of a page as a browser would see them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[dict[str, str | None], str]] = []
        self._open = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open = tag == "script"
        if self._open:
            self.found.append((dict(attrs), ""))

    def handle_data(self, data: str) -> None:
        if self._open:
            self.found[-1] = (self.found[-1][0], self.found[-1][1] + data)

    def handle_endtag(self, tag: str) -> None:
        self._open = False


def read_data(path: Path) -> dict[str, Any]:
    (attributes, text), _ = Scripts(path.read_text()).found
    assert attributes == {"type": "application/json", "id": "data"}
    return json.loads(text)


def heat_of(entry: dict[str, Any]) -> np.ndarray:
    heat = entry["heat"]
    levels = np.frombuffer(base64.b64decode(heat["levels"]), np.uint8)
    return levels.reshape(heat["rows"], heat["columns"]) / 255


# What was found -----------------------------------------------------------------------------------


def test_a_recording_is_counted_by_species_with_the_highest_score_first(tmp_path):
    scores = [[0.5, 0.1, 0.2], [0.75, 0.1, 0.9], [0.4, 0.1, 0.3]]
    assert (
        write_report(
            tmp_path / "r.html",
            [recording(scores)],
            selection(tmp_path),
            CONFIG,
            {"Model": "m.pth"},
        )
        == 3
    )
    data = read_data(tmp_path / "r.html")
    assert data["facts"] == {"Model": "m.pth"}
    assert [one["label"] for one in data["species"]] == ["bird0", "bird2"]  # bird1 is found nowhere
    (entry,) = data["recordings"]
    assert [(one["number"], one["count"]) for one in entry["species"]] == [(1, 1), (0, 2)]
    assert [one["peak"] for one in entry["species"]] == pytest.approx([0.9, 0.75])
    assert (entry["windows"], entry["seconds"], entry["heat"]["column_s"]) == (3, 15.0, 5.0)
    np.testing.assert_allclose(
        heat_of(entry), [[0.2, 0.9, 0.3], [0.5, 0.75, 0.4]], atol=0.5 / 255 + 1e-6
    )
    clips = [(clip["species"], clip["start"], clip["end"]) for clip in entry["clips"]]
    assert clips == [(1, 5.0, 10.0), (0, 5.0, 10.0), (0, 0.0, 5.0)]


def test_threshold_species_list_and_names_are_those_of_the_other_outputs(tmp_path):
    wanted = np.array([True, False, True])
    names = {"bird2": ("Turdus merula", "Common Blackbird")}
    chosen = selection(tmp_path, threshold=0.7, wanted=wanted, names=names, events=True)
    write_report(tmp_path / "r.html", [recording([[0.6, 0.9, 0.8]])], chosen, CONFIG, {})
    data = read_data(tmp_path / "r.html")
    assert data["species"] == [
        {"label": "bird2", "scientific": "Turdus merula", "common": "Common Blackbird"}
    ]
    assert data["threshold"] == 0.7


def test_a_day_is_drawn_in_as_many_columns_as_a_screen_has(rng):
    scores = rng.random((17281, 45), np.float32)  # 24 h and a window
    found = [Event(0.0, 5.0, species, 0.5 + species / 100) for species in range(45)]
    entry = report.summarise(recording(scores), found)
    heat = heat_of(entry)
    per_column = 25  # 17281 / 720, rounded up; the last of 692 columns is of 6 windows
    assert heat.shape == (report.MAX_ROWS, 692)
    assert entry["heat"]["column_s"] == 125.0
    assert len(entry["species"]) == 45  # all are counted, though not all drawn
    np.testing.assert_allclose(
        heat[0, 3], scores[3 * per_column : 4 * per_column, 44].max(), atol=0.003
    )
    np.testing.assert_allclose(heat[1, -1], scores[-6:, 43].max(), atol=0.003)


@given(n=st.integers(0, 50), size=st.integers(1, 60))
def test_pooling_takes_the_largest_of_each_group(n, size):
    values = np.random.default_rng(n).random((n, 2))
    groups = [values[i : i + size] for i in range(0, n, size)]
    expected = np.array([[max(group[:, 0]), max(group[:, 1])] for group in groups]).reshape(-1, 2)
    assert np.array_equal(report.pool_max(values, size), expected)
    assert np.array_equal(report.pool_max(values.T, size, axis=1), expected.T)


def test_a_recording_without_windows_says_why(tmp_path):
    broken = recording(np.zeros((0, 3)), status="unreadable", reason="the file is cut", seconds=0.0)
    assert write_report(tmp_path / "r.html", [broken], selection(tmp_path), CONFIG, {}) == 0
    (entry,) = read_data(tmp_path / "r.html")["recordings"]
    assert (entry["status"], entry["reason"], entry["windows"], entry["peak"]) == (
        "unreadable",
        "the file is cut",
        0,
        0,
    )
    assert (entry["species"], entry["clips"]) == ([], [])


# Which clips are shown ----------------------------------------------------------------------------


def test_the_best_of_each_species_comes_before_the_second_best_of_any():
    found = [Event(5.0 * i, 5.0 * i + 5, 0, 0.99 - 0.01 * i) for i in range(9)] + [
        Event(90.0, 95.0, 1, 0.5)
    ]
    chosen = report.choose_clips(found)
    assert [(event.species, event.start_s) for event in chosen] == [
        (0, 0),
        (1, 90),
        (0, 5),
        (0, 10),
        (0, 15),
        (0, 20),
    ]


def test_overlapping_windows_of_a_species_are_shown_once():
    found = [
        Event(start_s, start_s + 5, species, score)
        for start_s, species, score in [
            (0.0, 0, 0.7),
            (1.0, 0, 0.9),
            (5.0, 0, 0.8),
            (6.0, 0, 0.6),
            (1.0, 1, 0.6),
        ]
    ]
    assert [(event.start_s, event.species) for event in report.choose_clips(found)] == [
        (1.0, 0),
        (1.0, 1),
        (6.0, 0),
    ]


def test_the_room_of_the_page_goes_to_the_best_of_each_recording_first(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "MAX_CLIPS", 3)
    write_tone(tmp_path / "a.wav")
    both = [
        recording([[0.9, 0.8, 0.1], [0.7, 0.1, 0.1]], "a.wav"),
        recording([[0.6, 0.5, 0.1]], "b.wav"),
    ]
    write_tone(tmp_path / "b.wav")
    assert write_report(tmp_path / "r.html", both, selection(tmp_path), CONFIG, {}) == 3
    first, second = read_data(tmp_path / "r.html")["recordings"]
    assert [clip["score"] for clip in first["clips"]] == pytest.approx([0.9, 0.8])
    assert [clip["score"] for clip in second["clips"]] == pytest.approx([0.6])


def test_species_heard_in_one_window_share_its_picture_and_sound_but_not_the_curve(tmp_path):
    write_tone(tmp_path / "a.wav")
    frames = np.linspace([0, 1, 0], [1, 0, 0], 313, dtype=np.float32)
    given_samples = []

    def framewise(samples: np.ndarray) -> np.ndarray:
        given_samples.append(len(samples))
        return frames

    write_report(
        tmp_path / "r.html",
        [recording([[0.9, 0.8, 0.1]])],
        selection(tmp_path),
        CONFIG,
        {},
        framewise=framewise,
    )
    data = read_data(tmp_path / "r.html")
    one, other = data["recordings"][0]["clips"]
    assert one["media"] == other["media"] == 0
    assert (len(data["media"]), given_samples) == (1, [5 * RATE])
    assert one["curve"] == [
        round(100 * float(frames[min(i + 1, 312), 0])) for i in range(0, 313, 2)
    ]  # rising
    assert other["curve"] == [round(100 * float(frames[i, 1])) for i in range(0, 313, 2)]  # falling


def test_the_curve_of_a_last_short_window_ends_with_its_samples(tmp_path):
    write_tone(tmp_path / "a.wav", seconds=6.0)
    frames = np.full((313, 3), 0.5, np.float32)
    source = [recording([[0.1, 0, 0], [0.9, 0, 0]], seconds=6.0)]
    write_report(
        tmp_path / "r.html", source, selection(tmp_path), CONFIG, {}, framewise=lambda _: frames
    )
    data = read_data(tmp_path / "r.html")
    (clip,) = data["recordings"][0]["clips"]
    assert (clip["start"], clip["end"]) == (5.0, 6.0)
    assert data["media"][0]["seconds"] == 1.0
    assert len(clip["curve"]) == 63  # 1 + 32000 // 512 frames, one a point


def test_a_recording_that_is_gone_costs_its_clips_only(tmp_path, caplog):
    write_tone(tmp_path / "b.wav")
    (tmp_path / "c.wav").write_bytes(b"RIFF, so it says")
    lost = [recording([[0.9, 0, 0]], name) for name in ("gone.wav", "b.wav", "c.wav")]
    with caplog.at_level(logging.WARNING, "birdclef.report"):
        write_report(tmp_path / "r.html", lost, selection(tmp_path), CONFIG, {})
    data = read_data(tmp_path / "r.html")
    kept = [data["media"][entry["clips"][0]["media"]].keys() for entry in data["recordings"]]
    assert kept == [{"fault"}, {"image", "audio", "seconds"}, {"fault"}]
    assert [message.split(": ")[0] for message in caplog.messages] == [
        str(tmp_path / n) for n in ("gone.wav", "c.wav")
    ]


# Pictures and sounds ------------------------------------------------------------------------------


def test_a_recording_that_killed_its_decoder_is_not_read_again(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "read_clip", lambda *_: pytest.fail("it would die here again"))
    scores = np.full((2, 3), 0.9, np.float32)
    died = Recording(
        "a.ogg", "truncated", f"{DECODER_DIED} crashed (SIGSEGV)", 9.0, np.array([0.0, 5.0]), scores
    )
    assert write_report(tmp_path / "r.html", [died], selection(tmp_path), CONFIG, {}) == 0
    assert "crashed (SIGSEGV)" in (tmp_path / "r.html").read_text()


@pytest.mark.parametrize("rate", [8000, 32000, 44100])
def test_a_clip_is_read_from_its_place_with_channels_averaged(tmp_path, rate):
    seconds = np.arange(30 * rate) / rate
    tones = [
        np.sin(2 * np.pi * 1000 * seconds) * (seconds >= 12),
        0.5 * np.sin(2 * np.pi * 2000 * seconds),
    ]
    soundfile.write(tmp_path / "a.wav", 0.5 * np.stack(tones, axis=1), rate, subtype="FLOAT")
    clip = report.read_clip(tmp_path / "a.wav", Event(10.0, 15.0, 0, 0.9), RATE)
    assert (clip.dtype, clip.shape) == (np.float32, (5 * RATE,))
    at = 10 + np.arange(5 * RATE) / RATE
    expected = 0.25 * np.sin(2 * np.pi * 1000 * at) * (at >= 12) + 0.125 * np.sin(
        2 * np.pi * 2000 * at
    )
    inside = (np.abs(at - 12) > 0.01) & (at > 10.01) & (at < 14.99)  # a resampler rings at a jump
    np.testing.assert_allclose(clip[inside], expected[inside], atol=2e-3)


def test_a_clip_past_the_end_is_refused_and_bad_samples_are_silent(tmp_path):
    samples = np.full(RATE, 0.5, np.float32)
    samples[100], samples[200] = np.nan, np.inf
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
    with pytest.raises(ValueError, match="ends before"):
        report.read_clip(tmp_path / "a.wav", Event(5.0, 10.0, 0, 0.9), RATE)
    clip = report.read_clip(tmp_path / "a.wav", Event(0.0, 5.0, 0, 0.9), RATE)
    assert (len(clip), clip[100], clip[200], clip[300]) == (RATE, 0, 0, 0.5)


def test_a_picture_by_day_and_hour_goes_into_the_page(tmp_path):
    for picture in (None, b"\x89PNG"):
        path = tmp_path / "page.html"
        write_report(path, [], selection(tmp_path), CONFIG, {}, activity=picture)
        assert base64.b64decode(read_data(path)["activity"]) == (picture or b"")


@pytest.mark.parametrize("shape", [(1, 1), (3, 4), (5, 7), (112, 313)])
def test_a_png_reads_back_as_it_was(tmp_path, rng, shape):
    levels = rng.integers(0, 16, shape, np.uint8)
    (tmp_path / "a.png").write_bytes(report.encode_png(levels))
    assert np.array_equal(
        np.asarray(Image.open(tmp_path / "a.png")), levels * 17
    )  # (height, width), 255 being white


def test_a_tone_is_a_line_in_the_picture_at_the_height_of_its_tick(tmp_path):
    write_tone(tmp_path / "a.wav", hertz=4000)
    shown = report.show_waveform(
        report.read_clip(tmp_path / "a.wav", Event(5.0, 10.0, 0, 0.9), RATE), CONFIG
    )
    (tmp_path / "a.png").write_bytes(base64.b64decode(shown["image"]))
    image = np.asarray(Image.open(tmp_path / "a.png"))
    assert image.shape == (112, 313)  # 224 bands in twos
    height = 1 - (image[:, 150].argmax() + 0.5) / 112
    assert height == pytest.approx(
        dict((text, place) for place, text in report.frequency_ticks(CONFIG))["4 kHz"], abs=0.01
    )


@pytest.mark.parametrize("fmax", [16000.0, 3000.0])
def test_ticks_lie_at_the_band_whose_centre_is_nearest(fmax):
    config = Config(fmax=fmax)
    centres = librosa.mel_frequencies(n_mels=config.n_mels + 2, fmin=config.fmin, fmax=fmax)[1:-1]
    ticks = report.frequency_ticks(config)
    assert [text for _, text in ticks] == ["1 kHz", "2 kHz", "4 kHz", "8 kHz"][: len(ticks)]
    assert len(ticks) == (4 if fmax > 8000 else 2)
    for place, text in ticks:
        nearest = int(np.abs(centres - 1000 * float(text.split()[0])).argmin())
        assert (
            abs(place * config.n_mels - 0.5 - nearest) <= 1
        )  # a peak lies on a bin of the transform


@pytest.mark.parametrize("gain", [1e-3, 1.0])
def test_a_sound_is_levelled_and_reads_back_in_tune_and_in_time(tmp_path, gain):
    write_tone(tmp_path / "a.wav", hertz=3000, seconds=5)
    waveform = gain * soundfile.read(tmp_path / "a.wav", dtype="float32")[0]
    (tmp_path / "a.mp3").write_bytes(report.encode_mp3(waveform, RATE))
    sound, rate = soundfile.read(tmp_path / "a.mp3")
    assert (rate, len(sound)) == (24000, 5 * 24000)
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound))))
    assert spectrum.argmax() / 5 == pytest.approx(3000, abs=0.5)
    assert np.abs(sound[2400:-2400]).max() == pytest.approx(0.7, abs=0.02)


def test_silence_is_a_black_picture_and_a_silent_sound():
    shown = report.show_waveform(np.zeros(5 * RATE, np.float32), CONFIG)
    assert base64.b64decode(shown["image"]) == report.encode_png(np.zeros((112, 313), np.uint8))
    assert shown["seconds"] == 5.0


# The page -----------------------------------------------------------------------------------------


def test_names_cannot_leave_the_data(tmp_path):
    hostile = "</script><script>alert(1)</script><!-- @SCRIPT@ @DATA@ \u2028 & \" ' \udcff"
    source = recording([[0.9, 0.1, 0.1]], name=f"{hostile}.wav", status="truncated", reason=hostile)
    chosen = selection(
        tmp_path, class_names=[hostile, "b", "c"], names={hostile: (hostile, hostile)}
    )
    write_report(tmp_path / "r.html", [source], chosen, CONFIG, {hostile: hostile})
    data = read_data(tmp_path / "r.html")  # which sees exactly two scripts
    assert data["species"] == [{"label": hostile, "scientific": hostile, "common": hostile}]
    assert (data["recordings"][0]["name"], data["facts"]) == (f"{hostile}.wav", {hostile: hostile})
    assert "alert(1)</script>" not in (tmp_path / "r.html").read_text()


def test_only_the_page_s_own_script_may_run_and_nothing_is_loaded(tmp_path):
    write_report(tmp_path / "r.html", [recording([[0.9, 0, 0]])], selection(tmp_path), CONFIG, {})
    page = (tmp_path / "r.html").read_text()
    script = Scripts(page).found[1][1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy.startswith("default-src 'none';")
    assert policy.endswith(f"script-src 'sha256-{digest}'")
    assert set(re.findall(r"https?://[^\"' ]+", page)) == {
        "http://www.w3.org/2000/svg"
    }  # a name, not an address
    assert "innerHTML" not in script


def test_five_hundred_recordings_make_a_page_that_can_be_sent(tmp_path, rng, monkeypatch):
    monkeypatch.setattr(report, "MAX_CLIPS", 4)
    soundfile.write(
        tmp_path / "a.wav", 0.1 * rng.standard_normal(20 * RATE), RATE
    )  # noise packs worst of all
    scores = rng.random((120, 30), np.float32) * 0.6
    chosen = selection(tmp_path, class_names=[f"bird{n}" for n in range(30)])
    assert write_report(tmp_path / "r.html", [recording(scores)] * 500, chosen, CONFIG, {}) == 4
    data = read_data(tmp_path / "r.html")
    clip_bytes = max(
        len(media.get("image", "")) + len(media.get("audio", "")) for media in data["media"]
    )
    assert clip_bytes < 50_000
    assert (
        tmp_path / "r.html"
    ).stat().st_size < 500 * 8_000 + 4 * 50_000  # and so below 24 MB with 400 clips


def test_a_page_that_cannot_be_written_leaves_nothing_behind(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotWriteError, match=r"r\.html"):
        write_report(tmp_path / "file" / "r.html", [], selection(tmp_path), CONFIG, {})
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
