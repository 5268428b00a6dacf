"""The pages of a run: what was found, and what to label next; with the table beside it."""

import argparse
import logging
import time
from dataclasses import replace

import numpy as np

from inference.detections import Event, average_models
from inference.listing import DRAWN_CLIPS
from inference.report import Framewise, read_clip, write_report, write_suggested_page
from inference.results import Results
from inference.selection import Selection, read_metadata_names
from inference.suggesting import choose_clips, find_candidates, write_suggestions
from inference.windows import Models, Plan

logger = logging.getLogger("birdclef.pages")


def write_page(
    flags: argparse.Namespace,
    results: Results,
    chosen: Selection,
    models: Models,
    plan: Plan,
    picture: bytes | None = None,
) -> str:
    """Write the page of the run, with detections to see, hear and review; say so in a line.

    Args:
        flags: of the command line.
        results: of the recordings that were tried.
        chosen: what of them is shown.
        models: what scored.
        plan: how it did.
        picture: PNG of detections by day and hour, if there is one.
    """
    n_drawn = DRAWN_CLIPS if flags.review_clips is None else flags.review_clips
    n_clips = write_report(
        flags.report,
        results,
        chosen,
        models.config,
        describe(flags, results, models, plan),
        framewise_of(results, models, plan),
        n_drawn,
        picture,
    )
    return f"wrote {flags.report}: {n_clips} clips to look at and listen to"


def suggest(
    flags: argparse.Namespace, results: Results, chosen: Selection, models: Models, plan: Plan
) -> list[str]:
    """Write which clips to label next, as a table and a page; say so in lines, or that none is."""
    table = flags.output.with_name(f"{flags.output.stem}.suggested.csv")
    page = table.with_suffix(".html")
    sample_rate = models.config.sample_rate
    found = choose_clips(
        find_candidates(results, chosen, flags.suggest),
        flags.suggest,
        chosen.folder,
        read=lambda path, event: read_clip(path, event, sample_rate),
        embed=lambda clips: models.embed([models.prepare(clip) for clip in clips]),
    )
    if not found:
        logger.warning("--suggest %d: no clip with a signal could be read", flags.suggest)
        return []

    n_rows = write_suggestions(table, found, chosen)
    pairs: list[tuple[str, Event]] = [(one.name, one.event) for one in found]
    facts = describe(flags, results, models, plan)
    framewise = framewise_of(results, models, plan)
    write_suggested_page(page, results, pairs, chosen, models.config, facts, framewise)
    return [f"wrote {table}: {n_rows} clips to label next", f"wrote {page}: the same to listen to"]


def named(chosen: Selection, models: Models) -> Selection:
    """Add the names of the training's metadata, where no taxonomy was given."""
    return replace(chosen, names=chosen.names or read_metadata_names(models.config))


def framewise_of(results: Results, models: Models, plan: Plan) -> Framewise:
    """Make what gives (n_frames, C) scores of the samples (n,) of a clip."""
    calibration = results.adjustment.calibration

    def framewise(samples: np.ndarray) -> np.ndarray:
        frames = models.score([models.prepare(samples)], frames=True)[2]  # (models, 1, n_frames, C)
        assert frames is not None
        mean = average_models(frames[:, 0], plan.average, plan.weights)
        return mean if calibration is None else calibration.apply(mean)

    return framewise


def describe(
    flags: argparse.Namespace, results: Results, models: Models, plan: Plan
) -> dict[str, str]:
    """Say what the head of a page says of the run, name and value."""
    n_models, period = len(models.models), models.config.period
    model, score = str(flags.model), plan.score
    if n_models > 1:
        weighted = "" if plan.weights is None else "weighted "
        model += f", {weighted}mean of {n_models} by {plan.average}"
    if results.adjustment.calibration is not None:
        score += ", calibrated"
    for name in ("power", "smooth", "lean", "site_prior"):
        if value := getattr(flags, name):
            words = value if isinstance(value, list) else [str(value)]
            score += f", --{name.replace('_', '-')} {' '.join(words)}"
    return {
        "Model": model,
        "Recordings": str(flags.recordings.resolve()),
        "Windows": f"{period:g} s, one every {plan.stride_s or period:g} s",
        "Score": score,
        "Written": time.strftime("%Y-%m-%d %H:%M"),
    }
