"""Recordings shared out in blocks to the workers of a joblib backend, and put together again.

Each worker has one model and decoders of its own. What it scores of a block grows in a file of its
own beside the output, from which another worker goes on if it dies; the process that shares out
takes whole blocks over into its partial results. So results are those of one process, to the byte.
"""

import contextlib
import functools
import hashlib
import logging
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from audio.decoder_pool import DecoderPool
from configs import Config, UserError
from files import CannotWriteError
from inference.partial import InUseError, PartialResults, identity
from inference.progress import Progress
from inference.scorers import open_models
from inference.scoring import blocks, score_recordings
from inference.windows import Models, Plan

logger = logging.getLogger("birdclef.sharing")

WAIT_S = 0.5  # until a block is looked at again that another worker holds


@dataclass(frozen=True)
class Job:
    """What each worker is told.

    Attributes:
        model: as on the command line.
        here: folder of the process that shares out, in which relative paths begin.
        config: settings of the command line.
        identity: of the models, by which a worker knows that it has the same ones.
        plan: how windows are cut and scored.
        settings: all that the scores depend on, in plain types.
        folder: where workers keep what they have of a block.
        torch_threads: of the process that shares out; sums in another number of threads differ in
            their last bits. None where it scores without torch.
    """

    model: Path
    here: Path
    config: Config
    identity: tuple[str, ...]
    plan: Plan
    settings: dict[str, Any]
    folder: Path
    torch_threads: int | None = None

    @property
    def own_plan(self) -> Plan:
        """The plan for a process that runs in another folder."""
        frames_dir = self.plan.frames_dir
        return replace(self.plan, frames_dir=None if frames_dir is None else self.here / frames_dir)


# In the process that shares out -------------------------------------------------------------------


def is_shared() -> bool:
    """Say whether the caller has chosen a backend by `joblib.parallel_config`."""
    if "joblib" not in sys.modules:  # a fifth of a second
        return False
    backend, n_jobs = sys.modules["joblib"].parallel.get_active_backend()
    return n_jobs is not None or backend.default_n_jobs != 1


def torch_threads() -> int | None:
    """Say how many threads torch has here; None where it is not loaded."""
    return sys.modules["torch"].get_num_threads() if "torch" in sys.modules else None


def blocks_folder(partial_path: Path) -> Path:
    """Name the folder of what workers have scored, beside the partial results."""
    return partial_path.with_name(partial_path.name + ".blocks")


def score_shared(job: Job, recordings: dict[str, Path], partial: PartialResults) -> float:
    """Have the workers score the recordings that are not in the partial results yet.

    Args:
        job: what each worker is told.
        recordings: paths by name.
        partial: takes the recordings of a block as soon as it is scored.

    Returns:
        Seconds of audio scored.

    Raises:
        UserError: what a worker raises, one with other models among it.
    """
    import joblib

    identities = {name: identity(path) for name, path in recordings.items()}
    parts = [
        {name: identities[name] for name in names}
        for names in blocks({name: one[0] for name, one in identities.items()})
    ]
    left = [part for part in parts if not all(partial.holds(*one) for one in part.items())]
    n_left = sum(map(len, left))
    if n_left < len(recordings):
        n_done = len(recordings) - n_left
        logger.info("%d of %d recordings were done before", n_done, len(recordings))

    backend, _ = joblib.parallel.get_active_backend()
    as_they_come = "generator_unordered" if backend.supports_return_generator else "list"
    parallel = joblib.Parallel(return_as=as_they_come, batch_size=1)
    work = joblib.delayed(functools.partial(score_block, job))
    paths = {name: path.absolute() for name, path in recordings.items()}

    seconds = 0.0
    sizes = {name: one[0] for part in left for name, one in part.items()}
    with _end_decoders(), Progress(sizes) as progress:
        for part in parallel(work(part, {name: paths[name] for name in part}) for part in left):
            for name, length_s in take_over(job, part, partial):
                seconds += length_s
                progress.finish(name, length_s)
    return seconds


def take_over(
    job: Job, block: dict[str, list[int]], partial: PartialResults
) -> Iterator[tuple[str, float]]:
    """Move a scored block into the partial results; give the name and seconds of each recording."""
    scored = _open(job, block)
    for name, one in block.items():
        recording = scored[name]
        partial.add(recording, one, state=scored.state(name, one))
        yield name, recording.seconds
    scored.close(delete=True)


def delete_blocks(partial_path: Path) -> None:
    """Delete what workers have left, once the output is written."""
    shutil.rmtree(blocks_folder(partial_path), ignore_errors=True)


@contextlib.contextmanager
def _end_decoders() -> Iterator[None]:
    """End this process's decoders after the block, if its own threads are the workers."""
    try:
        yield
    finally:
        close_decoders()


# In a worker --------------------------------------------------------------------------------------


class _Worker:
    """The model and the decoders of this process."""

    def __init__(self) -> None:
        self.models: Models | None = None
        self.decoders = DecoderPool()
        self._lock = threading.Lock()
        self._opened: tuple[object, ...] = ()  # what they were opened for

    def open(self, job: Job) -> Models:
        """Open the job's models, or return them if this was done before."""
        wanted = (*job.identity, job.config)
        with self._lock:
            if self.models is None or self._opened != wanted:
                self.models = None  # two would take twice the memory
                self.models, self._opened = _open_same(job), wanted
            return self.models


_worker = _Worker()


def score_block(
    job: Job, block: dict[str, list[int]], paths: dict[str, Path]
) -> dict[str, list[int]]:
    """Score the recordings of a block into a file of its own, and return the block.

    Args:
        job: what there is to know.
        block: sizes and times of the recordings, by name.
        paths: where they are.

    Raises:
        UserError: other models than the job's, or a disk that refuses.
    """
    models, decoders = _worker.open(job), _worker.decoders
    try:
        with _open(job, block) as partial:
            score_recordings(models, paths, job.own_plan, partial, decoders, keep_decoders=True)
    except BaseException as error:
        _worker.decoders = DecoderPool()  # the others were ended
        if isinstance(error, CannotWriteError):  # it would not travel
            raise UserError(str(error)) from None
        raise
    return block


def close_decoders() -> int:
    """End this worker's decoders, which wait for the next block; return their number."""
    return _worker.decoders.close_idle()


def _open_same(job: Job) -> Models:
    """Open the models that the process that shares out has opened.

    Raises:
        UserError: they are other ones here.
    """
    if job.torch_threads is not None:
        import torch

        torch.set_num_threads(job.torch_threads)  # a cluster may have set it to 1
    is_address = not job.model.is_absolute() and not (job.here / job.model).exists()
    models = open_models(job.model if is_address else job.here / job.model, job.config)
    if _contents(models.identity) != _contents(list(job.identity)):
        raise UserError(
            f"{job.model}: this machine has {models.identity}, and the one that shares out "
            f"{list(job.identity)}; give a model that does not change, on a disk that all see, "
            "and --no-amp if only some machines have a GPU"
        )
    return models


def _contents(identity: list[str]) -> list[str]:
    """Leave the paths out of an identity; sizes, times and the kind of numbers stay."""
    return [one.rpartition(" [")[2] for one in identity]


def _open(job: Job, block: dict[str, list[int]]) -> PartialResults:
    """Open the file of a block; wait while a worker that was given up still writes it."""
    name = hashlib.sha256(next(iter(block)).encode(errors="surrogateescape")).hexdigest()[:16]
    while True:
        try:
            return PartialResults(job.folder / name, job.settings | {"block": block})
        except InUseError:
            time.sleep(WAIT_S)
