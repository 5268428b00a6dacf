"""What prepare_audios.py does with damaged, odd and deadly files."""

import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

import prepare_audios
from audio import damage, decoder_pool, mp3
from audio.recording import prepare_recording
from configs import Config
from prepare_audios import prepare

RECIPE = {"sample_rate": 32_000, "max_seconds": 30.0, "audio_dtype": "float32", "trim_db": None}
NATIVE_RATES = {"ogg": 32_000, "mp3": 44_100, "wav": 22_050, "flac": 48_000}
SECONDS = 4.0


def song(seconds: float, sample_rate: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    """A sweep in noise, (n, channels) float32: nothing that compresses to nothing."""
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    noise = np.random.default_rng(seed).normal(0, 0.05, (len(time), channels))
    return (0.4 * np.sin(2 * np.pi * (1000 + 500 * time) * time)[:, None] + noise).astype(
        np.float32
    )


def encode(path: Path, waveform: np.ndarray, sample_rate: int, **how: str) -> bytes:
    """In blocks of a second: one long write of Ogg crashes libsndfile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with soundfile.SoundFile(path, "w", sample_rate, waveform.shape[1], **how) as file:
        for start in range(0, len(waveform), sample_rate):
            file.write(waveform[start : start + sample_rate])
    return path.read_bytes()


def result(path: Path, data: bytes, **recipe) -> dict:
    """The row of a file with these bytes."""
    path.write_bytes(data)
    return prepare_recording(path, path.with_name("out.npy"), **RECIPE | recipe)


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> dict[str, bytes]:
    """The same song in each format."""
    folder = tmp_path_factory.mktemp("sound")
    return {
        name: encode(folder / f"x.{name}", song(SECONDS, sample_rate), sample_rate)
        for name, sample_rate in NATIVE_RATES.items()
    }


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(root=tmp_path, num_workers=2)


# Damage -------------------------------------------------------------------------------------------


def flip(data: bytes, rng: np.random.Generator) -> bytes:
    """Five bits flipped anywhere."""
    damaged = bytearray(data)
    for bit in rng.integers(0, 8 * len(data), 5):
        damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


def check_archive(
    config: Config, sound: dict[str, bytes], rng: np.random.Generator, flipped: int, cut: int
) -> None:
    """Whatever lost audio must have another status than ok, and what is ok must be whole."""
    folder = config.train_audio_dir / "a"
    folder.mkdir(parents=True)
    for name, data in sound.items():
        (folder / f"sound.{name}").write_bytes(data)
        for i in range(flipped):
            (folder / f"flip{i:02}.{name}").write_bytes(flip(data, rng))
        for i in range(cut):
            (folder / f"cut{i:02}.{name}").write_bytes(data[: rng.integers(1, len(data))])
    table = prepare(config).set_index("filename")
    assert len(table) == 4 * (1 + flipped + cut)
    whole = {f"a/sound.{name}" for name in sound}
    assert (table.loc[sorted(whole), "status"] == "ok").all()
    for filename, row in table.iterrows():
        array = config.train_np_dir / f"{filename}.npy"
        assert array.exists() == (row["status"] in ("ok", "truncated")), filename
        if row["status"] == "ok":
            assert len(np.load(array)) == round(SECONDS * 32_000), filename
            assert "cut" not in filename
        else:
            assert row["reason"], filename
            assert not np.isnan(row["seconds"])
    ogg = table[table.index.str.match(r"a/flip.*\.ogg")]
    assert not (ogg["status"] == "ok").any()  # the pages' check sums see every flip


def test_everything_that_lost_audio_is_reported(config, sound, rng):
    check_archive(config, sound, rng, flipped=10, cut=5)


@pytest.mark.slow
def test_everything_that_lost_audio_is_reported_at_length(config, sound, rng):
    check_archive(config, sound, rng, flipped=50, cut=25)


@pytest.mark.parametrize("seconds", [0.02, 0.3, 1.0, 7.3])
@pytest.mark.parametrize(
    ("name", "sample_rate", "channels", "subtype"),
    [
        ("x.ogg", 44_100, 2, "VORBIS"),
        ("x.ogg", 48_000, 1, "OPUS"),
        ("x.mp3", 48_000, 2, None),
        ("x.mp3", 22_050, 1, None),
        ("x.mp3", 8_000, 1, None),
        ("x.wav", 44_100, 2, "PCM_24"),
        ("x.wav", 96_000, 1, "FLOAT"),
        ("x.wav", 8_000, 1, "PCM_U8"),
        ("x.wav", 8_000, 1, "MS_ADPCM"),
        ("x.flac", 192_000, 1, "PCM_24"),
        ("x.flac", 44_100, 8, "PCM_16"),
    ],
)
def test_no_alarm_for_sound_files(tmp_path, seconds, name, sample_rate, channels, subtype):
    how = {"subtype": subtype} if subtype else {}
    data = encode(tmp_path / name, song(seconds, sample_rate, channels), sample_rate, **how)
    for max_seconds in (30.0, 0.25):
        row = result(tmp_path / name, data, max_seconds=max_seconds)
        assert (row["status"], row["reason"]) == ("ok", "8 bits a sample" * (subtype == "PCM_U8"))
        assert row["channels"] == channels and row["native_rate"] == sample_rate


@pytest.mark.parametrize("name", list(NATIVE_RATES))
@pytest.mark.parametrize("tail", [b"TAG" + b"x" * 125, b"\0" * 3000])
def test_no_alarm_for_a_tag_or_padding_at_the_end(tmp_path, sound, name, tail):
    if name == "flac" and len(tail) > 128:
        pytest.skip("nothing tells such padding from audio beyond the header's count")
    assert result(tmp_path / f"x.{name}", sound[name] + tail)["status"] == "ok"


@pytest.mark.parametrize("name", list(NATIVE_RATES))
def test_a_cut_beyond_the_kept_part_is_reported_and_the_part_kept(tmp_path, sound, name):
    row = result(tmp_path / f"x.{name}", sound[name][: len(sound[name]) * 3 // 4], max_seconds=1.0)
    assert (row["status"], row["seconds"]) == ("truncated", 1.0)
    assert row["reason"].startswith("1.10 s decoded; ")


def test_a_damaged_flac_keeps_what_comes_before(tmp_path, sound):
    damaged = bytearray(sound["flac"])
    damaged[len(damaged) * 3 // 4] ^= 255
    row = result(tmp_path / "x.flac", bytes(damaged))
    assert row["status"] == "truncated" and 2.0 < row["seconds"] < 3.1


def slow_ogg_crc(page: bytes) -> int:
    """By the definition, bit by bit: polynomial 0x04c11db7, no reflection, from 0."""
    crc = 0
    for byte in page[:22] + bytes(4) + page[26:]:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ 0x04C11DB7 * (crc >> 31)) & 0xFFFFFFFF
    return crc


def pages(data: bytes) -> list[bytes]:
    starts = [at for at in range(len(data)) if data[at : at + 4] == b"OggS"]
    return [data[a:b] for a, b in zip(starts, [*starts[1:], len(data)], strict=True)]


def with_crc(page: bytes) -> bytes:
    return page[:22] + struct.pack("<I", slow_ogg_crc(page)) + page[26:]


def test_ogg_page_check_against_the_definition(sound):
    for page in pages(sound["ogg"]):
        assert struct.unpack("<I", page[22:26])[0] == slow_ogg_crc(page)
        assert damage._ogg_page_size(page, 0) == len(page)
        assert damage._ogg_page_size(page[:-1], 0) == 0
        for at in (4, 22, 25, 27, len(page) - 1):
            assert damage._ogg_page_size(page[:at] + bytes([page[at] ^ 1]) + page[at + 1 :], 0) == 0


def test_ogg_without_end_mark_with_a_lost_page_or_chained(tmp_path, sound):
    parts = pages(sound["ogg"])
    unmarked = with_crc(parts[-1][:5] + bytes([parts[-1][5] & ~4]) + parts[-1][6:])
    row = result(tmp_path / "x.ogg", b"".join(parts[:-1]) + unmarked)
    assert (
        row["status"] == "truncated"
        and "no end-of-stream mark" in row["reason"]
        and row["seconds"] == SECONDS
    )
    row = result(tmp_path / "x.ogg", b"".join(parts[:4] + parts[5:]))
    assert row["status"] == "truncated" and "missing or damaged in 1 places" in row["reason"]
    other = encode(tmp_path / "y.ogg", song(1.0, 32_000, seed=1), 32_000)
    row = result(tmp_path / "x.ogg", sound["ogg"] + other)
    assert row["status"] == "truncated" and "2 recordings are chained" in row["reason"]


def frames(data: bytes) -> list[bytes]:
    """The frames of an MP3 of libsndfile; the first holds the Xing header."""
    found, at = [], 0
    while at < len(data):
        size = mp3.frame_size(data[at : at + 4], b"")
        found.append(data[at : at + size])
        at += size
    return found


@pytest.mark.parametrize(
    ("header", "kbps", "rate", "padding", "size"),
    [  # MPEG version, layer III, from the tables of ISO 11172-3 and 13818-3
        ("fffb9064", 128, 44_100, 0, 417),
        ("fffb9264", 128, 44_100, 1, 418),
        ("fffbe4c4", 320, 48_000, 0, 960),
        ("fff35064", 40, 22_050, 0, 130),
        ("ffe318c4", 8, 8_000, 0, 72),
        ("fffd9064", 0, 0, 0, 0),  # layer II
        ("fffbf064", 0, 0, 0, 0),  # no such bit rate
        ("fffb9c64", 0, 0, 0, 0),  # nor sample rate
        ("00fb9064", 0, 0, 0, 0),
    ],
)
def test_mp3_frame_sizes(header, kbps, rate, padding, size):
    assert mp3.frame_size(bytes.fromhex(header), b"") == size
    if size:
        samples = 1152 if rate >= 32_000 else 576
        assert size == samples // 8 * kbps * 1000 // rate + padding


def test_mp3_without_a_xing_header_cut_or_with_a_hole(tmp_path):
    # A constant bit rate, as programs without that header write.
    how = {"format": "MP3", "bitrate_mode": "CONSTANT", "compression_level": 0.5}
    with soundfile.SoundFile(tmp_path / "x.mp3", "w", 44_100, 1, **how) as file:
        file.write(song(SECONDS, 44_100))
    parts = frames((tmp_path / "x.mp3").read_bytes())[1:]
    data = b"".join(parts)
    assert result(tmp_path / "x.mp3", data)["status"] == "ok"
    assert (
        result(tmp_path / "x.mp3", b"ID3\x03\0\0\0\0\x01\x00" + bytes(128) + data)["status"] == "ok"
    )
    row = result(tmp_path / "x.mp3", data[: len(data) // 2 + 77])
    assert row["status"] == "truncated" and "in 1 places" in row["reason"]
    hole = b"".join(parts[:40]) + parts[40][:100] + b"".join(parts[41:])
    row = result(tmp_path / "x.mp3", hole)
    assert row["status"] == "truncated" and "in 1 places" in row["reason"]


def test_mp3_of_variable_rate_without_its_header_is_decoded_to_its_end(tmp_path, sound):
    # From the size of its first frame libsndfile takes it to be a fifth shorter, and stops there.
    parts = frames(sound["mp3"])
    assert len({len(part) for part in parts[1:]}) > 2  # variable
    row = result(tmp_path / "x.mp3", b"".join([max(parts, key=len), *parts[1:]]))
    assert (row["status"], row["reason"]) == ("ok", "")
    assert row["seconds"] == pytest.approx(1152 * len(parts) / 44_100, abs=0.001)
    assert np.argmax(np.abs(np.fft.rfft(np.load(tmp_path / "out.npy")[-16_000:]))) > 1000  # a song


def test_wav_headers(tmp_path, sound):
    data = sound["wav"]
    at = data.index(b"data") + 4
    n_bytes = struct.unpack("<I", data[at : at + 4])[0]
    piped = data[:at] + struct.pack("<I", 0xFFFFFFFF) + data[at + 4 :]
    assert result(tmp_path / "x.wav", piped)["status"] == "ok"
    row = result(tmp_path / "x.wav", data[:at] + struct.pack("<I", n_bytes // 2) + data[at + 4 :])
    assert row["status"] == "truncated" and "more audio than its header counts" in row["reason"]
    row = result(tmp_path / "x.wav", data[:-1000])
    assert f"{n_bytes - 1000} of {n_bytes} bytes of audio are there" in row["reason"]
    listed = data + b"LIST" + struct.pack("<I", 4) + b"INFO"
    assert result(tmp_path / "x.wav", listed)["status"] == "ok"


def test_flac_headers(tmp_path, sound):
    data = sound["flac"]
    n_frames = int.from_bytes(data[18:26], "big") & (1 << 36) - 1
    assert n_frames == SECONDS * 48_000

    def stating(total: int) -> bytes:
        return data[:21] + bytes([data[21] & 0xF0]) + total.to_bytes(4, "big") + data[26:]

    row = result(tmp_path / "x.flac", stating(n_frames // 2))
    assert row["status"] == "truncated" and "more audio than its header counts" in row["reason"]
    assert result(tmp_path / "x.flac", stating(n_frames * 2))["status"] == "truncated"
    piped = stating(0)
    assert result(tmp_path / "x.flac", piped, max_seconds=2.0)["status"] == "ok"
    row = result(tmp_path / "x.flac", piped)  # as ffmpeg writes it into a pipe
    assert (row["status"], row["seconds"]) == ("ok", SECONDS)


# Odd files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("waveform", "expected"),
    [
        (np.zeros((0, 1)), "empty"),
        (np.zeros((1000, 1)), "silent"),
        (np.full((1000, 2), 0.25), "silent"),  # a broken microphone's offset
        (np.full((1, 1), 0.25), "silent"),
        (np.array([[0.0], [np.nan], [0.5]]), "non_finite"),  # one of three is too many
        (np.array([[0.0], [np.inf], [0.5]]), "non_finite"),
        (np.array([[0.0], [4e-5]]), "ok"),
    ],
)
def test_odd_samples(tmp_path, waveform, expected):
    encode(tmp_path / "x.wav", waveform.astype(np.float32), 32_000, subtype="FLOAT")
    row = prepare_recording(tmp_path / "x.wav", tmp_path / "x.npy", **RECIPE)
    assert row["status"] == expected
    assert bool(row["reason"]) == (expected != "ok")
    assert (tmp_path / "x.npy").exists() == (expected == "ok")


@pytest.mark.parametrize(("at_s", "is_kept"), [(0.999, True), (1.05, False), (1.5, False)])
@pytest.mark.parametrize("rate", [32_000, 16_000])
def test_a_sample_that_is_not_finite_costs_no_other(tmp_path, at_s, is_kept, rate):
    waveform = song(2.0, rate).reshape(-1, 1).astype(np.float32)
    encode(tmp_path / "whole.wav", waveform, rate, subtype="FLOAT")
    recipe = RECIPE | {"max_seconds": 1.0}
    prepare_recording(tmp_path / "whole.wav", tmp_path / "whole.npy", **recipe)
    waveform[round(at_s * rate)] = np.nan
    encode(tmp_path / "x.wav", waveform, rate, subtype="FLOAT")

    row = prepare_recording(tmp_path / "x.wav", tmp_path / "x.npy", **recipe)
    assert row["status"] == "ok" and row["seconds"] == 1.0
    assert row["reason"] == ("1 samples are NaN or infinite and were set to 0" if is_kept else "")
    apart = np.abs(np.load(tmp_path / "x.npy") - np.load(tmp_path / "whole.npy")) > 1e-3
    assert apart.sum() <= 0.02 * 32_000  # around the bad one, by the resampler's filter


def test_odd_files_are_rows_with_reasons(config, sound):
    folder = config.train_audio_dir / "a"
    folder.mkdir(parents=True)
    os.mkfifo(folder / "fifo.ogg")
    (folder / "loop.ogg").symlink_to("loop.ogg")
    (folder / "device.ogg").symlink_to("/dev/zero")
    (folder / "broken.ogg").symlink_to("nowhere.ogg")
    (folder / "zero.ogg").touch()
    (folder / "text.ogg").write_text("this is no recording")
    (folder / "wrong.ogg").write_bytes(sound["mp3"])
    (folder / "link.ogg").symlink_to("real.OGG")
    (folder / "real.OGG").write_bytes(sound["ogg"])
    table = prepare(config).set_index("filename")
    expected = {
        "broken": ("unreadable", "broken link"),
        "fifo": ("unreadable", "FIFO"),
        "link": ("ok", ""),
        "loop": ("unreadable", "broken link"),
        "text": ("unreadable", "Format not recognised"),
        "wrong": ("ok", "holds MP3"),
        "zero": ("empty", "0 bytes"),
    }
    for name, (status, reason) in expected.items():
        row = table.loc[f"a/{name}.ogg"]
        assert row["status"] == status, name
        assert reason in row["reason"], name
    assert table.loc["a/real.OGG", "status"] == "ok"
    assert "a/device.ogg" not in table.index  # a link that leads out is not followed


def test_a_file_without_permission_says_so(tmp_path, sound, monkeypatch):
    (tmp_path / "x.ogg").write_bytes(sound["ogg"])
    (tmp_path / "x.ogg").chmod(0)
    if os.geteuid() == 0:  # to whom permissions do not apply
        tmp_path.chmod(0o755)
        monkeypatch.chdir(tmp_path)
        os.seteuid(65534)
    try:
        row = prepare_recording(
            Path("x.ogg") if os.getuid() == 0 else tmp_path / "x.ogg", Path("x.npy"), **RECIPE
        )
    finally:
        os.seteuid(os.getuid())
    assert (row["status"], row["reason"]) == ("unreadable", "Permission denied")


# Deadly files -------------------------------------------------------------------------------------

# The decoder process, with a decoder that dies or hangs, in C, by the name of the file.
DEADLY = """
import ctypes, sys
sys.path.insert(0, sys.argv[1])
from audio import decoder, decoder_pool
sound = decoder.Decoder.__iter__
def decode(self):
    if "crash" in self.path.name:
        ctypes.string_at(0)
    if "hang" in self.path.name:
        ctypes.PyDLL(None).sleep(600)  # with the lock of the interpreter: uninterrupted
    if "quit" in self.path.name:
        import os
        os._exit(7)
    return sound(self)
decoder.Decoder.__iter__ = decode
decoder_pool.serve()
"""


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_crash_or_hang_costs_one_file(config, sound, monkeypatch, num_workers):
    command = (sys.executable, "-c", DEADLY, str(Path(prepare_audios.__file__).parent))
    monkeypatch.setattr(decoder_pool, "COMMAND", command)
    config.num_workers, config.file_timeout_s = num_workers, 1.0
    folder = config.train_audio_dir / "a"
    folder.mkdir(parents=True)
    names = ["a.ogg", "crash1.ogg", "b.ogg", "crash2.ogg", "hang.ogg", "quit.ogg", "z.ogg"]
    for name in names:
        (folder / name).write_bytes(sound["ogg"])
    stale = config.train_np_dir / "a" / "crash1.ogg.npy"
    stale.parent.mkdir(parents=True)
    np.save(stale, np.zeros(5, np.float32))
    table = prepare(config).set_index("filename")
    assert len(table) == len(names)
    for name in ("a", "b", "z"):
        assert table.loc[f"a/{name}.ogg", "status"] == "ok"
        assert len(np.load(config.train_np_dir / "a" / f"{name}.ogg.npy")) == SECONDS * 32_000
    reasons = table.loc[table["status"] == "unreadable", "reason"].to_dict()
    assert reasons == {
        "a/crash1.ogg": "its decoder crashed (SIGSEGV)",
        "a/crash2.ogg": "its decoder crashed (SIGSEGV)",
        "a/hang.ogg": "not done after 1 s (file_timeout_s)",
        "a/quit.ogg": "its decoder crashed (status 7)",
    }
    assert not stale.exists()


def test_a_decoder_that_cannot_start_ends_the_run(config, sound, monkeypatch):
    monkeypatch.setattr(decoder_pool, "COMMAND", (sys.executable, "-c", "pass"))
    (config.train_audio_dir / "a").mkdir(parents=True)
    (config.train_audio_dir / "a" / "x.ogg").write_bytes(sound["ogg"])
    with pytest.raises(RuntimeError, match="does not start"):
        prepare(config)


PEAK_MEMORY = """
import re, sys
from pathlib import Path
from audio.recording import prepare_recording
row = prepare_recording(Path(sys.argv[1]), Path(sys.argv[1] + ".npy"),
                        sample_rate=32000, max_seconds=30.0, audio_dtype="float32", trim_db=None)
# ru_maxrss would count what the parent held when it forked; the peak of /proc begins anew.
peak_kb = int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
print(row["status"], row["seconds"], peak_kb // 1024)
"""


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="reads the peak from Linux's /proc"
)
def test_memory_does_not_grow_with_the_file(tmp_path):
    # Three hours of stereo at 48 kHz, 2 GB, all but the first minute a hole in a sparse file.
    waveform = song(60.0, 48_000, 2)
    data = bytearray(encode(tmp_path / "x.wav", waveform, 48_000, subtype="PCM_16"))
    n_bytes = 3 * 3600 * 48_000 * 4
    at = data.index(b"data") + 4
    data[at : at + 4], data[4:8] = struct.pack("<I", n_bytes), struct.pack("<I", n_bytes + at - 4)
    (tmp_path / "x.wav").write_bytes(data)
    os.truncate(tmp_path / "x.wav", n_bytes + at + 4)
    command = [sys.executable, "-c", PEAK_MEMORY, str(tmp_path / "x.wav")]
    here = Path(prepare_audios.__file__).parent
    status, seconds, megabytes = subprocess.check_output(command, text=True, cwd=here).split()
    assert (status, seconds) == ("ok", "30.0")
    assert int(megabytes) < 300
