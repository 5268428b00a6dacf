"""From recordings to files: scores as in validation, whatever the batch, format or fault."""

import json
import logging
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import checkpoint as ckpt
import predict
import train
from audio import decoder_pool
from audio.recording import prepare_recording
from configs import UserError
from inference import scorers, stream, timeline, windows
from inference.adjusting import Adjustment
from inference.partial import PartialResults
from inference.results import Results
from tests.audio.test_decoder_pool import DEADLY_COMMAND
from tests.predicting import (
    RATE,
    SPECIES,
    Breaking,
    named,
    save_model,
    score,
    song,
    tiny,
    write_wav,
)

# The same as validation ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "channels", "suffix"), [(RATE, 1, ".wav"), (44100, 2, ".flac"), (12000, 1, ".ogg")]
)
@pytest.mark.parametrize("audio_dtype", ["float32", "int16"])
def test_a_window_scores_as_in_validation(tmp_path, rate, channels, suffix, audio_dtype):
    """Prepared and scored by train.validate, or streamed by predict.py: the same scores."""
    config = tiny(root=tmp_path, audio_dtype=audio_dtype, valid_bs=3)
    recordings = {}
    for number, seconds in enumerate((1.7, 0.4, 1.0, 2.2)):
        mono = song(seconds, rate, seed=number)
        path = tmp_path / "sounds" / SPECIES[number % 3] / f"{number}{suffix}"
        write_wav(path, np.stack([mono, 0.5 * mono][:channels], axis=1), rate, subtype=None)
        recordings[path.relative_to(tmp_path / "sounds").as_posix()] = path
        prepare_recording(
            path,
            config.train_np_dir / f"{path.relative_to(tmp_path / 'sounds')}.npy",
            sample_rate=RATE,
            max_seconds=30.0,
            audio_dtype=audio_dtype,
            trim_db=None,
        )
    rows = [
        {"primary_label": name.split("/")[0], "labels": "", "filepath": f"{name}.npy"}
        for name in recordings
    ]
    df = pd.DataFrame(rows)
    config.train_dir = tmp_path / "fold_0"
    fold = train.build_fold(df, df, 0, SPECIES, replace(config, num_workers=0), torch.device("cpu"))
    checkpoint = save_model(tmp_path / "m.pth", config, ema=True)
    fold.parts.model.load_state_dict(ckpt.read_checkpoint(checkpoint)["ema"])
    _, meter = train.validate(fold)

    found = score(
        scorers.TorchModels([checkpoint], tiny(valid_bs=5)),
        recordings,
        windows.Plan(),
        tmp_path / "out",
    )
    first = np.stack([found[name].scores[0] for name in recordings])
    assert first.std() > 0.05  # or the comparison would say little
    np.testing.assert_allclose(first, meter.scores, atol=1e-6)


