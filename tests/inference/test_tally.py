"""Windows and frames put together, in one go and after any interruption."""

import contextlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import predict
from inference import scorers, stream, timeline, windows
from inference.partial import PartialResults, identity
from inference.results import Results
from inference.tally import Tally
from tests.predicting import (
    RATE,
    Breaking,
    raw,
    save_model,
    score,
    song,
    tiny,
    write_wav,
)

# Frames and events --------------------------------------------------------------------------------


def test_frames_of_overlapping_windows_are_averaged_on_one_grid(models, tmp_path):
    samples = song(2.4)
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
    for start in range(0, 6 * 2560, 2560):  # 0.32 s is 20 frames; the sixth reaches the end
        output = raw(models, samples[start : start + RATE])
        for number, frame in enumerate(output["framewise_output"]):
            piles[start // 128 + number].append(frame)
    wanted = np.array([np.mean(pile, axis=0) for pile in piles[:n_frames]])
    with np.load(tmp_path / "frames" / "sub" / "s.npz") as saved:
        np.testing.assert_allclose(saved["frames"], wanted[:, [2, 0]], atol=1e-6)
        assert saved["species"].tolist() == ["bird2", "NA"] and float(saved["hop_s"]) == 0.016
    finder = timeline.EventFinder(plan.events, 0.016, 3)
    finder.add(wanted.astype(np.float32))
    events = finder.finish(2.4)
    assert [event.species for event in found.events] == [event.species for event in events] != []
    np.testing.assert_allclose(found.events, events, atol=1e-6)


# An interrupted run -------------------------------------------------------------------------------


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path, sounds):
    path = save_model(tmp_path / "m.pth", tiny())
    recordings = stream.find_recordings(sounds).paths
    unbroken = score(
        scorers.TorchModels([path], tiny()), recordings, windows.Plan(), tmp_path / "whole"
    )
    models = Breaking([path], tiny())
    models.batches_left = 1  # four clips: all of s0 and of s1, whose end comes with the next batch
    for wanted_images in (4, 7):  # with three in place of those of s0
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


class Telling(Breaking):
    """Answers with the size of the batch and the image's place in it, which may show in a score."""

    def score(self, images, *, frames):
        clipwise, frame_max, framewise = super().score(images, frames=frames)
        clipwise[:] = (len(images) / 10 + np.arange(len(images)) / 100)[:, None]
        return clipwise, frame_max, framewise


@pytest.mark.parametrize("plan", [windows.Plan(), windows.Plan(shifts_s=(-0.25,))])
def test_wherever_a_run_was_interrupted_it_scores_the_batches_of_the_unbroken_one(
    tmp_path, monkeypatch, plan
):
    monkeypatch.setattr(windows, "MAX_ITEMS", 8)
    lengths = (1.0, 3.0, 0.0, 0.3, 2.0, 1.0, 1.0, 5.0, 1.0, 2.0)
    recordings = {}
    for number, seconds in enumerate(lengths):
        samples = song(seconds, seed=number)
        samples[RATE : 2 * RATE] = 0  # the second window is silent
        recordings[f"{number}"] = write_wav(tmp_path / f"{number}.wav", samples)
    path = save_model(tmp_path / "m.pth", tiny())
    models = Telling([path], tiny(num_workers=1))
    unbroken = score(models, recordings, plan, tmp_path / "whole")

    for before in (1, 2, 3):
        (tmp_path / f"{before}").mkdir()
        models.batches_left = before
        with (
            contextlib.suppress(KeyboardInterrupt),
            PartialResults(tmp_path / f"{before}/partial", {}) as partial,
        ):
            predict.score_recordings(models, recordings, plan, partial)
        models.batches_left = 10**9
        found = score(models, recordings, plan, tmp_path / f"{before}")
        for name, one in found.items():
            np.testing.assert_array_equal(one.scores, unbroken[name].scores)


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
    """Go on with what is in the folder: events, scores, bytes of frames; None if stopped."""
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
    """Parts of 3 windows for 7.5 s of song, and one thread, so that it stops where it should."""
    monkeypatch.setattr(windows, "KEPT_WINDOWS", 3)
    path = save_model(tmp_path / "m.pth", tiny())
    return Breaking([path], tiny(num_workers=1)), write_wav(tmp_path / "s.wav", song(7.5))


@pytest.mark.parametrize("kind", TIMELINES)
def test_a_timeline_goes_on_to_the_byte(tmp_path, small_parts, kind):
    """Stopped after any number of batches: in a part, at its border and before the end."""
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
    """Frames and `.npz` are written; their line in the partial results is not, or half of it."""
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
    recordings = stream.find_recordings(sounds).paths
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
