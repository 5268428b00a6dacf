"""Files whole or not at all: writers are killed at every line, disks become full, names are odd."""

import contextlib
import csv
import errno
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import files
from files import (
    CannotWriteError,
    LockedError,
    append_rows,
    locked,
    original_cell,
    replacing,
    safe_cell,
    shorten,
    sweep_parts,
    write_file,
)

ROOT = Path(__file__).resolve().parent.parent
POSIX = pytest.mark.skipif(os.name == "nt", reason="kills by signal")

# Runs an action again and again, each time in a child that is killed before the next line of
# files.py, until the child reaches the end. Prints what a reader finds after each time.
KILLER = """
import json, os, signal, sys
from pathlib import Path
import files

def run_until(line, action):
    left = line
    def trace(frame, event, argument):
        nonlocal left
        if frame.f_code.co_filename != files.__file__:
            return None
        if event == "line":
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace
    sys.settrace(trace)
    action()
    os._exit(0)

def replace():
    with files.replacing(path) as file:
        for piece in NEW:
            file.write(piece.encode())
            file.flush()

def append():
    files.append_rows(path, [["b", "2"]], header=["name", "count"])

path, OLD, NEW = Path(sys.argv[1]), sys.argv[2], ["new ", "content ", "in pieces\\n"]
found = []
for line in range(1000):
    path.write_text(OLD)
    child = os.fork() or run_until(line, {"replace": replace, "append": append}[sys.argv[3]])
    _, status = os.waitpid(child, 0)
    others = sorted(one.name for one in path.parent.iterdir() if one != path)
    found.append([path.read_text(), others])
    for other in others:
        (path.parent / other).unlink()
    if os.WIFEXITED(status):
        break
print(json.dumps(found))
"""


