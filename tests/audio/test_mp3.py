"""The frames of an MP3 file: tags before and behind, gaps, headers."""

import pytest

from audio import mp3

# MPEG 1, layer III, 128 kbit/s, 44.1 kHz: 144 * 128000 / 44100 = 417 bytes, without padding.
HEADER = bytes.fromhex("fffb9064")
FRAME = HEADER + bytes(413)
N_BYTES = 2**24


def tag(content: bytes, flags: int = 0) -> bytes:
    """Make an ID3v2.4 tag; its size is written seven bits a byte."""
    size = len(content)
    sizes = bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))
    footer = b"3DI\x04\x00" + bytes([flags]) + sizes if flags & 0x10 else b""
    return b"ID3\x04\x00" + bytes([flags]) + sizes + content + footer


def walk(data: bytes) -> mp3.Frames:
    return mp3.walk(data, wanted=2**60, n_bytes=N_BYTES)


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        (b"", 0),
        (tag(bytes(300)), 310),
        (tag(FRAME * 400), 10 + 400 * 417),  # a picture that looks like frames
        (tag(bytes(20)) + tag(bytes(50)), 90),
        (tag(bytes(20), flags=0x10), 40),  # with a footer of ten bytes
    ],
)
def test_tags_are_skipped(before, expected):
    data = before + FRAME * 5
    assert mp3.skip_tags(data) == expected
    found = walk(data)
    assert (found.n_frames, found.n_gaps, found.n_samples) == (5, 0, 1152)


@pytest.mark.parametrize("wrong_size", [5, 150, 2**20])
def test_a_tag_with_a_wrong_size_is_walked_through(wrong_size):
    data = bytearray(tag(bytes(300)) + FRAME * 5)
    data[6:10] = bytes(wrong_size >> shift & 0x7F for shift in (21, 14, 7, 0))
    assert mp3.skip_tags(bytes(data)) == 0
    assert walk(bytes(data)).n_frames == 5


@pytest.mark.parametrize("behind", [b"", bytes(5000), b"TAG" + b"x" * 125, b"APETAGEX" + b"x" * 90])
def test_padding_and_tags_behind_are_no_gap(behind):
    assert walk(FRAME * 4 + behind).n_gaps == 0


def test_gaps_are_counted():
    hole = FRAME * 3 + bytes(range(1, 100)) + FRAME * 3 + b"x" * 10 + FRAME * 3
    assert (walk(hole).n_gaps, walk(hole).n_frames) == (2, 9)
    assert walk(FRAME * 3 + FRAME[:200]).n_gaps == 1  # cut


def test_a_long_file_is_walked_only_as_far_as_it_is_wanted():
    found = mp3.walk(FRAME * 100, wanted=1152 * 10, n_bytes=417 * 20)
    assert found.is_partly_read and 20 <= found.n_frames <= 22


@pytest.mark.parametrize(("name", "expected"), [(b"Xing", True), (b"Info", True), (b"Lavf", False)])
def test_a_first_frame_that_states_the_length(name, expected):
    first = HEADER + bytes(32) + name + (1).to_bytes(4, "big") + (77).to_bytes(4, "big")
    data = tag(b"Xing" * 9) + first.ljust(417, b"\0") + FRAME * 3
    assert mp3.states_length(data) is expected
    assert walk(data).n_stated == (77 if expected else 0)
    assert walk(data).n_frames == (3 if expected else 4)
