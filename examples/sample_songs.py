"""The sounds of the sample archive: songs of birds that do not exist, in air, wind and insects.

Every sound is drawn from a generator of its own, so that one can be left out and the others stay.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

SAMPLE_RATE = 32_000  # Hz
STEREO_RATE = 44_100  # Hz, of the stereo recordings

Kind = Literal["plain", "short", "silent", "truncated", "copy"]


@dataclass(frozen=True)
class Note:
    """One note of a song, which every bird varies a little."""

    seconds: float
    from_hz: float
    to_hz: float
    pause: float  # seconds of silence after it
    arc: float = 0.0  # bulge of the pitch in mid-note, as a share of it
    harmonics: tuple[float, ...] = (1.0, 0.06)  # amplitudes of 1, 2, 3... times the pitch
    vibrato_hz: float = 0.0  # fast ones sound like a buzz
    vibrato: float = 0.0  # its depth, as a share of the pitch


@dataclass(frozen=True)
class Species:
    """An invented bird: its names and its song, a phrase of notes that is repeated."""

    name: str
    epithet: str
    repeats: tuple[int, int]  # fewest and most phrases in a song
    phrase: tuple[Note, ...]
    acceleration: float = 1.0  # factor on the pauses from phrase to phrase

    @property
    def label(self) -> str:
        """Code in eBird's manner: the Rising Synthbird is rissyn1."""
        return f"{self.name[:3].lower()}syn1"


_NASAL = (0.5, 1.0, 0.8, 0.55, 0.4, 0.25, 0.15)  # harmonics
_ALTERNATION = (Note(0.14, 4700, 4550, 0.05), Note(0.17, 3250, 3200, 0.06))
_BUZZ = (Note(0.28, 3300, 3250, 0.06), Note(0.55, 5000, 4300, 0.10, vibrato_hz=95, vibrato=0.16))
_WARBLE = (
    Note(0.11, 2600, 5200, 0.04),
    Note(0.16, 6400, 4300, 0.06, -0.15),
    Note(0.12, 5200, 2500, 0.05),
)
_FIFE = (Note(0.20, 1900, 1880, 0.08), Note(0.34, 1500, 1460, 0.30, vibrato_hz=14, vibrato=0.03))

# The first two are each other backwards; the third, fifth and sixth have about the same mean
# frequency.
SPECIES = (
    Species("Rising", "ascendens", (3, 5), (Note(0.26, 2200, 4300, 0.13),)),
    Species("Falling", "descendens", (3, 5), (Note(0.26, 4300, 2200, 0.13),)),
    Species("Trilling", "trepidans", (16, 26), (Note(0.038, 4900, 3000, 0.030),)),
    Species("Piping", "harmonica", (4, 7), (Note(0.17, 820, 780, 0.11, 0.12, _NASAL),)),
    Species("Two-note", "alternans", (3, 6), _ALTERNATION),
    Species(
        "Accelerating", "accelerans", (10, 14), (Note(0.08, 4200, 3300, 0.22, arc=0.05),), 0.82
    ),
    Species("Buzzing", "stridens", (1, 2), _BUZZ),
    Species("Warbling", "garrula", (2, 3), _WARBLE),
    Species("Hooting", "ululans", (3, 4), (Note(0.32, 520, 470, 0.20, 0.06, (1.0, 0.25, 0.12)),)),
    Species("Thin", "tenuis", (6, 10), (Note(0.10, 7900, 7100, 0.07),)),
    Species("Fifing", "militaris", (1, 3), _FIFE),
    Species("Mewing", "querula", (1, 3), (Note(0.55, 1300, 1000, 0.25, 0.35, _NASAL),)),
    # Never a class: it is heard in the background and has no folder.
    Species(
        "Rattling",
        "crepitans",
        (12, 18),
        (Note(0.022, 2600, 1100, 0.060, 0.0, (1.0, 0.5, 0.3, 0.2)),),
    ),
)
OUTSIDE = len(SPECIES) - 1  # place in SPECIES of the bird outside the classes


@dataclass(frozen=True)
class Recording:
    """What decides everything about one file and its row of metadata."""

    id: str  # file name without .ogg
    species: int  # the primary bird's place in SPECIES
    background: tuple[int, ...]  # the background birds' places in SPECIES
    seconds: float
    seed: tuple[int, ...]  # of every sound in it, and of its author, place and rating
    stereo: bool = False  # two channels at 44.1 kHz instead of one at 32 kHz
    kind: Kind = "plain"
    copy_of: str | None = None  # id of the recording it is a copy of

    @property
    def filename(self) -> str:
        """Path below train_audio, `<primary_label>/<id>.ogg`."""
        return f"{SPECIES[self.species].label}/{self.id}.ogg"

    @property
    def sample_rate(self) -> int:
        """Hz."""
        return STEREO_RATE if self.stereo else SAMPLE_RATE


