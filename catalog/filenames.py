"""File names: what a table may call a recording, and what lies below a folder."""

import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pandas as pd

from catalog.identity import archive_id
from catalog.plain_paths import is_plain_path
from catalog.tables import refuse
from configs import UserError, some

UPWARDS = re.compile(r"(?:^|/)\.\.(?:/|$)|\0")
PERCENT = re.compile(r"(?:%[0-9A-Fa-f]{2})+")  # bytes as a web address writes them
NOT_IN_NAMES = re.compile(r"[/\\\x00-\x1f\x7f]")
AUDIO_SUFFIX = re.compile(
    r"\.(wav|mp3|ogg|oga|opus|flac|aiff?|au|caf|w64|m4a|aac|wma)$", re.IGNORECASE
)


# From a table's names to files --------------------------------------------------------------------


def match_filenames(
    names: pd.Series, labels: pd.Series, files: Sequence[str], *, folder: Path, source: str
) -> tuple[pd.Series, Counter[str]]:
    r"""Find the file that each row of a table means.

    A name is taken as it stands where there is such a file. Else it may differ from the one file
    that fits, and that no other row names better, by: spaces around it, `\` for `/`, folders before
    it, case, the form of accents, characters as a web address writes them (`%20` for a space), the
    suffix, or all but a xeno-canto number and the like.

    Args:
        names: (n_rows,) file names of the table, the index its rows.
        labels: (n_rows,) in whose folder a name without a folder is looked for first.
        files: POSIX paths of all recordings, relative to the audio folder.
        folder: the audio folder, with which absolute names may begin.
        source: the table's path, for messages.

    Returns:
        (n_rows,) the file of each row, or its tidied name where no file fits; and how many names
        differ from their file, by the way in which they do.

    Raises:
        UserError: several files fit a name.
    """
    known = set(files)
    is_known = names.isin(known)
    if is_known.all():
        return names, Counter()

    tidy = names.map(lambda name: tidy_path(name, folder))
    found = {row: name for row, name in tidy.items() if name in known}
    found |= {row: name for row, name in names.items() if name in known}

    for with_suffix in (True, False):
        if len(found) == len(names):
            break
        lookup = _Lookup(known - set(found.values()), with_suffix=with_suffix)
        for way in lookup.ways():
            hits = {}
            for row in names.index.difference(list(found)):
                if UPWARDS.search(tidy[row]):
                    continue  # never followed, whatever its end is called
                paths = way(tidy[row], labels[row])
                _refuse_several(row, names[row], paths, source)
                if paths:
                    hits[row] = paths[0]
            found |= hits
            lookup.free -= set(hits.values())

    matched = [found.get(row, tidy[row]) for row in names.index]
    pairs = [(names[row], path) for row, path in found.items() if names[row] != path]
    repairs = Counter(describe_repair(name, path) for name, path in pairs)
    return pd.Series(matched, names.index, dtype=str, name=names.name), repairs


class _Lookup:
    """Files that no row has named yet, found by their names without case and form of accents."""

    def __init__(self, files: Iterable[str], *, with_suffix: bool) -> None:
        self.free = set(files)
        self._with_suffix = with_suffix
        self._by_path: dict[str, list[str]] = defaultdict(list)
        self._by_tail: dict[str, list[str]] = defaultdict(list)
        self._by_id: dict[str, list[str]] = defaultdict(list)
        for path in sorted(files):
            key = self._key(path)
            self._by_path[key].append(path)
            self._by_id[archive_id(path)].append(path)
            for tail in _tails(key):
                self._by_tail[tail].append(path)

    def ways(self) -> list[Callable[[str, str], list[str]]]:
        """Return the ways to look for (name, label), the surest first."""
        ways: list[Callable[[str, str], list[str]]] = [
            self._in_folder_of_label,
            self._same_path,
            self._part_of_name,
            self._part_of_file,
        ]
        if not self._with_suffix:
            ways.append(self._same_id)
        return ways

    def _key(self, name: str) -> str:
        name = name if self._with_suffix else AUDIO_SUFFIX.sub("", name)
        return fold_name(name)

    def _get(self, paths: dict[str, list[str]], key: str) -> list[str]:
        return [path for path in paths.get(key, []) if path in self.free]

    def _in_folder_of_label(self, name: str, label: str) -> list[str]:
        return self._get(self._by_path, self._key(f"{label}/{name}"))

    def _same_path(self, name: str, label: str) -> list[str]:
        return self._get(self._by_path, self._key(name))

    def _part_of_name(self, name: str, label: str) -> list[str]:
        """`/home/ann/birds/wren/1.wav` for wren/1.wav: the table has more folders."""
        found = (self._get(self._by_path, tail) for tail in _tails(self._key(name)))
        return next((paths for paths in found if paths), [])

    def _part_of_file(self, name: str, label: str) -> list[str]:
        """`1.wav` for wren/2023/1.wav: the table has fewer folders, or none."""
        paths = self._get(self._by_tail, self._key(name))
        if len(paths) > 1:
            start = self._key(label) + "/"
            paths = [path for path in paths if self._key(path).startswith(start)] or paths
        return paths

    def _same_id(self, name: str, label: str) -> list[str]:
        """`XC123456` for wren/XC123456 - Troglodytes troglodytes.mp3."""
        number = archive_id(name)
        if not number and name.isdecimal():
            return self._get(self._by_id, f"XC{name}") or self._get(self._by_id, f"ML{name}")
        return self._get(self._by_id, number) if number else []


