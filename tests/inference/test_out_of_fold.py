"""What training leaves is read back, and what is no such thing is refused."""

import numpy as np
import pytest

from configs import UserError
from inference.out_of_fold import read_out_of_fold
from tests.made_up_scores import made_up, write


def test_folds_are_read_in_order_and_give_back_every_recording(tmp_path, rng):
    oof = made_up(rng)
    folder = write(tmp_path / "Exp_1", oof)
    (folder / "fold_0_old").mkdir()  # somebody's copy
    found = read_out_of_fold(folder)
    order = np.argsort(oof.folds, kind="stable")
    assert np.array_equal(found.scores, oof.scores[order])
    assert found.filenames.tolist() == oof.filenames[order].tolist()
    assert found.folds.tolist() == sorted(oof.folds)
    assert found.class_names == oof.class_names
    one = read_out_of_fold(folder / "fold_1")
    assert set(one.folds) == {1} and len(one.scores) == 45


def test_damaged_and_foreign_scores_are_one_line_that_names_the_file(tmp_path, rng):
    folder = write(tmp_path / "Exp_1", made_up(rng))
    path = folder / "fold_1" / "valid_predictions.npz"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"fold_1/valid_predictions.npz: cannot be read"):
        read_out_of_fold(folder)
    path.write_bytes(whole)
    with np.load(path) as file:
        content = dict(file)
    np.savez(path, **content | {"class_names": np.array(["a", "b", "c"])})
    with pytest.raises(UserError, match="fold_1.*other classes"):
        read_out_of_fold(folder)
    np.savez(path, **content | {"labels": content["labels"][:4]})
    with pytest.raises(UserError, match="do not fit"):
        read_out_of_fold(folder)
