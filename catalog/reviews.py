"""What a person said of detections: yes, no, another species, unsure; and the windows it is of.

A review speaks of the clips that were listened to and of nothing between them. So a recording that
has verdicts alone is not cut from its beginning to its end, as annotated ones are. Its windows lie
where the clips lay:

- yes and other: a window with the labels. Species that nobody named count as absent in it, as in
  any labelled recording.
- no: that species is absent, and nothing is said of the others (catalog/refuted.py), unless another
  row of that time names a bird. With the label nocall no bird sings: a window without one. A window
  that reaches beyond the clips that were decided is left out, for a bird may sing there.
- unsure, and rows without a verdict: not known. No window without a bird is taken that touches one.

Each row of spans has `verdict`, one of VERDICTS, and `refuted`, the species that a "no" is about,
or NO_BIRD where it is about all.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence

import pandas as pd

from catalog.labels import NO_BIRD
from catalog.refuted import REFUTED_COLUMN
from catalog.timed_labels import WINDOW_COLUMNS, count_in_window
from configs import UserError

logger = logging.getLogger("birdclef.reviews")

VERDICTS = ("yes", "no", "other", "unsure")
REVIEW_COLUMNS = ("verdict", REFUTED_COLUMN)  # of spans
SLACK_S = 0.05  # by which a clip may be shorter than the window that it is taken for


# Reading ------------------------------------------------------------------------------------------


def read_verdict(text: str, where: str) -> str:
    """Read a verdict, or its first letter; "" where there is none (UserError: anything else)."""
    word = text.strip().casefold()
    for verdict in ("", *VERDICTS):
        if word in (verdict, verdict[:1]):
            return verdict
    raise UserError(
        f"{where}: verdict {text.strip()!r}; write {', '.join(VERDICTS)}, or leave it empty"
    )


def judge(
    verdict: str, labels: Sequence[str], detected: str, *, has_label: bool, where: str
) -> list[tuple[str, str, str]]:
    """Say what a row means: label, verdict ("yes", "no" or "unsure") and refuted, one or more.

    Args:
        verdict: as it was written; "" with a label means what the label says.
        labels: of the row, ("",) where it has none or says that there is no bird.
        detected: the species that the model found, "" if the table does not say.
        has_label: whether anything stands in the column for the label.
        where: file and row, for messages.

    Raises:
        UserError: "other" without a label, or "yes" with neither label nor detected species.
    """
    birds = [label for label in labels if label]
    if verdict == "unsure" or (verdict == "" and not has_label):
        return [("", "unsure", "")]
    if verdict == "no":
        return [("", "no", one) for one in (birds or [detected or NO_BIRD])]
    if verdict == "other" and not has_label:
        raise UserError(f"{where}: verdict other without a label; write the species, or nocall")
    if not birds and has_label:  # nocall
        return [("", "no", NO_BIRD)]

    birds = birds or [detected]
    if birds == [""]:
        raise UserError(f"{where}: verdict yes, and neither label nor detected names a species")
    said = [(bird, "yes", "") for bird in birds]
    if verdict == "other" and detected and detected not in birds:
        said.append(("", "no", detected))
    return said


def reviewed_recordings(spans: pd.DataFrame) -> set[str]:
    """Name the recordings of which verdicts are all that is known.

    In others, which have labels of other kinds too, a "yes" is a label more, and the rest says
    nothing new.
    """
    if "verdict" not in spans:
        return set()
    is_verdict = spans["verdict"] != ""
    return set(spans.loc[is_verdict, "filename"]) - set(spans.loc[~is_verdict, "filename"])


def refuse_reviews(spans: pd.DataFrame, source: str) -> None:
    """Refuse verdicts where labels of whole recordings are needed (UserError)."""
    if names := reviewed_recordings(spans):
        raise UserError(
            f"{source}: {sorted(names)[0]} and {len(names) - 1} more were reviewed clip by clip, "
            "which does not say what sings between the clips; give labels of whole recordings"
        )


# Windows ------------------------------------------------------------------------------------------


def list_reviewed_windows(
    spans: pd.DataFrame,
    seconds: Mapping[str, float],
    *,
    period: float,
    stride: float,
    min_overlap: float,
) -> pd.DataFrame:
    """List the windows of reviewed recordings with their labels, as timed_labels.list_windows does.

    A clip as long as a window, or one that the recording ends with, is a window; a longer one is
    cut every `stride` seconds, a shorter one stands in the middle of its window. A label counts by
    its overlap, unless another clip refutes it for the whole window.

    Args:
        spans: of these recordings, with verdict and refuted.
        seconds: length of each recording.
        period: seconds in a window.
        stride: seconds from one window to the next in a longer clip.
        min_overlap: share from which a label counts.

    Returns:
        A row a window: filename, start_s, number (even, so that validation takes each), labels,
        spans, and refuted: of a window without labels the species that are known to be absent, none
        where all are.
    """
    rows = []
    for filename, own in spans.groupby("filename", sort=True):
        decided = own[own["verdict"] != "unsure"]
        end_s = seconds[str(filename)]
        starts = sorted(
            {
                round(start_s, 3)
                for one in decided.itertuples()
                for start_s in _starts(one.start_s, one.end_s, end_s, period, stride)
            }
        )
        n_windows = 0
        for start_s in starts:
            window = (start_s, min(start_s + period, end_s))
            labels = _labels_in(own, window, min_overlap)
            absent = () if labels or _is_undecided(own, window) else _absent_in(own, window)
            if labels or absent:
                inside = [(label, 0.0, window[1] - start_s) for label in labels]
                refuted = () if NO_BIRD in absent else absent
                rows.append((filename, start_s, 2 * n_windows, labels, inside, refuted))
                n_windows += 1
    return pd.DataFrame(rows, columns=[*WINDOW_COLUMNS, REFUTED_COLUMN])


def _starts(
    begin_s: float, end_s: float, recording_s: float, period: float, stride: float
) -> Iterator[float]:
    """Give the starts of a clip's windows."""
    if end_s >= recording_s - SLACK_S and end_s - begin_s < period:
        yield min(begin_s, max(0.0, recording_s - SLACK_S))
    elif end_s - begin_s < period - SLACK_S:
        middle_s = (begin_s + end_s - period) / 2
        yield min(max(0.0, middle_s), max(0.0, recording_s - period))
    else:
        n_windows = 1 + int((end_s - begin_s - period + SLACK_S) // stride)
        yield from (begin_s + number * stride for number in range(n_windows))


def _labels_in(
    own: pd.DataFrame, window: tuple[float, float], min_overlap: float
) -> tuple[str, ...]:
    """Return the labels that count in a window, the one that sings longest first."""
    start_s, end_s = window
    begin, end = own["start_s"].to_numpy(float), own["end_s"].to_numpy(float)  # (n,)
    counts, overlap_s = count_in_window(begin, end, start_s, end_s - start_s, min_overlap)
    covers = (begin <= start_s + SLACK_S) & (end >= end_s - SLACK_S)
    is_yes = (own["verdict"] == "yes").to_numpy()
    confirmed = set(own["label"][is_yes & covers])
    refuted = set(own["refuted"][covers & (own["verdict"] == "no").to_numpy()]) - confirmed
    if NO_BIRD in refuted:
        refuted |= set(own["label"]) - confirmed

    total: dict[str, float] = {}
    for label, length in zip(
        own["label"][is_yes & counts], overlap_s[is_yes & counts], strict=True
    ):
        total[label] = max(total.get(label, 0.0), float(length))
    found = [label for label in total if label not in refuted]
    return tuple(sorted(found, key=lambda label: (-total[label], label)))


def _is_undecided(own: pd.DataFrame, window: tuple[float, float]) -> bool:
    """Say whether a clip that nobody decided reaches into a window."""
    start_s, end_s = window
    reaches = (own["start_s"] < end_s - SLACK_S) & (own["end_s"] > start_s + SLACK_S)
    return bool((reaches & (own["verdict"] == "unsure")).any())


def _absent_in(own: pd.DataFrame, window: tuple[float, float]) -> tuple[str, ...]:
    """Return the species, or NO_BIRD, that clips with a "no" refute for a whole window."""
    said = own[own["verdict"] == "no"]
    names = sorted(set(said["refuted"]))
    return tuple(
        one for one in names if _covers(said[said["refuted"].isin({one, NO_BIRD})], window)
    )


def _covers(clips: pd.DataFrame, window: tuple[float, float]) -> bool:
    """Say whether clips cover a window without a gap."""
    start_s, end_s = window
    inside = clips[(clips["start_s"] < end_s - SLACK_S) & (clips["end_s"] > start_s + SLACK_S)]
    reached_s = start_s
    for one in inside.sort_values("start_s").itertuples():
        if one.start_s > reached_s + SLACK_S:
            return False
        reached_s = max(reached_s, one.end_s)
    return bool(reached_s >= end_s - SLACK_S)


def count_verdicts(spans: pd.DataFrame) -> dict[str, int]:
    """Count the verdicts on clips: yes, no and unsure, and say them in the log."""
    counts = {name: int((spans["verdict"] == name).sum()) for name in ("yes", "no", "unsure")}
    logger.info("reviewed clips: %(yes)d yes, %(no)d no, %(unsure)d not decided", counts)
    return counts


def without_undecided(spans: pd.DataFrame) -> pd.DataFrame:
    """Leave out recordings of which nothing was decided."""
    decided = set(spans.loc[spans["verdict"] != "unsure", "filename"])
    return spans[spans["filename"].isin(decided)]