def _tails(path: str) -> list[str]:
    """Return what is left of a path after one, two, ... folders are dropped: b/c and c of a/b/c."""
    parts = path.split("/")
    return ["/".join(parts[start:]) for start in range(1, len(parts))]


def tidy_path(name: str, folder: Path) -> str:
    r"""Write a name as a POSIX path, without spaces around it, `.` parts and the audio folder."""
    name = name.strip().strip("\ufeff\u200b").strip("\"'").replace("\\", "/")
    root = os.path.abspath(folder).replace(os.sep, "/") + "/"
    name = name.removeprefix(root)
    return re.sub(r"(?<=/)(?:\./|/)+", "", re.sub(r"^(?:\./+)+", "", name))


def describe_repair(name: str, path: str) -> str:
    r"""Say how a table's name differs from the file it was matched to: "after changing \ to /"."""
    changes = []
    if "\\" in name:
        changes.append("changing \\ to /")
        name = name.replace("\\", "/")
    if name != name.strip().strip("\"'"):
        changes.append("dropping spaces or quotes around them")
        name = name.strip().strip("\"'")
    changes += _compare_folders(name, path)
    changes += _compare_files(name.rsplit("/", 1)[-1], path.rsplit("/", 1)[-1])
    return "after " + " and ".join(changes or [_compare_spelling(name, path)])


def _compare_spelling(name: str, path: str) -> str:
    if "%" in name and _decode_percent(name) != name:
        return "reading %20 and the like as characters"
    return "ignoring case or the form of accents"


def _compare_folders(name: str, path: str) -> list[str]:
    if name.count("/") > path.count("/") or "./" in name:
        return ["dropping folders before them"]
    if name.count("/") < path.count("/"):
        return ["adding the folder"]
    same = fold_name(name.rpartition("/")[0]) == fold_name(path.rpartition("/")[0])
    return [] if same else ["taking another folder"]


def _compare_files(name: str, path: str) -> list[str]:
    stem, file_stem = AUDIO_SUFFIX.sub("", name), AUDIO_SUFFIX.sub("", path)
    if fold_name(stem) != fold_name(file_stem):
        return ["comparing the number in the name alone"]
    if fold_name(name) != fold_name(path):
        return ["taking another suffix"]
    return [_compare_spelling(name, path)] if name != path else []


def fold_name(name: str) -> str:
    """Give names that differ only in case, the form of accents or `%20` for a space the same form.

    What `%` and two digits stand for is kept as it is if it is no UTF-8, or a slash or control
    character, which would make another path of a name.
    """
    return unicodedata.normalize("NFC", _decode_percent(name)).casefold()


def _decode_percent(name: str) -> str:
    def decode(match: re.Match[str]) -> str:
        try:
            text = bytes.fromhex(match[0].replace("%", "")).decode()
        except UnicodeDecodeError:
            return match[0]
        return match[0] if NOT_IN_NAMES.search(text) else text

    return PERCENT.sub(decode, name) if "%" in name else name


def _refuse_several(row: object, name: str, paths: list[str], source: str) -> None:
    if len(paths) < 2:
        return
    raise UserError(
        f"{source}: row {row}: {len(paths)} files fit filename {name!r}: {some(paths)}; write the "
        "path of the one you mean"
    )


def check_filenames(names: pd.Series, source: str) -> None:
    """Refuse file names that are no plain paths below the audio folder, and those listed twice.

    Raises:
        UserError: a name that is absolute, has `..` or control characters, or starts as a formula;
            or several rows for one file (in another case too: on some disks that is one file).
    """
    refuse(
        names[~names.map(is_plain_path).astype(bool)],
        "is not a plain path in the audio folder",
        "write it like a/XC1.ogg; a recording of such a name has to be renamed and prepared again",
        source=source,
    )
    refuse(
        names[names.str.casefold().duplicated(keep=False)],
        "stands in several rows, perhaps in other case",
        "keep one row per recording, with its other species in secondary_labels",
        source=source,
    )


# Files below a folder -----------------------------------------------------------------------------


def list_files(folder: Path, suffix: str = "") -> tuple[list[str], list[str]]:
    """List the files below a folder, and the links that lead out of it.

    Both are sorted POSIX paths relative to the folder; none where there is no such folder. Links to
    folders are not followed.
    """
    root = os.path.realpath(folder)
    paths = [
        os.path.join(top, name) for top, folders, names in os.walk(root) for name in folders + names
    ]
    files = [path for path in paths if path.endswith(suffix) and os.path.isfile(path)]
    links = [path for path in paths if os.path.islink(path) and not _leads_inside(path, root)]
    return _relative(files, root), _relative(links, root)


def _leads_inside(path: str, root: str) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(root)


def _relative(paths: list[str], root: str) -> list[str]:
    return sorted(path[len(root) + 1 :].replace(os.sep, "/") for path in paths)


def refuse_links(paths: pd.Series, links: list[str], folder: Path, source: str) -> None:
    """Refuse rows whose file is a link out of the folder, or lies behind one."""
    behind = paths.isin(links) | paths.str.startswith(tuple(f"{link}/" for link in links))
    refuse(paths[behind], f"is a link out of {folder}", "put the file itself there", source=source)
