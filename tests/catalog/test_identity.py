"""Which files are one recording."""

import pytest

from catalog.identity import content_ids
from configs import UserError


def test_files_are_one_content_only_where_every_byte_is(tmp_path):
    plain = bytes(range(256)) * 100
    start, end = b"\1" + plain[1:], plain[:-1] + b"\1"  # differ from plain outside the middle block
    middle = plain[:13_000] + b"\1" + plain[13_001:]
    contents = [plain, start, end, middle, plain[:-1], plain, b"", b"", start]
    paths = []
    for number, data in enumerate(contents):
        paths.append(tmp_path / str(number))
        paths[-1].write_bytes(data)
    assert content_ids(paths).tolist() == [0, 1, 2, 3, 4, 0, 5, 5, 1]
    assert content_ids([]).tolist() == []


def test_a_prepared_file_that_vanishes_is_a_clear_line(tmp_path):
    with pytest.raises(UserError, match=r"gone\.npy: cannot be read: No such file"):
        content_ids([tmp_path / "gone.npy", tmp_path / "gone.npy"])
