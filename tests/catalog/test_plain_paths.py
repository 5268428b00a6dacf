"""Names that every table and every disk takes as they are."""

import pytest

from catalog.plain_paths import is_plain_path


@pytest.mark.parametrize(
    "name",
    ["/x.ogg", "C:/x.ogg", "../x.ogg", "a/../x.ogg", "a\\x.ogg", "a/x\n.ogg", "a/\x7f.ogg", "",
     "a//x.ogg", "=1+1.wav", "-x/1.ogg", "'+x.ogg", "@x.ogg"],
)  # fmt: skip
def test_what_another_disk_or_program_would_read_otherwise_is_no_plain_path(name):
    assert not is_plain_path(name)


@pytest.mark.parametrize("name", ["x.ogg", "a b/ü 🐦.ogg", "a/..x.ogg", "a/-x.ogg", "a/1=2.ogg"])
def test_odd_names_may_be_plain(name):
    assert is_plain_path(name)