def render_song(
    species: int,
    *,
    rng: np.random.Generator,
    pitch: float = 1.0,
    tempo: float = 1.0,
    sample_rate: int = SAMPLE_RATE,
) -> np.ndarray:
    """Sing one song, close by and without echo.

    Args:
        species: place in SPECIES.
        rng: draws the number of phrases, and each note's pitch (within 1 %), length (within 5 %)
            and loudness.
        pitch: factor on all frequencies.
        tempo: factor on all durations; above 1 is slower.
        sample_rate: Hz.

    Returns:
        (n,) float32, 0.3 to 4 s; whistles are at most 1, notes rich in harmonics, of the same
        power, 2.4.
    """
    bird, sounds, now = SPECIES[species], [], 0.0
    for phrase in range(rng.integers(*bird.repeats, endpoint=True)):
        for note in bird.phrase:
            note_pitch = pitch * np.exp(rng.normal(0, 0.01))
            note_tempo = tempo * np.exp(rng.normal(0, 0.05))
            sound = rng.uniform(0.75, 1) * _render_note(note, note_pitch, note_tempo, sample_rate)
            sounds.append((round(now * sample_rate), sound))
            now += note_tempo * (note.seconds + note.pause * bird.acceleration**phrase)

    waveform = np.zeros(sounds[-1][0] + len(sounds[-1][1]), dtype=np.float32)
    for start, sound in sounds:
        waveform[start : start + len(sound)] += sound
    return waveform


def _render_note(note: Note, pitch: float, tempo: float, sample_rate: int) -> np.ndarray:
    """Sing one note: harmonics over a gliding pitch, swelling and fading.

    Returns:
        (n,) float32, of the power that a sine of amplitude 1 has.
    """
    seconds = note.seconds * tempo
    n_samples = round(seconds * sample_rate)
    x = (np.arange(n_samples) + 0.5) / n_samples  # 0 to 1 over the note

    hz = pitch * note.from_hz * (note.to_hz / note.from_hz) ** x
    hz *= 1 + note.arc * np.sin(np.pi * x)
    hz *= 1 + note.vibrato * np.sin(2 * np.pi * note.vibrato_hz * seconds * x)
    phase = 2 * np.pi * np.cumsum(hz) / sample_rate

    waveform = np.zeros(n_samples)
    for number, amplitude in enumerate(note.harmonics, start=1):
        below_nyquist = number * hz < 0.45 * sample_rate  # others would fold back
        waveform += amplitude * np.sin(number * phase) * below_nyquist

    swell = np.sin(0.5 * np.pi * np.minimum(1, np.minimum(x, 1 - x) / 0.3)) ** 2
    return (waveform * swell / np.linalg.norm(note.harmonics)).astype(np.float32)


