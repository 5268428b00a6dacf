"""When and where species were found: detections by day and hour, and by site.

What was found is set against what was listened to: a rate of 0 and an hour without a recording are
two things.
"""

import io
import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from inference.detections import Recording
from inference.places import Made, when_and_where
from inference.selection import Selection
from inference.text_files import write_table

logger = logging.getLogger("birdclef.activity")

Hour = tuple[date, int]  # a day, and an hour of it from 0 to 23

WHAT_COLUMNS = ("site", "species", "scientific_name", "common_name")
RATE_COLUMNS = ("detections", "windows", "hours", "detections_per_hour")
CLOCKS = "the recorders' clocks"
N_SPECIES = 5  # that are drawn beside all together, the most frequent ones
SAME_OFFSET_S = 900  # a zone's distance from UTC changes at whole quarters of an hour
LONGEST_TITLE = 40  # characters
N_TICKS = 5  # the most days that are named


@dataclass
class Activity:
    """What was listened to and found, by hour and by site.

    Attributes:
        listened_s: seconds of recordings in each hour.
        found: detections by species and hour.
        site_windows: windows by site.
        site_s: seconds of recordings by site.
        site_found: detections by site and species.
        clocks: what the times are told by: a zone, or the recorders' clocks.
        n_recordings: recordings with a window.
        n_timed: of them, those that say when they were made.
    """

    listened_s: dict[Hour, float] = field(default_factory=lambda: defaultdict(float))
    found: Counter[tuple[int, date, int]] = field(default_factory=Counter)
    site_windows: Counter[str] = field(default_factory=Counter)
    site_s: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    site_found: Counter[tuple[str, int]] = field(default_factory=Counter)
    clocks: set[str] = field(default_factory=set)
    n_recordings: int = 0
    n_timed: int = 0

    def add(self, recording: Recording, made: Made, found: Sequence[tuple[float, int]]) -> None:
        """Add a recording.

        Args:
            recording: with its windows.
            made: when and where.
            found: start in seconds and species of each detection.
        """
        windows_s = np.diff(recording.starts_s, append=recording.seconds)  # (n,)
        self.n_recordings += 1
        self.site_windows[made.site] += len(windows_s)
        self.site_s[made.site] += float(windows_s.sum())
        self.site_found.update((made.site, species) for _, species in found)
        if made.start is None:
            return

        self.n_timed += 1
        self.clocks.add(clock_of(made.start))
        for hour, seconds in zip(
            hours_of(made.start, recording.starts_s), windows_s.tolist(), strict=True
        ):
            self.listened_s[hour] += seconds
        starts_s = np.array([start_s for start_s, _ in found], float)
        hours = hours_of(made.start, starts_s)
        self.found.update((species, *hour) for (_, species), hour in zip(found, hours, strict=True))

    @property
    def days(self) -> list[date]:
        """The days with a recording, in order."""
        return sorted({day for day, _ in self.listened_s})

    def most_frequent(self) -> list[int]:
        """List species by falling number of detections that have a time."""
        counts: Counter[int] = Counter()
        for (species, _, _), count in self.found.items():
            counts[species] += count
        return sorted(counts, key=lambda species: (-counts[species], species))

    def rates(self, species: int | None = None) -> np.ndarray:
        """Compute the detections an hour, (24, n_days) float64; NaN where nothing was recorded.

        Args:
            species: which; None counts all together.
        """
        place = {day: column for column, day in enumerate(self.days)}
        hours = np.zeros((24, len(place)))
        for (day, hour), seconds in self.listened_s.items():
            hours[hour, place[day]] = seconds / 3600

        counts = np.zeros_like(hours)
        for (one, day, hour), count in self.found.items():
            if species is None or one == species:
                counts[hour, place[day]] += count
        return np.divide(counts, hours, out=np.full_like(hours, np.nan), where=hours > 0)


def measure(results: Iterable[Recording], selection: Selection, threshold: float) -> Activity:
    """Count detections by hour and site.

    Args:
        results: recordings with scores (n, C); gone through once.
        selection: which detections, and the zone of the recorders' clocks.
        threshold: lowest score of a detection.
    """
    activity = Activity()
    for recording in results:
        if not len(recording.starts_s):
            continue
        path = selection.folder / recording.name
        made = when_and_where(recording.name, path, selection.zone)
        found = [(one.start_s, one.species) for one in selection.found(recording, threshold)]
        activity.add(recording, made, found)
    return activity


def say_what_lacks(activity: Activity) -> None:
    """Log that recordings do not say when they were made, or that they say it by several clocks."""
    lacking = activity.n_recordings - activity.n_timed
    if lacking == activity.n_recordings:
        logger.info("no recording says when it was made, by its name or header: no activity.png")
    elif lacking:
        message = "%d of %d recordings do not say when they were made; activity.png is without them"
        logger.info(message, lacking, activity.n_recordings)
    if len(activity.clocks) > 1:
        clocks = ", ".join(sorted(activity.clocks))
        logger.warning("times are told by %s; --time-zone makes them one", clocks)


