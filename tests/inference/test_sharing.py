"""Recordings shared out to workers: the results of one process, whatever ends a worker."""

import json
from dataclasses import replace
from pathlib import Path

import joblib
import numpy as np
import pytest

import predict
from configs import Config, UserError
from files import CannotWriteError
from inference import scoring, sharing, windows
from inference.partial import PartialResults
from tests.predicting import Breaking, save_model, song, tiny, write_wav

LENGTHS_S = (3.0, 0.3, 2.4, 1.0, 8.6, 0.0, 2.0)  # of the recordings; 0 stands for one without sound


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    """Three recordings a block, a part of a recording of three windows, and no worker yet."""
    monkeypatch.setattr(scoring, "MOST_RECORDINGS", 3)
    monkeypatch.setattr(windows, "KEPT_WINDOWS", 3)
    monkeypatch.setattr(sharing, "_worker", sharing._Worker())


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A model, `m.pth`, and a folder of recordings, `field`, which no test changes."""
    folder = tmp_path_factory.mktemp("shared")
    save_model(folder / "m.pth", tiny())
    for number, seconds in enumerate(LENGTHS_S):
        write_wav(folder / "field" / f"r{number}.wav", song(seconds, seed=number))
    return folder


@pytest.fixture(scope="module")
def one_process(folder) -> dict[str, bytes]:
    """What predict.py writes by itself, with blocks as small as those of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "MOST_RECORDINGS", 3)
        patch.setattr(windows, "KEPT_WINDOWS", 3)
        assert run(patch, folder / "m.pth", folder / "field", folder / "one", n_workers=0) == 0
    return written(folder / "one")


@pytest.fixture
def model(folder) -> Path:
    return folder / "m.pth"


@pytest.fixture
def field(folder) -> Path:
    return folder / "field"


def run(monkeypatch, model: Path, field: Path, out: Path, *flags: str, n_workers: int = 2) -> int:
    """Call predict.py: with workers, threads of joblib here; with none, in the usual way."""
    files = ["--output", out / "x.csv", "--frames", out / "frames", "--format", "long", "raven"]
    args = [model, field, *files, "--events", "--threshold", "0.1", "--valid-bs", "4", *flags]
    args += ["--device", "cpu", "--num-workers", "2"]
    monkeypatch.setattr("sys.argv", ["predict.py", *map(str, args)])
    if not n_workers:
        return predict.main()
    with joblib.parallel_config(backend="threading", n_jobs=n_workers):
        return predict.main()


def written(out: Path) -> dict[str, bytes]:
    files = [path for path in out.rglob("*") if path.is_file()]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in files}


# Blocks -------------------------------------------------------------------------------------------


def test_blocks_end_after_so_many_bytes_or_recordings(monkeypatch):
    monkeypatch.setattr(scoring, "MOST_BYTES", 100)
    sizes = {"a": 1, "b": 2, "c": 3, "d": 99, "e": 1, "f": 500, "g": 0, "h": 100, "i": 1}
    assert scoring.blocks(sizes) == [["a", "b", "c"], ["d", "e"], ["f"], ["g", "h"], ["i"]]
    assert scoring.blocks({}) == []


def test_a_batch_begins_with_each_block_also_where_its_first_recording_has_no_sound(
    models, tmp_path
):
    paths = {
        name: write_wav(tmp_path / f"{name}.wav", song(seconds))
        for name, seconds in (("a", 2.0), ("none", 0.0), ("b", 2.0), ("c", 1.0))
    }
    items = [
        item
        for name, path in paths.items()
        for item in windows.clips_of(
            name,
            path,
            models,
            windows.Plan(),
            filled=(0, 0) if name in ("a", "none", "c") else None,
        )
    ]
    found = [[item.name for item in batch] for batch in windows.batches(items, 4)]
    assert found == [["a", "a", "a"], ["none", "b", "b", "b"], ["c", "c"]]


# The same as one process --------------------------------------------------------------------------


def test_workers_write_what_one_process_writes(monkeypatch, tmp_path, model, field, one_process):
    assert run(monkeypatch, model, field, tmp_path / "many") == 0
    assert written(tmp_path / "many") == one_process
    assert len(one_process) == 3 + 6 and b"r5.wav,empty" in one_process["x.bad_files.csv"]


def test_relative_paths_are_those_of_the_process_that_shares_out(
    monkeypatch, tmp_path, model, folder, one_process
):
    monkeypatch.chdir(folder)
    opened, here = sharing.open_models, folder

    def open_elsewhere(path, config):
        monkeypatch.chdir("/")
        return opened(path, config)

    monkeypatch.setattr(sharing, "open_models", open_elsewhere)
    shared = sharing.score_shared

    def come_back(*args):
        try:
            return shared(*args)
        finally:
            monkeypatch.chdir(here)

    monkeypatch.setattr(predict, "score_shared", come_back)
    relative = (Path("m.pth"), Path("field"), Path("out"))
    assert run(monkeypatch, *relative, n_workers=1) == 0
    assert written(folder / "out")["x.long.csv"] == one_process["x.long.csv"]
    assert (folder / "out" / "frames" / "r0.wav.npz").exists()


# Whatever ends a worker ---------------------------------------------------------------------------


