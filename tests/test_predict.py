"""From recordings to scores: the same as validation gives, for any batch, length, format and interruption."""

import contextlib
import json
import logging
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

import checkpoint as ckpt
import predict
import train
from audio import decoder_pool
from audio.recording import prepare_recording
from configs import Config, UserError
from inference import detections, scorers, stream, timeline, windows
from inference.partial import PartialResults, identity
from inference.results import Results
from inference.tally import Tally
from model import build_model
from tests.audio.test_decoder_pool import DEADLY_COMMAND

ROOT = Path(predict.__file__).parent
SPECIES = ["NA", "bird1", "bird2"]
RATE = 8000


def tiny(**settings) -> Config:
    given = {
        "base_model_name": "test_efficientnet", "pretrained": False, "sample_rate": RATE, "fmax": 4000.0, "period": 1.0,
        "n_mels": 32, "n_fft": 512, "hop_length": 128, "valid_bs": 4, "num_workers": 2, "device": "cpu",
    }  # fmt: skip
    return Config(**given | settings)


def save_model(
    path: Path,
    config: Config,
    *,
    seed: int = 0,
    class_names: list[str] = SPECIES,
    ema: bool = False,
) -> Path:
    """An untrained checkpoint whose scores spread widely."""
    torch.manual_seed(seed)
    model = build_model(config, len(class_names))
    with torch.no_grad():
        for block in model.att_blocks:
            block.cla.weight *= 200
    weights = model.state_dict()
    other = {name: torch.zeros_like(value) for name, value in weights.items()}
    state = {
        **{
            "model": other if ema else weights,
            "ema": weights if ema else None,
            "history": [],
            "fold": 0,
        },
        **{
            "epoch": 1,
            "batch": 0,
            "step": 1,
            "skipped_steps": 0,
            "bad_steps": 0,
            "best_loss": 0.1,
            "best_epoch": 1,
        },
        **{"optimizer": {}, "scheduler": {}, "scaler": {}, "rng": {}, "versions": {}},
        **{"class_names": list(class_names), "config": config.to_dict()},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    ckpt.save_checkpoint(path, state)
    return path


def song(seconds: float, rate: int = RATE, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    pitch = 500 + 1000 * np.sin(2 * np.pi * 0.3 * time + seed)
    return (
        0.3 * np.sin(2 * np.pi * np.cumsum(pitch) / rate) + 0.02 * rng.standard_normal(len(time))
    ).astype("f4")


def write_wav(path: Path, samples: np.ndarray, rate: int = RATE, **how) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, **{"subtype": "FLOAT"} | how)
    return path


def score(
    models, recordings: dict[str, Path], plan: windows.Plan, folder: Path
) -> dict[str, detections.Recording]:
    """All recordings, with scores averaged over models."""
    folder.mkdir(exist_ok=True)
    partial = PartialResults(folder / "partial", {})
    predict.score_recordings(models, recordings, plan, partial)
    results = {one.name: one for one in Results(partial, list(recordings), plan.average)}
    partial.close(delete=True)
    return results


@pytest.fixture
def models(tmp_path) -> scorers.TorchModels:
    return scorers.TorchModels([save_model(tmp_path / "m.pth", tiny())], tiny())


@pytest.fixture
def sounds(tmp_path) -> Path:
    for number, seconds in enumerate((3.0, 0.3, 2.4)):
        write_wav(tmp_path / "sounds" / f"s{number}.wav", song(seconds, seed=number))
    return tmp_path / "sounds"


# The same as validation ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "channels", "suffix"), [(RATE, 1, ".wav"), (44100, 2, ".flac"), (12000, 1, ".ogg")]
)
@pytest.mark.parametrize("audio_dtype", ["float32", "int16"])
def test_a_window_scores_as_in_validation(tmp_path, rate, channels, suffix, audio_dtype):
    """Prepared by prepare_audios.py and scored by train.validate, or streamed by predict.py: one and the same."""
    config = tiny(root=tmp_path, audio_dtype=audio_dtype, valid_bs=3)
    recordings = {}
    for number, seconds in enumerate((1.7, 0.4, 1.0, 2.2)):
        mono = song(seconds, rate, seed=number)
        path = tmp_path / "sounds" / SPECIES[number % 3] / f"{number}{suffix}"
        write_wav(path, np.stack([mono, 0.5 * mono][:channels], axis=1), rate, subtype=None)
        recordings[path.relative_to(tmp_path / "sounds").as_posix()] = path
        prepare_recording(
            path, config.train_np_dir / f"{path.relative_to(tmp_path / 'sounds')}.npy", sample_rate=RATE,
            max_seconds=30.0, audio_dtype=audio_dtype, trim_db=None,
        )  # fmt: skip
    rows = [
        {"primary_label": name.split("/")[0], "labels": "", "filepath": f"{name}.npy"}
        for name in recordings
    ]
    df = pd.DataFrame(rows)
    config.train_dir = tmp_path / "fold_0"
    run = train.build_fold_run(
        df, df, 0, SPECIES, replace(config, num_workers=0), torch.device("cpu")
    )
    checkpoint = save_model(tmp_path / "m.pth", config, ema=True)
    run.model.load_state_dict(ckpt.read_checkpoint(checkpoint)["ema"])
    _, meter = train.validate(run)

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
    recordings = stream.find_recordings(sounds)
    results = []
    for batch_size, n_threads in ((1, 1), (4, 2), (32, 3)):
        models = scorers.TorchModels([path], tiny(valid_bs=batch_size, num_workers=n_threads))
        found = score(models, recordings, windows.Plan(), tmp_path / f"b{batch_size}")
        assert list(found) == ["s0.wav", "s1.wav", "s2.wav"]
        assert [len(one.scores) for one in found.values()] == [3, 1, 3]
        results.append(np.concatenate([one.scores for one in found.values()]))
    np.testing.assert_allclose(results[1], results[0], atol=1e-6)
    np.testing.assert_allclose(results[2], results[0], atol=1e-6)


