"""Files of vectors: what is written is read, asked for by time, and checked."""

import json

import numpy as np
import pytest

from catalog.vectors import About, read_vectors, write_vectors
from configs import UserError

ABOUT = About("a network", "CC BY 4.0", 3.0)
NAMES = ["b/2.ogg", "a/1.ogg", "a/1.ogg", "a/1.ogg"]
STARTS = np.array([0.0, 6.0, 0.0, 3.0])
VECTORS = np.array([[9, 9], [5, 6], [1, 2], [3, 4]], np.float32)


@pytest.fixture(params=[".npz", ".parquet"])
def path(request, tmp_path):
    if request.param == ".parquet":
        pytest.importorskip("pyarrow")
    file = tmp_path / f"vectors{request.param}"
    write_vectors(file, NAMES, STARTS, VECTORS, ABOUT)
    return file


def test_vectors_are_found_by_recording_and_time(path):
    vectors = read_vectors(path)
    assert vectors.size == 2 and vectors.about == ABOUT
    # Windows of 3 s have their middles at 1.5, 4.5 and 7.5 s
    np.testing.assert_array_equal(vectors.of_clip("a/1.ogg", 0, 5), [2, 3])
    np.testing.assert_array_equal(vectors.of_clip("a/1.ogg", 0, 9), [3, 4])
    np.testing.assert_array_equal(vectors.of_clip("a/1.ogg", 5, 6), [3, 4])  # the nearest
    np.testing.assert_array_equal(vectors.of_clip("a/1.ogg", 90, 95), [5, 6])
    np.testing.assert_array_equal(vectors.of_clip("b/2.ogg", 0, 1), [9, 9])
    assert "a network (CC BY 4.0)" in vectors.source


def test_recordings_that_are_missing_are_named(path):
    vectors = read_vectors(path)
    vectors.check_covers(["a/1.ogg", "b/2.ogg"], path)
    with pytest.raises(UserError, match=r"no vectors of 1 of 2 recordings, the first: c/3\.ogg"):
        vectors.check_covers(["a/1.ogg", "c/3.ogg"], path)


def test_the_digest_follows_the_content(tmp_path):
    paths = [tmp_path / "one.npz", tmp_path / "two.npz"]
    write_vectors(paths[0], NAMES, STARTS, VECTORS, ABOUT)
    write_vectors(paths[1], NAMES, STARTS, VECTORS + 1, ABOUT)
    assert read_vectors(paths[0]).digest != read_vectors(paths[1]).digest


FAULTS = [
    ({"vector": VECTORS[:, 0]}, "not .N, n. floats"),
    ({"vector": VECTORS[:3]}, "3 vectors for 4 names"),
    ({"vector": np.where(VECTORS == 5, np.nan, VECTORS)}, "row 1, a/1.ogg at 6 s"),
    ({"start_s": STARTS - 1}, "row 0, b/2.ogg at -1 s"),
    ({"start_s": STARTS[:2]}, "not a number a recording"),
    ({"recording": np.arange(4)}, "not a column of names"),
    ({"recording": np.array(NAMES, object)}, "no file of vectors"),  # a pickle is not opened
]


@pytest.mark.parametrize(("changes", "message"), FAULTS)
def test_a_damaged_table_is_refused_by_row_or_column(changes, message, tmp_path):
    path = tmp_path / "vectors.npz"
    columns = {"recording": np.array(NAMES), "start_s": STARTS, "vector": VECTORS} | changes
    np.savez(path, about=np.array(json.dumps(vars(ABOUT))), **columns)
    with pytest.raises(UserError, match=message):
        read_vectors(path)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(UserError, match="no file of vectors"):
        read_vectors(tmp_path / "none.npz")
    with pytest.raises(UserError, match=r"ends in \.npz or \.parquet"):
        read_vectors(tmp_path / "vectors.csv")
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(UserError, match="no file of vectors"):
        read_vectors(tmp_path / "text.npz")
