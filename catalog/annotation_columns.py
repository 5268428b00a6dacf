"""Which column of a table of annotations holds what, by the names that programs give them."""

import re
from collections.abc import Sequence

import pandas as pd

# Columns under their usual names, in lower case without units and punctuation.
START_COLUMNS = (
    *("begin time", "start time", "start", "begin", "onset", "t start"),
    *("tmin", "xmin", "from", "start ms", "begin ms", "start time ms", "begin time ms", "offset"),
)
END_COLUMNS = (
    *("end time", "end", "offset", "t end", "stop", "stop time"),
    *("tmax", "xmax", "to", "end ms", "stop ms", "end time ms"),
)
DURATION_COLUMNS = ("duration", "delta time", "dur", "length", "duration ms")
FILE_COLUMNS = (
    *("begin path", "begin file", "filename", "file", "filepath", "file name", "path"),
    *("in file", "recording", "audio file", "audio", "sourcefile"),
)
LABEL_COLUMNS = (
    *("label", "labels", "species code", "species ebird code", "species", "primary label"),
    *("birds", "ebird code", "common name", "scientific name", "annotation", "annotations"),
    *("class", "tag", "manual id", "top 1match", "bird", "id", "code", "text"),
)
OFFSET_COLUMNS = ("file offset",)
IGNORED_COLUMNS = ("selection", "view", "channel", "confidence", "score", "low freq", "high freq")


def plain_name(column: str) -> str:
    """Write a column's name without unit and capitals: `Begin Time (s)` is "begin time".

    Milliseconds stay in it: `start_ms` is "start ms".
    """
    words = re.sub(r"[^a-z0-9]+", " ", column.lower()).split()
    if len(words) > 1 and words[-1] in ("s", "sec", "secs", "seconds", "hz"):
        words.pop()
    return " ".join(words)


class Columns:
    """Which column of a table holds what; None where there is none."""

    def __init__(self, table: pd.DataFrame) -> None:
        plain = {plain_name(column): column for column in reversed(table.columns)}

        def first(names: Sequence[str]) -> str | None:
            return next((plain[name] for name in names if name in plain), None)

        self.row_id = first(("row id",))
        self.start = first(START_COLUMNS)
        self.end = first([name for name in END_COLUMNS if plain.get(name) != self.start])
        self.duration = None if self.end else first(DURATION_COLUMNS)
        self.file, self.offset = first(FILE_COLUMNS), first(OFFSET_COLUMNS)
        self.folder = first(("folder",))  # Kaleidoscope has it beside the file
        self.label = first(LABEL_COLUMNS)
        self.verdict, self.detected = first(("verdict",)), first(("detected",))
        self.view, self.confidence = first(("view",)), first(("confidence", "score"))
        self.selection = first(("selection",))
        self.one_hot = [] if self.label else self._one_hot(table)

    def _one_hot(self, table: pd.DataFrame) -> list[str]:
        """List the columns of 0 and 1, one a species, as in OpenSoundscape's tables."""
        known = {self.start, self.end, self.duration, self.file, self.offset, self.row_id}
        rest = [name for name in table.columns if name not in known]
        rest = [name for name in rest if plain_name(name) not in IGNORED_COLUMNS]
        marks = {"0", "1", "0.0", "1.0", "true", "false", ""}
        return [name for name in rest if set(table[name].str.strip().str.lower()) <= marks]
