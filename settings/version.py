"""The version of this project, and of all that a run depends on."""

import contextlib
import functools
import importlib.metadata
import platform
import subprocess
from pathlib import Path

__version__ = "0.1.0"

DEPENDENCIES = [
    "numpy",
    "pandas",
    "scikit-learn",
    "torch",
    "torchvision",
    "timm",
    "librosa",
    "soundfile",
    "soxr",
    "scipy",
    "torchlibrosa",
    "albumentations",
    "colorednoise",
    "matplotlib",
    "joblib",
    "tqdm",
    "pydantic",
    "tyro",
    "PyYAML",
]


@functools.cache
def versions() -> dict[str, str]:
    """Collect the versions of this project, Python and packages, and the git commit."""
    found = {
        "project": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
    }
    for name in DEPENDENCIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)

    root = Path(__file__).resolve().parent.parent
    git = ["git", "-C", str(root), *"describe --always --dirty --abbrev=12".split()]
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        answer = subprocess.run(git, capture_output=True, text=True, timeout=10, check=False)
        found["git_commit"] = answer.stdout.strip() or "not a git checkout"
    return found