def test_later_windows_and_the_last_shorter_one_are_clips_of_their_own(models, tmp_path):
    """Each window scores as if it were a recording by itself."""
    samples = song(3.4)
    whole = {"w": write_wav(tmp_path / "whole.wav", samples)}
    parts = {
        str(n): write_wav(tmp_path / f"{n}.wav", samples[n * RATE // 2 : n * RATE // 2 + RATE])
        for n in range(6)
    }
    found = score(models, whole, windows.Plan(stride_s=0.5), tmp_path / "a")["w"]
    assert found.starts_s.tolist() == [
        0,
        0.5,
        1,
        1.5,
        2,
        2.5,
    ]  # the one at 2.5 s is the first to reach the end
    assert found.seconds == pytest.approx(3.4)
    wanted = np.concatenate(
        [one.scores for one in score(models, parts, windows.Plan(), tmp_path / "b").values()]
    )
    np.testing.assert_allclose(found.scores, wanted, atol=1e-6)


def test_scores_do_not_depend_on_batches_or_threads(tmp_path, sounds):
    path = save_model(tmp_path / "m.pth", tiny())
    recordings = stream.find_recordings(sounds).paths
    results = []
    for batch_size, n_threads in ((1, 1), (4, 2), (32, 3)):
        models = scorers.TorchModels([path], tiny(valid_bs=batch_size, num_workers=n_threads))
        found = score(models, recordings, windows.Plan(), tmp_path / f"b{batch_size}")
        assert list(found) == ["s0.wav", "s1.wav", "s2.wav"]
        assert [len(one.scores) for one in found.values()] == [3, 1, 3]
        results.append(np.concatenate([one.scores for one in found.values()]))
    np.testing.assert_allclose(results[1], results[0], atol=1e-6)
    np.testing.assert_allclose(results[2], results[0], atol=1e-6)


# Windows without a signal -------------------------------------------------------------------------


def with_a_hole() -> np.ndarray:
    """Six seconds of song, of which the third and the fourth are zeros and the last a constant."""
    samples = song(6.0)
    samples[2 * RATE : 4 * RATE] = 0
    samples[5 * RATE :] = 0.25
    return samples


def test_windows_without_a_signal_score_zero_and_the_network_never_sees_them(tmp_path):
    path = save_model(tmp_path / "m.pth", tiny())
    recordings = {"s": write_wav(tmp_path / "s.wav", with_a_hole())}
    whole = {"s": write_wav(tmp_path / "whole.wav", song(6.0))}
    models = Breaking([path], tiny())
    found = score(models, recordings, windows.Plan(), tmp_path / "o")["s"]
    assert models.n_images == 3 and found.n_silent == 3
    assert found.silent.tolist() == [False, False, True, True, False, True]
    assert not found.scores[[2, 3, 5]].any()

    wanted = score(models, whole, windows.Plan(), tmp_path / "p")["s"].scores
    np.testing.assert_allclose(found.scores[[0, 1, 4]], wanted[[0, 1, 4]], atol=1e-6)
    assert wanted[[2, 3, 5]].min() > 1e-3  # or the zeros would say little


@pytest.mark.parametrize("average", ["probability", "rank"])
def test_silence_stays_silent_beside_louder_neighbours(tmp_path, average):
    """Neither shifted clips nor smoothing nor ranks make a detection of it."""
    path = save_model(tmp_path / "m.pth", tiny())
    models = scorers.TorchModels([path], tiny())
    recordings = {"s": write_wav(tmp_path / "s.wav", with_a_hole())}
    partial = PartialResults(tmp_path / "partial", {})
    predict.score_recordings(models, recordings, windows.Plan(shifts_s=(0.5, -0.5)), partial)
    (found,) = Results(partial, ["s"], average, Adjustment(neighbours=(0.5,)))
    partial.close()
    assert not found.scores[[2, 3, 5]].any() and found.scores[[0, 1, 4]].min() > 0


def test_frames_of_silence_are_zero_and_no_event(models, tmp_path):
    recordings = {"s": write_wav(tmp_path / "s.wav", with_a_hole())}
    rule = timeline.EventRule(0.001, 0.001)
    plan = windows.Plan(frames_dir=tmp_path / "frames", events=rule)
    found = score(models, recordings, plan, tmp_path / "o")["s"]
    with np.load(tmp_path / "frames" / "s.npz") as saved:
        frames = saved["frames"]  # one every 16 ms
    assert not frames[2 * 63 : 4 * 62].any() and frames[: 2 * 62].all()
    events = [event for event in found.events if event.start_s > 2.05 and event.end_s < 3.95]
    assert found.events and not events


def test_a_dead_microphone_is_counted_and_listed(monkeypatch, tmp_path, capsys):
    """An hour of zeros is no bird, however the network scores it."""
    model = save_model(tmp_path / "m.pth", tiny())
    write_wav(tmp_path / "field" / "dead.wav", np.zeros(4 * RATE, "f4"))
    write_wav(tmp_path / "field" / "live.wav", song(2.0))
    args = [model, tmp_path / "field", "--output", tmp_path / "s.csv", "--device", "cpu"]
    assert call(monkeypatch, *args) == 0
    scores = pd.read_csv(tmp_path / "s.csv", index_col=0, keep_default_na=False)
    dead = scores.index.str.startswith("dead")
    assert dead.sum() == 4 and not scores[dead].to_numpy().any() and scores[~dead].all(axis=None)
    said = capsys.readouterr().out
    assert "4 of 6 windows are silent" in said
    assert "recordings that are not ok (1 silent)" in said
    rows = pd.read_csv(tmp_path / "s.bad_files.csv").to_numpy().tolist()
    assert rows == [["dead.wav", "silent", "no signal from beginning to end"]]


# Recordings that cannot be read -------------------------------------------------------------------


def test_bad_files_are_reported_and_the_rest_go_on(models, tmp_path):
    folder = tmp_path / "sounds"
    write_wav(folder / "b_good.wav", song(2.0))
    (folder / "a_text.ogg").write_text("no audio")
    (folder / "c_empty.wav").write_bytes(b"")
    write_wav(folder / "d_no_samples.wav", np.zeros(0, "f4"))
    write_wav(folder / "e_nan.wav", np.concatenate([song(1.5), np.full(RATE, np.nan, "f4")]))
    whole = write_wav(folder / "f_cut.flac", song(20.0), subtype="PCM_16").read_bytes()
    (folder / "f_cut.flac").write_bytes(whole[: len(whole) // 2])
    plan = windows.Plan(frames_dir=tmp_path / "frames")
    found = score(models, stream.find_recordings(folder).paths, plan, tmp_path / "o")
    assert {one.name[:5] for one in (tmp_path / "frames").iterdir()} == {"b_goo", "e_nan", "f_cut"}
    assert {name: one.status for name, one in found.items()} == {
        "a_text.ogg": "unreadable",
        "b_good.wav": "ok",
        "c_empty.wav": "empty",
        "d_no_samples.wav": "empty",
        "e_nan.wav": "non_finite",
        "f_cut.flac": "truncated",
    }
    nan = found["e_nan.wav"]
    assert "40.0% of its samples are NaN or infinite" in nan.reason
    assert nan.silent.tolist() == [False, False, True] and not nan.scores[2].any()
    assert (
        5 <= len(found["f_cut.flac"].scores) <= 11
        and "of 20.00 s decoded" in found["f_cut.flac"].reason
    )
    assert all(np.isfinite(one.scores).all() for one in found.values())


def test_a_crash_and_a_hang_of_the_decoder_cost_their_files_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(decoder_pool, "COMMAND", DEADLY_COMMAND)
    folder = tmp_path / "sounds"
    for number, name in enumerate(("a", "b_crash", "c", "d_hang", "e_quit", "f")):
        write_wav(
            folder / f"{name}.wav", song(10.0, seed=number)
        )  # of which the first block holds 4 s
    models = scorers.TorchModels([save_model(tmp_path / "m.pth", tiny())], tiny(file_timeout_s=1.0))
    found = score(models, stream.find_recordings(folder).paths, windows.Plan(), tmp_path / "o")
    assert {name[0]: (one.status, one.reason, len(one.scores)) for name, one in found.items()} == {
        "a": ("ok", "", 10),
        "b": ("truncated", "its decoder crashed (SIGSEGV)", 4),
        "c": ("ok", "", 10),
        "d": ("truncated", "its decoder was stuck for 1 s (file_timeout_s)", 4),
        "e": ("truncated", "its decoder crashed (status 7)", 4),
        "f": ("ok", "", 10),
    }


ROOT = Path(predict.__file__).parent

# The command line ---------------------------------------------------------------------------------


def command(*args: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, str(ROOT / "predict.py"), *map(str, args)]
    return subprocess.run(line, capture_output=True, text=True, timeout=120, check=False)


def call(monkeypatch, *args: object) -> int:
    monkeypatch.setattr(sys, "argv", ["predict.py", *map(str, args)])
    return predict.main()


def test_from_the_shell_to_a_submission(tmp_path, sounds):
    save_model(named(tmp_path / "Exp_1" / "fold_0", 1), tiny())
    answer = command(
        tmp_path / "Exp_1", sounds, "--output", tmp_path / "submission.csv", "--device", "cpu"
    )
    assert answer.returncode == 0, answer.stderr
    table = pd.read_csv(tmp_path / "submission.csv")
    assert table.columns.tolist() == ["row_id", *SPECIES]
    assert table["row_id"].tolist() == ["s0_1", "s0_2", "s0_3", "s1_1", "s2_1", "s2_2", "s2_3"]
    assert "3 recordings, 3 species" in answer.stdout and "x real time" in answer.stdout
    assert f"wrote {tmp_path / 'submission.csv'}: 7 rows" in answer.stdout
    assert not answer.stderr  # no bar without a terminal, no warning
    assert not (tmp_path / "submission.csv.partial").exists()


def test_help_is_quick_and_lists_the_flags():
    answer = command("--help")
    assert answer.returncode == 0 and "--sample-submission" in answer.stdout
    code = (
        "import sys, predict; print([m for m in ('torch', 'pandas', 'timm') if m in sys.modules])"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert loaded.stdout.strip() == "[]"


def test_several_formats_are_written_at_once(monkeypatch, capsys, tmp_path, sounds):
    path = save_model(tmp_path / "m.pth", tiny())
    forms = ["submission-2023", "long", "raven", "audacity", "birdnet"]
    args = [
        "--format",
        *forms,
        "--num-workers",
        1,
        "--no-amp",
        "--frames",
        tmp_path / "f",
        "--events",
    ]
    assert (
        call(monkeypatch, path, sounds, "--output", tmp_path / "out.csv", "--threshold", 0.1, *args)
        == 0
    )
    names = {
        "out.submission-2023.csv",
        "out.long.csv",
        "out.raven.txt",
        "out.audacity",
        "out.birdnet.csv",
    }
    assert names <= {one.name for one in tmp_path.iterdir()}
    assert "5.7" not in capsys.readouterr().err
    long = pd.read_csv(tmp_path / "out.long.csv", keep_default_na=False)
    raven = pd.read_csv(tmp_path / "out.raven.txt", sep="\t", keep_default_na=False)
    assert len(long) == len(raven) > 0
    assert raven["File Offset (s)"].tolist() == pytest.approx(long["start_s"].tolist(), abs=1e-6)
    with np.load(tmp_path / "f" / "s0.wav.npz") as saved:
        assert saved["frames"].shape == (1 + 3 * RATE // 128, 3)


def test_a_page_to_look_at_holds_the_detections_and_their_sound(
    monkeypatch, capsys, tmp_path, sounds
):
    header = "primary_label,scientific_name,common_name"
    (tmp_path / "metadata.csv").write_text(f"{header}\nbird1,Aves una,First bird\n")
    path = save_model(tmp_path / "m.pth", tiny(metadata_path=tmp_path / "metadata.csv"))
    page = tmp_path / "report.html"
    args = [
        "--output",
        tmp_path / "out.csv",
        "--report",
        page,
        "--threshold",
        0.1,
        "--num-workers",
        1,
        "--no-amp",
        "--format",
        "long",
        "--columns",
        "names",
    ]
    assert call(monkeypatch, path, sounds, *args) == 0
    assert '"common":"First bird"' in page.read_text(encoding="utf-8")  # from the metadata
    found = pd.read_csv(tmp_path / "out.csv", keep_default_na=False)
    assert set(found["common_name"]) <= {"NA", "First bird", "bird2"}
    assert f"wrote {page}: " in capsys.readouterr().out
    text = page.read_text(encoding="utf-8")
    assert "s0.wav" in text and SPECIES[0] in text and "data:audio/" in text
    assert "http://" not in text.replace("http://www.w3.org/", "") and "https://" not in text


def test_clips_to_label_next_are_suggested_as_a_table_and_a_page(
    monkeypatch, capsys, tmp_path, sounds, caplog
):
    path = save_model(tmp_path / "m.pth", tiny())
    args = ["--output", tmp_path / "out.csv", "--num-workers", 1, "--no-amp"]
    assert call(monkeypatch, path, sounds, *args, "--suggest", 4, "--review-clips", 3) == 0
    assert "--review-clips has no effect: without --report" in caplog.text
    said = capsys.readouterr().out
    assert f"wrote {tmp_path / 'out.suggested.csv'}: 4 clips to label next" in said
    table = pd.read_csv(tmp_path / "out.suggested.csv", keep_default_na=False)
    assert len(table) == 4 and set(table["detected"]) <= set(SPECIES)
    assert not table.duplicated(["filename", "start_s"]).any()
    page = (tmp_path / "out.suggested.html").read_text(encoding="utf-8")
    assert '"counts":null' in page and page.count('"curve":[') == 4


def test_an_interrupted_command_keeps_its_partial_results(monkeypatch, tmp_path, sounds, caplog):
    path = save_model(tmp_path / "m.pth", tiny())
    args = [path, sounds, "--output", tmp_path / "s.csv", "--valid-bs", 4, "--device", "cpu"]
    monkeypatch.setattr(predict, "open_models", lambda path, given: Breaking([path], given))
    monkeypatch.setattr(Breaking, "batches_left", 1)
    with pytest.raises(KeyboardInterrupt):
        call(monkeypatch, *args)
    assert "s.csv.partial keeps what is done; the same command goes on" in caplog.text
    lines = (tmp_path / "s.csv.partial").read_text().splitlines()
    assert [json.loads(line)["name"] for line in lines[1:]] == ["s0.wav"]
    assert not (tmp_path / "s.csv").exists()
    monkeypatch.setattr(Breaking, "batches_left", 10)
    with caplog.at_level(logging.INFO, "birdclef"):
        assert call(monkeypatch, *args) == 0
    assert "1 of 3 recordings were done before" in caplog.text
    assert len(pd.read_csv(tmp_path / "s.csv")) == 7 and not (tmp_path / "s.csv.partial").exists()


def test_ctrl_c_ends_at_once_and_the_same_command_goes_on(tmp_path):
    path = save_model(tmp_path / "m.pth", tiny())
    write_wav(tmp_path / "sounds" / "a.wav", song(1.0))
    write_wav(tmp_path / "sounds" / "long.wav", song(3000.0), subtype="PCM_16")
    line = [
        path,
        tmp_path / "sounds",
        "--output",
        tmp_path / "o.csv",
        "--device",
        "cpu",
        "--stride",
        "0.1",
    ]
    process = subprocess.Popen(
        [sys.executable, ROOT / "predict.py", *map(str, line)],
        stderr=subprocess.PIPE,
        text=True,
        # a job in the background of a shell ignores Ctrl-C
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    part, deadline = tmp_path / "o.csv.partial", time.monotonic() + 60
    while (
        not (part.exists() and part.read_text().count("unfinished")) and time.monotonic() < deadline
    ):
        time.sleep(0.05)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130 and time.monotonic() - began < 10
    assert "keeps what is done" in said and "Traceback" not in said
    rows = [json.loads(row) for row in part.read_text().splitlines()[1:]]
    assert [row["name"] for row in rows][:2] == ["a.wav", "long.wav"]


KILLED = """
import os, signal, predict
from inference import timeline, windows
windows.KEPT_WINDOWS, add = 3, timeline.TimelineFile.add
def add_or_die(self, frames):
    add(self, frames)
    if self.state()["n_frames"] > 300:
        os.kill(os.getpid(), signal.SIGKILL)
timeline.TimelineFile.add = add_or_die
predict.main()
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_inside_a_timeline(monkeypatch, tmp_path):
    path = save_model(tmp_path / "m.pth", tiny())
    write_wav(tmp_path / "sounds" / "long.wav", song(7.5))

    def line(out: Path) -> list[str | Path]:
        files = ["--output", out / "o.csv", "--frames", out / "frames", "--format", "long"]
        return [
            path,
            tmp_path / "sounds",
            *files,
            "--events",
            "--stride",
            "0.5",
            "--device",
            "cpu",
            "--valid-bs",
            "4",
        ]

    command = [sys.executable, "-c", KILLED, *map(str, line(tmp_path / "killed"))]
    killed = subprocess.run(command, cwd=ROOT, capture_output=True, check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    left = [
        found.relative_to(tmp_path / "killed").as_posix()
        for found in (tmp_path / "killed").rglob("*")
    ]
    assert sorted(left) == [
        "frames",  # made before the work, so that a folder that cannot be written is said at once
        "o.csv.partial",
        "o.csv.partial.frames",
        "o.csv.partial.frames/long.wav",
        "o.csv.partial.lock",
    ]
    monkeypatch.setattr(windows, "KEPT_WINDOWS", 3)
    models = Breaking([path], tiny())
    monkeypatch.setattr(predict, "open_models", lambda path, given: models)
    assert call(monkeypatch, *line(tmp_path / "killed")) == 0 and models.n_images == 14 - 9
    assert call(monkeypatch, *line(tmp_path / "whole")) == 0 and models.n_images == 14 - 9 + 14
    for name in ("o.csv", "frames/long.wav.npz"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    left = [found.name for found in (tmp_path / "killed").iterdir()]
    assert sorted(left) == ["frames", "o.bad_files.csv", "o.csv"]


@pytest.mark.parametrize("form", ["submission-2023", "long", "raven", "birdnet"])
def test_an_empty_folder_leaves_the_header_status_0_and_a_warning(
    monkeypatch, tmp_path, caplog, form
):
    """Kaggle's test folder is empty until the notebook is scored."""
    model = save_model(tmp_path / "m.pth", tiny())
    (tmp_path / "field").mkdir()
    output = tmp_path / "out.csv"
    report = tmp_path / "r.html"
    flags = ["--output", output, "--format", form, "--report", report, "--device", "cpu"]
    assert call(monkeypatch, model, tmp_path / "field", *flags) == 0
    assert "no recordings in" in caplog.text
    assert len(output.read_text().splitlines()) == 1 and report.exists()
    assert not output.with_name("out.csv.partial").exists()


def test_nothing_scored_is_status_1_and_says_where_to_look(monkeypatch, tmp_path, caplog):
    model = save_model(tmp_path / "m.pth", tiny())
    write_wav(tmp_path / "field" / "a.wav", song(1.0)).write_bytes(b"RIFF" + bytes(100))
    (tmp_path / "field" / "b.ogg").write_bytes(b"")
    (tmp_path / "field" / "phone.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(100))
    args = [model, tmp_path / "field", "--output", tmp_path / "s.csv", "--device", "cpu"]
    assert call(monkeypatch, *args) == 1
    assert "none of the 3 recordings could be scored" in caplog.text
    assert "s.bad_files.csv says why" in caplog.text
    assert len(pd.read_csv(tmp_path / "s.bad_files.csv")) == 3
    assert pd.read_csv(tmp_path / "s.csv").empty

    write_wav(tmp_path / "field" / "c.wav", song(1.0))
    assert call(monkeypatch, *args) == 0 and len(pd.read_csv(tmp_path / "s.csv")) == 1


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        (["--taxonomy", "t.csv"], ["--taxonomy"]),
        (["--taxonomy", "t.csv", "--format", "long"], ["--taxonomy"]),
        (["--taxonomy", "t.csv", "--format", "long", "raven"], []),
        (["--fill-missing"], ["--fill-missing"]),
        (["--threshold", "0.5"], ["--threshold"]),
        (["--threshold", "0.5", "--format", "submission-2021"], []),
        (["--top-k", "3", "--events"], ["--top-k", "--events"]),
        (["--columns", "when"], ["--columns"]),
        (["--columns", "names", "--format", "long"], ["--columns"]),
        (["--columns", "names", "--format", "long", "--taxonomy", "t.csv"], []),
        (["--time-zone", "UTC", "--format", "long"], ["--time-zone"]),
        (["--format", "long", "--event-low", "0.1", "--event-min", "1"],
         ["--event-low", "--event-min"]),
        (["--format", "long", "--events", "--event-low", "0.1", "--threshold", "0.2"], []),
    ],
)  # fmt: skip
def test_flags_without_effect_are_named(tmp_path, sounds, monkeypatch, caplog, flags, names):
    model = save_model(tmp_path / "m.pth", tiny())
    header = "primary_label,scientific_name,common_name"
    (tmp_path / "t.csv").write_text(f"{header}\nbird1,Aves una,First bird\n")
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, model, sounds, "--output", "out", *flags) == 0
    said = [line.split()[0] for line in caplog.messages if "has no effect" in line]
    assert said == names


def test_a_taxonomy_of_other_species_says_so(tmp_path, sounds, monkeypatch, caplog):
    model = save_model(tmp_path / "m.pth", tiny())
    (tmp_path / "t.csv").write_text("primary_label,scientific_name,common_name\nx,y,z\n")
    flags = ["--output", tmp_path / "o.csv", "--format", "raven", "--taxonomy", tmp_path / "t.csv"]
    assert call(monkeypatch, model, sounds, *flags) == 0
    assert "t.csv has no effect: it names none of the model's 3 classes" in caplog.text


def test_equal_names_in_other_folders_are_kept_apart_in_every_format(monkeypatch, tmp_path):
    """AudioMoth names a recording by its minute, at every site alike."""
    model = save_model(tmp_path / "m.pth", tiny())
    names = [f"SITE_{number}/20230501_050000.WAV" for number in (1, 2)]
    for number, name in enumerate(names):
        write_wav(tmp_path / "field" / name, song(1.0, seed=number))
    forms = ["submission-2021", "submission-2022", "submission-2026", "long", "raven", "birdnet"]
    flags = ["--format", *forms, "audacity", "--threshold", 0, "--frames", tmp_path / "frames"]
    assert call(monkeypatch, model, tmp_path / "field", "--output", tmp_path / "o.csv", *flags) == 0
    for form in forms:
        (path,) = tmp_path.glob(f"o.{form}.*")
        text = path.read_text()
        assert all(name.removesuffix(".WAV") in text for name in names), form
    for folder, ending in ((tmp_path / "o.audacity", ".txt"), (tmp_path / "frames", ".npz")):
        assert all((folder / f"{name}{ending}").exists() for name in names)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["MODEL", "nowhere", "--output", "o"], "nowhere: no such recording or folder"),
        (["Exp_9", "SOUNDS", "--output", "o"], "Exp_9: no such model"),
        (["MODEL", "SOUNDS"], "required: --output"),
        (["MODEL", "SOUNDS", "--output", "empty"], "empty is a folder; choose another --output"),
        (
            ["MODEL", "SOUNDS", "--output", "m.pth", "--format", "audacity"],
            "m.pth is a file; choose another --output",
        ),
        (["MODEL", "SOUNDS", "--output", "o", "--format", "csv"], "invalid choice: 'csv'"),
        (
            ["MODEL", "SOUNDS", "--output", "o", "--threshold", "2"],
            "thresholds lie between 0 and 1",
        ),
        (["MODEL", "SOUNDS", "--output", "o", "--top-k", "x"], "invalid number value: 'x'"),
        (
            ["MODEL", "SOUNDS", "--output", "o", "--average", "rank", "--events"],
            "--average rank orders whole windows",
        ),
        (
            ["MODEL", "SOUNDS", "--output", "o", "--event-low", "0.9"],
            "--event-low 0.9 is above the threshold, 0.5",
        ),
        (["MODEL", "SOUNDS", "--output", "o", "--n-mels", "64"], "was trained with 32; 64 cannot"),
        (["MODEL", "SOUNDS", "--output", "o", "--striide", "2"], "striide"),
        (["MODEL", "SOUNDS", "--output", "o", "--taxonomy", "t.csv"], "t.csv: cannot be read"),
    ],
)
def test_mistakes_are_one_line(monkeypatch, tmp_path, sounds, args, message):
    (tmp_path / "empty").mkdir()
    places = {
        "MODEL": save_model(tmp_path / "m.pth", tiny()),
        "SOUNDS": sounds,
    }
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        call(monkeypatch, *(places.get(arg, arg) for arg in args))
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "o").exists()


def test_scores_are_adjusted_by_the_flags_and_species_have_their_thresholds(
    monkeypatch, tmp_path, sounds
):
    """The written scores, computed again from those written without any flag."""
    model = save_model(tmp_path / "m.pth", tiny())
    (tmp_path / "species.csv").write_text("species,power,threshold\nNA,2,0.3\nbird1,0.5,0.2\n")

    def written(name: str, *flags: object) -> pd.DataFrame:
        output = tmp_path / name
        args = ["--output", output, "--format", "long", "--device", "cpu", *flags]
        assert call(monkeypatch, model, sounds, *args) == 0
        return pd.read_csv(output, keep_default_na=False)

    keys = ["file", "start_s", "species"]
    plain = written("a.csv").set_index(keys)["score"]
    table = tmp_path / "species.csv"
    flags = ("--power", table, "--smooth", "0.5", "0.25", "--lean", "0.2")
    found = written("b.csv", *flags).set_index(keys)["score"]
    assert found.index.sort_values().equals(plain.index.sort_values())
    for (file, start_s, species), adjusted in found.items():
        raised = {
            start: value ** {"NA": 2, "bird1": 0.5}.get(species, 1)
            for (name, start, label), value in plain.items()
            if (name, label) == (file, species)
        }
        weights = {0: 1, 1: 0.5, 2: 0.25}
        means = {}
        for here in raised:
            near = {there: weights.get(abs(here - there), 0) for there in raised}
            total = sum(weight * raised[there] for there, weight in near.items())
            means[here] = total / sum(near.values())
        wanted = 0.8 * means[start_s] + 0.2 * max(means.values())
        assert adjusted == pytest.approx(wanted, abs=1e-5)

    lowest = {"NA": 0.3, "bird1": 0.2, "bird2": 0.5}
    kept = written("c.csv", "--threshold", table).set_index(keys)["score"]
    wanted = [key for key, value in plain.items() if value >= lowest[key[2]]]
    assert sorted(kept.index) == sorted(wanted) and 0 < len(kept) < len(plain)


def test_an_evaluation_beside_the_model_calibrates_scores_and_gives_thresholds(
    monkeypatch, tmp_path, sounds, caplog
):
    folder = tmp_path / "Exp_1"
    save_model(named(folder / "fold_0", 1), tiny())

    def written(name: str, *flags: object) -> bytes:
        args = ["--output", tmp_path / name, "--format", "long", "--device", "cpu", *flags]
        assert call(monkeypatch, folder, sounds, *args) == 0
        return (tmp_path / name).read_bytes()

    def scores(name: str) -> pd.Series:
        keys = ["file", "start_s", "species"]
        return pd.read_csv(tmp_path / name, keep_default_na=False).set_index(keys)["score"]

    plain = written("plain.csv")
    line = {"slope": 0.5, "offset": 0.25, "method": "platt", "class_names": SPECIES}
    place = folder / "evaluation"
    place.mkdir()
    raw = scores("plain.csv")
    own = {name: raw.xs(name, level="species").sort_values() for name in ("bird1", "bird2")}
    middle = {name: float(values.iloc[len(values) // 2]) for name, values in own.items()}
    rows = "".join(f"{name},{value}\n" for name, value in middle.items())
    (place / "species.csv").write_text("species,best_f1_threshold\n" + rows)
    (place / "calibration.yaml").write_text(json.dumps(line))
    assert written("off.csv", "--calibration", "off") == plain

    with caplog.at_level(logging.INFO, "birdclef"):
        written("calibrated.csv")
    assert "scores are calibrated by" in caplog.text
    odds = (raw / (1 - raw)) ** 0.5 * np.exp(0.25)
    pd.testing.assert_series_equal(
        scores("calibrated.csv").sort_index(), (odds / (1 + odds)).sort_index(), rtol=1e-4
    )
    written("best.csv", "--threshold", "best-f1")
    known = ((key, value) for key, value in raw.items() if key[2] in middle)
    kept = {key for key, value in known if value >= middle[key[2]]}
    assert {key for key in scores("best.csv").index if key[2] != "NA"} == kept
    assert 0 < len(kept) < len(raw)


def test_a_blend_is_the_weighted_mean_of_its_models(monkeypatch, tmp_path, sounds):
    for number in (0, 1):
        save_model(named(tmp_path / f"Exp_{number}" / "fold_0", 1), tiny(), seed=number)
    blend = "models: [{model: Exp_0, weight: 0.75}, {model: Exp_1, weight: 0.25}]"
    (tmp_path / "blend.yaml").write_text(blend)

    def written(model: str) -> pd.Series:
        output = tmp_path / f"{model}.csv"
        args = ["--output", output, "--format", "long", "--device", "cpu"]
        assert call(monkeypatch, tmp_path / model, sounds, *args) == 0
        table = pd.read_csv(output, keep_default_na=False)
        return table.set_index(["file", "start_s", "species"])["score"].sort_index()

    one, other, both = (written(name) for name in ("Exp_0", "Exp_1", "blend.yaml"))
    pd.testing.assert_series_equal(both, 0.75 * one + 0.25 * other, atol=1e-6)


def test_a_model_says_itself_how_its_windows_are_scored(monkeypatch, tmp_path, sounds):
    plain = save_model(tmp_path / "plain.pth", tiny())
    own = {"predict_score": "mix", "predict_shifts": [0.5, -0.5]}
    says = save_model(tmp_path / "says.pth", tiny(**own))

    def written(model: Path, *flags: object) -> bytes:
        output = tmp_path / "found.csv"
        args = ["--output", output, "--format", "long", "--device", "cpu", *flags]
        assert call(monkeypatch, model, sounds, *args) == 0
        return output.read_bytes()

    by_flags = written(plain, "--score", "mix", "--shifts", "0.5", "-0.5")
    assert written(says) == by_flags != written(plain)
    assert written(says, "--score", "clipwise", "--shifts") == written(plain)