def run_python(code: str, *args: object) -> str:
    answer = subprocess.run(
        [sys.executable, "-c", code, *map(str, args)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


# Whole files --------------------------------------------------------------------------------------


@POSIX
def test_a_writer_killed_at_any_line_leaves_the_old_content_or_the_new(tmp_path):
    old, new = "old\n", "new content in pieces\n"
    found = json.loads(run_python(KILLER, tmp_path / "a.txt", old, "replace"))

    contents = [content for content, _ in found]
    assert len(contents) > 20 and set(contents) == {old, new}
    n_old = contents.count(old)
    assert contents == [old] * n_old + [new] * (len(contents) - n_old)

    # Some died half-way: what they left has another name, which says that it is a part.
    names = [name for _, others in found for name in others]
    assert names and all(files.PART.fullmatch(name) for name in names)
    assert found[-1] == [new, []]


def test_an_exception_in_the_block_leaves_the_old_content_and_no_part(tmp_path):
    path = tmp_path / "deep" / "a.bin"
    write_file(path, b"old")

    for error in (KeyError("mistake"), KeyboardInterrupt()):
        with pytest.raises(type(error)), replacing(path) as file:
            file.write(b"half")
            raise error

    assert path.read_bytes() == b"old" and os.listdir(path.parent) == ["a.bin"]


def test_text_is_written_as_it_is(tmp_path):
    path = tmp_path / "a.csv"
    not_utf8 = os.fsdecode(b"caf\xe9")
    write_file(path, f"Zoë\r\nb\n{not_utf8}")
    assert path.read_bytes() == b"Zo\xc3\xab\r\nb\ncaf\xe9"


def test_what_is_written_can_be_read_back_in_the_block(tmp_path):
    with replacing(tmp_path / "a.bin", durable=False) as file:
        file.write(b"0123456789")
        file.seek(4)
        assert file.read(3) == b"456"
        assert not (tmp_path / "a.bin").exists()


@POSIX
def test_a_full_disk_is_one_line_and_leaves_the_old_content(tmp_path):
    """A limit on file sizes stands for a disk that takes 5 more bytes."""
    write_file(tmp_path / "a.txt", "old")
    code = """
import resource, sys
from pathlib import Path
from files import write_file
resource.setrlimit(resource.RLIMIT_FSIZE, (5, 5))
try:
    write_file(Path(sys.argv[1]), "much too long")
except OSError as error:
    print(error)
"""
    said = run_python(code, tmp_path / "a.txt")
    assert said == (
        f"{tmp_path}/a.txt: cannot be written: File too large; what was there before is unchanged\n"
    )
    assert os.listdir(tmp_path) == ["a.txt"] and (tmp_path / "a.txt").read_text() == "old"


def test_a_folder_in_the_way_is_named(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(CannotWriteError, match=r"a: cannot be written: .*irectory"):
        write_file(tmp_path / "a", "text")

    (tmp_path / "b").write_text("a file, no folder")
    with pytest.raises(CannotWriteError, match=r"b/c: cannot be written"):
        write_file(tmp_path / "b" / "c", "text")


def test_an_error_of_another_file_passes_as_it_is(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"), replacing(tmp_path / "a"):
        (tmp_path / "nowhere").read_bytes()

    (tmp_path / "folder").mkdir()
    with pytest.raises(CannotWriteError, match="folder: cannot be"), replacing(tmp_path / "a"):
        write_file(tmp_path / "folder", "text")


@POSIX
@pytest.mark.parametrize(("number", "is_error"), [(errno.EINVAL, False), (errno.EIO, True)])
def test_a_folder_that_cannot_be_flushed_is_no_error_but_a_broken_disk_is(
    tmp_path, monkeypatch, number, is_error
):
    def refuse(descriptor):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError) if is_error else contextlib.nullcontext():
        files.flush_folder(tmp_path)
    assert tmp_path.is_dir()


# Parts --------------------------------------------------------------------------------------------


@pytest.fixture
def other_process():
    """A process that sleeps."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def test_sweeping_deletes_what_the_dead_left_and_no_more(tmp_path, other_process):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    living = files.part_path(tmp_path / "a.npy", other_process.pid)
    kept = [living, tmp_path / "a.npy", tmp_path / "depart"]
    swept = [
        files.part_path(tmp_path / "deep" / "b.npy", dead.pid),
        files.part_path(tmp_path / "b.npy"),  # an earlier process had this one's number
        tmp_path / "of_an_earlier_version.part",
        tmp_path / f"c.{2**70}.part",
    ]
    (tmp_path / "deep").mkdir()
    (tmp_path / "folder.part").mkdir()
    for path in kept + swept:
        path.touch()

    with replacing(tmp_path / "now.npy") as file:
        file.write(b"whole")
        assert sorted(sweep_parts(tmp_path)) == sorted(swept)

    assert (tmp_path / "now.npy").read_bytes() == b"whole"
    assert all(path.exists() for path in kept) and not any(path.exists() for path in swept)


def test_on_windows_no_process_is_asked(tmp_path, monkeypatch):
    """There `os.kill(pid, 0)` sends Ctrl-C; a part in use cannot be deleted instead."""
    in_use, free = tmp_path / "a.1.part", tmp_path / "b.1.part"
    in_use.touch()
    free.touch()
    unlink = Path.unlink

    def refuse_in_use(path, missing_ok=False):
        if path.name == in_use.name:
            raise PermissionError(13, "used by another process")
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("a process was signalled"))
    monkeypatch.setattr(Path, "unlink", refuse_in_use)
    monkeypatch.setattr(files.os, "name", "nt")
    swept = sweep_parts(tmp_path)
    monkeypatch.undo()
    assert swept == [free] and in_use.exists()


# Tables -------------------------------------------------------------------------------------------


@POSIX
def test_an_appender_killed_at_any_line_leaves_whole_rows(tmp_path):
    old = "name,count\na,1\n"
    found = json.loads(run_python(KILLER, tmp_path / "a.csv", old, "append"))
    contents = [content for content, _ in found]
    assert len(contents) > 15 and set(contents) == {old, old + "b,2\n"}

    # One that finds part of a row, which an earlier one left, has at first that to lose.
    found = json.loads(run_python(KILLER, tmp_path / "a.csv", old + "b,", "append"))
    whole = {content[: content.rfind("\n") + 1] for content, _ in found}
    assert whole == {old, old + "b,2\n"} and found[-1][0] == old + "b,2\n"


def test_part_of_a_row_is_cut_off_before_the_next(tmp_path):
    path = tmp_path / "a.csv"
    append_rows(path, [["long", "x" * 9000], ["a,b", "1"]], header=["name", "count"])
    content = path.read_bytes()
    assert content == b"name,count\nlong," + b"x" * 9000 + b'\n"a,b",1\n'

    whole = len(b"name,count\n") + len(b"long,") + 9000 + 1
    cuts = [5, len(b"name,count\n"), 5000, whole - 1, whole, len(content) - 1, len(content)]
    for cut in cuts:
        path.write_bytes(content[:cut])
        append_rows(path, [["c", 2]], header=["name", "count"])
        before = content[: content[:cut].rfind(b"\n") + 1] or b"name,count\n"
        assert path.read_bytes() == before + b"c,2\n", cut


@POSIX
def test_a_disk_that_takes_half_a_row_gets_none(tmp_path):
    path = tmp_path / "a.csv"
    append_rows(path, [["a", 1]])
    code = """
import resource, sys
from pathlib import Path
from files import append_rows
resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))
append_rows(Path(sys.argv[1]), [["bb", 2]])
try:
    append_rows(Path(sys.argv[1]), [["c", 3], ["d", 4]])
except OSError as error:
    print(error)
"""
    said = run_python(code, path)
    assert said == f"{path}: cannot be written: File too large; the rows before are unchanged\n"
    assert path.read_text() == "a,1\nbb,2\n"


def test_a_row_is_one_line_and_odd_cells_are_read_back(tmp_path):
    path = tmp_path / "a.csv"
    not_utf8 = os.fsdecode(b"caf\xe9.ogg")
    append_rows(path, [["two\r\nlines", "=1+1", '5" pipe', None, 0.1, not_utf8]])
    with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = list(csv.reader(file))
    assert rows == [["two lines", "'=1+1", '5" pipe', "", "0.1", not_utf8]]
    assert path.read_bytes().count(b"\n") == 1


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("-2+3", "'-2+3"),
        ("\t=1", "'\t=1"),
        ("'=1", "''=1"),
        ("-15.90", "-15.90"),
        ("+1e-3", "+1e-3"),
        ("it's", "it's"),
        ("'tis", "'tis"),
        ("", ""),
    ],
)
def test_formulas_become_text_and_numbers_stay(text, cell):
    assert safe_cell(text) == cell
    assert original_cell(cell) == text


@given(st.text(alphabet=st.sampled_from("'=+-@\t\n1.e\"a,ä\x00"), max_size=8) | st.text())
def test_any_text_comes_back_and_none_is_a_formula(text):
    cell = safe_cell(text)
    assert original_cell(cell) == text.replace("\r\n", "\n").replace("\r", "\n")
    if cell[:1] in tuple("=+-@\t"):
        float(cell)  # a number

    read = next(csv.reader(io.StringIO(files.csv_text([["first", text]])), strict=True))
    assert read == ["first", cell]


# Names --------------------------------------------------------------------------------------------


def test_a_name_that_fits_stays():
    assert shorten("robin_07.wav") == "robin_07.wav"
    assert shorten("ä" * 115) == "ä" * 115  # 230 of 231 bytes


def test_long_names_keep_their_start_and_stay_apart():
    first, second = shorten("ä" * 150 + "1"), shorten("ä" * 150 + "2")
    assert first != second
    assert first.startswith("ä" * 100) and len(first.encode()) <= 231
    assert re.fullmatch(r"a{7}~[0-9a-f]{12}", shorten("a" * 300, 20))


@given(st.binary(min_size=1, max_size=300), st.integers(16, 255))
def test_any_name_becomes_one_of_the_length_asked_for(raw, n_bytes):
    name = os.fsdecode(raw)
    short = shorten(name, n_bytes)
    assert len(os.fsencode(short)) <= n_bytes
    assert short == name or len(raw) > n_bytes
    assert shorten(short, n_bytes) == short


def test_a_part_of_the_longest_name_can_be_written(tmp_path):
    path = tmp_path / ("ö" * 127 + "x")  # 255 bytes
    write_file(path, b"content")
    assert path.read_bytes() == b"content"
    assert 253 < len(os.fsencode(files.part_path(path, 2**22).name)) <= 255


# Locks --------------------------------------------------------------------------------------------

HOLDER = """
import sys, time
from pathlib import Path
from files import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""
FORKING_HOLDER = """
import os, sys, time
from pathlib import Path
from files import locked
with locked(Path(sys.argv[1])):
    child = os.fork()
    if not child:
        print("held", os.getpid(), flush=True)
    time.sleep(60)
"""


@contextlib.contextmanager
def holder(code: str, path: Path):
    """A process that holds a lock, and the words that it printed once it had it."""
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process, process.stdout.readline().split()
        process.kill()


def test_a_lock_keeps_a_second_process_out_until_the_first_is_killed(tmp_path):
    path = tmp_path / "deep" / ".lock"
    with holder(HOLDER, path) as (process, _):
        with pytest.raises(LockedError, match=r"deep/\.lock: another process"), locked(path):
            pytest.fail("both held it")
        process.kill()
        process.wait()
        with locked(path):
            pass


@POSIX
def test_a_killed_run_frees_its_lock_although_its_worker_lives_on(tmp_path):
    path = tmp_path / ".lock"
    with holder(FORKING_HOLDER, path) as (process, (_, worker)):
        with pytest.raises(LockedError), locked(path):
            pytest.fail("both held it")
        process.kill()
        process.wait()
        try:
            os.kill(int(worker), 0)  # it lives
            with locked(path):
                pass
        finally:
            os.kill(int(worker), signal.SIGKILL)


def test_the_same_process_takes_a_lock_once_at_a_time(tmp_path):
    with locked(tmp_path / "a"), pytest.raises(LockedError), locked(tmp_path / "a"):
        pytest.fail("held twice")
    with locked(tmp_path / "a"):
        pass


def test_a_lock_that_cannot_be_made_says_so(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(CannotWriteError, match="lock: cannot be written"),
        locked(tmp_path / "file" / "lock"),
    ):
        pytest.fail("held")


def test_an_error_in_the_block_frees_the_lock(tmp_path):
    with pytest.raises(KeyError), locked(tmp_path / "a"):
        raise KeyError("mistake")
    with locked(tmp_path / "a"):
        pass


# Elsewhere ----------------------------------------------------------------------------------------


def test_it_imports_without_the_modules_that_windows_lacks():
    code = """
import sys
for name in ("fcntl", "resource", "pwd", "grp", "termios"):
    sys.modules[name] = None
import files
print("imported")
"""
    assert run_python(code) == "imported\n"


@POSIX
def test_a_reader_never_sees_a_part(tmp_path):
    """Reads as fast as it can while another process writes two contents in turn."""
    path = tmp_path / "a.txt"
    contents = ["a" * 300_000, "b" * 400_000]
    write_file(path, contents[0])
    code = """
import sys
from pathlib import Path
from files import write_file
while True:
    for content in ("b" * 400_000, "a" * 300_000):
        write_file(Path(sys.argv[1]), content)
"""
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, cwd=ROOT) as writer:
        seen = set()
        give_up = time.monotonic() + 60
        while (len(seen) < 2 or time.monotonic() < give_up - 59) and time.monotonic() < give_up:
            seen.add(path.read_text())
        writer.kill()
    assert seen == set(contents)


