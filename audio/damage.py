"""How much of a recording was lost: what its file says beyond what libsndfile reports.

libsndfile decodes most damaged files without a word and comes out short. Each kind of file tells in
its own way what it should hold: Ogg by check sums, page numbers and an end mark, MP3 by its chain
of frames, WAV by sizes, FLAC by the number of its samples.
"""

import contextlib
import math
import mmap
import os
import struct
import zlib
from typing import BinaryIO

import soundfile

from audio import mp3

UNKNOWN_FRAMES = 2**63 - 1  # libsndfile's, where a header does not say
CHECKED_BYTES = 2**24  # of a longer file of which only the start is wanted
MP3_EDGES = 4  # frames, more than encoders add and decoders trim
OGG_BLOCK = 8192  # samples, the longest of Vorbis; ffmpeg's last page may count one too many

REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
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
    is_whole = start >= 0 and _ogg_page_size(data, start) > 0
    if position < len(data) and is_whole and data[start + 5] & 4:  # a long file's end
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
    frames = mp3.walk(data, wanted=wanted, n_bytes=CHECKED_BYTES)
    due = (frames.n_frames - MP3_EDGES) * frames.n_samples
    found = []
    if frames.n_gaps:
        found.append(f"frames are missing or damaged in {frames.n_gaps} places")
    if frames.n_frames < frames.n_stated and not frames.is_partly_read:
        found.append(f"{frames.n_frames} of {frames.n_stated} frames are there")
    if n_decoded < min(wanted, due):
        found.append("the decoder stopped early")
    return "; ".join(found)


def _wav_damage(data: mmap.mmap, sound: soundfile.SoundFile, n_decoded: int, wanted: int) -> str:
    """Compare the sizes in the header with each other and with the file's."""
    position, found = 12, []
    while position + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, position)
        # Recorders that reserve their space leave padding, perhaps gigabytes of it.
        if name == bytes(4):
            break

        there = len(data) - position - 8
        position += 8 + size + size % 2
        if name != b"data":
            continue
        if size in WAV_UNKNOWN:
            if there and not n_decoded:
                found.append(
                    f"its header counts no audio, and {there} bytes follow, as a recorder leaves "
                    "that loses power; mend it: ffmpeg -i broken.wav -c copy mended.wav"
                )
            continue
        if there < size:
            found.append(f"{there} of {size} bytes of audio are there")
        # What follows is a chunk's name or padding.
        if not data[position : position + 4].strip(b"\0").isascii():
            found.append("there is more audio than its header counts")
    return "; ".join(found)


def _flac_damage(data: mmap.mmap, sound: soundfile.SoundFile, n_decoded: int, wanted: int) -> str:
    """Read the last sample, and see whether more follows; damage before that stops the decoder."""
    if sound.frames == UNKNOWN_FRAMES:
        return ""
    with contextlib.suppress(RuntimeError):
        if sound.frames == n_decoded or (sound.seek(sound.frames - 1) and len(sound.read(1))):
            unread = len(data) - os.lseek(sound.name, 0, os.SEEK_CUR)
            is_tag = unread <= 128  # bytes of ID3v1
            return "" if is_tag else "there is more audio than its header counts"
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
        error: what the decoder said if it stopped with an error; it stands for the file's own
            account, unless an MP3 tells more.

    Returns:
        Text such as "2.10 of 5.00 s decoded; frames are missing or damaged in 1 places", or "".
    """
    damage = ""
    if sound.format in CHECKS and (not error or sound.format == "MP3"):
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            damage = CHECKS[sound.format](data, sound, n_decoded, wanted)
    damage = damage or error

    promised = 0 if sound.frames == UNKNOWN_FRAMES else min(wanted, sound.frames)
    if not damage and promised - n_decoded < _may_lack(sound):
        return ""
    of = f" of {promised / sound.samplerate:.2f}" if n_decoded < promised else ""
    decoded = f"{n_decoded / sound.samplerate:.2f}{of} s decoded"
    return f"{decoded}; {damage}" if damage else decoded


def _may_lack(sound: soundfile.SoundFile) -> float:
    """Return from how many missing samples on a recording is damaged if its parts are all sound."""
    if sound.format == "MP3" or sound.subtype.startswith("MPEG"):
        return math.inf  # its length may be a guess
    return OGG_BLOCK if sound.format == "OGG" else 1