def test_silence_has_scores(models, tmp_path):
    found = score(
        models,
        {"s": write_wav(tmp_path / "s.wav", np.zeros(2 * RATE, "f4"))},
        windows.Plan(),
        tmp_path / "o",
    )
    assert found["s"].scores.shape == (2, 3) and np.array_equal(
        found["s"].scores[0], found["s"].scores[1]
    )


# Kinds of scores ----------------------------------------------------------------------------------


def raw(models, samples: np.ndarray) -> dict[str, np.ndarray]:
    image = torch.from_numpy(models.prepare(samples))[None, None].expand(-1, 3, -1, -1)
    with torch.inference_mode():
        return {name: value.numpy()[0] for name, value in models.models[0](image).items()}


def test_clip_scores_by_choice(models, tmp_path):
    samples = song(1.0)
    recordings = {"s": write_wav(tmp_path / "s.wav", samples)}
    output = raw(models, samples)
    clipwise, highest = output["clipwise_output"], output["framewise_output"].max(axis=0)
    wanted = {
        "clipwise": clipwise,
        "framewise_max": highest,
        "mix": 0.75 * clipwise + 0.25 * highest,
    }
    for kind in windows.SCORES:
        found = score(models, recordings, windows.Plan(score=kind), tmp_path / kind)
        np.testing.assert_allclose(found["s"].scores[0], wanted[kind], atol=1e-6)


def test_shifted_clips_stay_inside_the_recording_and_are_averaged(models, tmp_path):
    samples = song(3.0)
    recordings = {"s": write_wav(tmp_path / "s.wav", samples)}
    found = score(models, recordings, windows.Plan(shifts_s=(0.25, -0.25)), tmp_path / "o")["s"]
    wanted = []
    for starts in ((0, 2000, 0), (8000, 10000, 6000), (16000, 16000, 14000)):
        wanted.append(
            np.mean(
                [raw(models, samples[at : at + RATE])["clipwise_output"] for at in starts], axis=0
            )
        )
    np.testing.assert_allclose(found.scores, wanted, atol=1e-6)


