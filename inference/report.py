"""A page that shows and plays what predict.py found: species over time, spectrograms, clips.

It is one HTML file that loads nothing from elsewhere: report.html.in is the frame, page.js,
review.js, review_load.js and report.js draw the page, and the data are in it as JSON. Only the best
detections, and some that are drawn for review, get a picture and a clip, so the page stays small
for any number of recordings; others play from the recording, where that lies as it did.
"""

import base64
import functools
import hashlib
import io
import json
import logging
import struct
import sys
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr

from audio.decoder_pool import DECODER_DIED
from configs import Config
from files import write_file
from inference.detections import DETECTED, Event, Recording
from inference.listing import Listed, Listing, describe_review
from inference.selection import Selection

logger = logging.getLogger("birdclef.report")

MAX_CLIPS = 400  # of a page, about 30 kB each
MAX_CLIPS_OF_RECORDING = 6
MAX_COLUMNS, MAX_ROWS = 720, 40  # of a heat map
PICTURE_SIZE = (112, 320)  # the most rows and columns of a spectrogram
CURVE_POINTS = 160  # the most of a framewise curve
CLIP_RATE = 24000  # Hz
TICKS_HZ = (1000, 2000, 4000, 8000)
WORDS = {
    "@TITLE@": "Detections",
    "@LISTED@": "Recordings",
    "@FILTER@": "Filter by file or species",
    "@ORDERS@": '<option value="name">by name</option>'
    '<option value="detections">most detections</option>'
    '<option value="peak">highest score</option>',
}

Json = dict[str, Any]
Framewise = Callable[[np.ndarray], np.ndarray]


def write_report(
    path: Path,
    results: Iterable[Recording],
    selection: Selection,
    config: Config,
    facts: Mapping[str, str],
    framewise: Framewise | None = None,
    n_drawn: int = 0,
    activity: bytes | None = None,
) -> int:
    """Write the page of a run.

    Args:
        path: the HTML file.
        results: recordings with scores (n, C); gone through once.
        selection: folder of the recordings, names, threshold (None: 0.5), and the species and
            number of detections wanted. Windows are shown, whether or not it asks for events.
        config: settings of the model, for the spectrograms.
        facts: what the head of the page says of the run, name and value.
        framewise: gives (n_frames, C) scores of the samples (n,) float32 of a window, n at most
            `config.n_samples`; None draws no curves. It is called from several threads.
        n_drawn: detections that get a picture and a clip because they were drawn for review.
        activity: PNG of detections by day and hour, if there is one.

    Returns:
        The number of detections with a picture and a clip.

    Raises:
        UserError: the disk refuses.
    """
    threshold = DETECTED if selection.threshold is None else selection.threshold
    recordings: list[Json] = []
    chosen: list[tuple[int, int, Event]] = []  # rank in its recording, place of that, detection
    listing = Listing(selection.class_names)
    for recording in results:
        found = list(replace(selection, events=False).found(recording, threshold))
        if not recording.reason.startswith(DECODER_DIED):  # which it would do here again
            chosen += [
                (rank, len(recordings), event) for rank, event in enumerate(choose_clips(found))
            ]
            listing.add(len(recordings), recording.name, found)
        recordings.append(summarise(recording, found))
    # The best of each recording come first, then the second best, so that no recording takes all
    # the room.
    chosen = sorted(chosen, key=lambda one: (one[0], -one[2].score))[:MAX_CLIPS]
    listed = listing.take()
    drawn = [(int(listed.places[n]), listed.events[n]) for n in listed.first_drawn(n_drawn)]
    best = [one[1:] for one in chosen]
    media = add_clips(recordings, best, drawn, selection.folder, config, framewise)
    data = {"facts": dict(facts), "threshold": threshold, "recordings": recordings, "media": media}
    data["activity"] = to_text(activity or b"")
    _write(path, data, listed, selection, config)
    return len(chosen)


