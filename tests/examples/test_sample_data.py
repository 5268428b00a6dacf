"""The synthetic archive of examples/make_sample_data.py is what it says it is."""

import ast
import csv
import shlex
import shutil
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from configs import load_config
from examples.make_sample_data import main, metadata_row, plan_archive, write_archive
from examples.sample_songs import OUTSIDE, SPECIES, Recording, render_recording

ROOT = Path(__file__).resolve().parent.parent.parent
COLUMNS = [
    *(
        "primary_label",
        "secondary_labels",
        "type",
        "latitude",
        "longitude",
        "scientific_name",
        "common_name",
    ),
    *("author", "license", "rating", "url", "filename"),
]
SMALL = {"species": 4, "recordings": 6, "seconds": 5.0, "seed": 3}
TINY_FLAGS = ["--species", "3", "--recordings", "4", "--seconds", "4"]


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> tuple[Path, list[Recording]]:
    output, plan = tmp_path_factory.mktemp("sample") / "data", plan_archive(**SMALL)
    write_archive(output, plan)
    return output, plan


def read_table(output: Path) -> list[dict[str, str]]:
    with open(output / "train_metadata.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def decode(output: Path, recording: Recording) -> np.ndarray:
    """(n, channels) float32, what a decoder makes of the file."""
    return sf.read(output / "train_audio" / recording.filename, dtype="float32", always_2d=True)[0]


def only(plan: list[Recording], kind: str) -> Recording:
    (recording,) = [one for one in plan if one.kind == kind]
    return recording


def last_ogg_page(path: Path) -> tuple[bool, int]:
    """Read the end-of-stream flag and the granule position of the last page header (RFC 3533)."""
    data = path.read_bytes()
    at = data.rfind(b"OggS")
    return bool(data[at + 5] & 4), struct.unpack_from("<q", data, at + 6)[0]


def rms(waveform: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64))))


# The plan and the table


@pytest.mark.parametrize(("species", "recordings"), [(3, 4), (6, 12), (12, 7)])
def test_counts_are_those_asked_for(species, recordings):
    plan = plan_archive(species=species, recordings=recordings, seconds=10, seed=0)
    of_each = [sum(one.species == bird for one in plan) for bird in range(OUTSIDE + 1)]
    assert of_each == [recordings] * (species - 1) + [1] + [0] * (OUTSIDE + 1 - species)
    assert len({one.id for one in plan}) == len(plan)
    assert sorted(one.kind for one in plan if one.kind != "plain") == [
        "copy",
        "short",
        "silent",
        "truncated",
    ]


@pytest.mark.parametrize("seconds", [4.0, 12.0, 100.0])
def test_recordings_last_as_long_as_asked_for_give_or_take_a_quarter(seconds):
    plan = plan_archive(species=6, recordings=20, seconds=seconds, seed=1)
    lengths = [one.seconds for one in plan if one.kind != "short"]
    assert min(lengths) >= 0.75 * seconds and max(lengths) <= 1.25 * seconds
    assert np.mean(lengths) == pytest.approx(
        seconds, rel=0.06
    )  # 4 standard errors of 100 uniform draws
    assert only(plan, "short").seconds < 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"species": 2},
        {"species": 13},
        {"recordings": 3},
        {"seconds": 3.9},
        {"seconds": 601},
        {"seed": -1},
    ],
)
def test_numbers_out_of_range_are_refused_with_what_was_given(wrong):
    with pytest.raises(ValueError, match=f"got .*{next(iter(wrong.values()))}"):
        plan_archive(**({"species": 6, "recordings": 12, "seconds": 12, "seed": 8} | wrong))


def test_table_has_the_columns_of_birdclef_2023_and_a_row_per_file(archive):
    output, _ = archive
    assert (output / "train_metadata.csv").read_text(encoding="utf-8").splitlines()[0] == ",".join(
        COLUMNS
    )
    files = {
        str(path.relative_to(output / "train_audio"))
        for path in (output / "train_audio").rglob("*.*")
    }
    rows = read_table(output)
    assert len(rows) == len(files) == 19
    assert {row["filename"] for row in rows} == files
    assert all(row["filename"].split("/")[0] == row["primary_label"] for row in rows)