@pytest.mark.parametrize("average", detections.AVERAGES)
def test_folds_are_averaged(tmp_path, sounds, average):
    paths = [save_model(tmp_path / f"{seed}.pth", tiny(), seed=seed) for seed in (1, 2)]
    recordings = stream.find_recordings(sounds)
    alone = []
    for number, path in enumerate(paths):
        found = score(
            scorers.TorchModels([path], tiny()), recordings, windows.Plan(), tmp_path / str(number)
        )
        alone.append(np.concatenate([one.scores for one in found.values()]))
    plan = windows.Plan(average=average)
    both = score(scorers.TorchModels(paths, tiny()), recordings, plan, tmp_path / "both")
    both = np.concatenate([one.scores for one in both.values()])
    if average == "rank":
        wanted = (
            (
                alone[0].argsort(axis=0).argsort(axis=0)
                + alone[1].argsort(axis=0).argsort(axis=0)
                + 2
            )
            / 2
            / 8
        )
    elif average == "logit":
        wanted = torch.sigmoid(
            torch.logit(torch.tensor(np.stack(alone), dtype=torch.float64)).mean(dim=0)
        ).numpy()
    else:
        wanted = (alone[0] + alone[1]) / 2
    np.testing.assert_allclose(both, wanted, atol=1e-6)


# Frames and events --------------------------------------------------------------------------------


def test_frames_of_overlapping_windows_are_averaged_on_one_grid(models, tmp_path):
    samples = song(2.3)
    recordings = {"sub/s": write_wav(tmp_path / "s.wav", samples)}
    plan = windows.Plan(
        stride_s=0.32,
        frames_dir=tmp_path / "frames",
        frame_species=(2, 0),
        events=timeline.EventRule(0.5, 0.4),
    )
    found = score(models, recordings, plan, tmp_path / "o")["sub/s"]
    n_frames = 1 + len(samples) // 128
    piles = [[] for _ in range(n_frames + 80)]
    for start in range(
        0, 6 * 2560, 2560
    ):  # 0.32 s is 20 frames; the sixth window is the first to reach the end
        for number, frame in enumerate(
            raw(models, samples[start : start + RATE])["framewise_output"]
        ):
            piles[start // 128 + number].append(frame)
    wanted = np.array([np.mean(pile, axis=0) for pile in piles[:n_frames]])
    with np.load(tmp_path / "frames" / "sub" / "s.npz") as saved:
        np.testing.assert_allclose(saved["frames"], wanted[:, [2, 0]], atol=1e-6)
        assert saved["species"].tolist() == ["bird2", "NA"] and float(saved["hop_s"]) == 0.016
    finder = timeline.EventFinder(plan.events, 0.016, 3)
    finder.add(wanted.astype(np.float32))
    events = finder.finish(2.3)
    assert [event.species for event in found.events] == [event.species for event in events] != []
    np.testing.assert_allclose(found.events, events, atol=1e-6)


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
    found = score(models, stream.find_recordings(folder), plan, tmp_path / "o")
    assert {one.name[:5] for one in (tmp_path / "frames").iterdir()} == {"b_goo", "e_nan", "f_cut"}
    assert {name: one.status for name, one in found.items()} == {
        "a_text.ogg": "unreadable", "b_good.wav": "ok", "c_empty.wav": "empty", "d_no_samples.wav": "empty",
        "e_nan.wav": "non_finite", "f_cut.flac": "truncated",
    }  # fmt: skip
    assert len(found["e_nan.wav"].scores) == 2 and "from 1.500 s on" in found["e_nan.wav"].reason
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
    found = score(models, stream.find_recordings(folder), windows.Plan(), tmp_path / "o")
    assert {name[0]: (one.status, one.reason, len(one.scores)) for name, one in found.items()} == {
        "a": ("ok", "", 10), "b": ("truncated", "its decoder crashed (SIGSEGV)", 5), "c": ("ok", "", 10),
        "d": ("truncated", "its decoder was stuck for 1 s (file_timeout_s)", 5),
        "e": ("truncated", "its decoder crashed (status 7)", 5), "f": ("ok", "", 10),
    }  # fmt: skip


# An interrupted run -------------------------------------------------------------------------------


class Breaking(scorers.TorchModels):
    """Stops, as if interrupted, after some batches."""

    batches_left = 10**9
    n_images = 0

    def score(self, images, *, frames):
        if not self.batches_left:
            raise KeyboardInterrupt
        self.batches_left -= 1
        self.n_images += len(images)
        return super().score(images, frames=frames)


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path, sounds):
    path = save_model(tmp_path / "m.pth", tiny())
    recordings = stream.find_recordings(sounds)
    unbroken = score(
        scorers.TorchModels([path], tiny()), recordings, windows.Plan(), tmp_path / "whole"
    )
    models = Breaking([path], tiny())
    models.batches_left = 1  # four clips: all of s0 and of s1, whose end comes with the next batch
    for wanted_images in (4, 4):
        partial = PartialResults(tmp_path / "partial", {"a": 1})
        try:
            models.n_images = 0
            predict.score_recordings(models, recordings, windows.Plan(), partial)
        except KeyboardInterrupt:
            partial.close()
        assert models.n_images == wanted_images
        models.batches_left = 10
    for one in Results(partial, list(recordings), "probability"):
        np.testing.assert_allclose(one.scores, unbroken[one.name].scores, atol=1e-6)
    partial.close()