def write_suggested_page(
    path: Path,
    results: Iterable[Recording],
    suggested: Sequence[tuple[str, Event]],
    selection: Selection,
    config: Config,
    facts: Mapping[str, str],
    framewise: Framewise | None = None,
) -> None:
    """Write a page of clips to label, which opens with the review of them.

    Args:
        path: the HTML file.
        results: recordings with scores (n, C); gone through once.
        suggested: recording's name, and when with the likeliest species, in the order to label.
        selection: as in `write_report`.
        config: settings of the model.
        facts: what the head of the page says of the run.
        framewise: as in `write_report`.
    """
    by_name: dict[str, list[Event]] = defaultdict(list)
    for name, event in suggested:
        by_name[name].append(event)
    recordings: list[Json] = []
    place: dict[str, int] = {}
    for recording in results:
        if recording.name in by_name:
            place[recording.name] = len(recordings)
            recordings.append(summarise(recording, by_name[recording.name]))

    chosen = [(place[name], event) for name, event in suggested]
    media = add_clips(recordings, chosen, [], selection.folder, config, framewise)
    places, order = np.array([one[0] for one in chosen]), np.arange(len(chosen))
    listed = Listed(places, [one[1] for one in chosen], order, None, None)
    data = {"facts": dict(facts), "threshold": 0.0, "recordings": recordings, "media": media}
    data["activity"] = ""
    _write(path, data, listed, selection, config)


def _write(path: Path, data: Json, listed: Listed, selection: Selection, config: Config) -> None:
    """Complete the data of a page, and write it."""
    data |= {
        "max_clips": [MAX_CLIPS_OF_RECORDING, MAX_CLIPS],
        "ticks": frequency_ticks(config) if data["media"] else [],
        "species": number_species(data["recordings"], selection),
    }
    data["review"] = describe_review(path, data, listed, selection)
    write_file(path, fill_page(data, ("review.js", "review_load.js", "report.js"), WORDS))


def fill_page(data: Json, script_names: Sequence[str], words: Mapping[str, str]) -> str:
    """Put data into the page; `<` is escaped, so that no text can end the script element.

    Args:
        data: what the script draws.
        script_names: files beside this one, which follow the parts that pages share.
        words: by mark, what the frame says.
    """
    here = Path(__file__)
    names = ("page.js", *script_names)
    script = "\n".join(here.with_name(name).read_text(encoding="utf-8") for name in names)
    digest = to_text(hashlib.sha256(script.encode()).digest())  # of the only script that may run
    parts = {
        **words,
        "@SCRIPT_HASH@": digest,
        "@SCRIPT@": script,
        "@DATA@": json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"),
    }
    page = here.with_name("report.html.in").read_text(encoding="utf-8")
    for mark, text in parts.items():
        page = page.replace(mark, text)
    return page


# What was found -----------------------------------------------------------------------------------


