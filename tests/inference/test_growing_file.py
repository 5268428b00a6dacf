"""A file that a killed run leaves for the next one."""

import subprocess
import sys

import pytest

from files import CannotWriteError
from inference.growing_file import GrowingFile

KILLED = """
import os, pathlib, signal, sys
from inference.growing_file import GrowingFile
file = GrowingFile(pathlib.Path(sys.argv[1]))
file.append(b"first")
file.append(b"second")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_appended_survives_a_kill(tmp_path, request):
    path = tmp_path / "deep" / "file"
    line = [sys.executable, "-c", KILLED, str(path)]
    killed = subprocess.run(line, cwd=request.config.rootpath, check=False)
    assert killed.returncode < 0 and path.read_bytes() == b"firstsecond"

    again = GrowingFile(path)
    assert again.size() == 11
    again.truncate(5)
    again.append(b" third")
    again.close()
    assert path.read_bytes() == b"first third"


def test_a_folder_in_the_way_is_one_line(tmp_path):
    with pytest.raises(CannotWriteError, match="cannot be written: Is a directory"):
        GrowingFile(tmp_path)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/dev/full is Linux's")
def test_a_full_disk_is_one_line(tmp_path):
    (tmp_path / "full").symlink_to("/dev/full")
    file = GrowingFile(tmp_path / "full")
    with pytest.raises(CannotWriteError, match="full: cannot be written: No space left"):
        file.append(b"x")
    file.close()  # and no second error in place of the first
