"""Running a script: mistakes and full disks are one line with status 2; log lines go to stderr."""

import errno
import io
import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest

from configs import Config, UserError, choose, configure_logger, load_config, run_main
from files import CannotWriteError, LockedError

ROOT = Path(__file__).resolve().parent.parent.parent


def test_choose_names_the_closest():
    assert choose("a", {"a": 1}, what="letter") == "a"
    with pytest.raises(
        UserError, match=r"unknown bird 'robbin' \(did you mean robin\?\); choose from robin, wren"
    ):
        choose("robbin", ["wren", "robin"], what="bird")


@pytest.mark.parametrize("script", ["prepare_audios.py", "split_data.py", "train.py", "dataset.py"])
def test_a_mistyped_flag_is_one_line_and_exit_code_2(script, tmp_path):
    answer = subprocess.run(
        [sys.executable, str(ROOT / script), "--train-batch", "16"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert answer.returncode == 2
    assert answer.stderr.startswith("error: ") and len(answer.stderr.splitlines()) == 1
    assert "--train-batch" in answer.stderr and "--train-bs" in answer.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_terminal_without_unicode_gets_the_same_line():
    answers = []
    for encoding in ("utf-8", "ascii"):
        answer = subprocess.run(
            [sys.executable, str(ROOT / "train.py"), "--lr", "x"],
            env={"PYTHONIOENCODING": encoding},
            capture_output=True,
            text=True,
        )
        answers.append(answer.stderr)
    assert answers[0] == answers[1]
    assert answers[0].startswith("error: Error parsing --lr: ")  # not ASCII art


def test_configure_logger_sets_the_level_and_never_stacks_handlers():
    logger = configure_logger(Config())
    count = len(logger.handlers)
    assert logger.level == logging.INFO
    assert configure_logger(Config(debug=True)).level == logging.DEBUG
    assert len(logger.handlers) == count == 1


def test_the_logger_leaves_a_stderr_that_was_replaced(monkeypatch):
    first, second = io.StringIO(), io.StringIO()
    monkeypatch.setattr("sys.stderr", first)
    configure_logger(Config())
    first.close()
    monkeypatch.setattr("sys.stderr", second)
    configure_logger(Config()).warning("hello")
    assert "WARNING hello" in second.getvalue() and "Logging error" not in second.getvalue()


def raising(error):
    def main():
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (UserError("x.csv: row 3 has no label"), "x.csv: row 3 has no label"),
        (CannotWriteError(Path("a.csv"), OSError(28, "No space left on device")), "No space left"),
        (LockedError("models: another process holds this lock"), "another process holds this lock"),
        (OSError(errno.ENOSPC, "No space left on device", "b.npy"), "No space left.*b.npy"),
        (OSError(errno.EROFS, "Read-only file system"), "Read-only file system"),
    ],
)
def test_what_users_can_mend_is_one_line_and_status_2(error, said, capsys):
    with pytest.raises(SystemExit) as exit:
        run_main(raising(error))
    assert exit.value.code == 2
    assert re.fullmatch(f"error: .*{said}.*\n", capsys.readouterr().err)


def test_other_errors_keep_their_traceback():
    with pytest.raises(FileNotFoundError):
        run_main(raising(FileNotFoundError(errno.ENOENT, "No such file", "ours.py")))


def test_an_interrupt_is_status_130(capsys):
    with pytest.raises(SystemExit) as exit:
        run_main(raising(KeyboardInterrupt()))
    assert exit.value.code == 130
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize(("answer", "status"), [(None, None), (0, 0), (1, 1)])
def test_the_status_is_what_main_returns(answer, status):
    with pytest.raises(SystemExit) as exit:
        run_main(lambda: answer)
    assert exit.value.code == status


def test_debug_logs_where_it_happened(capsys):
    configure_logger(Config(debug=True))
    with pytest.raises(SystemExit):
        run_main(raising(UserError("x.csv: no rows")))
    assert "Traceback" in capsys.readouterr().err
    configure_logger(Config())


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("--train-batch", "--train-bs"), ("--epoch=3", "--epochs"), ("--n_mel", "--n-mels")],
)
def test_a_mistyped_flag_gets_the_one_nearest_flag(typed, meant):
    with pytest.raises(UserError, match=f"did you mean {meant}\\?$") as caught:
        load_config([typed, "3"] if "=" not in typed else [typed])
    assert str(caught.value).count("did you mean") == 1
