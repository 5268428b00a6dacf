"""How much of a recording was lost: what its file says beyond what libsndfile reports.

libsndfile decodes most damaged files without a word and comes out short. Each kind of file tells in
its own way what it should hold: Ogg by check sums, page numbers and an end mark, MP3 by its chain
of frames, WAV by sizes, FLAC by the number of its samples.
"""

import contextlib
import functools
import mmap
import os
import struct
import zlib
from typing import BinaryIO

import soundfile

UNKNOWN_FRAMES = 2**63 - 1  # libsndfile's, where a header does not say
CHECKED_BYTES = (
    2**24
)  # of a longer file of which only the start is wanted that and the end are checked

REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
MP3_TAGS = (b"TAG", b"APETAGEX", b"LYRICSBEGIN", b"ID3")
MP3_RATES = {
    3: (44100, 48000, 32000),
    2: (22050, 24000, 16000),
    0: (11025, 12000, 8000),
}  # Hz, by MPEG version
MP3_KBPS = (
    0,
    32,
    40,
    48,
    56,
    64,
    80,
    96,
    112,
    128,
    160,
    192,
    224,
    256,
    320,
    0,
)  # layer III of MPEG 1
MP3_KBPS_LOW = (
    0,
    8,
    16,
    24,
    32,
    40,
    48,
    56,
    64,
    80,
    96,
    112,
    128,
    144,
    160,
    0,
)  # of MPEG 2 and 2.5
# Frames that a whole recording may come out short of what its file promises: the last page of an
# Ogg as ffmpeg wrote it for years counts up to a block more than any decoder gives, and the length
# of an MP3 may be a guess.
SLACK = {"OGG": 8192, "MP3": UNKNOWN_FRAMES}
WAV_UNKNOWN = (0, 0x7FFFFFFF - 36, 0xFFFFFFFF)  # lengths that ffmpeg and sox write into a pipe


def _ogg_damage(data: mmap.mmap, sound: soundfile.SoundFile, n_decoded: int, wanted: int) -> str:
    """Check sums, numbers and end-of-stream flag of the pages (RFC 3533)."""
    position, granule, n_gaps, n_links, beginning = 0, 0, 0, 0, False
    next_page: dict[int, int] = {}  # of the streams that have begun and not ended, by serial number
    while position < len(data) and not (position > CHECKED_BYTES and granule > wanted):
        start = data.find(b"OggS", position)
        size = _ogg_page_size(data, start) if start >= 0 else 0
        if not size:
            position = start + 4 if start >= 0 else len(data)
            continue
        flags, granule, serial, number = struct.unpack_from("<BqII", data, start + 5)
        if flags & 2:  # a stream begins; several may at once, before any of them goes on
            n_links += not beginning
            next_page[serial] = number
        n_gaps += next_page.get(serial) != number
        next_page[serial] = number + 1
        if flags & 4:  # it ends
            del next_page[serial]
        position, beginning = start + size, bool(flags & 2)
    start = data.rfind(b"OggS", -(2**17))
    if (
        position < len(data) and start >= 0 and _ogg_page_size(data, start) and data[start + 5] & 4
    ):  # a long file's end
        next_page.clear()
    found = [
        f"pages are missing or damaged in {n_gaps} places" if n_gaps else "",
        f"{n_links} recordings are chained and only the first is read"
        if n_links > 1 and n_decoded < wanted
        else "",
        "no end-of-stream mark: the file was cut, or its recorder never wrote one"
        if next_page
        else "",
    ]
    return "; ".join(filter(None, found))


def _ogg_page_size(data: mmap.mmap, start: int) -> int:
    """Bytes of the page at `start`; 0 if it is cut or its check sum is wrong."""
    if start + 27 > len(data):
        return 0
    n_segments = data[start + 26]
    size = 27 + n_segments + sum(data[start + 27 : start + 27 + n_segments])
    page = data[start : start + size].translate(REVERSED)
    # Ogg's CRC-32 is zlib's with the bits of a byte in the other order, not inverted, and zeros in
    # its own place.
    crc = (
        zlib.crc32(page[26:], zlib.crc32(bytes(4), zlib.crc32(page[:22], 0xFFFFFFFF))) ^ 0xFFFFFFFF
    )
    return size if len(page) == size and page[22:26] == crc.to_bytes(4, "big") else 0


