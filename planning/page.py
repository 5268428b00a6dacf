"""plan.html: what was seen of an archive in pictures, and what follows from it. It loads nothing.

The pictures are drawn here and stand in the page; page.html.in is its frame.
"""

import base64
import html
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from configs import Config
from files import write_file
from planning.archive import Archive
from planning.decide import Decision
from planning.expected import Expected
from planning.facts import Facts
from planning.rules import NO_EVIDENCE
from planning.sound import pool_calls, shown_edges

PAGE_FRAME = Path(__file__).with_name("page.html.in")
SHOWN_SPECIES = 40  # rows of the picture of where energy lies
POINTS, LINES, BARS = "#0b6b4b", "#c24e00", "#b9c2ba"


def write_page(
    path: Path,
    archive: Archive,
    facts: Facts,
    config: Config,
    decisions: Sequence[Decision],
    expected: Expected,
    commands: Sequence[str],
) -> None:
    """Write the page.

    Args:
        path: the HTML file.
        archive: what was seen.
        facts: summed up.
        config: the planned settings.
        decisions: with their reasons.
        expected: costs.
        commands: what to run next.

    Raises:
        CannotWriteError: the disk refuses.
    """
    pictures = [
        f'<figure><img alt="{html.escape(caption)}" src="data:image/png;base64,{_draw(draw)}">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        for draw, caption in _pictures(archive, facts, config)
    ]
    by_rule = [one for one in decisions if one.reason]
    others = [one for one in decisions if not one.reason]
    parts = {
        "FOLDER": html.escape(str(config.train_audio_dir)),
        "EXPECTED": html.escape(f"Expected: {expected}"),
        "FACTS": "".join(map(_fact, _facts(archive, facts))),
        "PICTURES": "".join(pictures),
        "RULES": "".join(map(_rule_row, by_rule)),
        "N_OTHERS": str(len(others)),
        "OTHERS": "".join(map(_other_row, others)),
        "COMMANDS": html.escape("\n".join(commands)),
    }
    text = PAGE_FRAME.read_text(encoding="utf-8")
    for name, value in parts.items():
        text = text.replace(f"@{name}@", value)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, text)


def _facts(archive: Archive, facts: Facts) -> list[tuple[str, str]]:
    """What stands at the head of the page: name and value."""
    rates = pd.Series([one.rate for one in archive.headers.values()]).value_counts()
    common = ", ".join(f"{n} at {rate / 1000:g} kHz" for rate, n in rates.head(3).items())
    return [
        ("recordings", f"{facts.n_recordings}, {facts.hours:.1f} h"),
        ("species", str(facts.n_species)),
        ("a species: least, median, most", f"{facts.least}, {facts.median:g}, {facts.most}"),
        ("labels a recording", f"{facts.labels_a_row:.2f}"),
        ("native rates", common),
        ("stereo", f"{facts.stereo_share:.0%}"),
        ("copies", str(facts.n_copies)),
        ("listened to", f"{len(archive.sample)} recordings"),
        ("of these clipped", f"{facts.clipped_share:.0%}"),
        ("of their time silent", f"{facts.silent_share:.1%}"),
        ("stands out of the background", f"{facts.active_share:.0%} of a recording"),
        ("unreadable or silent", f"{archive.unusable + archive.n_unread}"),
        ("machine", f"{facts.cores} cores, {facts.memory_gb:.0f} GB, {facts.device}"),
        ("groups for folds", _groups(facts)),
    ]


def _groups(facts: Facts) -> str:
    found = [f"{one.column}: {one.n_groups}" for one in facts.groupings]
    return ", ".join(found) or "none in the table"


def _fact(pair: tuple[str, str]) -> str:
    name, value = map(html.escape, pair)
    return f'<div><span class="quiet">{name}</span><b>{value}</b></div>'


def _rule_row(one: Decision) -> str:
    kind = ' class="none"' if NO_EVIDENCE in one.source else ""
    cells = [f"<code>{one.setting}</code>", f"<code>{html.escape(str(one.value))}</code>"]
    cells.append(html.escape(one.reason))
    row = "".join(f"<td>{cell}</td>" for cell in cells)
    return f"<tr>{row}<td{kind}>{html.escape(one.source)}</td></tr>"


def _other_row(one: Decision) -> str:
    cells = (one.setting, str(one.value), one.source)
    return "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>"


# Pictures -----------------------------------------------------------------------------------------

Draw = Callable[[Any], None]


