"""The frames of an MP3 file: where they begin, how long each is, and where some are missing.

Sizes and rates are those of ISO/IEC 11172-3 and 13818-3, layer III; tags are those of id3.org.
"""

import functools
import mmap
from dataclasses import dataclass

TAGS_BEHIND = (b"TAG", b"APETAGEX", b"LYRICSBEGIN", b"ID3")
RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}  # Hz
# fmt: off
KBPS = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0)  # MPEG 1
KBPS_LOW = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0)  # MPEG 2 and 2.5
# fmt: on
LENGTH_HEADERS = (b"Xing", b"Info", b"VBRI")  # of the first frame, which says how many follow
HEAD_BYTES = 4096  # behind the tags, in which the first frame must begin

Bytes = mmap.mmap | bytes


@dataclass
class Frames:
    """What walking through an MP3 from frame to frame found.

    Attributes:
        n_frames: frames of sound.
        n_samples: samples a frame holds for each channel.
        n_stated: frames that the header of the first one promises, or 0.
        n_gaps: places where the chain of frames breaks, or the last frame is cut.
        is_partly_read: the walk ended before the file did.
    """

    n_frames: int = 0
    n_samples: int = 576
    n_stated: int = 0
    n_gaps: int = 0
    is_partly_read: bool = False


def walk(data: Bytes, *, wanted: int, n_bytes: int) -> Frames:
    """Go from frame to frame, to the end or until `n_bytes` hold `wanted` samples."""
    found, position, is_synced, first = Frames(), skip_tags(data), False, b""
    while position < len(data):
        if position > n_bytes and found.n_frames * found.n_samples > wanted:
            found.is_partly_read = True
            break

        header = data[position : position + 4]
        size = frame_size(header, first)
        if size and (is_synced or frame_size(data[position + size : position + size + 4], header)):
            if not first:
                first = header
                _read_first_frame(data[position : position + 64], found)
            found.n_frames += 1
            position, is_synced = position + size, True
            continue

        if is_synced and _is_end(data[position : position + 2**16]):
            break
        found.n_gaps += is_synced
        next_one = data.find(b"\xff", position + 1)
        position, is_synced = next_one if next_one >= 0 else len(data), False

    found.n_gaps += position > len(data)  # the last frame is cut
    return found


def _is_end(rest: bytes) -> bool:
    """Say whether what follows the frames is a tag or padding."""
    rest = rest.strip(b"\0")
    return not rest or rest.startswith(TAGS_BEHIND)


def _read_first_frame(head: bytes, found: Frames) -> None:
    """Read the Xing header, which stands in a frame of its own that holds no sound."""
    found.n_samples = 1152 if head[1] & 8 else 576
    head = head.ljust(76, b"\0")
    xing = max(head.find(b"Xing"), head.find(b"Info"))
    if xing <= 0:
        return
    found.n_frames = -1
    if head[xing + 7] & 1:
        found.n_stated = int.from_bytes(head[xing + 8 : xing + 12], "big")


def skip_tags(data: Bytes) -> int:
    """Return where the frames begin behind ID3v2 tags, or 0 where there are none, or damaged ones.

    A picture in a tag may hold bytes that look like frames.
    """
    position = 0
    while data[position : position + 3] == b"ID3" and len(data) >= position + 10:
        size = 0
        for byte in data[position + 6 : position + 10]:
            size = size << 7 | byte & 0x7F
        footer = 10 if data[position + 5] & 0x10 else 0
        position += 10 + size + footer
    return position if _begins_chain(data, position) else 0


def _begins_chain(data: Bytes, position: int) -> bool:
    header = data[position : position + 4]
    size = frame_size(header, b"")
    return bool(size and frame_size(data[position + size : position + size + 4], header))


def states_length(data: Bytes) -> bool:
    """Say whether the first frame tells how many follow."""
    start = skip_tags(data)
    head = data[start : start + HEAD_BYTES]
    return any(name in head for name in LENGTH_HEADERS)


@functools.lru_cache(maxsize=4096)  # few headers differ
def frame_size(header: bytes, first: bytes) -> int:
    """Return the bytes of the frame with this 4-byte header.

    It is 0 if this is no header of a layer III frame, or one of another version or rate than
    `first`, the first of its file, unless that is empty.
    """
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE6 != 0xE2:
        return 0
    if first and ((header[1] ^ first[1]) & 0xFE or (header[2] ^ first[2]) & 0x0C):
        return 0

    version, rate = header[1] >> 3 & 3, header[2] >> 2 & 3
    if version not in RATES or rate == 3:
        return 0
    kbps = (KBPS if version == 3 else KBPS_LOW)[header[2] >> 4]
    size = (144_000 if version == 3 else 72_000) * kbps // RATES[version][rate]
    padding = header[2] >> 1 & 1
    return size + padding if size else 0
