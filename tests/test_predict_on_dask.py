"""predict.py on a cluster of processes: every table of one process, and a worker that is killed."""

import importlib.util
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

import predict
from inference import scoring
from tests.predicting import save_model, song, tiny, write_wav

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not importlib.util.find_spec("dask"), reason="needs dask: requirements-dask.txt"
    ),
]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A cluster of two processes of this machine."""
    from dask.distributed import LocalCluster

    how = {"processes": True, "threads_per_worker": 1, "dashboard_address": None}
    with LocalCluster(n_workers=2, **how) as cluster:
        yield cluster.scheduler_address


def die_in_the_second_block() -> None:
    """Kill the worker that calls this when it has scored a block and half of the next one."""
    from inference import partial, sharing

    add, scored = partial.PartialResults.add, []

    def add_or_die(self: partial.PartialResults, *args: object, **more: object) -> None:
        add(self, *args, **more)
        scored.append(self.path)
        if len(scored) == 4:
            os.kill(os.getpid(), signal.SIGKILL)

    assert sharing.PartialResults is partial.PartialResults
    partial.PartialResults.add = add_or_die


def test_a_cluster_writes_what_one_process_writes_although_a_worker_dies(
    monkeypatch, tmp_path, address, capsys
):
    from dask.distributed import Client

    from examples import on_dask, predict_on_dask

    for number in range(12):
        write_wav(tmp_path / "field" / f"r{number}.wav", song(1.0 + number % 4, seed=number))
    (tmp_path / "field" / "r5.wav").write_bytes(b"RIFF")
    monkeypatch.setattr(scoring, "MOST_RECORDINGS", 3)  # a block; in this process, which makes them
    model = save_model(tmp_path / "m.pth", tiny())
    forms = ["submission-2023", "long", "raven", "audacity", "birdnet"]
    more = ["--format", *forms, "--events", "--threshold", "0.1", "--device", "cpu"]

    def call(main, out: Path, *first: str) -> dict[str, bytes]:
        args = [*first, model, tmp_path / "field", "--output", out / "x.csv"]
        args += ["--frames", out / "frames", "--num-workers", "1", *more]
        monkeypatch.setattr("sys.argv", ["predict.py", *map(str, args)])
        assert main() == 0
        files = [path for path in out.rglob("*") if path.is_file()]
        return {path.relative_to(out).as_posix(): path.read_bytes() for path in files}

    one = call(predict.main, tmp_path / "one")
    with Client(address) as client:
        client.register_plugin(on_dask.KnowsTheProject())
        before = set(client.scheduler_info()["workers"])
        client.run(die_in_the_second_block, workers=[min(before)])
        many = call(predict_on_dask.main, tmp_path / "many", "--scheduler", address)

        assert many == one and len(one) > 12 + 11 + 4
        after = set(client.scheduler_info()["workers"])
        assert min(before) not in after and max(before) in after
    assert capsys.readouterr().out.count(" decoder processes") >= 1