def _draw(draw: Draw) -> str:
    """Draw into axes and return the PNG in base 64."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6, 3.4), dpi=110, layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    draw(axes)
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return base64.b64encode(file.getvalue()).decode()


def _pictures(archive: Archive, facts: Facts, config: Config) -> list[tuple[Draw, str]]:
    """The pictures, each with its caption."""
    return [
        (lambda axes: draw_counts(axes, archive.counts), "Recordings of each species, by rank"),
        (
            lambda axes: draw_lengths(axes, archive.seconds, config),
            "Lengths; lines: a clip, and what is kept of a recording",
        ),
        (
            lambda axes: draw_energy(axes, archive, facts, config),
            "Where each species has its energy; lines: fmin, fmax and half the sample rate",
        ),
        (
            lambda axes: draw_bandwidth(axes, archive, config),
            "Highest frequency recorded in each recording; line: half the sample rate",
        ),
        (
            lambda axes: draw_calls(axes, archive, config),
            "Lengths of calls, what stands out of the background; lines: a frame's step, a clip",
        ),
        (lambda axes: draw_loudness(axes, archive), "Level and peak of each recording"),
    ]


def draw_counts(axes: Any, counts: pd.Series) -> None:
    """Draw the species by their recordings, on a scale of tens where it takes one."""
    values = counts.sort_values(ascending=False).to_numpy()
    axes.bar(np.arange(len(values)), values, width=1, color=POINTS)
    if len(values) and values.max() > 50 * max(1, values.min()):
        axes.set_yscale("log")
    axes.set(xlabel="species", ylabel="recordings")


def draw_lengths(axes: Any, seconds: np.ndarray, config: Config) -> None:
    """Draw the lengths of recordings, on a scale of tens."""
    seconds = seconds[seconds > 0]
    if len(seconds):
        low, high = max(0.1, seconds.min() / 1.2), 1.2 * seconds.max()
        axes.hist(seconds, np.geomspace(low, high, 40), color=BARS)
    _seconds_axis(axes)
    for value in (config.period, config.max_seconds):
        axes.axvline(value, color=LINES)
    axes.set(xlabel="seconds", ylabel="recordings")


def _seconds_axis(axes: Any) -> None:
    """A scale of tens with few, plain numbers."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator([0.01, 0.1, 1, 5, 10, 60, 600, 3600]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def draw_energy(axes: Any, archive: Archive, facts: Facts, config: Config) -> None:
    """Draw the share of energy by species and band of frequency."""
    if not archive.sample:
        return
    frame = pd.DataFrame(np.array([one.bands for one in archive.sample]))
    means = frame.groupby([one.label for one in archive.sample]).mean()  # (n_species, n_bands)
    edges = shown_edges(facts.usual_rate)
    centres = np.sqrt(edges[1:] * edges[:-1])
    order = np.argsort(means.to_numpy() @ np.log(centres), kind="stable")
    every = order[np.linspace(0, len(order) - 1, min(SHOWN_SPECIES, len(order))).astype(int)]
    values = np.sqrt(means.to_numpy()[every])

    axes.pcolormesh(edges, np.arange(len(every) + 1), values, cmap="magma", rasterized=True)
    for hertz in (config.fmin, config.fmax, config.sample_rate / 2):
        axes.axvline(max(hertz, edges[0]), color="#63d3a4")
    axes.set(xscale="log", xlabel="Hz", xlim=(edges[0], edges[-1]))
    axes.set_yticks(np.arange(len(every)) + 0.5, means.index[every], fontsize=5)


def draw_bandwidth(axes: Any, archive: Archive, config: Config) -> None:
    """Draw how far up recordings go."""
    used = [one.used_hz / 1000 for one in archive.sample]
    axes.hist(used, 30, color=BARS)
    axes.axvline(config.sample_rate / 2000, color=LINES)
    axes.set(xlabel="kHz", ylabel="recordings")


def draw_calls(axes: Any, archive: Archive, config: Config) -> None:
    """Draw the lengths of what stands out of the background."""
    calls = pool_calls(archive.sample)
    if len(calls):
        axes.hist(calls, np.geomspace(0.01, max(2 * calls.max(), 0.1), 40), color=BARS)
    _seconds_axis(axes)
    for value in (config.hop_length / config.sample_rate, config.period):
        axes.axvline(value, color=LINES)
    axes.set(xlabel="seconds", ylabel="calls")


def draw_loudness(axes: Any, archive: Archive) -> None:
    """Draw level against peak; clipped recordings stand out."""
    for is_clipped, colour, name in ((False, POINTS, "whole"), (True, LINES, "clipped")):
        chosen = [one for one in archive.sample if one.clipped == is_clipped]
        levels = [one.loudness_db for one in chosen]
        peaks = [one.peak_db for one in chosen]
        axes.scatter(levels, peaks, s=9, color=colour, label=name)
    axes.set(xlabel="level, dB re full scale", ylabel="peak, dB re full scale")
    axes.legend(frameon=False, fontsize=8)
