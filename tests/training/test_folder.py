"""The fold's folder: its lock, and the records that training leaves."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from configs import Config, UserError
from training import folder


def test_a_second_run_is_kept_out_and_a_killed_one_leaves_no_lock(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from training.folder import lock_folder\n"
        "with lock_folder(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)\n"
    )
    root = str(Path(folder.__file__).parent.parent)
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], cwd=root, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(UserError, match="another run is training"),
            folder.lock_folder(tmp_path),
        ):
            pass
        holder.kill()
    with folder.lock_folder(tmp_path):
        assert (tmp_path / ".lock").exists()


def test_what_a_killed_run_left_half_written_is_deleted(tmp_path):
    config = Config(train_dir=tmp_path)
    (tmp_path / "last.pth").write_bytes(b"whole")
    (tmp_path / "last.pth.4194305.part").write_bytes(b"ha")  # above the largest process id
    (tmp_path / "last.pth.part").write_bytes(b"ha")  # of an earlier version
    with folder.opened(config):
        left = {path.name for path in tmp_path.iterdir()}
    assert left == {".lock", "train.log", "last.pth"}


def test_set_aside_loses_nothing(tmp_path):
    for number in (1, 2):
        (tmp_path / "history.csv").write_text(str(number))
        folder.set_aside(tmp_path)
        assert not (tmp_path / "history.csv").exists()
    assert [(tmp_path / f"replaced_{n}" / "history.csv").read_text() for n in (1, 2)] == ["1", "2"]


def test_history_reads_back_to_the_same_numbers(tmp_path):
    history = [{"epoch": 1, "valid_loss": 0.1 + 0.2}, {"epoch": 2, "valid_loss": 1 / 3}]
    folder.write_history(tmp_path, history)
    assert (
        tmp_path / "history.csv"
    ).read_text() == "epoch,valid_loss\n1,0.30000000000000004\n2,0.3333333333333333\n"


def test_summary_takes_each_folds_best_epoch_and_the_mean(tmp_path):
    config = Config(models_dir=tmp_path)
    for fold, losses in {0: [0.5, 0.25, 0.5], 10: [1.0, 0.75]}.items():
        config.fold_dir(fold).mkdir(parents=True)
        rows = [
            {"epoch": n, "valid_loss": loss, "cmap_pad_5": 1 - loss}
            for n, loss in enumerate(losses, 1)
        ]
        folder.write_history(config.fold_dir(fold), rows)
    summary = folder.write_summary(config)
    assert summary == json.loads((tmp_path / "Exp_47" / "summary.json").read_text())
    assert list(summary["folds"]) == ["0", "10"]
    assert [summary["folds"][fold]["epoch"] for fold in ("0", "10")] == [2, 2]
    assert summary["mean"] == {"valid_loss": 0.5, "cmap_pad_5": 0.5}


def test_a_copy_of_a_fold_beside_the_folds_is_left_alone(tmp_path):
    config = Config(models_dir=tmp_path)
    folder.write_history(config.fold_dir(0), [{"epoch": 1, "valid_loss": 0.5}])
    for name in ("fold_0_old", "fold_", "fold_one"):
        folder.write_history(config.exp_dir / name, [{"epoch": 1, "valid_loss": 9.0}])
    assert folder.write_summary(config)["folds"] == {"0": {"epoch": 1, "valid_loss": 0.5}}


def test_a_column_that_came_later_is_empty_before_and_in_no_mean_without_it(tmp_path):
    config = Config(models_dir=tmp_path)
    rows = [{"epoch": 1, "valid_loss": 0.25}, {"epoch": 2, "valid_loss": 0.5, "cmap_pad_9": 0.75}]
    for fold in (0, 1):
        config.fold_dir(fold).mkdir(parents=True)
        folder.write_history(config.fold_dir(fold), rows[fold:] if fold else rows)
    assert (
        config.fold_dir(0) / "history.csv"
    ).read_text() == "epoch,valid_loss,cmap_pad_9\n1,0.25,\n2,0.5,0.75\n"
    summary = folder.write_summary(config)
    assert summary["folds"] == {"0": {"epoch": 1, "valid_loss": 0.25}, "1": rows[1]}
    assert summary["mean"] == {"valid_loss": 0.375}


def test_predictions_need_no_pickle(tmp_path):
    scores, labels = np.array([[0.25, 0.5]]), np.array([[False, True]])
    folder.write_predictions(
        tmp_path, scores=scores, labels=labels, filenames=["a/ü.ogg"], class_names=["a", "NA"]
    )
    with np.load(tmp_path / "valid_predictions.npz", allow_pickle=False) as found:
        assert found["scores"].tolist() == [[0.25, 0.5]] and found["scores"].dtype == np.float32
        assert found["labels"].tolist() == [[0, 1]] and found["labels"].dtype == np.uint8
        assert found["filenames"].tolist() == ["a/ü.ogg"] and found["class_names"].tolist() == [
            "a",
            "NA",
        ]