def hours_of(start: datetime, offsets_s: np.ndarray) -> list[Hour]:
    """Tell the day and hour of moments in a recording, by the clock of its start.

    Args:
        start: when the recording began; without a zone its clock is taken to go on evenly.
        offsets_s: (n,) seconds from there.
    """
    zone = start.tzinfo or UTC
    began_s = start.replace(tzinfo=zone).timestamp()
    blocks = np.floor((began_s + offsets_s) / SAME_OFFSET_S).astype(np.int64)  # (n,)
    each, which = np.unique(blocks, return_inverse=True)
    moments = [datetime.fromtimestamp(int(block) * SAME_OFFSET_S, zone) for block in each]
    hours = [(moment.date(), moment.hour) for moment in moments]
    return [hours[number] for number in which]


def clock_of(start: datetime) -> str:
    """Name what a time is told by: Europe/Berlin, UTC+02:00, or the recorder's own clock."""
    if isinstance(start.tzinfo, ZoneInfo):
        return start.tzinfo.key
    return CLOCKS if start.tzinfo is None else str(start.tzname())


# The table ----------------------------------------------------------------------------------------


def write_sites(path: Path, activity: Activity, selection: Selection) -> int:
    """Write a row for each site and each species that was found anywhere; return their number."""
    species = sorted({one for _, one in activity.site_found})
    return write_table(
        path, [*WHAT_COLUMNS, *RATE_COLUMNS], _site_rows(activity, species, selection)
    )


def _site_rows(
    activity: Activity, species: Sequence[int], selection: Selection
) -> Iterator[list[str | int | float]]:
    for site in sorted(activity.site_windows):
        hours = activity.site_s[site] / 3600
        for one in species:
            count = activity.site_found[site, one]
            rate = round(count / hours, 4) if hours else 0.0
            names = [selection.class_names[one], *selection.name(one)]
            yield [site, *names, count, activity.site_windows[site], round(hours, 4), rate]


# The picture --------------------------------------------------------------------------------------


def draw(activity: Activity, selection: Selection) -> bytes:
    """Draw detections an hour by day and hour, of all species and of the most frequent, as a PNG.

    Hours without a recording are grey. Days without one are left out.

    Args:
        activity: with at least one recording that says when it was made.
        selection: names of the species.
    """
    from matplotlib.figure import Figure

    species = activity.most_frequent()[:N_SPECIES]
    panels: list[int | None] = [None, *species] if len(species) > 1 else [*species] or [None]
    n_columns = 1 if len(panels) == 1 else 2
    n_rows = -(-len(panels) // n_columns)
    width = min(9.0, max(4.2, 1.8 + 0.12 * len(activity.days)))  # inches
    figure = Figure(figsize=(width * n_columns, 2.9 * n_rows), layout="constrained")
    for place, one in enumerate(panels, 1):
        axes = figure.add_subplot(n_rows, n_columns, place)
        _draw_panel(figure, axes, activity, one, title_of(activity, one, selection))

    figure.supylabel(f"hour of the day, {' and '.join(sorted(activity.clocks))}", fontsize=9)
    figure.supxlabel("day with recordings", fontsize=9)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    return content.getvalue()


def title_of(activity: Activity, species: int | None, selection: Selection) -> str:
    """Name what a panel shows, and how many detections that is."""
    name = "all species" if species is None else selection.name(species)[1]
    name = name if len(name) <= LONGEST_TITLE else name[: LONGEST_TITLE - 3] + "..."
    count = sum(count for (one, _, _), count in activity.found.items() if species in (None, one))
    return f"{name}: {count:,}"


def _draw_panel(
    figure: Any, axes: Any, activity: Activity, species: int | None, title: str
) -> None:
    from matplotlib import colormaps

    days = activity.days
    colours = colormaps["viridis"].with_extremes(bad="0.85")
    image = axes.imshow(
        np.ma.masked_invalid(activity.rates(species)),
        origin="lower", aspect="auto", cmap=colours, vmin=0, interpolation="nearest",
        extent=(0, len(days), 0, 24),
    )  # fmt: skip
    shown = np.unique(np.linspace(0, len(days) - 1, min(N_TICKS, len(days))).round().astype(int))
    axes.set_xticks(shown + 0.5, [days[number].isoformat() for number in shown], fontsize=7)
    axes.set_yticks(range(0, 25, 6))
    axes.set_title(title, fontsize=9, parse_math=False)
    figure.colorbar(image, ax=axes, label="detections an hour", pad=0.02)
