"""Which recording a table of annotations means: by its path, its name, or its own folder."""

from collections.abc import Iterable
from pathlib import PurePosixPath

from catalog.filenames import AUDIO_SUFFIX, fold_name
from configs import UserError


class RecordingNames:
    """Finds recordings by their path, any end of it, with or without the suffix.

    Case and the form of accents make no difference. Tables may lie in folders below that of the
    annotations: where these have the names of folders of recordings, a table means recordings of
    its own folder alone.

    Args:
        recordings: paths below the audio folder.
        folders: of the tables, below that of the annotations.
    """

    def __init__(self, recordings: Iterable[str], folders: Iterable[str] = ()) -> None:
        self._by_key: dict[str, set[str]] = {}
        self.strangers: dict[str, str] = {}  # a name that fits no recording, and where it stands
        audio_folders = set()
        for name in recordings:
            path = PurePosixPath(name)
            audio_folders.add(fold_name(path.parent.name))
            for tail in _tails(path):
                for key in {str(tail), str(tail.with_suffix(""))}:
                    self._by_key.setdefault(fold_name(key), set()).add(name)

        audio_folders.discard("")
        table_folders = {fold_name(PurePosixPath(folder).name) for folder in folders}
        self._are_mirrored = not table_folders.isdisjoint(audio_folders)

    def find(self, text: str, where: str, folder: str = "") -> str | None:
        """Return the one recording that a table's text means; None where there is none.

        Args:
            text: a cell of the table, or what its own name says.
            where: its place, for messages.
            folder: the table's own, below that of the annotations.

        Raises:
            UserError: two recordings fit.
        """
        path = PurePosixPath(folder, text.strip().strip("\"'").replace("\\", "/"))
        tails = _tails(path)
        if folder and self._are_mirrored:
            tails = tails[:-1]  # the bare name would take a recording of another folder

        for tail in tails:  # the longest end of the path that fits
            for key in (str(tail), AUDIO_SUFFIX.sub("", str(tail))):
                fitting = self._by_key.get(fold_name(key), set())
                exact = {name for name in fitting if fold_name(name).startswith(fold_name(key))}
                fitting = exact if len(exact) == 1 else fitting
                if len(fitting) > 1:
                    shown = " and ".join(sorted(fitting)[:2])
                    raise UserError(
                        f"{where}: {text!r} fits {shown}; write its path below the audio folder"
                    )
                if fitting:
                    return next(iter(fitting))

        self.strangers.setdefault(text, where)
        return None


def _tails(path: PurePosixPath) -> list[PurePosixPath]:
    """Return a path and what is left of it after one, two, ... folders are dropped."""
    return [PurePosixPath(*path.parts[first:]) for first in range(len(path.parts))]
