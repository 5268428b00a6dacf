"""Prepared recordings: what numpy's own reader gives, and files that are not whole."""

import numpy as np
import pytest

from audio.prepared import open_recording


@pytest.mark.parametrize("dtype", [np.float32, np.int16])
@pytest.mark.parametrize("n", [1, 15, 16, 100_000])
def test_it_is_what_numpy_maps(tmp_path, dtype, n):
    path = tmp_path / "a.npy"
    np.save(path, np.arange(n).astype(dtype))
    opened = open_recording(path)
    np.testing.assert_array_equal(opened, np.load(path))
    assert opened.dtype == dtype and not opened.flags.writeable


@pytest.mark.parametrize("samples", [np.zeros((2, 3), np.float32), np.zeros(4), np.zeros(0, "f4")])
def test_another_array_is_refused(tmp_path, samples):
    np.save(tmp_path / "a.npy", samples)
    with pytest.raises(ValueError, match="one channel of float32 or int16|does not fit"):
        open_recording(tmp_path / "a.npy")


def test_a_cut_file_is_refused(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.ones(100, np.float32))
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ValueError, match="its size does not fit its header"):
        open_recording(path)
