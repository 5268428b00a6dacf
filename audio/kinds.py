"""Which files of a folder are recordings: by their suffix, or by their first bytes.

prepare_audios.py and predict.py list recordings with this, so that what one reads the other reads.
"""

import os
import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

# What libsndfile reads.
READ = frozenset(
    (
        *(".ogg", ".oga", ".opus", ".mp3", ".wav", ".wave", ".flac", ".aiff", ".aif", ".aifc"),
        *(".au", ".snd", ".caf", ".w64", ".rf64"),
    )
)
# Suffixes by libsndfile's name of the format that they stand for.
USUAL_SUFFIXES = {
    "OGG": (".ogg", ".oga", ".opus"),
    "MP3": (".mp3",),
    "WAV": (".wav", ".wave"),
    "WAVEX": (".wav", ".wave"),
    "RF64": (".wav", ".rf64"),
    "W64": (".w64",),
    "FLAC": (".flac",),
    "AIFF": (".aiff", ".aif", ".aifc"),
    "AU": (".au", ".snd"),
    "CAF": (".caf",),
}
# Sound that it does not read.
OTHER_SOUND = frozenset(
    (
        *(".m4a", ".m4b", ".aac", ".wma", ".mp4", ".mov", ".mkv", ".mka", ".webm", ".avi", ".3gp"),
        *(".amr", ".ape", ".wv", ".tta", ".mpc", ".dsf", ".wac", ".ac3", ".ra", ".mp2"),
    )
)
# How the files begin that libsndfile reads; a name may say anything.
BEGINNINGS = (
    *(b"OggS", b"RIFF", b"RIFX", b"RF64", b"riff", b"fLaC", b"ID3", b"FORM", b".snd", b"caff"),
)
# Of those that also hold other things, what bytes 8 to 11 say of sound.
SOUND_INSIDE = {b"RIFF": (b"WAVE",), b"RIFX": (b"WAVE",), b"FORM": (b"AIFF", b"AIFC")}
# How sound begins that libsndfile does not read: WavPack, Monkey's Audio, AMR, WMA, TTA, Musepack.
OTHER_BEGINNINGS = (b"wvpk", b"MAC ", b"#!AMR", b"\x30\x26\xb2\x75", b"TTA1", b"MPCK", b"MP+")
MPEG_4_SOUND = (b"ftypM4A ", b"ftypM4B ")  # at byte 4
MPEG_AUDIO = 0xFFE0  # the first eleven bits of an MP3's frame
HIDDEN_FOLDERS = ("__MACOSX", "$RECYCLE.BIN", "System Volume Information", "lost+found")


@dataclass
class Listing:
    """What lies in a folder. Names are paths below it, with slashes, sorted.

    Attributes:
        recordings: files that libsndfile should read.
        unread: files of sound that it cannot read, by name, with the reason and what to do.
        links: links that lead out of the folder and were not followed.
        others: how many files of each other suffix there are.
    """

    recordings: list[str] = field(default_factory=list)
    unread: dict[str, str] = field(default_factory=dict)
    links: list[str] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)


def list_recordings(folder: Path, *, follow_links: bool) -> Listing:
    """List the recordings below a folder; hidden files and folders are left out.

    Args:
        folder: where to look, at any depth.
        follow_links: also read what lies behind links that lead out of the folder. A link to
            another place inside it is left out if it is a folder: its recordings are listed there.

    Raises:
        OSError: a folder cannot be read.
    """
    listing = Listing()
    root = os.path.realpath(folder)
    for entry, is_outside in _walk(str(folder), root, follow_links, set()):
        name = os.path.relpath(entry.path, folder).replace(os.sep, "/")
        if is_outside and not follow_links:
            listing.links.append(name)
        else:
            _add(listing, entry, name)

    listing.recordings.sort()
    listing.links.sort()
    listing.unread = dict(sorted(listing.unread.items()))
    return listing


def _walk(
    folder: str, root: str, follow_links: bool, seen: set[tuple[int, int]]
) -> Iterator[tuple[os.DirEntry[str], bool]]:
    """Give the files below a folder, and links out of `root`; say of each whether it is one."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name.startswith(".") or entry.name in HIDDEN_FOLDERS:
            continue

        is_outside = entry.is_symlink() and not _lies_in(os.path.realpath(entry.path), root)
        if not _is_folder(entry):
            yield entry, is_outside
        elif is_outside and not follow_links:
            yield entry, True
        elif is_outside or not entry.is_symlink():
            place = entry.stat()
            if (place.st_dev, place.st_ino) not in seen:  # else a link leads round in a circle
                inside = seen | {(place.st_dev, place.st_ino)}
                yield from _walk(entry.path, root, follow_links, inside)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Say whether an entry is a folder; a link that leads round in a circle is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _lies_in(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip(os.sep) + os.sep)


def _add(listing: Listing, entry: os.DirEntry[str], name: str) -> None:
    suffix = os.path.splitext(entry.name)[1].lower()
    if suffix in READ:
        listing.recordings.append(name)
    elif suffix in OTHER_SOUND:
        listing.unread[name] = how_to_convert(entry.path)
    elif begins_as_sound(entry.path):
        listing.recordings.append(name)
    elif begins_as_other_sound(entry.path):
        listing.unread[name] = how_to_convert(entry.path)
    else:
        listing.others[suffix or "no suffix"] += 1


def how_to_convert(path: str) -> str:
    """Say that libsndfile does not read a file, and the command that converts it."""
    kind = os.path.splitext(path)[1][1:].upper() or "this format"
    return f"libsndfile cannot read {kind}; convert it: {conversion(path)}"


def conversion(path: str | Path) -> str:
    """Return the command that converts a file to FLAC, for the folder that it lies in."""
    name = os.path.basename(path)
    stem = os.path.splitext(name)[0]
    return f"ffmpeg -i {shlex.quote(name)} {shlex.quote(stem + '.flac')}"


def begins_as_sound(path: str | Path) -> bool:
    """Say whether a file begins as one of sound does that libsndfile reads."""
    if not os.path.isfile(path):
        return False
    try:
        start = _read_start(path)
    except OSError:
        return True  # reading it will say why it cannot be read

    inside = SOUND_INSIDE.get(start[:4])
    if inside and start[8:12] not in (*inside, b""):
        return False  # a picture or a film
    return start.startswith(BEGINNINGS) or _is_mpeg_audio(start)


def begins_as_other_sound(path: str | Path) -> bool:
    """Say whether a file begins as one of sound does that libsndfile does not read."""
    if not os.path.isfile(path):
        return False
    start = _read_start(path)
    return start.startswith(OTHER_BEGINNINGS) or start[4:].startswith(MPEG_4_SOUND)


def _read_start(path: str | Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(12)


def _is_mpeg_audio(start: bytes) -> bool:
    """Say whether this is the header of an MPEG audio frame of layer III."""
    if len(start) < 4 or int.from_bytes(start[:2], "big") & MPEG_AUDIO != MPEG_AUDIO:
        return False
    layer, rate, bits = start[1] >> 1 & 3, start[2] >> 2 & 3, start[2] >> 4
    return layer == 1 and rate != 3 and bits not in (0, 15)