def summarise(recording: Recording, found: Sequence[Event]) -> Json:
    """Count a recording's detections by species, the highest score first, and make its heat map.

    Args:
        recording: with scores (n, C).
        found: its detections.

    Returns:
        `species` holds `number`, `count` and `peak` of each; `heat` the scores of the first of them
        by time, as rows x columns bytes in base64, 255 standing for 1. Where there are more windows
        than columns, a column is the highest score of several.
    """
    scores: dict[int, list[float]] = defaultdict(list)
    for event in found:
        scores[event.species].append(event.score)
    ranked = sorted(scores, key=lambda species: (-max(scores[species]), species))
    rows = recording.scores[:, ranked[:MAX_ROWS]]  # (n, rows)
    per_column = max(1, -(-len(rows) // MAX_COLUMNS))
    levels = pool_max(rows, per_column, axis=0).T  # (rows, columns)
    starts_s = recording.starts_s
    stride_s = float(starts_s[1] - starts_s[0]) if len(starts_s) > 1 else recording.seconds
    return {
        "name": recording.name,
        "status": recording.status,
        "reason": recording.reason,
        "seconds": recording.seconds,
        "windows": len(recording.scores),
        "peak": float(recording.scores.max(initial=0)),
        "species": [{"number": n, "count": len(scores[n]), "peak": max(scores[n])} for n in ranked],
        "heat": {
            "rows": levels.shape[0],
            "columns": levels.shape[1],
            "column_s": stride_s * per_column,
            "levels": to_text(np.rint(levels * 255).astype(np.uint8).tobytes()),
        },
        "clips": [],
    }


def choose_clips(found: Sequence[Event]) -> list[Event]:
    """Choose what to show of a recording: each species' best window, then its second best.

    Windows of one species do not overlap.
    """
    kept: dict[int, list[Event]] = defaultdict(list)
    for event in sorted(found, key=lambda event: -event.score):
        others = kept[event.species]
        overlaps = any(
            event.start_s < other.end_s and other.start_s < event.end_s for other in others
        )
        if len(others) < MAX_CLIPS_OF_RECORDING and not overlaps:
            others.append(event)
    ranked = [(rank, event) for events in kept.values() for rank, event in enumerate(events)]
    ranked.sort(key=lambda one: (one[0], -one[1].score))
    return [event for _, event in ranked[:MAX_CLIPS_OF_RECORDING]]


def number_species(recordings: Sequence[Json], selection: Selection) -> list[Json]:
    """List the species found; entries then refer to their place in the list, not to their class."""
    entries = [entry for recording in recordings for entry in recording["species"]]
    classes = sorted({entry["number"] for entry in entries})
    place = {number: index for index, number in enumerate(classes)}
    for entry in entries:
        entry["number"] = place[entry["number"]]
    for recording in recordings:
        for clip in recording["clips"]:
            clip["species"] = place[clip["species"]]
    names = [(selection.class_names[number], *selection.name(number)) for number in classes]
    return [
        {"label": label, "scientific": scientific, "common": common}
        for label, scientific, common in names
    ]


# Pictures and clips -------------------------------------------------------------------------------


def add_clips(
    recordings: Sequence[Json],
    chosen: Sequence[tuple[int, Event]],
    drawn: Sequence[tuple[int, Event]],
    folder: Path,
    config: Config,
    framewise: Framewise | None,
) -> list[Json]:
    """Add the chosen detections to their recordings; return the windows' pictures and sounds.

    Args:
        recordings: as `summarise` makes them; `clips` of each is extended, by the chosen ones and
            then by those that are there for review alone (`drawn`).
        chosen: place in `recordings` and detection; several of one window share its picture and
            sound.
        drawn: the same of detections drawn for review, chosen or not.
        folder: where the recordings lie.
        config: settings of the model.
        framewise: as in `write_report`.
    """
    from tqdm import tqdm

    windows: dict[tuple[int, float], list[Event]] = defaultdict(list)
    best = set(chosen)
    for number, event in dict.fromkeys([*chosen, *drawn]):
        windows[number, event.start_s].append(event)
    paths = [folder / recordings[number]["name"] for number, _ in windows]
    show = functools.partial(show_window, config=config, framewise=framewise)
    media: list[Json] = []
    with ThreadPoolExecutor(max(1, config.num_workers), initializer=_enter_thread) as pool:
        shown = pool.map(show, paths, windows.values())
        progress = tqdm(
            shown, desc="report", total=len(paths), unit="clip", leave=False, disable=None
        )
        for ((number, _), events), (medium, clips) in zip(windows.items(), progress, strict=True):
            recordings[number]["clips"] += [
                clip | {"media": len(media)} | ({} if (number, event) in best else {"drawn": True})
                for event, clip in zip(events, clips, strict=True)
            ]
            media.append(medium)
    for recording in recordings:
        recording["clips"].sort(key=lambda clip: ("drawn" in clip, -clip["score"]))
    return media


def _enter_thread() -> None:
    if "torch" in sys.modules:  # an exported model needs none
        # Of this thread alone: the clips already keep all processors busy.
        sys.modules["torch"].set_num_threads(1)


def show_window(
    path: Path, events: Sequence[Event], config: Config, framewise: Framewise | None
) -> tuple[Json, list[Json]]:
    """Make the picture and sound of a window, and the species' curve of each detection in it.

    A recording that cannot be read gives a `fault` in their place, and a warning.
    """
    frames = None
    try:
        waveform = read_clip(path, events[0], config.sample_rate)
    except (RuntimeError, OSError, ValueError) as error:  # soundfile's own is a RuntimeError
        logger.warning("%s: no clip from %g s: %s", path, events[0].start_s, error)
        medium = {"fault": "The recording could not be read again."}
    else:
        medium = show_waveform(waveform, config)
        if framewise is not None:
            # A clip shorter than a window was repeated to fill it: take its own frames only.
            frames = framewise(waveform)[: 1 + len(waveform) // config.hop_length]  # (n_frames, C)

    clips = [
        {
            "species": one.species,
            "start": one.start_s,
            "end": one.end_s,
            "score": one.score,
            "curve": [] if frames is None else draw_curve(frames[:, one.species]),
        }
        for one in events
    ]
    return medium, clips


def draw_curve(scores: np.ndarray) -> list[int]:
    """Make at most CURVE_POINTS percentages of scores (n_frames,), each a maximum of frames."""
    points = pool_max(scores, -(-len(scores) // CURVE_POINTS))
    return np.rint(points * 100).astype(int).tolist()


def read_clip(path: Path, event: Event, sample_rate: int) -> np.ndarray:
    """Read only what a detection spans: (n,) float32 at `sample_rate`, channels averaged.

    Raises:
        ValueError: no sample lies there.
        RuntimeError: soundfile cannot read it.
    """
    with soundfile.SoundFile(path) as sound:
        begin, end = (round(time_s * sound.samplerate) for time_s in (event.start_s, event.end_s))
        sound.seek(min(begin, sound.frames))
        samples = sound.read(end - begin, "float32", always_2d=True)  # (n, channels)
    if not len(samples):
        raise ValueError("the recording ends before")
    waveform = np.nan_to_num(samples.mean(axis=1), posinf=0, neginf=0)
    return soxr.resample(waveform, sound.samplerate, sample_rate)


def show_waveform(waveform: np.ndarray, config: Config) -> Json:
    """Draw and encode a clip (n,): `image` (PNG), `audio` (MP3), both base64, and `seconds`."""
    from audio.mel import log_mel, mel_settings

    decibels = log_mel(waveform, top_db=config.top_db, **mel_settings(config))  # (n_mels, n_frames)
    for axis, limit in enumerate(PICTURE_SIZE):
        decibels = pool_max(decibels, -(-decibels.shape[axis] // limit), axis)

    # The quieter half is background: left black, it neither distracts nor takes room in the file.
    low, high = float(np.median(decibels)), float(decibels.max())
    levels = np.clip((decibels - low) / max(high - low, 1e-6), 0, 1) * 15
    return {
        "image": to_text(encode_png(np.rint(levels[::-1]).astype(np.uint8))),
        "audio": to_text(encode_mp3(waveform, config.sample_rate)),
        "seconds": len(waveform) / config.sample_rate,
    }


def encode_png(levels: np.ndarray) -> bytes:
    """Encode (height, width) uint8 levels, 0 black to 15 white, as a PNG of 4 bits (RFC 2083)."""
    height, width = levels.shape
    even = np.pad(levels, ((0, 0), (0, width % 2)))
    pixels = even[:, ::2] << 4 | even[:, 1::2]  # two a byte
    rows = np.pad(pixels, ((0, 0), (1, 0)))  # filter type 0 before each row
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 4, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows.tobytes(), 9)),
        (b"IEND", b""),
    ]
    packed = (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def encode_mp3(waveform: np.ndarray, sample_rate: int) -> bytes:
    """Encode a clip (n,) as MP3, which every browser plays, at 24 kHz with a peak of 0.7."""
    resampled = soxr.resample(waveform, sample_rate, CLIP_RATE)
    peak = np.abs(resampled).max(initial=0)
    levelled = resampled * (0.7 / peak) if peak > 0 else resampled
    file = io.BytesIO()
    settings: Json = {"format": "MP3", "bitrate_mode": "VARIABLE", "compression_level": 0.9}
    with soundfile.SoundFile(file, "w", samplerate=CLIP_RATE, channels=1, **settings) as sound:
        sound.write(levelled)
    return file.getvalue()


def frequency_ticks(config: Config) -> list[tuple[float, str]]:
    """Place round frequencies on the height of a spectrogram, from 0 (lower edge) to 1 (upper)."""
    from audio.mel import bank_settings, mel_bank

    n_fft = config.n_fft
    bank = mel_bank(**bank_settings(config)).toarray()  # (n_mels, 1 + n_fft // 2)
    ticks = []
    for hertz in TICKS_HZ:
        if config.fmin < hertz < config.fmax:
            band = int(bank[:, round(hertz * n_fft / config.sample_rate)].argmax())
            ticks.append(((band + 0.5) / config.n_mels, f"{hertz / 1000:g} kHz"))
    return ticks


def pool_max(values: np.ndarray, size: int, axis: int = 0) -> np.ndarray:
    """Take the largest of each `size` neighbours along an axis; the last may be of fewer."""
    if not values.shape[axis]:
        return values
    return np.maximum.reduceat(values, np.arange(0, values.shape[axis], size), axis=axis)


def to_text(content: bytes) -> str:
    """Encode bytes in base64."""
    return base64.b64encode(content).decode("ascii")
