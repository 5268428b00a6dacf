"""Score recordings of any length with trained models and write what was found in them.

    python predict.py models/Exp_47 data/test_soundscapes --output submission.csv

Recordings are decoded as streams and cut into windows; batches of windows are scored as in
train.py's validation; each recording's windows are put together, kept on disk, and written to files
at the end. Torch is imported where a checkpoint is read and nowhere else.
"""

import argparse
import contextlib
import functools
import gc
import logging
import os
import sys
import time
from collections.abc import Generator, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from audio.decoder_pool import DecoderPool
from configs import Config, configure_logger, run_main
from inference.command_line import read_command_line
from inference.outputs import make_plan, plan_outputs, write_outputs, write_page
from inference.partial import PartialResults, identity
from inference.pipeline import apply_in_order, in_order
from inference.progress import Progress
from inference.results import Results
from inference.scorers import open_models
from inference.stream import find_recordings
from inference.tally import Tally
from inference.windows import Item, Models, Plan, Scored, batches, clips_of, score_batch

logger = logging.getLogger("birdclef.predict")


def main() -> int:
    """Score what the command line names and say what came of it."""
    flags, config = read_command_line()
    configure_logger(config)
    return predict(flags, config)


def predict(flags: argparse.Namespace, config: Config) -> int:
    """Find recordings, open models, score windows, write files.

    Returns:
        Exit status: 1 if there are recordings and none of them could be scored, else 0.
    """
    recordings, unread = find_recordings(flags.recordings)
    with DecoderPool() as decoders:
        decoders.start(1)  # while the models are opened

        models = open_models(flags.model, config)
        outputs = plan_outputs(flags, models, list(recordings))
        plan = replace(make_plan(flags, outputs.selection), weights=models.weights)

        settings = {"recordings": str(flags.recordings.resolve()), "model": models.identity}
        settings |= {name: str(value) for name, value in vars(plan).items()}
        with PartialResults(outputs.partial_path, settings) as partial:
            began = time.monotonic()
            seconds = score_recordings(models, recordings, plan, partial, decoders)
            took_s = time.monotonic() - began

            names = list(recordings)
            results = Results(partial, names, plan.average, outputs.adjustment, plan.weights)
            lines, summary = write_outputs(outputs, results, unread)
            if flags.report is not None:
                lines.append(write_page(flags, results, outputs.selection, models, plan))
            if plan.frames_dir is not None:
                lines.append(f"wrote {plan.frames_dir}: framewise scores")
            partial.close(delete=True)

    describe_run(models, len(recordings), seconds, took_s)
    print("\n".join(lines))
    n_found = len(recordings) + len(unread)
    if n_found and not summary.n_scored:
        message = "none of the %d recordings could be scored; %s says why"
        logger.error(message, n_found, outputs.bad_path)
        return 1
    return 0


# Recordings to windows to scores ------------------------------------------------------------------


def score_recordings(
    models: Models,
    recordings: dict[str, Path],
    plan: Plan,
    partial: PartialResults,
    decoders: DecoderPool | None = None,
) -> float:
    """Score the recordings that are not in the partial results yet, and add each when it is done.

    Args:
        models: what scores clips.
        recordings: paths by name.
        plan: how windows are cut and scored.
        partial: takes a recording as soon as all its windows are scored.
        decoders: processes that decode, ended when this is done; None starts them.

    Returns:
        Seconds of audio scored.
    """
    identities = {name: identity(path) for name, path in recordings.items()}
    identities = {name: one for name, one in identities.items() if not partial.holds(name, one)}
    if n_done := len(recordings) - len(identities):
        logger.info("%d of %d recordings were done before", n_done, len(recordings))

    to_do = {name: recordings[name] for name in identities}
    n_windows = {name: partial.n_windows(name, one) for name, one in identities.items()}
    decoders = decoders or DecoderPool()
    items = read_clips(models, to_do, plan, decoders, n_windows)
    scored = score_clips(models, items, plan)
    with contextlib.closing(items), decoders, contextlib.closing(scored):
        return put_together(models, scored, plan, partial, identities)


def read_clips(
    models: Models,
    recordings: dict[str, Path],
    plan: Plan,
    decoders: DecoderPool,
    n_windows: dict[str, int],
) -> Generator[Item, None, None]:
    """Decode recordings, cut them into clips and make these ready for the network, in threads.

    Args:
        models: what will score the clips.
        recordings: paths by name.
        plan: how windows are cut.
        decoders: processes that decode.
        n_windows: by recording, windows that are scored already.
    """
    decode = functools.partial(decoders.decode, timeout_s=models.config.file_timeout_s)
    clips = functools.partial(clips_of, models=models, plan=plan, decode=decode)
    sources = (
        functools.partial(clips, name, path, n_done=n_windows[name])
        for name, path in recordings.items()
    )

    on_cpu = models.n_threads > 1  # whose cores are for the network
    n_decoding = models.config.num_workers // 2 if on_cpu else models.config.num_workers
    n_decoding = max(1, min(n_decoding, len(recordings)))
    depth = 2 * models.batch_size * models.n_threads
    return in_order(sources, n_decoding, depth, models.enter_thread)


def score_clips(models: Models, items: Iterable[Item], plan: Plan) -> Generator[Scored, None, None]:
    """Score clips in batches, in threads: each item with scores (models, C) and perhaps frames."""
    score = functools.partial(score_batch, models, plan)
    in_batches = batches(items, models.batch_size)
    scored = apply_in_order(score, in_batches, models.n_threads, models.enter_thread)
    with contextlib.closing(scored):
        for batch in scored:
            yield from batch


def put_together(
    models: Models,
    scored: Iterable[Scored],
    plan: Plan,
    partial: PartialResults,
    identities: dict[str, list[int]],
) -> float:
    """Collect the windows of each recording and add it to the partial results; return seconds."""
    seconds, tally = 0.0, None
    with Progress({name: n_bytes for name, (n_bytes, _) in identities.items()}) as progress:
        try:
            for item, scores, frames in scored:
                tally = tally or Tally(item.name, models, plan, partial, identities[item.name])
                if not item.is_end:
                    tally.add(item, scores, frames)
                    progress.show(item.name, *tally.reached(item))
                    continue

                recording_s, tally = tally.finish(item.source), None
                seconds += recording_s
                progress.finish(item.name, recording_s)
        finally:
            if tally is not None:
                tally.discard()
    return seconds


def describe_run(models: Models, n_recordings: int, seconds: float, took_s: float) -> None:
    """Print how much was scored, and how fast."""
    n_models = len(models.models)
    mean = f", mean of {n_models} models" if n_models > 1 else ""
    print(f"{n_recordings} recordings, {len(models.class_names)} species{mean}")

    speed = seconds / max(took_s, 1e-9)
    print(f"{seconds:,.0f} s of audio in {took_s:.1f} s, {speed:,.0f} x real time")


# Running ------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _briskly() -> Iterator[None]:
    """Collect garbage seldom in a process that ends with the block, and leave at once when it ends.

    Of the 7 s that a short run takes with torch, one goes into collections that find nothing, and
    two into taking everything apart at exit.
    """
    gc.set_threshold(100_000, 100)  # in place of 700 and 10
    try:
        yield
    except SystemExit as end:
        logging.shutdown()
        for output in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):  # nobody reads it any more
                output.flush()
        os._exit(end.code if isinstance(end.code, int) else 1)


if __name__ == "__main__":
    with _briskly():
        run_main(main)