def test_columns_hold_what_a_reader_expects():
    rows = [metadata_row(one) for one in plan_archive(species=6, recordings=12, seconds=12, seed=8)]
    labels = [SPECIES[bird].label for bird in range(6)]
    assert labels == ["rissyn1", "falsyn1", "trisyn1", "pipsyn1", "twosyn1", "accsyn1"]
    for row in rows:
        secondary, types = (
            ast.literal_eval(str(row["secondary_labels"])),
            ast.literal_eval(str(row["type"])),
        )
        assert row["primary_label"] in labels and row["primary_label"] not in secondary
        assert set(secondary) <= {*labels, "ratsyn1"} and len(secondary) == len(set(secondary))
        assert set(types) <= {"song", "call", "male"}
        assert abs(row["latitude"]) <= 90 and abs(row["longitude"]) <= 180
        assert 0 <= row["rating"] <= 5
        assert "Synth" in row["common_name"] and "publicdomain" in row["license"]
    assert 0.0 in [row["rating"] for row in rows], "no recording without a rating"
    authors = [row["author"] for row in rows if row["primary_label"] == "rissyn1"]
    assert 1 < len(set(authors)) < len(authors), "no author with several recordings of one species"


def test_one_secondary_label_is_outside_the_classes(archive):
    rows = read_table(archive[0])
    classes = {row["primary_label"] for row in rows}
    outside = [
        label
        for row in rows
        for label in ast.literal_eval(row["secondary_labels"])
        if label not in classes
    ]
    assert outside == ["ratsyn1"]


# Determinism


def test_same_seed_same_table_and_samples_another_seed_others(archive, tmp_path):
    output, plan = archive
    write_archive(tmp_path, plan_archive(**SMALL))
    assert (tmp_path / "train_metadata.csv").read_bytes() == (
        output / "train_metadata.csv"
    ).read_bytes()
    for one in plan:
        np.testing.assert_array_equal(
            decode(tmp_path, one), decode(output, one), err_msg=one.filename
        )

    other = plan_archive(**SMALL | {"seed": 4})
    assert [metadata_row(one) for one in other] != [metadata_row(one) for one in plan]
    first, second = (render_recording(replace(one, seconds=3.0)) for one in (plan[2], other[2]))
    assert not np.array_equal(first, second)


def test_every_flag_shows_in_the_table():
    # It is by the table that a rerun knows the archive of the same flags.
    tables = [
        [metadata_row(one) for one in plan_archive(**SMALL | change)]
        for change in ({}, {"seconds": 5.5}, {"recordings": 7}, {"species": 5}, {"seed": 4})
    ]
    assert all(tables[0] != other for other in tables[1:])


# The odd files


def test_ordinary_files_are_complete_32_khz_mono_and_sound_as_rendered(archive):
    output, plan = archive
    ordinary = [one for one in plan if one.kind == "plain" and not one.stereo]
    assert len(ordinary) >= 10
    for one in ordinary:
        decoded, rendered = decode(output, one), render_recording(one)
        assert decoded.shape == (round(one.seconds * 32_000), 1)
        assert last_ogg_page(output / "train_audio" / one.filename) == (True, len(decoded))
        assert np.corrcoef(decoded[:, 0], rendered[:, 0])[0, 1] > 0.9  # Vorbis is lossy


def test_stereo_files_have_two_different_channels_at_44_1_khz(archive):
    output, plan = archive
    stereo = [one for one in plan if one.stereo]
    assert len(stereo) == 3  # one for each species with more than one recording
    for one in stereo:
        info = sf.info(output / "train_audio" / one.filename)
        assert (info.samplerate, info.channels) == (44_100, 2)
        left, right = decode(output, one).T
        assert rms(left - right) > 0.05 * rms(left)


def test_short_file_is_shorter_than_a_second_and_has_a_song_in_it(archive):
    output, plan = archive
    short = decode(output, only(plan, "short"))
    assert 0 < len(short) < 32_000
    high = np.abs(np.fft.rfft(short[:, 0]))[round(1500 * len(short) / 32_000) :]  # above the wind
    assert high.max() > 20 * np.median(high)


def test_silent_file_is_all_zeros(archive):
    output, plan = archive
    silent = decode(output, only(plan, "silent"))
    assert len(silent) >= 0.75 * 5 * 32_000
    assert not silent.any()


