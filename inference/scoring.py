"""Recordings to windows to scores, each recording kept on disk as soon as it is done.

Decoders, threads that make clips ready and threads that score them work side by side; what an
interrupted run has scored is not scored again.
"""

import contextlib
import functools
import itertools
import logging
from collections.abc import Container, Generator, Iterable, Sequence
from pathlib import Path

from audio.decoder_pool import DecoderPool
from inference.partial import PartialResults, identity
from inference.pipeline import apply_in_order, in_order
from inference.progress import Progress
from inference.tally import Tally
from inference.windows import Item, Models, Plan, Scored, batches, clips_of, score_batch

logger = logging.getLogger("birdclef.predict")

# Of a block, after which the next one begins: a quarter of an hour of WAV, an hour or two of Ogg.
MOST_BYTES = 2**26
MOST_RECORDINGS = 256


def score_recordings(
    models: Models,
    recordings: dict[str, Path],
    plan: Plan,
    partial: PartialResults,
    decoders: DecoderPool | None = None,
    *,
    keep_decoders: bool = False,
) -> float:
    """Score the recordings that are not in the partial results yet, and add each when it is done.

    Args:
        models: what scores clips.
        recordings: paths by name.
        plan: how windows are cut and scored.
        partial: takes a recording as soon as all its windows are scored.
        decoders: processes that decode, ended when this is done; None starts them.
        keep_decoders: whether they are ended only if this fails.

    Returns:
        Seconds of audio scored.
    """
    identities = {name: identity(path) for name, path in recordings.items()}
    firsts = {names[0] for names in blocks({name: one[0] for name, one in identities.items()})}
    identities = {name: one for name, one in identities.items() if not partial.holds(name, one)}
    if n_done := len(recordings) - len(identities):
        logger.info("%d of %d recordings were done before", n_done, len(recordings))

    to_do = {name: recordings[name] for name in identities}
    n_windows = {name: partial.n_windows(name, one) for name, one in identities.items()}
    filled = filled_before(list(recordings), to_do, firsts, partial)
    decoders = decoders or DecoderPool()
    items = read_clips(models, to_do, plan, decoders, n_windows, filled)
    scored = score_clips(models, items, plan)
    with contextlib.closing(items), contextlib.ExitStack() as ending:
        ending.enter_context(decoders)
        ending.enter_context(contextlib.closing(scored))
        seconds = put_together(models, scored, plan, partial, identities)
        if keep_decoders:  # no thread waits for one any more
            ending.pop_all()
    return seconds


def blocks(sizes: dict[str, int]) -> list[list[str]]:
    """Divide recordings, in order, into blocks for one worker each; no batch crosses their borders.

    The borders follow from names and sizes alone, so that many workers score the same batches, to
    the last bit, as one process does.

    Args:
        sizes: bytes of each recording, by name.
    """
    found: list[list[str]] = []
    n_bytes = MOST_BYTES
    for name, size in sizes.items():
        if n_bytes >= MOST_BYTES or len(found[-1]) == MOST_RECORDINGS:
            found.append([])
            n_bytes = 0
        found[-1].append(name)
        n_bytes += size
    return found


def filled_before(
    names: Sequence[str], to_do: Container[str], firsts: set[str], partial: PartialResults
) -> dict[str, tuple[int, int]]:
    """Say with which recordings a batch begins, and what an interrupted run had in it before them.

    Args:
        names: of all recordings, in order.
        to_do: those that are not done yet.
        firsts: those that begin a block.
        partial: the others.

    Returns:
        As `Item.filled`, by name: of those that begin a block or follow a done one.
    """
    found = dict.fromkeys(firsts, (0, 0))
    for before, name in itertools.pairwise(names):
        if name not in firsts and before not in to_do:
            found[name] = partial.filled(before)
    return found


def read_clips(
    models: Models,
    recordings: dict[str, Path],
    plan: Plan,
    decoders: DecoderPool,
    n_windows: dict[str, int],
    filled: dict[str, tuple[int, int]],
) -> Generator[Item, None, None]:
    """Decode recordings, cut them into clips and make these ready for the network, in threads.

    Args:
        models: what will score the clips.
        recordings: paths by name.
        plan: how windows are cut.
        decoders: processes that decode.
        n_windows: by recording, windows that are scored already.
        filled: recordings that begin a batch, with what an interrupted run had in it before.
    """
    decode = functools.partial(decoders.decode, timeout_s=models.config.file_timeout_s)
    clips = functools.partial(clips_of, models=models, plan=plan, decode=decode)
    sources = (
        functools.partial(clips, name, path, n_done=n_windows[name], filled=filled.get(name))
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

                recording_s, tally = tally.finish(item.source, item.filled), None
                seconds += recording_s
                progress.finish(item.name, recording_s)
        finally:
            if tally is not None:
                tally.discard()
    return seconds