def _sing(species: int, n_samples: int, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """(n_samples,) float32: one bird's songs, the first within 1.2 s, with pauses between them."""
    pitch, tempo = np.exp(rng.normal(0, 0.03)), rng.uniform(0.88, 1.14)  # this bird's voice
    waveform = np.zeros(n_samples, dtype=np.float32)

    start = round(min(rng.uniform(0.05, 1.2) * sample_rate, 0.25 * n_samples))
    while start < n_samples:
        song = render_song(species, rng=rng, pitch=pitch, tempo=tempo, sample_rate=sample_rate)
        waveform[start : start + len(song)] += song[: n_samples - start]
        start += len(song) + round(rng.uniform(0.7, 2.4) * sample_rate)
    return waveform


def _carry_through_air(
    waveform: np.ndarray, sample_rate: int, rng: np.random.Generator
) -> np.ndarray:
    """(n,) float32: distance takes the high frequencies, trees add a short decaying echo."""
    tail = np.arange(round(0.4 * sample_rate)) / sample_rate
    echo = rng.standard_normal(len(tail)) * np.exp(-tail / rng.uniform(0.03, 0.12))
    echo *= rng.uniform(0.1, 0.5) / np.linalg.norm(echo)
    echo[0] += 1

    padded = len(waveform) + len(tail)  # or the last echo would come in again at the start
    spectrum = np.fft.rfft(waveform, padded) * np.fft.rfft(echo.astype(np.float32), padded)

    hz = np.fft.rfftfreq(padded, 1 / sample_rate)
    spectrum *= np.exp(-((hz / rng.uniform(9_000, 20_000)) ** 2))
    return np.fft.irfft(spectrum, padded)[: len(waveform)].astype(np.float32)


def _render_air(n_samples: int, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """(n_samples,) float32: hiss of the microphone, gusts of wind, in every second one insects."""
    hz = np.fft.rfftfreq(n_samples, 1 / sample_rate)
    air = _amplitude(rng.uniform(-64, -52)) * rng.standard_normal(n_samples, dtype=np.float32)

    wind = _shape_noise(n_samples, 1 / np.maximum(hz, 40), rng)  # power 1/f^2
    loudness = _amplitude(rng.uniform(-46, -30))
    air += loudness * wind * _slow_envelope(n_samples, 1.5 * sample_rate, rng)

    if rng.random() < 0.5:
        centre, width = rng.uniform(5_500, 9_500), rng.uniform(120, 300)
        insects = _shape_noise(n_samples, np.exp(-0.5 * ((hz - centre) / width) ** 2), rng)
        wings = np.sin(np.pi * rng.uniform(15, 40) * np.arange(n_samples) / sample_rate) ** 2
        loudness = _amplitude(rng.uniform(-56, -44))
        air += loudness * insects * wings * _slow_envelope(n_samples, 0.6 * sample_rate, rng)

    return air.astype(np.float32)


def _shape_noise(n_samples: int, gain: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(n_samples,) float32: noise of these amplitudes at rfft's frequencies, root mean square 1."""
    spectrum = rng.standard_normal((len(gain), 2), dtype=np.float32).view(np.complex64)[:, 0]
    noise = np.fft.irfft(spectrum * gain.astype(np.float32), n_samples)
    return noise / np.sqrt(np.mean(noise**2))


def _slow_envelope(n_samples: int, knot_samples: float, rng: np.random.Generator) -> np.ndarray:
    """(n_samples,) between 0.1 and 1, straight lines between random knots."""
    knots = np.arange(0, n_samples + knot_samples, knot_samples)
    return np.interp(np.arange(n_samples), knots, rng.uniform(0.1, 1, len(knots)))


def _amplitude(db: float) -> float:
    """Decibels relative to full scale as an amplitude."""
    return 10 ** (db / 20)


def render_recording(recording: Recording) -> np.ndarray:
    """Render what a recording's file holds, before Vorbis and, for a truncated one, before the cut.

    Every sound has a generator of its own, so with `dataclasses.replace(recording, background=())`
    all the rest stays the same, and the difference is what the background birds add.

    Returns:
        (n, channels) float32, within full scale.
    """
    n_samples, rate = round(recording.seconds * recording.sample_rate), recording.sample_rate
    if recording.kind == "silent":
        return np.zeros((n_samples, 1 + recording.stereo), dtype=np.float32)

    air = _render_air(n_samples, rate, np.random.default_rng((*recording.seed, 0)))
    waveform = np.repeat(air[:, None], 1 + recording.stereo, axis=1)

    loudness = np.random.default_rng((*recording.seed, 1)).uniform(-30, -14)
    for species in (recording.species, *recording.background):
        rng = np.random.default_rng((*recording.seed, 2, species))
        bird = _carry_through_air(_sing(species, n_samples, rate, rng), rate, rng)
        is_primary = species == recording.species
        level = _amplitude(loudness - (0 if is_primary else rng.uniform(7, 14)))

        side = rng.uniform(-0.4, 0.4)  # left or right of the microphones
        gains = np.sqrt([1 + 2 * side, 1 - 2 * side]) if recording.stereo else np.ones(1)
        waveform += (level * bird[:, None] * gains).astype(np.float32)

    return np.clip(waveform, -0.99, 0.99)


def render_clip(
    species: int | None,
    *,
    rng: np.random.Generator,
    seconds: float = 5.0,
    start: float = 4.0,
    stop: float = 5.0,
) -> np.ndarray:
    """Render a clip of wind, hiss and perhaps insects in which one bird sings at a known time only.

    Args:
        species: place in SPECIES; None leaves the bird out and gives the same noise.
        rng: a generator as `np.random.default_rng` makes it.
        seconds: length of the clip.
        start: second in which the singing starts.
        stop: second in which it ends, with a fade of 20 ms.

    Returns:
        (n,) float32 at SAMPLE_RATE.

    Raises:
        ValueError: unless 0 <= start < stop <= seconds.
    """
    if not 0 <= start < stop <= seconds:
        raise ValueError(
            f"need 0 <= start < stop <= seconds, got start={start}, stop={stop}, seconds={seconds}"
        )

    air_rng, bird_rng = rng.spawn(2)
    waveform = _render_air(round(seconds * SAMPLE_RATE), SAMPLE_RATE, air_rng)
    if species is None:
        return waveform

    first, end = round(start * SAMPLE_RATE), round(stop * SAMPLE_RATE)
    bird = np.zeros(0, dtype=np.float32)
    while len(bird) < end - first:
        song = render_song(species, rng=bird_rng)
        bird = np.concatenate([bird, song, np.zeros(SAMPLE_RATE // 4, dtype=np.float32)])

    bird = _carry_through_air(bird[: end - first], SAMPLE_RATE, bird_rng)
    fade = min(len(bird), SAMPLE_RATE // 50)
    bird[len(bird) - fade :] *= np.linspace(1, 0, fade, dtype=np.float32)
    waveform[first:end] += _amplitude(-18) * bird
    return waveform