# Experiments by name ------------------------------------------------------------------------------


def experiment(folder: Path, note: str) -> None:
    (folder / "fold_0").mkdir(parents=True)
    (folder / files.EXPERIMENT_NOTE).write_text(note, encoding="utf-8")


def test_a_name_stands_for_its_number_anywhere_in_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    models = Path("models")
    experiment(models / "Exp_3", '{"name": "Rauschen über 0.1", "notes": "x"}')
    experiment(models / "Exp_12", '{"notes": "no name"}')
    experiment(models / "Exp_12_probe", '{"name": "no experiment"}')
    for path, found in {
        "models/Rauschen über 0.1": models / "Exp_3",
        "models/Rauschen über 0.1/fold_0": models / "Exp_3" / "fold_0",
        "Rauschen über 0.1": models / "Exp_3",
        "Rauschen über 0.1/fold_0": models / "Exp_3" / "fold_0",
        "models/Exp_3": models / "Exp_3",
        "models/Exp_99": models / "Exp_99",
        "models/no experiment": models / "no experiment",
        "elsewhere/Rauschen über 0.1": Path("elsewhere/Rauschen über 0.1"),
        str(tmp_path / "models/Rauschen über 0.1"): tmp_path / "models" / "Exp_3",
        "": Path("."),
    }.items():
        assert files.find_experiment(path) == found, path
    assert files.experiments_in(models) == {3: "Rauschen über 0.1", 12: ""}
    assert files.experiment_title(models / "Exp_12") == "Exp_12"


def test_a_folder_is_itself_whatever_others_are_called(tmp_path):
    experiment(tmp_path / "Exp_1", '{"name": "field"}')
    (tmp_path / "field").mkdir()
    assert files.find_experiment(tmp_path / "field") == tmp_path / "field"


def test_a_name_that_two_have_is_refused(tmp_path):
    for number in (4, 5):
        experiment(tmp_path / f"Exp_{number}", '{"name": "twice"}')
    with pytest.raises(files.AmbiguousNameError, match="Exp_4 and Exp_5 have this name"):
        files.find_experiment(tmp_path / "twice" / "fold_0")


@pytest.mark.parametrize("note", ["", "[1]", "{", '"name"'])
def test_a_damaged_note_names_nothing(tmp_path, note):
    experiment(tmp_path / "Exp_1", note)
    assert files.experiments_in(tmp_path) == {1: ""}
