"""Which files are one recording."""

import pandas as pd
import pytest

from catalog.identity import archive_id, content_ids, recording_names
from configs import UserError

# Names


@pytest.mark.parametrize(
    ("path", "number"),
    [
        ("wren/XC134880.ogg", "XC134880"),
        ("wren/XC134880-Wren-song.mp3", "XC134880"),
        ("wren/Troglodytes xc 134880 (1).mp3", "XC134880"),
        ("wren/xeno-canto_134880.wav", "XC134880"),
        ("wren/XC0134880_3.wav", "XC134880"),
        ("XC134880/part 1.wav", "XC134880"),
        ("wren/ML123456789.wav", "ML123456789"),
        ("wren/iNat1109254.ogg", "iNat1109254"),
        ("wren/inaturalist-1109254 a.ogg", "iNat1109254"),
        ("41663/CSA18783.ogg", "CSA18783"),
        ("html123456.ogg", ""),
        ("MXC123456.ogg", ""),
        ("XC.ogg", ""),
        ("wren/001.wav", ""),
    ],
)
def test_numbers_of_archives_inside_longer_names(path, number):
    assert archive_id(path) == number


ONE_RECORDING = [
    ["w/XC101_0.wav", "w/XC101_1.wav", "r/XC101_12.5s.wav", "x/XC101.mp3", "x/XC101-clip1.wav"],
    ["w/XC102 part 2.wav", "w/xc102_0_5.wav", "w/XC102_00-00-15.wav"],
    ["w/walk_part1.wav", "w/walk_part2.wav"],
    ["w/walk2 (part 1 of 3).wav", "w/walk2 (part 2 of 3).wav"],
    ["w/dawn-chunk3.wav", "w/dawn-chunk4.wav", "w/Dawn_seg05.wav"],
    ["w/dusk-clip1.wav", "w/dusk-clip2.wav"],
    ["w/noon_0_5.wav", "w/noon_5_10.wav", "w/noon_10_15.wav"],
    ["w/eve_0.0s-2.5s.wav", "w/eve_2.5s-5.0s.wav"],
    ["w/AM1_20230501_050000.WAV", "r/AM1_20230501_050000.wav", "r/AM1_20230501_050000_3.wav"],
    ["w/20230501_060000_0.wav", "r/20230501_060000_1.wav", "r/20230501_060000_25_30.wav"],
    ["w/AM2_2023-05-01T05-00-00Z.wav", "w/AM2_2023-05-01T05-00-00Z_part1.wav"],
    ["w/24F319055FDD8B1B_20230501_070000.WAV", "r/24f319055fdd8b1b_20230501_070000_1.WAV"],
    ["w/soundscape_1446779_5.ogg", "w/soundscape_1446779_10.ogg"],
    ["w/987654321.mp3", "r/987654321_2.wav"],
    ["w/1-100032-A.ogg", "w/1-100032-B.ogg", "w/1-100032-A-0.wav"],
    ["w/same.wav", "w/same.mp3"],
]


def test_files_of_one_recording_share_a_key_and_no_others_do():
    paths = pd.Series([path for paths in ONE_RECORDING for path in paths])
    wanted = [number for number, paths in enumerate(ONE_RECORDING) for _ in paths]
    keys = recording_names(paths)["key"]
    assert pd.factorize(keys)[0].tolist() == wanted


def test_names_that_tell_nothing_join_nothing():
    names = ["001", "rec_1", "rec_2", "wren_0", "wren_1", "20230501", "20230501_1", "20230501_2"]
    names += ["20230501_050000", "230501_050000", "201012_0012", "ZOOM0001", "clip 1", "clip 2"]
    names += ["call_clip1", "call_clip2", "000123", "DSC_0001", "New Recording 12", "1_2", "2_4"]
    names += ["Voice 001", "part1", "site 1 take 2", "site 1 take 3", "a_3_1", "b", "c (1)"]
    paths = pd.Series([f"{folder}/{name}.wav" for folder in ("wren", "tit") for name in names])
    assert recording_names(paths)["key"].nunique() == len(paths)


# Bytes


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