@pytest.mark.parametrize(("batches_left", "n_images"), [(1, 19), (3, 12), (4, 8), (5, 2)])
def test_an_interrupted_run_goes_on_to_the_same_bytes(
    monkeypatch, tmp_path, model, field, one_process, batches_left, n_images
):
    """A block goes on behind its last whole recording, or from a part of a long one.

    The blocks have 2, 3 and 1 batches; after the fourth batch there is a part of recording 4.
    """
    opened = []

    def open_breaking(path: Path, config: Config) -> Breaking:
        opened.append(Breaking([path], config))
        return opened[-1]

    monkeypatch.setattr(sharing, "open_models", open_breaking)
    monkeypatch.setattr(Breaking, "batches_left", batches_left)
    with pytest.raises(KeyboardInterrupt):
        run(monkeypatch, model, field, tmp_path / "many", n_workers=1)
    left = {path.name for path in (tmp_path / "many").iterdir()}
    assert {"x.csv.partial", "x.csv.partial.blocks"} <= left and "x.long.csv" not in left

    monkeypatch.setattr(Breaking, "batches_left", 10**9)
    monkeypatch.setattr(sharing, "_worker", sharing._Worker())
    assert run(monkeypatch, model, field, tmp_path / "many", n_workers=1) == 0
    assert opened[-1].n_images == n_images
    assert written(tmp_path / "many") == one_process


def test_one_process_goes_on_with_what_workers_left(
    monkeypatch, tmp_path, model, field, one_process
):
    monkeypatch.setattr(sharing, "open_models", lambda path, config: Breaking([path], config))
    monkeypatch.setattr(Breaking, "batches_left", 4)
    with pytest.raises(KeyboardInterrupt):
        run(monkeypatch, model, field, tmp_path / "many", n_workers=1)
    assert run(monkeypatch, model, field, tmp_path / "many", n_workers=0) == 0
    assert written(tmp_path / "many") == one_process


def make_job(model: Path, folder: Path) -> sharing.Job:
    models = sharing.open_models(model, tiny())
    identity = tuple(models.identity)
    return sharing.Job(model, folder, tiny(), identity, windows.Plan(), {}, folder / "blocks")


def test_a_block_waits_for_a_worker_that_still_writes_it(monkeypatch, tmp_path, model, field):
    """A scheduler that no longer hears a worker gives its block to another one."""
    job = make_job(model, tmp_path)
    block = {"r0.wav": sharing.identity(field / "r0.wav")}
    other, waits = sharing._open(job, block), []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        other.close()

    monkeypatch.setattr(sharing.time, "sleep", wait)
    assert sharing.score_block(job, block, {"r0.wav": field / "r0.wav"}) == block
    assert waits == [sharing.WAIT_S]
    sharing.close_decoders()


def test_another_model_at_the_same_place_is_refused(tmp_path):
    model = save_model(tmp_path / "m.pth", tiny())
    job = make_job(model, tmp_path)
    save_model(model, tiny(), seed=1)
    with pytest.raises(UserError, match=r"m\.pth: this machine has .* that all see"):
        sharing.score_block(job, {}, {})
    precise = replace(job, identity=(*make_job(model, tmp_path).identity[:-1], "torch.bfloat16"))
    with pytest.raises(UserError, match="--no-amp if only some machines have a GPU"):
        sharing.score_block(precise, {}, {})


def test_a_disk_that_refuses_a_worker_is_one_line_that_travels(monkeypatch, tmp_path, model, field):
    job = make_job(model, tmp_path)

    def refuse(*args, **more):
        raise CannotWriteError(Path("x.csv"), OSError(28, "No space left on device"))

    monkeypatch.setattr(sharing, "score_recordings", refuse)
    block = {"r0.wav": sharing.identity(field / "r0.wav")}
    with pytest.raises(UserError, match=r"x\.csv: cannot be written: No space left"):
        sharing.score_block(job, block, {"r0.wav": field / "r0.wav"})


def test_a_changed_block_begins_anew(tmp_path, model):
    """A recording that was added or changed moves the borders of batches."""
    field = tmp_path / "field"
    for name in ("r0.wav", "r1.wav"):
        write_wav(field / name, song(1.0))
    job = make_job(model, tmp_path)
    names = ("r0.wav", "r1.wav")
    block = {name: sharing.identity(field / name) for name in names}
    sharing.score_block(job, block, {name: field / name for name in names})
    write_wav(field / "r1.wav", song(2.0))
    changed = block | {"r1.wav": sharing.identity(field / "r1.wav")}
    with sharing._open(job, changed) as partial:
        assert not partial.holds("r0.wav", block["r0.wav"])
    sharing.close_decoders()


def test_only_a_backend_that_was_chosen_shares():
    assert not sharing.is_shared()
    with joblib.parallel_config(backend="threading", n_jobs=2):
        assert sharing.is_shared()
    assert not sharing.is_shared()


def test_the_file_of_a_block_is_plain(tmp_path, model, field):
    job = make_job(model, tmp_path)
    block = {"r0.wav": sharing.identity(field / "r0.wav")}
    sharing.score_block(job, block, {"r0.wav": field / "r0.wav"})
    (path,) = [one for one in job.folder.iterdir() if one.suffix != ".lock"]
    head, row = path.read_text().splitlines()
    assert json.loads(head)["block"] == block and json.loads(row)["status"] == "ok"

    with PartialResults(tmp_path / "all", {}) as partial:
        assert list(sharing.take_over(job, block, partial)) == [("r0.wav", 3.0)]
        assert partial["r0.wav"].scores.shape == (1, 3, 3)
        assert np.isfinite(partial["r0.wav"].scores).all()
    assert list(job.folder.iterdir()) == []
    sharing.close_decoders()