def test_an_interrupted_run_goes_on_inside_a_long_recording(tmp_path, monkeypatch):
    path, recordings = (
        save_model(tmp_path / "m.pth", tiny()),
        {"s": write_wav(tmp_path / "s.wav", song(9.5))},
    )
    monkeypatch.setattr(windows, "KEPT_WINDOWS", 3)
    plan = windows.Plan(stride_s=0.5, shifts_s=(0.125,))  # 18 windows of two clips
    unbroken = score(scorers.TorchModels([path], tiny()), recordings, plan, tmp_path / "whole")["s"]
    models = Breaking([path], tiny(num_workers=1))
    for batches_left, wanted_images in (
        (5, 16),
        (0, 0),
        (10, 24),
    ):  # after 16 clips, 6 windows are kept
        partial = PartialResults(tmp_path / "partial", {})
        models.batches_left, models.n_images = batches_left, 0
        with contextlib.suppress(KeyboardInterrupt):
            predict.score_recordings(models, recordings, plan, partial)
        assert models.n_images == wanted_images
        if batches_left < 10:
            partial.close()
    (found,) = Results(partial, ["s"], "probability")
    assert found.starts_s.tolist() == unbroken.starts_s.tolist() and len(found.starts_s) == 18
    np.testing.assert_allclose(found.scores, unbroken.scores, atol=1e-6)
    partial.close()


RULE = timeline.EventRule(0.56, 0.54)
TIMELINES = {  # with clips in a window
    "side by side": (windows.Plan(events=RULE), 1),
    "overlapping": (windows.Plan(stride_s=0.6, events=RULE, frame_species=(2, 0)), 1),
    "shifted": (windows.Plan(stride_s=0.8, shifts_s=(-0.9,), events=RULE), 2),
    "with gaps": (windows.Plan(stride_s=1.1, events=RULE), 1),
}


def run_once(models, wav: Path, plan: windows.Plan, folder: Path) -> tuple | None:
    """Go on with what is in the folder: events, scores and the bytes of the frames, or None if the run is stopped."""
    partial = PartialResults(folder / "partial", {})
    try:
        models.n_images = 0
        predict.score_recordings(
            models, {"sub/s": wav}, replace(plan, frames_dir=folder / "frames"), partial
        )
    except KeyboardInterrupt:
        partial.close()
        return None
    found = partial["sub/s"]
    partial.close(delete=True)
    assert sorted(path.name for path in folder.iterdir()) == ["frames"]
    return found.events, found.scores.tobytes(), (folder / "frames" / "sub" / "s.npz").read_bytes()