def test_truncated_file_is_a_sound_ogg_cut_in_its_last_third(archive, tmp_path):
    output, plan = archive
    recording = only(plan, "truncated")
    whole = replace(recording, kind="plain")
    write_archive(tmp_path, [whole])
    kept = (output / "train_audio" / recording.filename).read_bytes()
    full = (tmp_path / "train_audio" / whole.filename).read_bytes()
    assert 2 / 3 < len(kept) / len(full) < 1
    assert last_ogg_page(output / "train_audio" / recording.filename)[0] is False
    decoded, expected = decode(output, recording), decode(tmp_path, whole)
    assert 0.3 * len(expected) < len(decoded) < len(expected)
    np.testing.assert_array_equal(decoded[: len(decoded) // 2], expected[: len(decoded) // 2])


def test_copy_is_the_same_file_under_another_id(archive):
    output, plan = archive
    copy = only(plan, "copy")
    (source,) = [one for one in plan if one.id == copy.copy_of]
    assert copy.id != source.id
    contents = [(output / "train_audio" / one.filename).read_bytes() for one in (copy, source)]
    assert contents[0] == contents[1]
    differing = {
        key for key, value in metadata_row(copy).items() if value != metadata_row(source)[key]
    }
    assert differing == {"url", "filename"}


def test_long_recordings_are_written_whole(tmp_path):
    # One call of soundfile.write with a minute or more of Ogg crashes libsndfile.
    recording = replace(plan_archive(**SMALL)[0], seconds=90.0)
    write_archive(tmp_path, [recording])
    assert sf.info(tmp_path / "train_audio" / recording.filename).frames == 90 * 32_000


# Background birds


def test_secondary_labels_name_birds_that_are_in_the_file(archive):
    output, plan = archive
    pairs = [
        (one, bird) for one in plan if one.kind in ("plain", "copy") for bird in one.background
    ]
    assert len(pairs) >= 4 and OUTSIDE in [bird for _, bird in pairs]
    for one, bird in pairs:
        without = render_recording(replace(one, background=tuple(set(one.background) - {bird})))
        added = render_recording(one) - without
        share = np.vdot(decode(output, one) - without, added) / np.vdot(added, added)
        assert share == pytest.approx(1, abs=0.15), (
            f"{one.filename}: {share:.2f} of {SPECIES[bird].label} is there"
        )


# The command


def run(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "examples/make_sample_data.py", *args]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_command_says_what_it_wrote_and_a_rerun_changes_nothing(tmp_path):
    flags = ["--output", str(tmp_path / "data"), *TINY_FLAGS]
    first = run(*flags)
    assert (first.returncode, first.stderr) == (0, "")
    assert first.stdout.startswith("9 synthetic recordings of 3 species, 9 written now\n")
    assert "silent on purpose: falsyn1/SYN100007.ogg" in first.stdout
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    second = run(*flags)
    assert second.returncode == 0
    assert second.stdout.replace("none written", "9 written") == first.stdout
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize("output", ["data", "elsewhere/data", "it's here"])
def test_next_command_finds_the_archive(output, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(["--output", output, *TINY_FLAGS])
    line = capsys.readouterr().out.splitlines()[-1]
    words = shlex.split(line.removeprefix("next: "))
    assert words[:2] == ["python", "prepare_audios.py"]
    config = load_config(words[2:])
    assert config.train_audio_dir.resolve() == (tmp_path / output / "train_audio").resolve()
    assert config.metadata_path.resolve() == (tmp_path / output / "train_metadata.csv").resolve()
    assert config.max_bad_fraction >= 2 / 9  # a silent and a truncated one of nine are meant


def test_next_command_needs_no_flags_for_the_default_set():
    from examples.make_sample_data import _next_command

    assert _next_command(Path("data"), bad_fraction=2 / 61) == "python prepare_audios.py"


def test_interrupted_run_is_completed(archive, tmp_path):
    output, plan = archive
    assert write_archive(output, plan) == []
    shutil.copytree(output, tmp_path, dirs_exist_ok=True)
    lost = [tmp_path / "train_audio" / one.filename for one in plan[3:5]]
    for path in lost:
        path.unlink()
    assert write_archive(tmp_path, plan) == plan[3:5]
    np.testing.assert_array_equal(decode(tmp_path, plan[3]), decode(output, plan[3]))


@pytest.mark.parametrize("theirs", ["train_metadata.csv", "train_audio/abethr1/XC128013.ogg"])
def test_folder_of_other_recordings_is_refused_and_left_alone(theirs, tmp_path):
    path = tmp_path / theirs
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"someone's work")
    result = run("--output", str(tmp_path), *TINY_FLAGS)
    assert result.returncode == 2
    assert (
        len(result.stderr.splitlines()) == 1
        and "other recordings; give another --output" in result.stderr
    )
    assert [one for one in tmp_path.rglob("*") if one.is_file()] == [path]
    assert path.read_bytes() == b"someone's work"


def test_archive_of_other_flags_is_not_mixed_with_this_one(archive):
    output, plan = archive
    with pytest.raises(FileExistsError, match="about other recordings"):
        write_archive(output, plan_archive(**SMALL | {"seconds": 6.0}))
    assert len(read_table(output)) == len(plan)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--species", "99"], "need 3 to 12 species"),
        (["--recordings", "few"], "argument --recordings: invalid int value: 'few'"),
        (["--speceis", "5"], "unrecognized arguments: --speceis 5"),
    ],
)
def test_mistakes_get_one_line_and_status_2(flags, said, capsys):
    with pytest.raises(SystemExit) as stop:
        main(flags)
    message = capsys.readouterr().err
    assert stop.value.code == 2
    assert said in message and len(message.splitlines()) == 1
