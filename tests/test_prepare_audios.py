"""What prepare_audios.py writes for sound recordings, and what a rerun does."""

import os
import sys
import threading
import zlib
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import soundfile

import prepare_audios
from audio.recording import prepare_recording, trim_silence
from catalog.plain_paths import is_plain_path
from catalog.report import read_report
from configs import Config, UserError
from prepare_audios import find_recordings, prepare

RECIPE = {"sample_rate": 32_000, "max_seconds": 30.0, "audio_dtype": "float32", "trim_db": None}


def song(
    seconds: float, sample_rate: int = 32_000, channels: int = 1, hz: float = 1000.0
) -> np.ndarray:
    """A sine of amplitude 0.5, the same on all channels: (n, channels) float32."""
    wave = 0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * sample_rate)) / sample_rate)
    return np.repeat(wave[:, None], channels, axis=1).astype(np.float32)


def write(path: Path, waveform: np.ndarray, sample_rate: int = 32_000, **how: str) -> Path:
    """In blocks of a second: one long write of Ogg crashes libsndfile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with soundfile.SoundFile(path, "w", sample_rate, waveform.shape[1], **how) as file:
        for start in range(0, len(waveform), sample_rate):
            file.write(waveform[start : start + sample_rate])
    return path


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(root=tmp_path, num_workers=1)


def recordings(config: Config, **files: float) -> None:
    """Write `a/<name>.wav` of so many seconds each."""
    for name, seconds in files.items():
        write(config.train_audio_dir / "a" / f"{name}.wav", song(seconds))


def prepared(config: Config, filename: str) -> np.ndarray:
    return np.load(config.train_np_dir / f"{filename}.npy", allow_pickle=False)


def status(table: pd.DataFrame) -> dict[str, str]:
    return dict(zip(table["filename"], table["status"], strict=True))


# Values -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 2, 8])
def test_channels_are_averaged_and_samples_at_the_same_rate_unchanged(tmp_path, rng, channels):
    waveform = rng.uniform(-1, 1, (5000, channels)).astype(np.float32)
    source = write(tmp_path / "x.wav", waveform, subtype="FLOAT")
    row = prepare_recording(source, tmp_path / "x.npy", **RECIPE)
    array = np.load(tmp_path / "x.npy", allow_pickle=False)
    mean = np.array([np.sum(frame.astype(np.float64)) / channels for frame in waveform])
    np.testing.assert_allclose(array, mean, atol=1e-6)
    assert array.dtype == np.float32 and array.flags["C_CONTIGUOUS"]
    assert row["status"] == "ok" and row["channels"] == channels and row["native_rate"] == 32_000
    assert row["seconds"] == 5000 / 32_000 and row["peak"] == pytest.approx(
        np.abs(mean).max(), abs=1e-6
    )


@pytest.mark.parametrize(("peak", "scale"), [(1.0, 32767), (1.7, 32767 / 1.7)])
def test_int16_is_rounded_and_a_peak_above_full_scale_is_brought_to_it(tmp_path, peak, scale):
    waveform = np.array([0.0, peak, -peak, 0.5, 1.4 / 32767, 1.6 / 32767], np.float32)
    source = write(tmp_path / "x.wav", waveform[:, None], subtype="FLOAT")
    prepare_recording(source, tmp_path / "x.npy", **RECIPE | {"audio_dtype": "int16"})
    array = np.load(tmp_path / "x.npy", allow_pickle=False)
    assert array.dtype == np.int16
    assert array.tolist() == [round(float(value) * scale) for value in waveform]


def test_values_above_full_scale_are_kept_in_float32(tmp_path):
    source = write(tmp_path / "x.wav", np.array([[1.5], [-0.5]], np.float32), subtype="FLOAT")
    row = prepare_recording(source, tmp_path / "x.npy", **RECIPE)
    assert np.load(tmp_path / "x.npy").tolist() == [1.5, -0.5] and row["peak"] == 1.5


@pytest.mark.parametrize("native_rate", [8_000, 22_050, 44_100, 48_000, 192_000])
def test_a_tone_survives_resampling(tmp_path, native_rate):
    source = write(
        tmp_path / "x.wav", song(1.0, native_rate, hz=1000), native_rate, subtype="FLOAT"
    )
    prepare_recording(source, tmp_path / "x.npy", **RECIPE)
    array = np.load(tmp_path / "x.npy")
    assert len(array) == 32_000
    np.testing.assert_allclose(
        array[4000:-4000], song(1.0, 32_000, hz=1000)[4000:-4000, 0], atol=1e-3
    )


@pytest.mark.parametrize("n_native", [7, 44_099, 44_101, 100_003])
def test_length_after_resampling(tmp_path, n_native):
    source = write(tmp_path / "x.wav", song(3, 44_100)[:n_native], 44_100)
    prepare_recording(source, tmp_path / "x.npy", **RECIPE)
    assert len(np.load(tmp_path / "x.npy")) == round(n_native * 32_000 / 44_100)


def test_only_max_seconds_are_kept_and_the_cut_is_no_edge(tmp_path):
    source = write(tmp_path / "x.wav", song(3.0, 44_100), 44_100, subtype="FLOAT")
    row = prepare_recording(source, tmp_path / "cut.npy", **RECIPE | {"max_seconds": 1.25})
    prepare_recording(source, tmp_path / "all.npy", **RECIPE)
    cut, whole = np.load(tmp_path / "cut.npy"), np.load(tmp_path / "all.npy")
    assert row["seconds"] == 1.25 and len(cut) == 40_000 and row["status"] == "ok"
    np.testing.assert_allclose(cut, whole[:40_000], atol=1e-6)


@pytest.mark.parametrize("name", ["x.ogg", "x.mp3", "x.flac", "X.WAV"])
def test_formats(tmp_path, name):
    source = write(tmp_path / name, song(2.0, 48_000, 2), 48_000)
    row = prepare_recording(source, tmp_path / "x.npy", **RECIPE)
    array = np.load(tmp_path / "x.npy")
    assert (row["status"], row["reason"], len(array)) == ("ok", "", 64_000)
    spectrum = np.abs(np.fft.rfft(array))
    assert np.argmax(spectrum) == 2000  # 1 kHz in bins of half a hertz
    assert np.sqrt(2 * np.mean(array[8000:-8000] ** 2)) == pytest.approx(
        0.5, rel=0.2
    )  # lossy ones change it


def test_trim_drops_quiet_frames_at_both_ends_only():
    # Frames of 320 samples: two quiet, one loud, one quiet, one loud, two quiet.
    levels = np.repeat([0.001, 0.001, 0.5, 0.0, 0.4, 0.004, 0.001], 320).astype(np.float32)
    assert (
        trim_silence(levels, sample_rate=32_000, trim_db=40).tolist() == levels[640:1600].tolist()
    )
    assert (
        trim_silence(levels, sample_rate=32_000, trim_db=43).tolist() == levels[640:1920].tolist()
    )  # 0.004: -42 dB
    assert len(trim_silence(levels, sample_rate=32_000, trim_db=80)) == len(levels)


def test_trim_follows_the_cut(tmp_path):
    waveform = np.concatenate([np.full((32_000, 1), 1e-4, np.float32), song(1.0)])
    source = write(tmp_path / "x.wav", waveform)
    row = prepare_recording(
        source, tmp_path / "x.npy", **RECIPE | {"max_seconds": 1.5, "trim_db": 40.0}
    )
    assert row["seconds"] == 0.5 and len(np.load(tmp_path / "x.npy")) == 16_000


# The run and its report ---------------------------------------------------------------------------


def test_report_has_a_row_for_each_recording_in_order(config):
    write(config.train_audio_dir / "b" / "two.OGG", song(1.0))
    recordings(config, z=0.5, a=0.25)
    (config.train_audio_dir / "a" / "notes.txt").write_text("x")
    (config.train_audio_dir / "a" / "._z.wav").write_text("x")  # what macOS leaves on foreign disks
    table = prepare(config)
    assert table["filename"].tolist() == ["a/a.wav", "a/z.wav", "b/two.OGG"]
    assert table["status"].tolist() == ["ok"] * 3
    assert table["seconds"].tolist() == [0.25, 0.5, 1.0]
    assert table["native_rate"].tolist() == [32_000] * 3
    assert len(prepared(config, "b/two.OGG")) == 32_000
    assert not list(config.train_np_dir.rglob("*.part"))
    pd.testing.assert_frame_equal(table, read_report(config.report_path))
    plain = pd.read_csv(config.report_path, keep_default_na=False)  # as anyone would
    assert plain["filename"].tolist() == table["filename"].tolist()


def test_rerun_skips_and_keeps_the_facts(config):
    recordings(config, a=0.5, b=1.0)
    first = prepare(config)
    kept = (config.train_np_dir / "a/a.wav.npy").stat().st_mtime_ns
    for _ in range(2):
        again = prepare(config)
        assert again["status"].tolist() == ["skipped"] * 2
        pd.testing.assert_frame_equal(again.drop(columns="status"), first.drop(columns="status"))
    assert (config.train_np_dir / "a/a.wav.npy").stat().st_mtime_ns == kept


@pytest.mark.parametrize("audio_dtype", ["float32", "int16"])
def test_the_report_holds_a_check_sum_of_the_samples(config, audio_dtype):
    config.audio_dtype = audio_dtype
    recordings(config, a=0.5)
    (config.train_audio_dir / "a" / "empty.wav").touch()
    table = prepare(config).set_index("filename")
    assert table["crc32"]["a/a.wav"] == f"{zlib.crc32(prepared(config, 'a/a.wav').tobytes()):08x}"
    assert table["crc32"]["a/empty.wav"] == ""


def test_a_report_of_an_older_version_is_gone_on_with(config):
    recordings(config, same=0.5, longer=0.5)
    prepare(config)
    pd.read_csv(config.report_path, dtype=str).drop(columns="crc32").to_csv(
        config.report_path, index=False
    )
    recordings(config, longer=0.75)
    table = prepare(config).set_index("filename")
    assert table["status"].to_dict() == {"a/longer.wav": "ok", "a/same.wav": "skipped"}
    assert table["crc32"]["a/same.wav"] == "" and len(table["crc32"]["a/longer.wav"]) == 8


def test_what_changed_is_done_again(config):
    recordings(config, same=0.5, longer=0.5, damaged=0.5, gone=0.5)
    prepare(config)
    recordings(config, longer=0.75)
    with open(config.train_np_dir / "a/damaged.wav.npy", "r+b") as file:
        file.truncate(1000)
    (config.train_np_dir / "a/gone.wav.npy").unlink()
    table = prepare(config)
    assert status(table) == {
        "a/damaged.wav": "ok",
        "a/gone.wav": "ok",
        "a/longer.wav": "ok",
        "a/same.wav": "skipped",
    }
    assert (
        len(prepared(config, "a/longer.wav")) == 24_000
        and len(prepared(config, "a/damaged.wav")) == 16_000
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [("sample_rate", 33_000), ("max_seconds", 0.25), ("audio_dtype", "int16"), ("trim_db", 60.0)],
)
def test_other_settings_prepare_everything_again(config, field, value):
    recordings(config, a=0.5)
    prepare(config)
    setattr(config, field, value)
    assert prepare(config)["status"].tolist() == ["ok"]
    assert prepare(config)["status"].tolist() == ["skipped"]


def test_bad_recordings_stay_visible_and_leave_no_old_file(config):
    recordings(config, cut=1.0, silent=1.0, junk=1.0)
    prepare(config)
    folder = config.train_audio_dir / "a"
    data = (folder / "cut.wav").read_bytes()
    (folder / "cut.wav").write_bytes(data[: len(data) // 2])
    write(folder / "silent.wav", np.zeros((32_000, 1), np.float32))
    (folder / "junk.wav").write_bytes(b"no recording at all")
    expected = {"a/cut.wav": "truncated", "a/junk.wav": "unreadable", "a/silent.wav": "silent"}
    first = prepare(config)
    assert status(first) == expected
    assert [path.name for path in config.train_np_dir.rglob("*.npy")] == ["cut.wav.npy"]
    pd.testing.assert_frame_equal(prepare(config), first)  # a rerun launders nothing


def test_a_killed_run_goes_on_where_it_was(config):
    recordings(config, a=0.5, b=0.5, c=0.5)
    prepare(config)
    lines = config.report_path.read_text().splitlines(keepends=True)
    config.report_path.write_text(
        "".join(lines[:2]) + lines[2][:-30]
    )  # b's row is half written, c's missing
    assert status(prepare(config)) == {"a/a.wav": "skipped", "a/b.wav": "ok", "a/c.wav": "ok"}


def test_the_array_of_a_recording_that_is_gone_is_set_aside(config, caplog):
    recordings(config, stays=0.5, goes=0.5)
    prepare(config)
    foreign = config.train_np_dir / "a" / "embeddings.npy"  # which no report lists
    np.save(foreign, np.zeros(3))
    (config.train_audio_dir / "a/goes.wav").unlink()
    table = prepare(config)
    assert status(table) == {"a/stays.wav": "skipped"}
    left = sorted(path.name for path in (config.train_np_dir / "a").iterdir())
    assert left == ["embeddings.npy", "goes.wav.orphan", "stays.wav.npy"]
    assert "1 recordings are gone" in caplog.text and "a/goes.wav" in caplog.text

    recordings(config, goes=0.5)  # it is back
    assert status(prepare(config)) == {"a/goes.wav": "ok", "a/stays.wav": "skipped"}


def test_unfinished_files_of_a_killed_run_are_swept(config):
    recordings(config, a=0.5)
    part = config.train_np_dir / "a" / "a.wav.npy.999999999.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"half")
    prepare(config)
    assert not part.exists()


def test_a_name_of_255_bytes_is_prepared_and_skipped_when_run_again(config):
    recordings(config, a=0.5)
    long = "w" * 251 + ".wav"
    write(config.train_audio_dir / "a" / long, song(0.5))
    for expected in ("ok", "skipped"):
        assert status(prepare(config)) == {"a/a.wav": expected, f"a/{long}": expected}
    assert len(list((config.train_np_dir / "a").glob("*.npy"))) == 2


def test_voice_without_its_package_is_one_line(config, monkeypatch):
    recordings(config, a=0.5)
    config.voice = "flag"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"voice=flag: .*requirements-voice\.txt"):
        prepare(config)


def test_another_choice_of_voice_prepares_anew(config):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("silero_vad")
    recordings(config, a=0.5)
    prepare(config)
    config.voice = "flag"
    assert status(prepare(config)) == {"a/a.wav": "ok"}
    assert status(prepare(config)) == {"a/a.wav": "skipped"}


def test_recordings_that_only_the_metadata_name_are_missing(config):
    recordings(config, there=0.5)
    config.metadata_path.write_text(
        "\ufeffprimary_label,filename\nNA,NA/1.ogg\na,a/there.wav\nx,../../etc/passwd\n"
    )
    table = prepare(config)
    assert status(table) == {
        "../../etc/passwd": "missing",
        "NA/1.ogg": "missing",
        "a/there.wav": "ok",
    }
    assert table["reason"].tolist()[0] == f"in {config.metadata_path} only"


def test_metadata_without_filenames_are_refused(config):
    recordings(config, a=0.5)
    config.metadata_path.write_text("primary_label\na\n")
    with pytest.raises(UserError, match=r"train_metadata.csv.*filename"):
        prepare(config)


@pytest.mark.parametrize(
    "label", ["=1+1", "+x", "-x", "@x", "'=x", "NA", "a,b", 'q"q', "new\nline", "\N{BIRD}"]
)
def test_odd_labels_survive_the_report_and_no_cell_is_a_formula(config, label):
    name = f"{label}/x.wav"
    write(config.train_audio_dir / name, song(0.1))
    assert prepare(config)["filename"].tolist() == [name]
    assert status(prepare(config)) == {name: "skipped" if is_plain_path(name) else "unreadable"}
    cell = pd.read_csv(config.report_path, dtype=str, keep_default_na=False)["filename"][0]
    assert cell[0] not in "=+-@\t\r"


def test_a_name_that_the_next_script_would_refuse_is_said_at_once(config, caplog):
    recordings(config, a=0.1, **{"b\nc": 0.1})
    reasons = prepare(config).set_index("filename")["reason"]
    assert reasons["a/a.wav"] == "" and "rename it" in reasons["a/b\nc.wav"]
    assert "1 recordings cannot be used: 'a/b\\nc.wav'" in caplog.text


def test_a_name_that_is_no_utf8_is_prepared(config):
    folder = os.fsencode(config.train_audio_dir) + b"/\xff"
    os.makedirs(folder)
    source = write(config.train_audio_dir / "x.wav", song(0.1))
    os.rename(source, folder + b"/x.wav")
    assert prepare(config)["status"].tolist() == ["ok"]
    assert prepare(config)["status"].tolist() == ["skipped"]


@pytest.mark.parametrize("made", [True, False])
def test_no_recordings_says_where_it_looked(config, made):
    if made:
        (config.train_audio_dir / "label").mkdir(parents=True)
    with pytest.raises(UserError, match=str(config.train_audio_dir)):
        find_recordings(config)


def test_a_full_or_read_only_disk_ends_the_run(config):
    recordings(config, a=0.5)
    config.train_np_dir.mkdir()
    (config.train_np_dir / "a").write_text("a file where the folder should be")
    with pytest.raises(UserError, match=r"cannot write .*a.wav.npy"):
        prepare(config)


@pytest.mark.parametrize("backend", ["threading", "loky"])
def test_joblib_backend_is_the_callers(config, backend, monkeypatch):
    recordings(config, a=0.2, b=0.2, c=0.2)
    chosen = []
    whole = joblib.Parallel.__call__
    monkeypatch.setattr(
        joblib.Parallel,
        "__call__",
        lambda self, calls: (chosen.append(self), whole(self, calls))[1],
    )
    with joblib.parallel_config(backend=backend, n_jobs=2):
        assert prepare(config)["status"].tolist() == ["ok"] * 3
    assert chosen[0].n_jobs == 2 and backend in type(chosen[0]._backend).__name__.lower()


@pytest.mark.parametrize("said_to_joblib", [{}, {"n_jobs": 2}])
def test_as_many_recordings_as_workers_are_prepared_at_once(config, said_to_joblib, monkeypatch):
    recordings(config, a=0.2, b=0.2, c=0.2, d=0.2)
    config.num_workers = 1 if said_to_joblib else 2
    both_are_here = threading.Barrier(
        2, timeout=30
    )  # seconds; one after the other, neither would get past it
    alone = prepare_audios.prepare_safely
    monkeypatch.setattr(
        prepare_audios, "prepare_safely", lambda *job: (both_are_here.wait(), alone(*job))[1]
    )
    with joblib.parallel_config(**said_to_joblib):
        assert prepare(config)["status"].tolist() == ["ok"] * 4


def test_no_process_is_left_behind(config):
    recordings(config, a=0.2, b=0.2)
    config.num_workers = 2
    prepare(config)
    assert prepare_audios._decoders.alive == []


# The script ---------------------------------------------------------------------------------------


def run_script(monkeypatch, config: Config, *flags: str) -> int:
    monkeypatch.setattr(
        sys, "argv", ["prepare_audios.py", "--root", str(config.root), "--num-workers", "1", *flags]
    )
    return prepare_audios.main()


def test_script_says_what_it_did_and_what_comes_next(config, monkeypatch, capsys):
    recordings(config, a=0.5, b=1.0)
    assert run_script(monkeypatch, config) == 0
    said = capsys.readouterr().out
    assert (
        "2 recordings: 2 ok" in said and "2 s of audio" in said and str(config.report_path) in said
    )
    assert said.endswith(f"next: python split_data.py --root {config.root} --num-workers 1\n")


@pytest.mark.parametrize(("limit", "code"), [("0.5", 0), ("0.49", 1)])
def test_exit_code_by_the_share_of_bad_recordings(config, monkeypatch, capsys, limit, code):
    recordings(config, a=0.5)
    (config.train_audio_dir / "a" / "bad.ogg").write_bytes(b"junk")
    assert run_script(monkeypatch, config, "--max-bad-fraction", limit) == code
    captured = capsys.readouterr()
    assert ("1 of 2 recordings are bad" in captured.err) == bool(code)
    assert ("next:" in captured.out) != bool(code)