@pytest.fixture
def small_parts(tmp_path, monkeypatch) -> tuple[Breaking, Path]:
    """Parts of 3 windows for 7.5 s of song, and a model in one thread, so that it is certain where it stops."""
    monkeypatch.setattr(windows, "KEPT_WINDOWS", 3)
    path = save_model(tmp_path / "m.pth", tiny())
    return Breaking([path], tiny(num_workers=1)), write_wav(tmp_path / "s.wav", song(7.5))


@pytest.mark.parametrize("kind", TIMELINES)
def test_a_timeline_goes_on_to_the_byte(tmp_path, small_parts, kind):
    """Stopped after any number of batches: in the first part, at its border, in the middle and before the end."""
    models, wav = small_parts
    plan, n_clips = TIMELINES[kind]
    whole = run_once(models, wav, plan, tmp_path / "whole")
    n_images, n_batches = models.n_images, 10**9 - models.batches_left
    for n_scored in range(n_batches):
        models.batches_left = n_scored
        assert run_once(models, wav, plan, tmp_path / str(n_scored)) is None
        n_kept = (
            max(0, models.n_images - 1) // n_clips // 3 * 3
        )  # a part is kept when the next one's first clip comes
        models.batches_left = n_batches
        assert run_once(models, wav, plan, tmp_path / str(n_scored)) == whole
        assert models.n_images == n_images - n_kept * n_clips
    stride_s, events = plan.stride_s or 1.0, whole[0]
    assert n_kept >= 3 and any(event.end_s < n_kept * stride_s for event in events)
    assert kind == "with gaps" or any(
        event.start_s < n_kept * stride_s < event.end_s for event in events
    )


def test_a_run_killed_as_it_writes_goes_on(tmp_path, small_parts, monkeypatch):
    """Frames and `.npz` are written and their line is not, or half of it: at each line of the partial results."""
    models, wav = small_parts
    plan, _ = TIMELINES["overlapping"]
    whole = run_once(models, wav, plan, tmp_path / "whole")
    write, n_lines = PartialResults._write, 0

    def torn(self, row):
        nonlocal n_lines
        n_lines += 1
        if n_lines == lines_left:
            self._file.append(json.dumps({"name": row.get("name"), "first": 0}).encode()[:-9])
            raise KeyboardInterrupt
        write(self, row)

    for lines_left in range(2, 6):  # that of the settings is the first
        monkeypatch.setattr(PartialResults, "_write", torn)
        n_lines = 0
        assert run_once(models, wav, plan, tmp_path / str(lines_left)) is None
        monkeypatch.setattr(PartialResults, "_write", write)
        assert run_once(models, wav, plan, tmp_path / str(lines_left)) == whole
    n_lines, lines_left = 0, 6
    monkeypatch.setattr(PartialResults, "_write", torn)
    assert (
        run_once(models, wav, plan, tmp_path / "5") == whole and n_lines == 5
    )  # or the last was not among them


def damage_frames(path: Path, how: str) -> None:
    content = path.read_bytes()
    if how == "gone":
        path.unlink()
    else:
        changed = content[:99] + bytes([content[99] ^ 1]) + content[100:]
        path.write_bytes(
            {"short": content[:1000], "changed": changed, "longer": content + b"more"}[how]
        )


@pytest.mark.parametrize("how", ["gone", "short", "changed", "longer"])
def test_a_recording_whose_frames_are_lost_begins_anew(tmp_path, small_parts, caplog, how):
    models, wav = small_parts
    plan, _ = TIMELINES["side by side"]
    whole = run_once(models, wav, plan, tmp_path / "whole")
    models.batches_left = 2
    assert run_once(models, wav, plan, tmp_path / "again") is None
    damage_frames(tmp_path / "again" / "partial.frames" / "sub" / "s", how)
    models.batches_left = 10**9
    assert run_once(models, wav, plan, tmp_path / "again") == whole
    lost = how != "longer"
    assert models.n_images == (8 if lost else 5)
    assert (
        "the frames of sub/s are gone or changed since the interrupted run; it begins anew"
        in caplog.text
    ) == lost


