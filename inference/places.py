"""When and where a recording was made, from its file's name and header.

Recorders write it in one of these ways:

- AudioMoth: 20230501_050000.WAV, in UTC unless its header says another zone; a comment in the
  header, "Recorded at 05:00:00 01/05/2023 (UTC+2) by AudioMoth 24F3..."; older ones a name of eight
  hexadecimal digits, the seconds since 1970.
- Song Meter: SITE_20230501_050000.wav, in its clock's time, and GUANO metadata in a chunk of the
  file (Timestamp, guano-md.org).
- Swift and others: SITE_20230501_050000.wav, SITE_20230501T050000Z.wav, 2023-05-01_05-00-00.wav,
  2023-05-01T05.00.00.wav, 20230501050000.wav.
"""

import re
import struct
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple
from zoneinfo import ZoneInfo

from configs import UserError

IN_NAME = re.compile(
    r"(?P<site>.*?)[_\-. ]?(?<!\d)"
    r"(?P<date>(?:19|20)\d\d-?(?:0[1-9]|1[0-2])-?(?:0[1-9]|[12]\d|3[01]))"
    r"(?:[_\-T$ ]|(?=\d{6}(?!\d)))"
    r"(?P<time>(?:[01]\d|2[0-3])[-:h.]?[0-5]\d(?:[-:m.]?[0-5]\d)?)"
    r"(?P<zone>Z|[+-]\d{4})?(?!\d).*"
)
HEXADECIMAL = re.compile(r"[0-9A-F]{8}")
AUDIOMOTH = re.compile(
    r"Recorded at (?P<time>\d\d:\d\d:\d\d)(?:\.\d+)? (?P<date>\d\d/\d\d/\d{4}) "
    r"\(UTC(?P<sign>[+-])?(?P<hours>\d+)?(?::(?P<minutes>\d\d))?\)"
)
GUANO_TIME = re.compile(r"^Timestamp:\s*(\S+)", re.MULTILINE)
LARGEST_CHUNK = 2**16  # bytes of metadata that are read


class Made(NamedTuple):
    """When and where a recording was made.

    Attributes:
        site: folder, or what the file's name says before its date; "" if neither does.
        start: when it began, with its zone if that is known; None if nothing says it.
    """

    site: str
    start: datetime | None

    def at(self, seconds: float) -> tuple[str, str]:
        """Date and time of a place in the recording, `2023-05-01` and `05:00:05+02:00`."""
        if self.start is None:
            return "", ""
        moment, zone = self.start, self.start.tzinfo
        if zone is not None:  # a clock may be changed during the night
            moment = moment.astimezone(UTC)
        moment = (moment + timedelta(seconds=seconds)).replace(microsecond=0)
        if zone is not None:
            moment = moment.astimezone(zone)
        date, _, time = moment.isoformat().partition("T")
        return date, time


def read_zone(name: str | None) -> tzinfo | None:
    """Find a time zone by its name, `Europe/Berlin` or `UTC` (UserError: there is none)."""
    if name is None:
        return None
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        raise UserError(f"--time-zone {name}: no such zone; give one as Europe/Berlin") from None


def when_and_where(name: str, path: Path | None, zone: tzinfo | None) -> Made:
    """Find out when and where a recording was made; its header counts before its name.

    Args:
        name: of the recording, a path with slashes.
        path: its file; None reads no header.
        zone: of the recorder's clock, where nothing says another; times are given in it.
    """
    pure = PurePosixPath(name)
    match = IN_NAME.fullmatch(pure.stem)
    site = match["site"].strip("_-. ") if match else ""
    start = _from_header(path) or (_from_name(match) if match else _from_hexadecimal(pure.stem))
    if start is not None and zone is not None:
        start = start.replace(tzinfo=zone) if start.tzinfo is None else start.astimezone(zone)
    return Made(site or pure.parent.name, start)


def _from_name(match: re.Match[str]) -> datetime | None:
    date, time = (re.sub(r"\D", "", match[part]) for part in ("date", "time"))
    try:
        start = datetime.strptime(date + time.ljust(6, "0"), "%Y%m%d%H%M%S")
    except ValueError:  # the 31st of February
        return None
    if match["zone"]:
        start = start.replace(tzinfo=datetime.strptime(match["zone"], "%z").tzinfo)
    return start


def _from_hexadecimal(stem: str) -> datetime | None:
    if not HEXADECIMAL.fullmatch(stem):
        return None
    return datetime.fromtimestamp(int(stem, 16), UTC)


def _from_header(path: Path | None) -> datetime | None:
    """Read the time that AudioMoth or GUANO wrote into a WAV; None where there is neither."""
    if path is None or path.suffix.lower() not in (".wav", ".wave"):
        return None
    try:
        with open(path, "rb") as file:
            text = _read_metadata(file)
        return _from_audiomoth(text) or _from_guano(text)
    except (OSError, ValueError, struct.error):  # a stranger's header may hold anything
        return None


def _read_metadata(file: BinaryIO) -> str:
    """Join the texts of a WAV's LIST and GUANO chunks."""
    if file.read(4) != b"RIFF" or file.read(8)[4:] != b"WAVE":
        return ""
    texts = []
    while len(header := file.read(8)) == 8:
        kind, size = struct.unpack("<4sI", header)
        here = file.tell()
        if kind in (b"LIST", b"guan"):
            texts.append(file.read(min(size, LARGEST_CHUNK)).decode(errors="replace"))
        file.seek(here + size + size % 2)
    return "\n".join(texts)


def _from_audiomoth(text: str) -> datetime | None:
    match = AUDIOMOTH.search(text)
    if match is None:
        return None
    away = timedelta(hours=int(match["hours"] or 0), minutes=int(match["minutes"] or 0))
    zone = timezone(-away if match["sign"] == "-" else away)
    start = datetime.strptime(f"{match['date']} {match['time']}", "%d/%m/%Y %H:%M:%S")
    return start.replace(tzinfo=zone)


def _from_guano(text: str) -> datetime | None:
    match = GUANO_TIME.search(text)
    return datetime.fromisoformat(match[1]) if match else None
