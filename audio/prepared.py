"""A prepared recording: the `.npy` of prepare_audios.py, mapped into memory."""

import mmap
import re
from pathlib import Path

import numpy as np

# As numpy writes the header of one channel: version 1.0, type, samples, and spaces to a multiple of
# 64 bytes.
NPY_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '(<f4|<i2)', 'fortran_order': False, "
    rb"'shape': \((\d+),\), \} *\n",
    re.DOTALL,
)


def open_recording(path: Path | bytes) -> np.ndarray:
    """Map a prepared recording into memory: (n,) float32 or int16, n >= 1, read-only.

    np.load with mmap_mode="r" does the same; most of its time goes into parsing the header as
    Python.

    Raises:
        OSError: it is missing or cannot be read.
        ValueError: it is cut, empty, or not as prepare_audios.py writes it.
    """
    with open(path, "rb", buffering=0) as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    header = NPY_HEADER.match(data)
    if not header:
        raise ValueError("it is not one channel of float32 or int16 in a .npy file")

    recording = np.frombuffer(data, header[1].decode(), offset=header.end())
    if not 0 < len(recording) == int(header[2]):
        raise ValueError("its size does not fit its header")
    return recording