def test_a_recording_that_decodes_less_far_than_before_ends_with_what_is_kept(
    tmp_path, small_parts
):
    models, wav = small_parts
    models.batches_left = 2
    plan = replace(TIMELINES["side by side"][0], frames_dir=tmp_path / "frames")
    with (
        contextlib.suppress(KeyboardInterrupt),
        PartialResults(tmp_path / "p", {}) as partial,
    ):
        predict.score_recordings(models, {"s": wav}, plan, partial)
    source = stream.Stream(wav, RATE)
    source.fault = ("unreadable", "its decoder was stuck")
    with PartialResults(tmp_path / "p", {}) as partial:
        tally = Tally("s", models, plan, partial, identity(wav))
        assert tally.finish(source) == 3.0
        found = partial["s"]
    assert (found.status, found.seconds, found.scores.shape[1]) == ("truncated", 3.0, 3)
    assert max(event.end_s for event in found.events) <= 3.0
    with np.load(tmp_path / "frames" / "s.npz") as saved:
        assert (
            saved["frames"].shape == (1 + 3 * RATE // 128, 3)
            and not np.isnan(saved["frames"]).any()
        )


def test_a_batch_ends_where_a_run_may_go_on(small_parts):
    models, wav = small_parts
    items = list(windows.clips_of("s", wav, models, windows.Plan(stride_s=1.0, shifts_s=(0.25,))))
    sizes = [
        sum(item.image is not None for item in batch) for batch in windows.batches(items * 2, 5)
    ]
    # 8 windows of 2 clips, in parts of 6, 6 and 4 clips; the last 4 share a batch with the first of
    # the next recording
    assert sizes == [5, 1, 5, 1, 5, 5, 5, 1, 4]


def test_a_changed_recording_is_scored_again(tmp_path, sounds, models):
    recordings = stream.find_recordings(sounds)
    partial = PartialResults(tmp_path / "partial", {})
    assert predict.score_recordings(models, recordings, windows.Plan(), partial) == pytest.approx(
        5.7
    )
    assert predict.score_recordings(models, recordings, windows.Plan(), partial) == 0
    write_wav(sounds / "s1.wav", song(1.5))
    assert predict.score_recordings(models, recordings, windows.Plan(), partial) == pytest.approx(
        1.5
    )
    assert partial["s1.wav"].scores.shape == (1, 2, 3)
    partial.close()


# Models -------------------------------------------------------------------------------------------


def named(folder: Path, epoch: int) -> Path:
    return folder / ckpt.checkpoint_name(exp_id=1, fold=0, epoch=epoch, loss=0.1, cmap=0.5)


def test_the_newest_best_checkpoint_of_each_fold_is_taken(tmp_path, caplog):
    exp = tmp_path / "Exp_1"
    for fold, epochs in ((0, (99, 100)), (10, (3,)), (2, (7, 8))):
        for epoch in epochs:
            save_model(named(exp / f"fold_{fold}", epoch), tiny())
    damaged = named(exp / "fold_2", 8)
    damaged.write_bytes(damaged.read_bytes()[:-1000])
    (exp / "fold_3").mkdir()
    found = [named(exp / "fold_0", 100), named(exp / "fold_2", 7), named(exp / "fold_10", 3)]
    assert scorers.find_checkpoints(exp) == found
    assert str(damaged) in caplog.text and "fold_3 holds no sound checkpoint" in caplog.text
    assert scorers.find_checkpoints(exp / "fold_0") == found[:1]
    assert scorers.find_checkpoints(found[1]) == found[1:2]


def test_where_there_is_no_model_it_says_where_it_looked(tmp_path):
    (tmp_path / "Exp_4").mkdir()
    with pytest.raises(UserError, match=r"Exp_47: no such model; there are .*Exp_4"):
        scorers.find_checkpoints(tmp_path / "Exp_47")
    with pytest.raises(UserError, match="no model in it"):
        scorers.find_checkpoints(tmp_path / "Exp_4")


def test_folds_that_do_not_fit_together_are_refused(tmp_path):
    one = save_model(tmp_path / "1.pth", tiny())
    other = save_model(tmp_path / "2.pth", tiny(), class_names=["NA", "bird1", "bird3"])
    with pytest.raises(UserError, match=r"other classes \(bird2, bird3\)"):
        scorers.TorchModels([one, other], tiny())
    with pytest.raises(UserError, match=r"other classes \(their order\)"):
        scorers.TorchModels(
            [one, save_model(tmp_path / "3.pth", tiny(), class_names=SPECIES[::-1])], tiny()
        )
    with pytest.raises(UserError, match=r"top_db=60\.0"):
        scorers.TorchModels([one, save_model(tmp_path / "4.pth", tiny(top_db=60.0))], tiny())


def test_settings_of_the_model_cannot_be_changed_and_those_of_the_run_can(tmp_path):
    trained = tiny(amp_dtype="bfloat16", valid_bs=7).to_dict()
    settings = scorers.merge_settings(
        trained, Config(valid_bs=3, device="cpu", num_workers=1), Path("m.pth")
    )
    assert (settings.valid_bs, settings.num_workers, settings.n_mels) == (3, 1, 32)
    assert settings.amp_dtype == "bfloat16"  # as validation scored
    assert scorers.merge_settings(trained, Config(amp=False), Path("m.pth")).amp is False
    scorers.merge_settings(trained, tiny(), Path("m.pth"))  # the run's own YAML
    with pytest.raises(UserError, match=r"n_mels: m\.pth was trained with 32; 64 cannot"):
        scorers.merge_settings(trained, Config(n_mels=64), Path("m.pth"))


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
    path = save_model(tmp_path / "m.pth", tiny())
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
    ]
    assert call(monkeypatch, path, sounds, *args) == 0
    assert f"wrote {page}: " in capsys.readouterr().out
    text = page.read_text(encoding="utf-8")
    assert "s0.wav" in text and SPECIES[0] in text and "data:audio/" in text
    assert "http://" not in text.replace("http://www.w3.org/", "") and "https://" not in text


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
        [sys.executable, ROOT / "predict.py", *map(str, line)], stderr=subprocess.PIPE, text=True
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


