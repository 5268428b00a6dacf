"""Score recordings of any length with trained models and write what was found in them.

    python predict.py models/Exp_47 data/test_soundscapes --output submission.csv

Recordings are decoded as streams and cut into windows; batches of windows are scored as in
train.py's validation; each recording's windows are put together, kept on disk, and written to files
at the end. Torch is imported where a checkpoint is read and nowhere else.
"""

import argparse
import contextlib
import gc
import logging
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from audio.decoder_pool import DecoderPool
from configs import Config, configure_logger, run_main
from inference.command_line import read_command_line
from inference.outputs import (
    make_plan,
    plan_outputs,
    write_activity,
    write_outputs,
)
from inference.partial import PartialResults
from inference.results import Results
from inference.scorers import open_models
from inference.scoring import score_recordings
from inference.selection import Selection
from inference.sharing import (
    Job,
    blocks_folder,
    delete_blocks,
    is_shared,
    score_shared,
    torch_threads,
)
from inference.stream import find_recordings
from inference.window_scores import settle_scores
from inference.windows import Models, Plan

logger = logging.getLogger("birdclef.predict")


def main() -> int:
    """Score what the command line names and say what came of it."""
    flags, config = read_command_line()
    configure_logger(config)
    return predict(flags, config)


def predict(flags: argparse.Namespace, config: Config) -> int:
    """Find recordings, open models, score windows, write files.

    Where the caller has chosen a backend by `joblib.parallel_config`, its workers score: see
    examples/predict_on_dask.py.

    Returns:
        Exit status: 1 if there are recordings and none of them could be scored, else 0.
    """
    recordings, unread = find_recordings(flags.recordings, follow_links=config.follow_links)
    with DecoderPool() as decoders:
        decoders.start(1)  # while the models are opened

        models = open_models(flags.model, config)
        settle_scores(flags, models.config)
        outputs = plan_outputs(flags, models, list(recordings))
        plan = replace(make_plan(flags, outputs.selection), weights=models.weights)

        settings = {"recordings": str(flags.recordings.resolve()), "model": models.identity}
        settings |= {name: str(value) for name, value in vars(plan).items()}
        with PartialResults(outputs.partial_path, settings) as partial:
            began = time.monotonic()
            if is_shared():
                folder = blocks_folder(outputs.partial_path).absolute()
                identity = tuple(models.identity)
                job = Job(
                    flags.model, Path.cwd(), config, identity, plan, settings, folder,
                    torch_threads(),
                )  # fmt: skip
                seconds = score_shared(job, recordings, partial)
            else:
                seconds = score_recordings(models, recordings, plan, partial, decoders)
            took_s = time.monotonic() - began

            names = list(recordings)
            results = Results(partial, names, plan.average, outputs.adjustment, plan.weights)
            lines, summary = write_outputs(outputs, results, unread)
            lines += write_pages(flags, results, outputs.selection, models, plan)
            if plan.frames_dir is not None:
                lines.append(f"wrote {plan.frames_dir}: framewise scores")
            partial.close(delete=True)
        delete_blocks(outputs.partial_path)

    describe_run(models, len(recordings), seconds, took_s)
    print("\n".join(lines))
    n_found = len(recordings) + len(unread)
    if n_found and not summary.n_scored:
        message = "none of the %d recordings could be scored; %s says why"
        logger.error(message, n_found, outputs.bad_path)
        return 1
    return 0


def write_pages(
    flags: argparse.Namespace, results: Results, chosen: Selection, models: Models, plan: Plan
) -> list[str]:
    """Write activity, the page of detections and that of clips to label, where asked for."""
    if flags.activity is None and flags.report is None and flags.suggest is None:
        return []
    from inference.pages import named, suggest, write_page

    chosen = named(chosen, models)
    lines, picture = write_activity(flags, results, chosen)
    if flags.report is not None:
        lines.append(write_page(flags, results, chosen, models, plan, picture))
    if flags.suggest is not None:
        lines += suggest(flags, results, chosen, models, plan)
    return lines


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
