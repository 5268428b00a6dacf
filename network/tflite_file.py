"""TFLite files as ai-edge-litert opens them, and texts that lie in the same file.

Texts are the members of a ZIP archive behind the graph, which interpreters pass over. That is how
TFLite's own metadata carry labels (tensorflow.org/lite/models/convert/metadata), so `unzip` and
Android's tools read them, too.
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

NO_DATE = (1980, 1, 1, 0, 0, 0)  # a ZIP's first: the same model makes the same bytes


def open_interpreter(path: Path, n_threads: int = 1, *, every_tensor: bool = False) -> Any:
    """Open a file, ready to run, for one thread at a time.

    Args:
        path: .tflite.
        n_threads: that one run may use.
        every_tensor: keep what every tensor holds, not the outputs alone.

    Raises:
        ModuleNotFoundError: ai-edge-litert is not installed.
        ValueError, RuntimeError: the library's own, for a file that it cannot read.
    """
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(
        str(path), num_threads=n_threads, experimental_preserve_all_tensors=every_tensor
    )
    interpreter.allocate_tensors()
    return interpreter


def add_texts(path: Path, texts: Mapping[str, str]) -> None:
    """Put texts, by name, behind the graph of a file that has none yet."""
    with zipfile.ZipFile(path, "a") as archive:
        for name, text in texts.items():
            archive.writestr(zipfile.ZipInfo(name, NO_DATE), text)


def read_text(path: Path, name: str) -> str | None:
    """Read a text of a file; None where it has none of this name."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.read(name).decode()
    except (zipfile.BadZipFile, KeyError):
        return None