@pytest.mark.parametrize(("args", "message"), [
    (["MODEL", "nowhere", "--output", "o"], "nowhere: no such recording or folder"),
    (["MODEL", "EMPTY", "--output", "o"], "no recordings in "),
    (["Exp_9", "SOUNDS", "--output", "o"], "Exp_9: no such model"),
    (["MODEL", "SOUNDS"], "required: --output"),
    (["MODEL", "SOUNDS", "--output", "empty"], "empty is a folder; choose another --output"),
    (["MODEL", "SOUNDS", "--output", "m.pth", "--format", "audacity"], "m.pth is a file; choose another --output"),
    (["MODEL", "SOUNDS", "--output", "o", "--format", "csv"], "invalid choice: 'csv'"),
    (["MODEL", "SOUNDS", "--output", "o", "--threshold", "2"], "2 is not between 0 and 1"),
    (["MODEL", "SOUNDS", "--output", "o", "--top-k", "x"], "invalid number value: 'x'"),
    (["MODEL", "SOUNDS", "--output", "o", "--average", "rank", "--events"], "--average rank orders whole windows"),
    (["MODEL", "SOUNDS", "--output", "o", "--event-low", "0.9"], "--event-low 0.9 is above the threshold, 0.5"),
    (["MODEL", "SOUNDS", "--output", "o", "--n-mels", "64"], "was trained with 32; 64 cannot"),
    (["MODEL", "SOUNDS", "--output", "o", "--striide", "2"], "striide"),
    (["MODEL", "SOUNDS", "--output", "o", "--taxonomy", "t.csv"], "t.csv: cannot be read"),
])  # fmt: skip
def test_mistakes_are_one_line(monkeypatch, tmp_path, sounds, args, message):
    (tmp_path / "empty").mkdir()
    places = {
        "MODEL": save_model(tmp_path / "m.pth", tiny()),
        "SOUNDS": sounds,
        "EMPTY": tmp_path / "empty",
    }
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        call(monkeypatch, *(places.get(arg, arg) for arg in args))
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "o").exists()