def _mp3_damage(data: mmap.mmap, sound: soundfile.SoundFile, n_decoded: int, wanted: int) -> str:
    """Walk from frame to frame; compare their number with the Xing header's, if there is one."""
    position, n_frames, n_gaps, stated, synced, first = 0, 0, 0, 0, False, b""
    while position < len(data) and not (
        skipped := position > CHECKED_BYTES and n_frames * 576 > wanted
    ):
        header = data[position : position + 4]
        size = _mp3_frame_size(header, first)
        if size and (
            synced or _mp3_frame_size(data[position + size : position + size + 4], header)
        ):
            if not first:
                first, head = header, data[position : position + 64].ljust(76, b"\0")
                if (xing := max(head.find(b"Xing"), head.find(b"Info"))) > 0:
                    n_frames = -1  # this one holds no audio
                    stated = (
                        int.from_bytes(head[xing + 8 : xing + 12], "big")
                        if head[xing + 7] & 1
                        else 0
                    )
            position, n_frames, synced = position + size, n_frames + 1, True
            continue
        if synced:
            rest = data[position : position + 2**16].strip(b"\0")
            if not rest or rest.startswith(MP3_TAGS):
                break
            n_gaps += 1
        position, synced = (
            data.find(b"\xff", position + 1) % (len(data) + 1),
            False,
        )  # -1, not found: to the end
    n_gaps += position > len(data)  # the last frame is cut
    due = (n_frames - 4) * (
        1152 if first and first[1] & 8 else 576
    )  # 4: more than encoders add and decoders trim
    found = [
        f"frames are missing or damaged in {n_gaps} places" if n_gaps else "",
        f"{n_frames} of {stated} frames are there" if n_frames < stated and not skipped else "",
        "the decoder stopped early" if n_decoded < min(wanted, due) else "",
    ]
    return "; ".join(filter(None, found))


@functools.lru_cache(maxsize=4096)  # few headers differ
def _mp3_frame_size(header: bytes, first: bytes) -> int:
    """Bytes of the layer III frame with this 4-byte header; 0 if it is none, or unlike the first of its file."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE6 != 0xE2:
        return 0
    if first and (
        (header[1] ^ first[1]) & 0xFE or (header[2] ^ first[2]) & 0x0C
    ):  # version, layer, rate
        return 0
    version, rate = header[1] >> 3 & 3, header[2] >> 2 & 3
    if version not in MP3_RATES or rate == 3:
        return 0
    kbps = (MP3_KBPS if version == 3 else MP3_KBPS_LOW)[header[2] >> 4]
    size = (144_000 if version == 3 else 72_000) * kbps // MP3_RATES[version][rate]
    return size and size + (header[2] >> 1 & 1)  # padding


def _wav_damage(data: mmap.mmap, sound: soundfile.SoundFile, n_decoded: int, wanted: int) -> str:
    """Compare the sizes in the header with each other and with the file's."""
    position, found = 12, []
    while position + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, position)
        if name == bytes(
            4
        ):  # padding, perhaps to gigabytes, as recorders leave that reserve their space
            break
        there = len(data) - position - 8
        position += 8 + size + size % 2
        if name == b"data" and size not in WAV_UNKNOWN:
            found += [f"{there} of {size} bytes of audio are there"] * (there < size)
            if (
                not data[position : position + 4].strip(b"\0").isascii()
            ):  # neither a chunk's name nor padding
                found.append("there is more audio than its header counts")
    return "; ".join(found)


def _flac_damage(data: mmap.mmap, sound: soundfile.SoundFile, n_decoded: int, wanted: int) -> str:
    """Read the last sample, and see whether more follows; damage before that stops the decoder."""
    if sound.frames == UNKNOWN_FRAMES:
        return ""
    with contextlib.suppress(RuntimeError):
        if sound.frames == n_decoded or (sound.seek(sound.frames - 1) and len(sound.read(1))):
            unread = len(data) - os.lseek(sound.name, 0, os.SEEK_CUR)
            return (
                "there is more audio than its header counts" if unread > 128 else ""
            )  # an ID3v1 tag may
    return "its end is missing or damaged"


CHECKS = {
    "OGG": _ogg_damage,
    "MP3": _mp3_damage,
    "WAV": _wav_damage,
    "WAVEX": _wav_damage,
    "FLAC": _flac_damage,
}


def describe_damage(
    file: BinaryIO,
    sound: soundfile.SoundFile,
    n_decoded: int,
    *,
    wanted: int = UNKNOWN_FRAMES,
    error: str = "",
) -> str:
    """Say in words how much of a recording was lost; nothing if it is whole.

    Args:
        file: the recording, not empty, from whose file descriptor `sound` reads.
        sound: the decoder, read as far as it goes; where it stands afterwards is not defined.
        n_decoded: frames (samples of each channel) that came out of it.
        wanted: the most frames that were asked for. What lies far behind them in a long file is not
            checked.
        error: what the decoder said if it stopped with an error; then it stands for the file's own
            account.

    Returns:
        Text such as "2.10 of 5.00 s decoded; frames are missing or damaged in 1 places", or "".
    """
    damage = error
    if not damage and sound.format in CHECKS:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            damage = CHECKS[sound.format](data, sound, n_decoded, wanted)
    promised = 0 if sound.frames == UNKNOWN_FRAMES else min(wanted, sound.frames)
    if not damage and n_decoded >= promised - SLACK.get(sound.format, 0):
        return ""
    of = f" of {promised / sound.samplerate:.2f}" if n_decoded < promised else ""
    return f"{n_decoded / sound.samplerate:.2f}{of} s decoded" + f"; {damage}" * bool(damage)
